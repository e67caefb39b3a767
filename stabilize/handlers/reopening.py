"""Opening a part of the graph again: what jumps and restarts have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, or_, select

from stabilize.dag.joins import parent_of
from stabilize.dag.topological import reach
from stabilize.handlers.admission import forget_choices, settle_sections
from stabilize.handlers.closing import left_at_work, withdraw, withdraw_instances
from stabilize.handlers.flow import Arrival, put, runs_under_way
from stabilize.handlers.runs import activate, begun_anew, new_run
from stabilize.handlers.tokens import DISCARD
from stabilize.models import StageExecution, Token
from stabilize.net import Net, is_active
from stabilize.status import JoinType, SplitType, StagePhase, TokenKind, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A stage and what follows it, by ref, and the threads in which they run anew.

    `thread`: only this one, with those that the part itself opens from it at one of the places in
    `openers`; None: all of them.
    """

    target: str
    refs: frozenset[str]
    starts: tuple[str, ...]
    thread: str | None
    openers: frozenset[int] = frozenset()

    def covers(self, thread: str) -> bool:
        if self.thread is None or thread == self.thread:
            return True
        opener, _, _ = thread.removeprefix(self.thread).partition(".")
        return thread.startswith(self.thread) and int(opener) in self.openers

    def discards(self) -> Update:
        """The statement that closes the tokens of these threads before one stage."""
        if self.thread is None:
            return DISCARD
        opened = (Token.thread.startswith(f"{self.thread}{place}.") for place in self.openers)
        return DISCARD.where(or_(Token.thread == self.thread, *opened))


def opening_at(
    turn: Turn, net: Net, target: StageExecution, source: StageExecution | None
) -> Opening:
    """What a jump of `source`, or a restart (None), opens again.

    A jump stays in its thread, or in the one that this branched off from, if the target has run
    there; else, as for a restart, the target runs in every thread in which it has run.
    """
    refs = _part_from(turn, net, target)
    stages = [net.newest[ref] for ref in refs]
    openers = frozenset(
        stage.position
        for stage in stages
        if stage.split_type is SplitType.THREADS or stage.join_type is JoinType.MULTI_MERGE
    )
    ran = _threads_of(turn, target)
    within = None if source is None else _thread_for(turn, net, source, target, ran)
    if within is not None:
        return Opening(
            target=target.ref_id, refs=refs, starts=(within,), thread=within, openers=openers
        )
    starts = tuple(sorted(ran)) or (target.thread,)
    return Opening(target=target.ref_id, refs=refs, starts=starts, thread=None)


def _part_from(turn: Turn, net: Net, target: StageExecution) -> frozenset[str]:
    """The stage and everything that follows it, by ref."""

    def following(ref_id: str) -> Iterator[str]:
        for next_ref, position in net.downstream.get(ref_id, {}).items():
            turn.reader.block_at(net, position)
            yield next_ref

    return frozenset(reach([target.ref_id], following))


def _threads_of(turn: Turn, target: StageExecution) -> set[str]:
    """The threads in which the stage has run since its part was last opened."""
    query = select(StageExecution.thread).where(
        StageExecution.workflow_id == target.workflow_id,
        StageExecution.ref_id == target.ref_id,
        StageExecution.generation == target.generation,
        StageExecution.status.not_in((S.NOT_STARTED, S.SKIPPED)),
    )
    return set(turn.read(query.distinct()).scalars())


def _thread_for(
    turn: Turn, net: Net, source: StageExecution, target: StageExecution, ran: set[str]
) -> str | None:
    thread = source.thread
    while thread and thread not in ran:
        thread = parent_of(thread)
    if thread in ran:
        return thread
    if ran:
        return None
    return source.thread if _is_in_the_same(turn, net, source, target) else parent_of(source.thread)


def _is_in_the_same(turn: Turn, net: Net, source: StageExecution, target: StageExecution) -> bool:
    """Say whether a way leads from one to the other on which threads are not merged."""
    if not source.thread:
        return True

    def following(ref_id: str) -> Iterator[str]:
        for next_ref, position in net.downstream.get(ref_id, {}).items():
            stage = turn.reader.newest(net, next_ref, position)
            if stage is not None and net.rule_of(stage).type is not JoinType.THREADS:
                yield next_ref

    return target.ref_id in reach([source.ref_id], following)


def reopen(
    turn: Turn,
    net: Net,
    opening: Opening,
    *,
    source: StageExecution | None = None,
    delivered: dict[str, Any] | None = None,
) -> list[StageExecution]:
    """Open a new generation of a part and start it; `source` jumps there.

    Runs of the part still going on are withdrawn, tokens in it are discarded, and an edge that
    enters it from outside is offered again as its newest runs left it.
    """
    for run in runs_under_way(turn, net):
        is_affected = run.ref_id in opening.refs and opening.covers(run.thread)
        if is_affected and run.parent_stage_id is None and is_active(run):
            withdraw(turn, net, run)
    for group in left_at_work(turn, net):
        if group.ref_id in opening.refs and opening.covers(group.thread):
            withdraw_instances(turn, net, group, unstarted=S.NOT_STARTED)
    discard = opening.discards()
    is_alone = bool(opening.thread)  # other threads go on in the generation in which they are
    for ref_id in sorted(opening.refs, key=lambda ref: net.newest[ref].position):
        for stage in _with_parts(net, net.newest[ref_id]):
            turn.run_later(discard, {"b_workflow": net.workflow.id, "b_ref": stage.ref_id})
            _forget_tallies(net, stage, opening)
        if net.newest[ref_id].phase is not StagePhase.WAITING:
            new_run(turn, net, net.newest[ref_id], opens=0 if is_alone else 1)
    again = [run for run in net.stages.values() if run.ref_id in opening.refs]
    forget_choices(turn, [run for run in again if opening.covers(run.thread)])
    turn.write_rows()
    runs = {}
    for thread in opening.starts:
        fresh = net.newest[opening.target]
        values: dict[str, Any] = {"delivered": {**fresh.delivered, **(delivered or {})}}
        if is_alone:
            values["context"] = _context_of(turn, net, fresh, thread)
        runs[thread] = activate(turn, net, fresh, thread=thread, **values)
    is_outside = source is not None and source.ref_id not in opening.refs
    _offer_again(turn, net, runs, opening, source if is_outside else None)
    settle_sections(turn, net, opening.refs, net.newest[opening.target], source)
    return list(runs.values())


def _with_parts(net: Net, stage: StageExecution) -> Iterator[StageExecution]:
    """A run, and the synthetic stages of it, and theirs."""
    yield stage
    for child in net.children.get(stage.id, ()):
        yield from _with_parts(net, child)


def _forget_tallies(net: Net, stage: StageExecution, opening: Opening) -> None:
    """What was counted of the tokens that are discarded."""
    if opening.thread is not None and not net.rule_of(stage).matches_threads:
        net.tallies.pop(stage.ref_id, None)
        net.tokens_known = False  # those of other threads, counted together with them, stay
    for thread in list(net.tallies.get(stage.ref_id, ())):
        if opening.covers(thread):
            del net.tallies[stage.ref_id][thread]


def _context_of(turn: Turn, net: Net, fresh: StageExecution, thread: str) -> dict[str, Any]:
    """What has become of the context of a stage in one thread."""
    last = select(StageExecution.id).where(
        StageExecution.workflow_id == fresh.workflow_id,
        StageExecution.ref_id == fresh.ref_id,
        StageExecution.thread == thread,
        StageExecution.phase == StagePhase.ENDED,
    )
    id = turn.read(last.order_by(StageExecution.run.desc()).limit(1)).scalar()
    old = turn.reader.stage(net, id) if id else None
    return begun_anew(fresh if old is None else old)


def _offer_again(
    turn: Turn,
    net: Net,
    runs: dict[str, StageExecution],
    opening: Opening,
    source: StageExecution | None,
) -> None:
    arrivals: list[Arrival] = []
    first = next(iter(runs.values()))
    unites = not net.rule_of(first).matches_threads
    for ref_id in opening.refs:
        for upstream, position in net.upstream.get(ref_id, {}).items():
            if upstream in opening.refs:
                continue
            outside = turn.reader.newest(net, upstream, position)
            assert outside is not None
            for arrival in _newest_tokens(turn, net, outside, ref_id, opening):
                if source is not None and arrival.source is source:
                    continue  # it leads elsewhere now
                if ref_id != opening.target:
                    arrivals.append(arrival)
                elif run := runs.get(arrival.thread) or (first if unites else None):
                    _consume(turn, arrival, run)
    if source is not None:
        _lead(turn, net, runs, opening, source, arrivals)
    put(turn, net, arrivals)


def _lead(
    turn: Turn,
    net: Net,
    runs: dict[str, StageExecution],
    opening: Opening,
    source: StageExecution,
    arrivals: list[Arrival],
) -> None:
    """The token that a jump brings to its target; none to the other stages behind its source."""
    for ref_id in net.downstream.get(source.ref_id, ()):
        if ref_id in opening.refs and ref_id != opening.target:
            arrivals.append(Arrival(source, ref_id, TokenKind.DEAD, source.thread))
    for n, run in enumerate(runs.values()):
        _consume(turn, Arrival(source, opening.target, TokenKind.LIVE, source.thread, n), run)


def _newest_tokens(
    turn: Turn, net: Net, outside: StageExecution, ref_id: str, opening: Opening
) -> Iterator[Arrival]:
    """The last token of each thread on an edge, to be put once more."""
    rows: Any = turn.read(
        select(Token.source_id, Token.thread, Token.kind, Token.ordinal)
        .where(
            Token.workflow_id == outside.workflow_id,
            Token.upstream_ref_id == outside.ref_id,
            Token.downstream_ref_id == ref_id,
            Token.generation == outside.generation,
        )
        .order_by(Token.source_id, Token.ordinal)
    )
    last: dict[str, tuple[str, TokenKind]] = {}
    used: dict[str, int] = defaultdict(int)
    for source_id, thread, kind, ordinal in rows:
        used[source_id] = ordinal
        if opening.covers(thread):
            last[thread] = source_id, kind
    for thread, (source_id, kind) in last.items():
        used[source_id] += 1
        run = turn.reader.stage(net, source_id)
        assert run is not None
        yield Arrival(run, ref_id, kind, thread, used[source_id])


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
