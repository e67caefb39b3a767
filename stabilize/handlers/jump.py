"""Going on elsewhere: jumps and restarts open a part of the graph again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from stabilize.events.base import EventType
from stabilize.handlers.admission import forget_choices, leave
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import clean_up, describe, withdraw, withdraw_parts
from stabilize.handlers.concurrency import take_slot
from stabilize.handlers.flow import Arrival, put
from stabilize.handlers.lifecycle import complete_if_idle, finish_stage
from stabilize.handlers.runs import activate, new_run
from stabilize.handlers.tokens import discard_tokens
from stabilize.models import StageExecution, Token
from stabilize.net import Net, is_active
from stabilize.queue.messages import JumpToStage, RestartStage
from stabilize.status import StagePhase, TokenKind, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
MAX_JUMPS = 10


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
            error = f"Target stage not found: {message.target_stage_ref_id}"
            _refuse(turn, net, source, error)
            return
        if number > limit and not source.loop:
            _refuse(turn, net, source, f"Max jump count exceeded: {number - 1}/{limit}")
            return
        part = part_from(turn, net, target)
        left = _leave(turn, net, source, message)
        backward = left.ref_id in part
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
        run = reopen(
            turn, net, target, part, source=None if backward else left, delivered=brought
        )
        turn.set(run, context={**run.context, **message.jump_context})
        if not backward:
            dead = [
                Arrival(left, ref_id, TokenKind.DEAD, left.thread)
                for ref_id in net.downstream.get(left.ref_id, ())
                if ref_id not in part
            ]
            put(turn, net, dead, bypassed=target.ref_id)
        complete_if_idle(turn, net)


def _limit(net: Net, source: StageExecution) -> int:
    for settings in (net.workflow.context, source.context):
        limit = settings.get("_max_jumps")
        if isinstance(limit, int):
            return limit
    return MAX_JUMPS


def _refuse(turn: Turn, net: Net, source: StageExecution, error: str) -> None:
    turn.set(source, context={**source.context, "jump_error": error, "error": error})
    for task in net.tasks_of(source):
        if not task.status.is_complete:
            over = S.TERMINAL if task.status is S.RUNNING else S.SKIPPED
            turn.set(task, status=over, end_time=turn.now)
    finish_stage(turn, net, source, S.TERMINAL, error=error)


def _leave(
    turn: Turn, net: Net, source: StageExecution, message: JumpToStage
) -> StageExecution:
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


def part_from(turn: Turn, net: Net, target: StageExecution) -> set[str]:
    """The stage and everything that follows it, by ref."""
    part = {target.ref_id}
    waiting = [target.ref_id]
    while waiting:
        for ref_id, position in net.downstream.get(waiting.pop(), {}).items():
            if ref_id not in part:
                turn.reader.block_at(net, position)
                part.add(ref_id)
                waiting.append(ref_id)
    return part


def reopen(
    turn: Turn,
    net: Net,
    target: StageExecution,
    part: set[str],
    *,
    source: StageExecution | None,
    delivered: dict[str, Any],
) -> StageExecution:
    """Open a new generation of `part` and start it at `target`.

    Runs of the part still going on are withdrawn, tokens in it are discarded, and an edge that
    enters it from outside is offered again as its newest run left it.
    """
    for ref_id in part:
        run = turn.reader.newest(net, ref_id)
        assert run is not None
        if is_active(run):
            withdraw(turn, net, run)
        else:
            withdraw_parts(turn, net, run)  # a group may have let its instances run on
        discard_tokens(turn, net, ref_id)
        if run.phase is not StagePhase.WAITING:
            new_run(turn, net, run, opens=1)
    forget_choices(turn, [run for run in net.stages.values() if run.ref_id in part])
    turn.write_rows()
    fresh = turn.reader.newest(net, target.ref_id)
    assert fresh is not None
    run = activate(
        turn, net, fresh, thread=target.thread, delivered={**fresh.delivered, **delivered}
    )
    _offer_again(turn, net, run, part, source)
    return run


def _offer_again(
    turn: Turn, net: Net, run: StageExecution, part: set[str], source: StageExecution | None
) -> None:
    arrivals: list[Arrival] = []
    for ref_id in part:
        for upstream in net.upstream.get(ref_id, ()):
            if upstream in part:
                continue
            outside = turn.reader.newest(net, upstream, net.upstream[ref_id][upstream])
            assert outside is not None
            kind, ordinal = _newest_token(turn, outside, ref_id)
            if source is not None and upstream == source.ref_id:
                kind = TokenKind.DEAD
            if kind is None:
                continue
            arrival = Arrival(outside, ref_id, kind, outside.thread, ordinal + 1)
            if ref_id == run.ref_id:
                _consume(turn, arrival, run)
            else:
                arrivals.append(arrival)
    if source is not None:
        _, ordinal = _newest_token(turn, source, run.ref_id)
        lead = Arrival(source, run.ref_id, TokenKind.LIVE, source.thread, ordinal + 2)
        _consume(turn, lead, run)
    put(turn, net, arrivals)


def _consume(turn: Turn, arrival: Arrival, run: StageExecution) -> None:
    turn.add_token(
        source_id=arrival.source.id,
        downstream_ref_id=arrival.ref_id,
        ordinal=arrival.ordinal,
        workflow_id=run.workflow_id,
        upstream_ref_id=arrival.source.ref_id,
        thread=arrival.thread,
        generation=arrival.source.generation,
        kind=arrival.kind,
        consumer_id=run.id if arrival.kind is TokenKind.LIVE else None,
        closed=True,
    )


def _newest_token(turn: Turn, source: StageExecution, ref_id: str) -> tuple[TokenKind | None, int]:
    """The kind of the last token that a run put on an edge, and its ordinal (-1: none yet)."""
    row = turn.connection.execute(
        select(Token.kind, Token.ordinal)
        .where(Token.source_id == source.id, Token.downstream_ref_id == ref_id)
        .order_by(Token.ordinal.desc())
        .limit(1)
    ).first()
    return (None, -1) if row is None else (row.kind, row.ordinal)


class RestartStageHandler(Handler[RestartStage]):
    """Run a complete stage and what follows it once more; the workflow goes on."""

    def handle(self, message: RestartStage, turn: Turn) -> None:
        net = turn.net(message)
        named = turn.stage(message)
        stage = turn.reader.newest(net, named.ref_id) or named
        workflow = net.workflow
        if not stage.status.is_complete or workflow.is_canceled or stage.parent_stage_id:
            return
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
        reopen(turn, net, stage, part_from(turn, net, stage), source=None, delivered={})


__all__ = ["JumpToStageHandler", "RestartStageHandler", "part_from", "reopen"]
