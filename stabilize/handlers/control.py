"""Withdrawing one stage while the rest goes on."""

from __future__ import annotations

from typing import Any

from stabilize.dag.names import suggest
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import withdraw, withdraw_instances
from stabilize.handlers.flow import Arrival, put, runs_under_way
from stabilize.handlers.lifecycle import complete_if_idle, news_for_parent
from stabilize.handlers.runs import REASON
from stabilize.handlers.signal import reached_run
from stabilize.net import is_active
from stabilize.queue.messages import CancelRegion, CancelStage
from stabilize.status import TokenKind, WorkflowStatus
from stabilize.turn import Turn
from stabilize.work import MessageRefused

S = WorkflowStatus


class CancelRegionHandler(Handler[CancelRegion]):
    """Withdraw every stage of a region; the rest decides the outcome (WCP-25)."""

    def handle(self, message: CancelRegion, turn: Turn) -> None:
        net = turn.net(message)
        turn.reader.everything(net)
        runs = dict.fromkeys([*net.runs(), *runs_under_way(turn, net)])
        regions = {run.cancel_region for run in runs}
        if message.region not in regions:
            known = sorted(filter(None, regions))
            fix = suggest(message.region, known, f"there are {', '.join(known) or 'none'}")
            raise MessageRefused(
                f"workflow {net.workflow.id} has no region {message.region!r}: {fix}"
            )
        for stage in runs:
            if stage.cancel_region == message.region and not stage.status.is_complete:
                reason = f"region {message.region!r} was canceled"
                turn.push(CancelStage.of(stage, user=message.user, reason=reason))


class CancelStageHandler(Handler[CancelStage]):
    """Withdraw a stage: its branch brings nothing, the rest goes on (WCP-19)."""

    def handle(self, message: CancelStage, turn: Turn) -> None:
        net = turn.net(message)
        stage = turn.stage(message)
        if not is_active(stage):
            stage = reached_run(turn, net, stage)
        if not is_active(stage):
            if stage.status is S.NOT_STARTED and not net.workflow.status.is_complete:
                turn.set(stage, definition={**stage.definition, "withdrawn": True})
            elif stage.mi_config is not None:  # it has ended and lets its instances run on
                withdraw_instances(turn, net, stage, unstarted=S.SKIPPED)
                complete_if_idle(turn, net)
            return
        known: dict[str, Any] = {REASON: message.reason}
        if stage.parent_stage_id is not None:  # its parent sees that nobody asked to be canceled
            known["withdrawn"] = True
        turn.set(stage, definition={**stage.definition, **known})
        with turn.actor(message.user):
            withdraw(turn, net, stage, unstarted=S.SKIPPED, reason=message.reason)
        if stage.parent_stage_id is not None:
            turn.push(news_for_parent(stage, stage.parent_stage_id))
        dead = [
            Arrival(stage, ref_id, TokenKind.DEAD, stage.thread)
            for ref_id in net.downstream.get(stage.ref_id, ())
        ]
        put(turn, net, dead)
        complete_if_idle(turn, net)
