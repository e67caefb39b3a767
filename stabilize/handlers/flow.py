"""Carries out what the token game decides: tokens put, runs started, branches passed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from sqlalchemy import select

from stabilize.dag.joins import (
    Decision,
    JoinRule,
    Tally,
    Verdict,
    branch_of,
    counts_as,
    decide,
    failure_is_absorbed,
    gives_way,
    is_put_off,
    parent_of,
    resets,
    to_be_taken,
)
from stabilize.dag.topological import topological_sort
from stabilize.dag.withdrawal import lies_in, withdrawal
from stabilize.events.base import EventType
from stabilize.handlers.admission import leave
from stabilize.handlers.runs import activate, new_run
from stabilize.handlers.tokens import (
    Arrival,
    close_all,
    close_round,
    deaden,
    kept_tokens,
    make_dead,
    mark_taken,
    numbered,
    take,
    take_all,
    write_token,
)
from stabilize.models import StageExecution
from stabilize.net import BEYOND, Net, is_active
from stabilize.queue.messages import CancelStage, FailStage
from stabilize.reader import UNDER_WAY
from stabilize.status import JoinType, StagePhase, TokenKind, WorkflowStatus
from stabilize.turn import Turn


def put(
    turn: Turn, net: Net, arrivals: list[Arrival], *, bypassed: str = "", again: bool = False
) -> None:
    """Put tokens on edges and carry out what the joins behind them decide, wave after wave.

    `bypassed`: a stage that a jump has started, whatever comes on its edges in this wave. `again`:
    they were there before a jump, and start nothing by themselves.
    """
    wave = deque(arrivals)
    while wave:
        arrival = wave.popleft()
        if arrival.ref_id == bypassed:
            write_token(turn, arrival, arrival.kind, closed=True)
            continue
        target = _target_of(turn, net, arrival)
        rule = net.rule_of(target)
        if rule.type is JoinType.AND and not rule.keep and len(net.upstream[target.ref_id]) == 1:
            _pass_through(turn, net, arrival, target, rule, wave)
        else:
            _join(turn, net, arrival, target, rule, wave, again=again)


def _target_of(turn: Turn, net: Net, arrival: Arrival) -> StageExecution:
    """Where a token goes: from a part of a run to another part of the same run."""
    for part in net.children.get(arrival.source.parent_stage_id or "", ()):
        if part.ref_id == arrival.ref_id:
            return part
    position = net.downstream[arrival.source.ref_id].get(arrival.ref_id)
    target = turn.reader.newest(net, arrival.ref_id, position)
    assert target is not None, f"an edge leads to {arrival.ref_id!r}, which is not there"
    return target


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
        write_token(turn, arrival, kind, consumer_id=run.id, closed=True)
        return
    write_token(turn, arrival, kind, closed=True)
    _pass_over(turn, net, target, kind, arrival.thread, wave)


def _join(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    wave: deque[Arrival],
    *,
    again: bool,
) -> None:
    kind = counts_as(arrival.kind, rule)
    tallies = turn.reader.tallies(net, target.ref_id)
    thread = arrival.thread if rule.matches_threads else ""
    tally = tallies.get(thread)
    if tally is None:
        tally = tallies[thread] = Tally(edges=len(net.upstream[target.ref_id]))
    special = rule.type is not JoinType.AND
    if special and kind is TokenKind.LIVE and gives_way(tally, rule):
        tally.deaden()
        make_dead(turn, target, thread)
    tally.add(arrival.source.ref_id, kind)
    tally.quiet = False
    if rule.rest == "block":
        arrival = numbered(turn, arrival)
    write_token(turn, arrival, kind)
    if special and is_put_off(tally, rule, kind, again=again):
        return
    if rule.matches_threads:
        _settle(turn, net, arrival, target, rule, tally, wave)
    else:
        _settle_kept(turn, net, target, rule, wave)


def _settle(
    turn: Turn,
    net: Net,
    arrival: Arrival,
    target: StageExecution,
    rule: JoinRule,
    tally: Tally,
    wave: deque[Arrival],
) -> None:
    """Carry out what a join decides about one thread; begin its next round if this one is over."""
    decision = decide(tally, rule)
    match decision.verdict:
        case Verdict.FIRE:
            _fire(turn, net, arrival, target, rule, tally)
        case Verdict.FAIL:
            tally.fired += 1
            mark_taken(turn, arrival, _fail(turn, net, target, arrival.thread, decision))
        case Verdict.PASS:
            _pass_over(turn, net, target, decision.passes, arrival.thread, wave)
        case Verdict.WAIT if not tally.fired:
            return
    passed = decision.verdict is Verdict.PASS
    if passed or resets(tally, rule):
        if passed or rule.type not in (JoinType.AND, JoinType.OR):
            close_all(turn, target, arrival.thread)
        net.tallies[target.ref_id].pop(arrival.thread, None)


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
        thread = branch_of(target.position, thread, target.run + 1)
    run = activate(turn, net, target, thread=thread)
    if rule.starts_early and rule.needed == 1 and counts_as(arrival.kind, rule) is TokenKind.LIVE:
        mark_taken(turn, arrival, run)
    else:
        take_all(turn, run, arrival.thread, closing=resets(tally, rule))
    if rule.rest == "cancel":
        _withdraw_branches(turn, net, target, tally, arrival.thread)


def _settle_kept(
    turn: Turn,
    net: Net,
    target: StageExecution,
    rule: JoinRule,
    wave: deque[Arrival],
    *,
    quiet: bool = False,
) -> None:
    """Carry out what a join decides that keeps tokens of all threads, as often as they last."""
    while tally := turn.reader.tallies(net, target.ref_id).get(""):
        tally.quiet = quiet
        decision = decide(tally, rule)
        if decision.verdict is Verdict.WAIT:
            if rule.rest == "block" and tally.fired and resets(tally, rule):
                close_round(turn, net, target)
                continue
            return
        tokens = kept_tokens(turn, net, target)
        picked = to_be_taken(tokens, rule)
        thread = min((token.thread for token in picked or tokens), key=len)
        run: StageExecution | None = None
        if decision.verdict is Verdict.FIRE:
            thread = parent_of(thread) if rule.type is JoinType.THREADS else thread
            run = activate(turn, net, net.newest[target.ref_id], thread=thread)
        elif decision.verdict is Verdict.FAIL:
            run = _fail(turn, net, net.newest[target.ref_id], thread, decision)
        else:
            _pass_over(turn, net, net.newest[target.ref_id], decision.passes, thread, wave)
        if run is None and rule.rest == "block":
            close_round(turn, net, target)
        else:
            take(turn, net, target, picked, run, closing=rule.rest != "block")


def settle_quiet(turn: Turn, net: Net) -> None:
    """Ask the joins that wait until nothing more can come whether that is so (WCP-38, 41)."""
    if not net.has_quiet_joins:
        return
    turn.reader.everything(net)
    wave: deque[Arrival] = deque()
    for target in topological_sort([s for s in net.runs() if s.parent_stage_id is None]):
        rule = net.rule_of(target)
        if not rule.asks_for_quiet:
            continue
        if target.ref_id not in net.tallies:
            turn.write_rows()
        tally = turn.reader.tallies(net, target.ref_id).get("")
        if tally is not None and tally.best and not _may_come(turn, net, target, tally, rule):
            _settle_kept(turn, net, target, rule, wave, quiet=True)
            put(turn, net, list(wave))
            wave.clear()


def _may_come(turn: Turn, net: Net, target: StageExecution, tally: Tally, rule: JoinRule) -> bool:
    """Say whether a run under way may still bring the join a token that it lacks."""
    edges = set(net.upstream[target.ref_id])
    lacking = edges if rule.type is JoinType.THREADS else edges - set(tally.best)
    above = set(lacking)
    waiting = list(lacking)
    while waiting:
        further = set(net.upstream.get(waiting.pop(), ())) - above - {target.ref_id}
        above |= further
        waiting.extend(further)
    return any(is_active(s) and s.ref_id in above for s in runs_under_way(turn, net))


def runs_under_way(turn: Turn, net: Net) -> list[StageExecution]:
    """The runs of the definition under way, parents before their synthetic stages."""
    if not net.is_complete:
        query = select(StageExecution.id).where(
            StageExecution.workflow_id == net.workflow.id,
            StageExecution.position < BEYOND,
            UNDER_WAY,
        )
        ids = turn.read(query).scalars()
        turn.reader.stages({net.workflow.id: net}, [id for id in ids if id not in net.stages])
    found = [run for run in net.stages.values() if is_active(run) and run.position < BEYOND]
    return sorted(found, key=lambda stage: stage.parent_stage_id is not None)


def _withdraw_branches(
    turn: Turn, net: Net, target: StageExecution, tally: Tally, thread: str
) -> None:
    """The join has what it needs: end what is still under way on its other branches.

    That is in its own thread, and above a merge of threads in those that it merges.
    """

    def newest(ref_id: str) -> StageExecution:
        run = turn.reader.newest(net, ref_id)
        assert run is not None
        return run

    def active(ref_id: str, below: bool) -> list[StageExecution]:
        runs = (run for run in net.stages.values() if run.ref_id == ref_id and is_active(run))
        return [run for run in runs if lies_in(run.thread, thread, below)]

    def has_begun(ref_id: str, below: bool) -> bool:
        last = newest(ref_id)
        has_run = last.phase is not StagePhase.WAITING and last.thread == thread
        return has_run or bool(active(ref_id, below))

    lost = withdrawal(
        [ref_id for ref_id in net.upstream[target.ref_id] if ref_id not in tally.best],
        has_begun=has_begun,
        merges_threads=lambda ref_id: net.rule_of(newest(ref_id)).type is JoinType.THREADS,
        upstream=lambda ref_id: net.upstream.get(ref_id, ()),
    )
    reason = f"the join {target.ref_id!r} has the branches it needs"
    for ref_id, below in lost.begun.items():
        for run in active(ref_id, below):
            if run.status is WorkflowStatus.NOT_STARTED:  # it may be about to, and to claim rights
                turn.set(run, definition={**run.definition, "withdrawn": True})
            turn.push(CancelStage.of(run, user="system", reason=reason))
    for ref_id, below in lost.ahead.items():
        deaden(turn, net, newest(ref_id), thread, below)


def _pass_over(
    turn: Turn,
    net: Net,
    target: StageExecution,
    kind: TokenKind | None,
    thread: str,
    wave: deque[Arrival],
) -> None:
    """The stage does not run: it is skipped, or left where it is, and passes `kind` on."""
    assert kind is not None
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
    if run.definition:
        leave(turn, net, run)
    for ref_id in net.downstream.get(run.ref_id, ()):
        wave.append(Arrival(run, ref_id, kind, thread))


def _fail(
    turn: Turn, net: Net, target: StageExecution, thread: str, decision: Decision
) -> StageExecution:
    """The join cannot do what it is to do: that is a failure of its stage."""
    run = target if target.phase is StagePhase.WAITING else new_run(turn, net, target)
    turn.set(net.workflow, open_runs=net.workflow.open_runs + 1)
    turn.set(run, phase=StagePhase.READY, thread=thread)
    turn.push(FailStage.of(run, error=decision.reason))
    return run


def is_absorbed(turn: Turn, net: Net, stage: StageExecution) -> bool:
    """Say whether every path from a failed stage ends in a join that absorbs the failure."""

    def joins_after(ref_id: str) -> Iterator[tuple[str, JoinRule]]:
        for next_ref, position in net.downstream.get(ref_id, {}).items():
            target = turn.reader.newest(net, next_ref, position)
            assert target is not None
            yield next_ref, net.rule_of(target)

    return failure_is_absorbed(stage.ref_id, joins_after)


__all__ = [
    "Arrival",
    "is_absorbed",
    "put",
    "runs_under_way",
    "settle_quiet",
]
