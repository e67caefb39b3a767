"""What enters a part of the graph that is opened again: tokens from outside, and that of a jump."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from stabilize.dag.joins import Tally
from stabilize.dag.topological import reach
from stabilize.handlers.flow import Arrival, put
from stabilize.handlers.opening import Opening, last_in
from stabilize.handlers.tokens import write_token
from stabilize.models import StageExecution, Token
from stabilize.net import Net
from stabilize.status import JoinType, TokenKind
from stabilize.turn import Turn


def offer_again(
    turn: Turn,
    net: Net,
    runs: dict[str, StageExecution],
    opening: Opening,
    source: StageExecution | None,
    withdrawn: set[str],
) -> None:
    """Put the last token of each edge that enters a part once more.

    `runs` of the target, by thread, take theirs; in other threads it may yet start. `source`: what
    jumps there, None: it is a restart. `withdrawn`: the runs that this has ended. A multi-merge
    runs again for a branch outside only if what had come of that was withdrawn.
    """
    first = next(iter(runs.values()))
    unites = not net.rule_of(first).matches_threads
    keeps_round = net.rule_of(first).starts_early
    started = _start_as_before(turn, net, runs) if keeps_round else set()
    outsider = source if source is not None and source.ref_id not in opening.refs else None
    arrivals: list[Arrival] = []
    for arrival, consumer_id in _from_outside(turn, net, opening):
        if outsider is not None and arrival.source is outsider:
            continue  # it leads elsewhere now
        if arrival.ref_id == opening.target:
            run = runs.get(arrival.thread) or (first if unites else None)
            if run is not None and run.id not in started:
                _consume(turn, arrival, run)
            if run is not None or keeps_round:
                continue
        is_merged = net.newest[arrival.ref_id].join_type is JoinType.MULTI_MERGE
        is_over = is_merged and not _has_cut_short(turn, source, consumer_id, withdrawn)
        arrivals.append(replace(arrival, kind=TokenKind.DEAD) if is_over else arrival)
    if outsider is not None:
        _lead(turn, net, runs, opening, outsider, arrivals)
    put(turn, net, arrivals, again=True)


def _from_outside(turn: Turn, net: Net, opening: Opening) -> Iterator[tuple[Arrival, str | None]]:
    """The last token of each thread on each edge that enters a part, and what it has started."""
    for ref_id in opening.refs:
        for upstream, position in net.upstream.get(ref_id, {}).items():
            if upstream not in opening.refs:
                outside = turn.reader.newest(net, upstream, position)
                assert outside is not None
                yield from _newest_tokens(turn, net, outside, ref_id, opening)


def _has_cut_short(
    turn: Turn, source: StageExecution | None, started: str | None, withdrawn: set[str]
) -> bool:
    """Say whether a jump has withdrawn some of what came of a run, and does not come of it.

    A restart runs everything again, and what has started nothing stays what it is.
    """
    if source is None or started is None:
        return True
    following: dict[str, list[str]] = defaultdict(list)
    query = select(Token.source_id, Token.consumer_id).where(
        Token.workflow_id == source.workflow_id, Token.consumer_id.is_not(None)
    )
    for token in turn.read(query):
        following[token.source_id].append(token.consumer_id)
    came_of_it = reach([started], lambda id: following.get(id, ()))
    return source.id not in came_of_it and not withdrawn.isdisjoint(came_of_it)


def _start_as_before(turn: Turn, net: Net, runs: dict[str, StageExecution]) -> set[str]:
    """Let new runs take what the last ones in their threads took, and no other branch's.

    Returns those for which there was a last one.
    """
    before: dict[str, StageExecution] = {}
    for thread, run in runs.items():
        if last := last_in(turn, run, thread):
            before[last] = run
    query = select(
        Token.source_id, Token.thread, Token.kind, Token.ordinal, Token.consumer_id
    ).where(
        Token.workflow_id == net.workflow.id,
        Token.downstream_ref_id == next(iter(runs.values())).ref_id,
    )
    rows = turn.read(query).all()
    used: dict[str, int] = defaultdict(int)
    for token in rows:
        used[token.source_id] = max(used[token.source_id], token.ordinal)
    for token in rows:
        if token.consumer_id not in before:
            continue
        run, source = before[token.consumer_id], turn.reader.stage(net, token.source_id)
        assert source is not None
        used[token.source_id] += 1
        ordinal = used[token.source_id]
        _consume(turn, Arrival(source, run.ref_id, token.kind, token.thread, ordinal), run)
    return {run.id for run in before.values()}


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
    for n, (thread, run) in enumerate(runs.items()):
        lead = Arrival(source, opening.target, TokenKind.LIVE, source.thread, n)
        if net.rule_of(run).starts_early:
            _begin_round(turn, net, replace(lead, thread=thread), run)
        else:
            _consume(turn, lead, run)


def _begin_round(turn: Turn, net: Net, lead: Arrival, run: StageExecution) -> None:
    """Let a join that goes on without all its branches have started by what a jump brings."""
    tallies = turn.reader.tallies(net, run.ref_id)
    thread = lead.thread if net.rule_of(run).matches_threads else ""
    edges = net.upstream.get(run.ref_id, {})
    tally = tallies.setdefault(thread, Tally(edges=len(edges)))
    if lead.source.ref_id in edges:
        tally.add(lead.source.ref_id, lead.kind, consumed=1)
    else:
        tally.add_start(lead.source.ref_id)
    write_token(turn, lead, lead.kind, consumer_id=run.id)


def _newest_tokens(
    turn: Turn, net: Net, outside: StageExecution, ref_id: str, opening: Opening
) -> Iterator[tuple[Arrival, str | None]]:
    """The last token of each thread on an edge, to be put once more, and what it has started."""
    rows: Any = turn.read(
        select(Token.source_id, Token.thread, Token.kind, Token.ordinal, Token.consumer_id)
        .where(
            Token.workflow_id == outside.workflow_id,
            Token.upstream_ref_id == outside.ref_id,
            Token.downstream_ref_id == ref_id,
            Token.generation == outside.generation,
        )
        .order_by(Token.source_id, Token.ordinal)
    )
    last: dict[str, tuple[str, TokenKind, str | None]] = {}
    used: dict[str, int] = defaultdict(int)
    for source_id, thread, kind, ordinal, consumer_id in rows:
        used[source_id] = ordinal
        if opening.covers(thread):
            last[thread] = source_id, kind, consumer_id
    for thread, (source_id, kind, consumer_id) in last.items():
        used[source_id] += 1
        run = turn.reader.stage(net, source_id)
        assert run is not None
        yield Arrival(run, ref_id, kind, thread, used[source_id]), consumer_id


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
