"""Which part of the graph a jump or a restart opens again, and in which threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Update, or_, select

from stabilize.dag.joins import parent_of
from stabilize.dag.topological import reach
from stabilize.handlers.tokens import DISCARD
from stabilize.models import StageExecution, Token
from stabilize.net import Net
from stabilize.reader import UNDER_WAY
from stabilize.status import JoinType, SplitType, StagePhase, WorkflowStatus
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
    is_alone: bool = False
    """Other threads go on meanwhile, in the generation in which they are."""

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
        if stage.split_type is SplitType.THREADS
        or (stage.join_type is JoinType.MULTI_MERGE and stage.ref_id != target.ref_id)
    )  # the other runs of a merge that is the target itself are of other branches
    ran = _threads_of(turn, target)
    within = None if source is None else _thread_for(turn, net, source, target, ran)
    if within is not None:
        opening = Opening(
            target=target.ref_id, refs=refs, starts=(within,), thread=within, openers=openers
        )
        return replace(opening, is_alone=bool(within) or not all(map(opening.covers, ran)))
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
    """The threads in which the stage has run, or is about to, since its part was last opened."""
    query = select(StageExecution.thread).where(
        StageExecution.workflow_id == target.workflow_id,
        StageExecution.ref_id == target.ref_id,
        StageExecution.generation == target.generation,
        or_(StageExecution.status.not_in((S.NOT_STARTED, S.SKIPPED)), UNDER_WAY),
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


def last_in(turn: Turn, fresh: StageExecution, thread: str) -> str | None:
    """The last run of a stage that has ended in one thread."""
    last = select(StageExecution.id).where(
        StageExecution.workflow_id == fresh.workflow_id,
        StageExecution.ref_id == fresh.ref_id,
        StageExecution.thread == thread,
        StageExecution.phase == StagePhase.ENDED,
    )
    id: str | None = turn.read(last.order_by(StageExecution.run.desc()).limit(1)).scalar()
    return id
