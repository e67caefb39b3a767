"""Carries out what the token game decides: tokens put, runs started, branches passed over."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, select, update

from stabilize.dag.joins import (
    Decision,
    JoinRule,
    Tally,
    Verdict,
    absorbs_failure,
    counts_as,
    decide,
    resets,
)
from stabilize.events.base import EventType
from stabilize.models import StageExecution, TaskExecution, Token
from stabilize.net import Net, is_active
from stabilize.queue.messages import CancelStage, FailStage, StartStage
from stabilize.status import JoinType, StagePhase, TokenKind, WorkflowStatus
from stabilize.turn import Turn

_FAILURE_KEYS = frozenset({"error", "exception", "jump_error", "beforeStagePlanningFailed"})
_OPEN = and_(
    Token.workflow_id == bindparam("b_workflow"),
    Token.downstream_ref_id == bindparam("b_ref"),
    Token.thread == bindparam("b_thread"),
    Token.closed.is_(False),
)
_TABLE: Any = Token.__table__
_CONSUME = (
    update(_TABLE)
    .where(_OPEN)
    .values(
        consumer_id=case(
            (
                and_(Token.kind == TokenKind.LIVE, Token.consumer_id.is_(None)),
                bindparam("b_consumer"),
            ),
            else_=Token.consumer_id,
        )
    )
)
_CONSUME_ALL = (
    update(_TABLE)
    .where(_OPEN)
    .values(
        consumer_id=case(
            (Token.kind == TokenKind.LIVE, bindparam("b_consumer")), else_=Token.consumer_id
        ),
        closed=True,
    )
)
_CLOSE = update(_TABLE).where(_OPEN).values(closed=True)
_ONE = and_(
    Token.workflow_id == bindparam("b_workflow"),
    Token.source_id == bindparam("b_source"),
    Token.downstream_ref_id == bindparam("b_ref"),
    Token.ordinal == bindparam("b_ordinal"),
)
_CONSUME_ONE = update(_TABLE).where(_ONE).values(consumer_id=bindparam("b_consumer"), closed=True)
_CLOSE_ONE = update(_TABLE).where(_ONE).values(closed=True)
_MARK = update(_TABLE).where(_ONE).values(consumer_id=bindparam("b_consumer"))


@dataclass(frozen=True)
class Arrival:
    """A token on its way: from a run, along an edge, in a thread."""

    source: StageExecution
    ref_id: str
    kind: TokenKind
    thread: str
    ordinal: int = 0


def activate(
    turn: Turn, net: Net, stage: StageExecution, *, thread: str = "", **values: Any
) -> StageExecution:
    """Start the next run of a stage: the one that waits, else a new one."""
    run = stage if stage.phase is StagePhase.WAITING else new_run(turn, net, stage)
    if run.thread != thread:
        values["thread"] = thread
    turn.set(run, phase=StagePhase.READY, **values)
    turn.set(net.workflow, open_runs=net.workflow.open_runs + 1)
    turn.push(StartStage.of(run))
    return run


def new_run(
    turn: Turn,
    net: Net,
    old: StageExecution,
    *,
    opens: int = 0,
    parent_id: str | None = None,
) -> StageExecution:
    """Make the next run of a stage; the earlier one keeps its history.

    `opens` is 1 when a jump or a restart opens this part of the graph again.
    """
    turn.set(old, latest=False)
    run = StageExecution(
        workflow_id=old.workflow_id,
        ref_id=old.ref_id,
        run=old.run + 1,
        generation=old.generation + opens,
        position=old.position,
        type=old.type,
        name=old.name,
        context={k: v for k, v in old.context.items() if k not in _FAILURE_KEYS},
        requisite_stage_ref_ids=old.requisite_stage_ref_ids,
        parent_stage_id=parent_id or old.parent_stage_id,
        synthetic_stage_owner=old.synthetic_stage_owner,
        definition=dict(old.definition),
        thread=old.thread,
    )
    if old.delivered.get("_buffered_signals"):
        run.delivered = {"_buffered_signals": old.delivered["_buffered_signals"]}
    tasks = [] if old.definition.get("planned_tasks") else [
        TaskExecution(
            workflow_id=old.workflow_id,
            stage_id=run.id,
            position=task.position,
            name=task.name,
            implementing_class=task.implementing_class,
            stage_start=task.stage_start,
            stage_end=task.stage_end,
            loop_start=task.loop_start,
            loop_end=task.loop_end,
        )
        for task in net.tasks_of(old)
    ]
    add_run(turn, net, run, tasks)
    for child in list(net.children.get(old.id, ())):
        if not child.planned:
            new_run(turn, net, child, opens=opens, parent_id=run.id)
    return run


def add_run(turn: Turn, net: Net, run: StageExecution, tasks: list[TaskExecution]) -> None:
    """Put a run that was just made, with its tasks, in the database and in the net."""
    turn.add(run)
    for task in tasks:
        turn.add(task)
    net.keep(run, tasks)


def put(turn: Turn, net: Net, arrivals: list[Arrival]) -> None:
    """Put tokens on edges and carry out what the joins behind them decide, wave after wave."""
    wave = deque(arrivals)
    while wave:
        arrival = wave.popleft()
        target = turn.reader.newest(
            net, arrival.ref_id, net.downstream[arrival.source.ref_id].get(arrival.ref_id)
        )
        assert target is not None, f"an edge leads to {arrival.ref_id!r}, which is not there"
        rule = net.rule_of(target)
        if rule.type is JoinType.AND and not rule.keep and len(net.upstream[target.ref_id]) == 1:
            _pass_through(turn, net, arrival, target, rule, wave)
        else:
            _join(turn, net, arrival, target, rule, wave)


def _pass_through(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    wave: deque[Arrival],
) -> None:
    kind = counts_as(arrival.kind, rule)
    if kind is TokenKind.LIVE:
        run = activate(turn, net, target, thread=arrival.thread)
        _write(turn, arrival, kind, consumer_id=run.id, closed=True)
        return
    _write(turn, arrival, kind, closed=True)
    _pass_over(turn, net, target, kind, arrival.thread, wave)


def _join(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    wave: deque[Arrival],
) -> None:
    kind = counts_as(arrival.kind, rule)
    tallies = turn.reader.tallies(net, target.ref_id)
    thread = arrival.thread if rule.matches_threads else ""
    tally = tallies.get(thread)
    if tally is None:
        tally = tallies[thread] = Tally(edges=len(net.upstream[target.ref_id]))
    tally.add(arrival.source.ref_id, kind)
    _write(turn, arrival, kind)
    while _settle(turn, net, arrival, target, rule, tally, wave):
        target = net.newest[target.ref_id]
        again = turn.reader.tallies(net, target.ref_id).get(thread)
        if again is None:
            return
        tally = again


def _settle(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    tally: Tally,
    wave: deque[Arrival],
) -> bool:
    """Carry out one decision of a join; say whether tokens kept may lead to another."""
    decision = decide(tally, rule)
    if decision.verdict is Verdict.FIRE:
        _fire(turn, net, arrival, target, rule, tally)
    elif decision.verdict is Verdict.FAIL:
        _fail(turn, net, target, arrival, decision)
    elif decision.verdict is Verdict.PASS and decision.passes is not None:
        _pass_over(turn, net, target, decision.passes, arrival.thread, wave)
    if decision.verdict is Verdict.WAIT and not tally.fired:
        return False
    return _reset(turn, net, arrival, target, rule, tally, decision)


def _fire(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    tally: Tally,
) -> None:
    again = tally.fired > 0
    tally.fired += 1
    thread = arrival.thread
    if rule.type is JoinType.MULTI_MERGE and again:
        thread = branch_of(target, thread, target.run + 1)
    elif rule.type is JoinType.THREADS:
        thread = parent_of(thread)
    run = activate(turn, net, target, thread=thread)
    if rule.type in (JoinType.MULTI_MERGE, JoinType.XOR):
        turn.run_later(
            _MARK,
            {
                "b_workflow": target.workflow_id,
                "b_source": arrival.source.id,
                "b_ref": target.ref_id,
                "b_ordinal": arrival.ordinal,
                "b_consumer": run.id,
            },
        )
    elif rule.matches_threads:
        at_once = resets(tally, rule)
        scope = {**_scope(arrival, target), "b_consumer": run.id}
        turn.run_later(_CONSUME_ALL if at_once else _CONSUME, scope)
    else:
        _consume_oldest(turn, net, target, rule, run)
    if rule.rest == "cancel":
        _withdraw_branches(turn, net, target, tally)


def _withdraw_branches(turn: Turn, net: Net, target: StageExecution, tally: Tally) -> None:
    """The join has what it needs: end what is still under way on its other branches."""
    waiting = [ref_id for ref_id in net.upstream[target.ref_id] if ref_id not in tally.best]
    seen = set(waiting)
    while waiting:
        ref_id = waiting.pop()
        run = turn.reader.newest(net, ref_id)
        assert run is not None
        if is_active(run):
            reason = f"the join {target.ref_id!r} has the branches it needs"
            turn.push(CancelStage.of(run, user="system", reason=reason))
        elif run.phase is StagePhase.WAITING:
            further = set(net.upstream.get(ref_id, ())) - seen
            seen |= further
            waiting.extend(further)


def _consume_oldest(
    turn: Turn,
    net: Net,
    target: StageExecution,
    rule: JoinRule,
    run: StageExecution | None,
) -> None:
    """Take one token of each edge (a kept AND), or so many of the one edge (a thread merge)."""
    turn.write_rows()
    tokens = turn.session.execute(
        select(Token.source_id, Token.ordinal, Token.upstream_ref_id, Token.kind)
        .where(
            Token.workflow_id == net.workflow.id,
            Token.downstream_ref_id == target.ref_id,
            Token.closed.is_(False),
        )
        .order_by(Token.upstream_ref_id, Token.source_id, Token.ordinal)
    ).all()
    wanted = rule.needed if rule.type is JoinType.THREADS else 1
    taken: dict[str, int] = {}
    for source_id, ordinal, upstream, kind in tokens:
        if taken.get(upstream, 0) >= wanted:
            continue
        taken[upstream] = taken.get(upstream, 0) + 1
        turn.run_later(
            _CONSUME_ONE,
            {
                "b_workflow": target.workflow_id,
                "b_source": source_id,
                "b_ref": target.ref_id,
                "b_ordinal": ordinal,
                "b_consumer": run.id if run and kind is TokenKind.LIVE else None,
            },
        )
    turn.write_rows()
    net.tallies.pop(target.ref_id, None)
    net.tokens_known = False


def _reset(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    tally: Tally,
    decision: Decision,
) -> bool:
    """Begin the next round of a join where this one is over; say whether tokens were kept."""
    passed = decision.verdict in (Verdict.PASS, Verdict.FAIL)
    if not rule.matches_threads:
        if passed:
            _consume_oldest(turn, net, target, rule, None)
        return decision.verdict is not Verdict.WAIT
    if not (passed or resets(tally, rule)):
        return False
    if rule.rest == "block":
        _close_round(turn, net, target, arrival)
        return True
    if passed or rule.type not in (JoinType.AND, JoinType.OR):
        turn.run_later(_CLOSE, _scope(arrival, target))
    net.tallies[target.ref_id].pop(arrival.thread, None)
    return False


def _close_round(turn: Turn, net: Net, target: StageExecution, arrival: Arrival) -> None:
    """Close the oldest token of each edge: what came after it on that edge counts from now on."""
    turn.write_rows()
    tokens = turn.session.execute(
        select(Token.source_id, Token.ordinal, Token.upstream_ref_id)
        .where(
            Token.workflow_id == net.workflow.id,
            Token.downstream_ref_id == target.ref_id,
            Token.thread == arrival.thread,
            Token.closed.is_(False),
        )
        .order_by(Token.consumer_id.is_(None), Token.source_id, Token.ordinal)
    ).all()
    seen: set[str] = set()
    for source_id, ordinal, upstream in tokens:
        if upstream not in seen:
            seen.add(upstream)
            turn.run_later(
                _CLOSE_ONE,
                {
                    "b_workflow": net.workflow.id,
                    "b_source": source_id,
                    "b_ref": target.ref_id,
                    "b_ordinal": ordinal,
                },
            )
    turn.write_rows()
    net.tallies.pop(target.ref_id, None)
    net.tokens_known = False


def _scope(arrival: Arrival, target: StageExecution) -> dict[str, Any]:
    return {
        "b_workflow": target.workflow_id,
        "b_ref": target.ref_id,
        "b_thread": arrival.thread,
    }


def _write(
    turn: Turn,
    arrival: Arrival,
    kind: TokenKind,
    *,
    consumer_id: str | None = None,
    closed: bool = False,
) -> None:
    turn.add_token(
        source_id=arrival.source.id,
        downstream_ref_id=arrival.ref_id,
        ordinal=arrival.ordinal,
        workflow_id=arrival.source.workflow_id,
        upstream_ref_id=arrival.source.ref_id,
        thread=arrival.thread,
        generation=arrival.source.generation,
        kind=kind,
        consumer_id=consumer_id,
        closed=closed,
    )


def _pass_over(
    turn: Turn,
    net: Net,
    target: StageExecution,
    kind: TokenKind,
    thread: str,
    wave: deque[Arrival],
) -> None:
    """The stage does not run: it is skipped, or left where it is, and passes `kind` on."""
    run = target if target.phase is StagePhase.WAITING else new_run(turn, net, target)
    turn.set(run, phase=StagePhase.ENDED, thread=thread)
    if kind is TokenKind.DEAD:
        turn.set(run, status=WorkflowStatus.SKIPPED)
        turn.record(
            EventType.STAGE_SKIPPED,
            run,
            ref_id=run.ref_id,
            type=run.type,
            name=run.name,
            reason="No branch that leads here was taken",
        )
    for ref_id in net.downstream.get(run.ref_id, ()):
        wave.append(Arrival(run, ref_id, kind, thread))


def _fail(
    turn: Turn, net: Net, target: StageExecution, arrival: Arrival, decision: Decision
) -> None:
    run = target if target.phase is StagePhase.WAITING else new_run(turn, net, target)
    turn.set(net.workflow, open_runs=net.workflow.open_runs + 1)
    turn.set(run, phase=StagePhase.READY, thread=arrival.thread)
    turn.push(FailStage.of(run, error=decision.reason))


def branch_of(stage: StageExecution, thread: str, number: int | str) -> str:
    """A thread of its own for what follows one of several firings."""
    return f"{thread}{stage.position}.{number}/"


def parent_of(thread: str) -> str:
    """The thread that `thread` branched off from."""
    head, _, _ = thread.rstrip("/").rpartition("/")
    return f"{head}/" if head else ""


def failure_is_absorbed(turn: Turn, net: Net, stage: StageExecution) -> bool:
    """Say whether every path from a failed stage ends in a join that absorbs the failure."""
    seen = {stage.ref_id}
    waiting = [stage.ref_id]
    while waiting:
        ref_id = waiting.pop()
        following = net.downstream.get(ref_id)
        if not following:
            return False
        for next_ref, position in following.items():
            target = turn.reader.newest(net, next_ref, position)
            assert target is not None
            if not absorbs_failure(net.rule_of(target)) and next_ref not in seen:
                seen.add(next_ref)
                waiting.append(next_ref)
    return True


__all__ = [
    "Arrival",
    "activate",
    "add_run",
    "branch_of",
    "failure_is_absorbed",
    "new_run",
    "put",
]
