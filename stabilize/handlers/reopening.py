"""Opening a part of the graph again: what jumps and restarts have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabilize.handlers.admission import forget_choices, settle_sections
from stabilize.handlers.closing import left_at_work, withdraw, withdraw_instances
from stabilize.handlers.flow import runs_under_way
from stabilize.handlers.offering import offer_again
from stabilize.handlers.opening import Opening, last_in
from stabilize.handlers.runs import activate, begun_anew, new_run
from stabilize.models import StageExecution
from stabilize.net import Net, is_active
from stabilize.status import StagePhase, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus


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
    enters it from outside is offered again as its newest runs left it. A target that starts before
    each edge has come goes on with the round in which it is.
    """
    withdrawn = _withdraw_part(turn, net, opening)
    discard = opening.discards()
    is_alone = opening.is_alone
    keeps_round = net.rule_of(net.newest[opening.target]).starts_early
    for ref_id in sorted(opening.refs, key=lambda ref: net.newest[ref].position):
        for stage in _with_parts(net, net.newest[ref_id]):
            if keeps_round and stage.ref_id == opening.target:
                continue
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
    offer_again(turn, net, runs, opening, source, withdrawn)
    settle_sections(turn, net, opening.refs, net.newest[opening.target], source)
    return list(runs.values())


def _withdraw_part(turn: Turn, net: Net, opening: Opening) -> set[str]:
    """End the runs of a part that are under way; return which they were."""
    withdrawn = set()
    for run in runs_under_way(turn, net):
        is_affected = run.ref_id in opening.refs and opening.covers(run.thread)
        if is_affected and run.parent_stage_id is None and is_active(run):
            withdraw(turn, net, run)
            withdrawn.add(run.id)
    for group in left_at_work(turn, net):
        if group.ref_id in opening.refs and opening.covers(group.thread):
            withdraw_instances(turn, net, group, unstarted=S.NOT_STARTED)
    return withdrawn


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
    id = last_in(turn, fresh, thread)
    old = turn.reader.stage(net, id) if id else None
    return begun_anew(fresh if old is None else old)
