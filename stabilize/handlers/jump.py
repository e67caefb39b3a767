"""Going on elsewhere: jumps and restarts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from stabilize.dag.names import suggest
from stabilize.events.base import EventType
from stabilize.handlers.admission import leave
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import clean_up, describe, withdraw_parts
from stabilize.handlers.concurrency import take_slot
from stabilize.handlers.flow import Arrival, put
from stabilize.handlers.lifecycle import NOTHING_CAN_GO_ON, complete_if_idle, finish_stage
from stabilize.handlers.opening import Opening, opening_at
from stabilize.handlers.reopening import reopen
from stabilize.handlers.runs import CUT_SHORT, activate
from stabilize.handlers.tokens import take_over
from stabilize.models import StageExecution, Workflow
from stabilize.net import Net, is_active
from stabilize.queue.messages import JumpToStage, RestartStage
from stabilize.status import StagePhase, TokenKind, WorkflowStatus
from stabilize.turn import Turn
from stabilize.work import MessageRefused

S = WorkflowStatus
MAX_JUMPS = 10
_NAMES_COMPARED = 1_000
"""So many stages are looked at for the one that was meant."""


class JumpToStageHandler(Handler[JumpToStage]):
    """Leave a stage and go on at another; that one and what follows it run anew."""

    def handle(self, message: JumpToStage, turn: Turn) -> None:
        net, source = turn.net(message), turn.stage(message)
        if source.status is not S.RUNNING:
            return
        target = turn.reader.newest(net, message.target_stage_ref_id)
        number = net.workflow.jumps + 1
        limit = _limit(net, source)
        if target is None or target.parent_stage_id is not None:
            _refuse(turn, net, source, _not_found(turn, net, message.target_stage_ref_id))
            return
        if number > limit and not source.loop:
            _refuse(turn, net, source, f"Max jump count exceeded: {number - 1}/{limit}")
            return
        left = _leave(turn, net, source, message)
        opening = opening_at(turn, net, target, left)
        backward = left.ref_id in opening.refs
        if not source.loop:  # a loop bounds itself
            turn.set(net.workflow, jumps=number)
        turn.record(
            EventType.JUMP_EXECUTED,
            net.workflow,
            from_stage_id=source.id,
            to_stage_id=target.id,
            from_ref_id=source.ref_id,
            to_ref_id=target.ref_id,
            jump_type="self_loop" if source is target else "backward" if backward else "forward",
        )
        brought = _brought(source, target, message, number)
        runs = reopen(turn, net, opening, source=left, delivered=brought)
        for run in runs:
            turn.set(run, context={**run.context, **message.jump_context})
        if not backward:
            dead = [
                Arrival(left, ref_id, TokenKind.DEAD, left.thread)
                for ref_id in net.downstream.get(left.ref_id, ())
                if ref_id not in opening.refs
            ]
            counts = net.rule_of(target).starts_early  # the jump has started its round
            put(turn, net, dead, bypassed="" if counts else target.ref_id)
        complete_if_idle(turn, net)


def _limit(net: Net, source: StageExecution) -> int:
    for settings in (net.workflow.context, source.context):
        limit = settings.get("_max_jumps")
        if isinstance(limit, int):
            return limit
    return MAX_JUMPS


def _not_found(turn: Turn, net: Net, target: str) -> str:
    query = select(StageExecution.ref_id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.latest,
        StageExecution.parent_stage_id.is_(None),
    )
    known = turn.read(query.order_by(StageExecution.position).limit(_NAMES_COMPARED)).scalars()
    meant = suggest(target, known.all(), "")
    return f"Target stage not found: {target}" + (f"; {meant}" if meant else "")


def _refuse(turn: Turn, net: Net, source: StageExecution, error: str) -> None:
    turn.set(source, context={**source.context, "jump_error": error, "error": error})
    for task in net.tasks_of(source):
        if not task.status.is_complete:
            over = S.TERMINAL if task.status is S.RUNNING else S.SKIPPED
            turn.set(task, status=over, end_time=turn.now)
    finish_stage(turn, net, source, S.TERMINAL, error=error)


def _leave(turn: Turn, net: Net, source: StageExecution, message: JumpToStage) -> StageExecution:
    """End the run that jumps and the stage that it is a part of; return that one."""
    _end(turn, net, source, message.jump_outputs, message.jump_context)
    while source.parent_stage_id is not None:
        parent = turn.reader.stage(net, source.parent_stage_id)
        if parent is None or not is_active(parent):
            break
        source = parent
        withdraw_parts(turn, net, source)
        _end(turn, net, source, {}, {})
    return source


def _end(
    turn: Turn, net: Net, source: StageExecution, outputs: dict[str, Any], context: dict[str, Any]
) -> None:
    """End a run; it succeeded, and puts no tokens by itself."""
    for task in net.tasks_of(source):
        if task.status is S.RUNNING:
            turn.set(task, status=S.SUCCEEDED, end_time=turn.now)
        elif not task.status.is_complete:
            turn.set(task, status=S.SKIPPED)
    if outputs:
        turn.set(source, outputs={**source.outputs, **outputs})
    turn.set(
        source,
        status=S.SUCCEEDED,
        end_time=turn.now,
        phase=StagePhase.ENDED,
        context={**source.context, **context},
    )
    turn.record(
        EventType.STAGE_COMPLETED,
        source,
        **describe(source),
        status=source.status.name,
        end_time=turn.now,
        duration_ms=None if source.start_time is None else turn.now - source.start_time,
        outputs=source.outputs,
        context=context,
    )
    turn.set(net.workflow, open_runs=net.workflow.open_runs - 1)
    clean_up(turn, net, source)
    leave(turn, net, source)


def _brought(
    source: StageExecution, target: StageExecution, message: JumpToStage, number: int
) -> dict[str, Any]:
    step = {
        "from_stage": source.ref_id,
        "to_stage": target.ref_id,
        "jump_number": number,
        "context_keys": sorted(message.jump_context),
    }
    return {
        "_jump_count": number,
        "_jump_history": [*source.delivered.get("_jump_history", ())[-99:], step],
        "_jump_outputs": message.jump_outputs,
    }


class RestartStageHandler(Handler[RestartStage]):
    """Run a complete stage and what follows it once more; the workflow goes on."""

    def handle(self, message: RestartStage, turn: Turn) -> None:
        net = turn.net(message)
        named = turn.stage(message)
        stage = turn.reader.newest(net, named.ref_id) or named
        workflow = net.workflow
        if (obstacle := _not_restarted(workflow, stage)) is not None:
            raise MessageRefused(f"stage {stage.ref_id!r} is not restarted: {obstacle}")
        if workflow.status.is_complete:
            if not take_slot(turn, workflow):
                turn.again(message, 1_000)
                return
            before = workflow.status
            turn.set(workflow, status=S.RUNNING, end_time=None)
            with turn.actor(message.user):
                turn.record(
                    EventType.STATUS_CHANGED, workflow, old_status=before.name, new_status="RUNNING"
                )
        opening = opening_at(turn, net, stage, None)
        reopen(turn, net, opening)
        _go_on(turn, net, opening)


def _not_restarted(workflow: Workflow, stage: StageExecution) -> str | None:
    if workflow.is_canceled:
        return "its workflow was canceled"
    if stage.parent_stage_id is not None:
        return "it is a part of another stage, restart that one"
    return None if stage.status.is_complete else f"it is {stage.status}, not complete"


def _go_on(turn: Turn, net: Net, opening: Opening) -> None:
    """Run once more, outside of what is opened, what the failure of the workflow cut short."""
    error = str(net.workflow.context.get("error", ""))
    if error.startswith(NOTHING_CAN_GO_ON):
        kept = {key: value for key, value in net.workflow.context.items() if key != "error"}
        turn.set(net.workflow, context=kept)
    query = select(StageExecution.id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.parent_stage_id.is_(None),
        StageExecution.phase == StagePhase.ENDED,
        StageExecution.status.in_((S.CANCELED, S.NOT_STARTED)),
    )
    for id in turn.read(query.order_by(StageExecution.id)).scalars().all():
        cut = turn.reader.stage(net, id)
        if cut is None or CUT_SHORT not in cut.definition:
            continue
        definition = {k: v for k, v in cut.definition.items() if k != CUT_SHORT}
        turn.set(cut, definition=definition)
        if cut.ref_id not in opening.refs:
            newest = turn.reader.newest(net, cut.ref_id) or cut
            run = activate(turn, net, newest, thread=cut.thread)
            take_over(turn, cut, run)


__all__ = ["JumpToStageHandler", "RestartStageHandler"]
