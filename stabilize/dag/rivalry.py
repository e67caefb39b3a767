"""Which stages of a definition have to be played in every order, and which need not.

A run whose next move no other can disturb, and which disturbs no other's, may go on by itself
before them: it makes a persistent set of one (P. Godefroid, *Partial-Order Methods for the
Verification of Concurrent Systems*, LNCS 1032, 1996, after A. Valmari's stubborn sets, 1990).
What other orders reach is reached by this one, every marking in which nothing can go on included;
and no run ever comes back to where it was, so that no move is put off for ever. Tokens that meet at
a join do so whichever comes first, for a join counts what has come, thread by thread. For rivals
that does not hold: they are told here, and all moves of a group of them are played, as soon as no
run outside of the group can still let one of it begin. Nor does it hold once a stage has run twice
in one thread (`Game.doubled`). Up to the first time it does, so that this order comes upon it as
well as any other; from then on the joins below that stage have rivals, and all is played again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Self

from stabilize.dag.game import Game
from stabilize.dag.nodes import StageNode
from stabilize.dag.topological import reach, topological_sort
from stabilize.status import JoinType, SplitType, WorkflowStatus


@dataclass(frozen=True)
class Rivals:
    """Stages for which it counts who is first; `above` adds all that lets one of them begin."""

    members: frozenset[str]
    above: frozenset[str]

    @classmethod
    def of(cls, game: Game, members: Collection[str]) -> Self:
        def allowing(ref: str) -> Iterator[str]:
            yield from game.upstream[ref]
            if watched := game.stages[ref].milestone_ref_id:
                yield watched

        return cls(frozenset(members), frozenset(reach(members, allowing)))


def rivals_in(game: Game) -> dict[str, Rivals]:
    """The group of each stage that is in one; groups that share a stage are one."""
    groups: list[set[str]] = []
    sections = list(_users(game, lambda stage: stage.section))
    waiting = [*_rivalries(game), *(s for s in sections if _may_hold_and_wait(game, s))]
    while waiting:
        group = waiting.pop()
        near = [other for other in groups if not other.isdisjoint(group)]
        groups = [other for other in groups if other not in near] + [group.union(*near)]
        rivals = set[str]().union(*groups)
        waiting += [s for s in sections if not s.isdisjoint(rivals) and not s <= rivals]
    return {
        ref: rivals
        for rivals in (Rivals.of(game, group) for group in groups)
        for ref in rivals.members
    }


def counted_in(game: Game, rivals: Collection[str]) -> set[str]:
    """The stages whose number of runs so far may decide what follows."""
    return _repeated(game).union(game.sections, game.watched, rivals)


def above(game: Game, *ref_ids: str) -> set[str]:
    """Everything that leads to these stages."""
    direct = {source for ref in ref_ids for source in game.upstream[ref]}
    return reach(direct, game.upstream.__getitem__)


def _sources(game: Game) -> set[str]:
    """The stages that open threads: what follows them may run several times."""
    return {
        ref
        for ref, stage in game.stages.items()
        if stage.split_type is SplitType.THREADS or stage.join_type is JoinType.MULTI_MERGE
    }


def _repeated(game: Game) -> set[str]:
    """The stages that may run several times."""
    return reach(_sources(game) | game.doubled, game.downstream.__getitem__)


def _mixing(game: Game) -> set[str]:
    """The joins before which it counts which token comes first: they take those of all threads.

    A thread merge is none of them if one split has opened the threads that come to it, for then one
    is as good as another.
    """
    mixing: set[str] = set()
    sources = _sources(game)

    def not_merged(ref: str) -> list[str]:
        is_merge = game.rules[ref].type is JoinType.THREADS and ref not in mixing
        return [] if is_merge else game.upstream[ref]

    for stage in topological_sort(game.stages.values()):
        ref, rule = stage.ref_id, game.rules[stage.ref_id]
        if rule.type is JoinType.THREADS:
            before = reach(game.upstream[ref], not_merged)
            multi = any(game.rules[r].type is JoinType.MULTI_MERGE for r in before)
            if len(before & sources) > 1 or multi or before & mixing:
                mixing.add(ref)
        elif not rule.matches_threads and above(game, ref) & sources:
            mixing.add(ref)
    return mixing


def _fed_twice(game: Game) -> Iterator[str]:
    """The joins at which two tokens of one thread may come by one edge.

    Which of them the round has that the other edges complete hangs on who is first.
    """
    direct = {
        ref
        for source in game.doubled
        if game.rules[source].type is not JoinType.XOR or game.failure_is_absorbed(source)
        for ref in game.downstream[source]
    }
    below = reach(direct, game.downstream.__getitem__)
    return (ref for ref in below if len(game.upstream[ref]) > 1)


def _rivalries(game: Game) -> Iterator[set[str]]:
    for ref in (*_mixing(game), *_fed_twice(game)):
        yield above(game, ref)
    for ref, rule in game.rules.items():
        if rule.rest == "cancel":
            yield above(game, ref)  # the first ones withdraw the others
    yield from _watching(game)
    yield from _users(game, lambda stage: stage.deferred_choice_group)
    for users in _users(game, lambda stage: stage.mutex_key):
        if not users.isdisjoint(game.lasting):  # else each gives it back in the move that took it
            yield users


def _watching(game: Game) -> Iterator[set[str]]:
    """A stage and what it watches, which may soon not be any more what it is now."""
    repeated = _repeated(game)
    for ref, stage in game.stages.items():
        watched, status = stage.milestone_ref_id, stage.milestone_status
        if watched and status:
            chosen_early = stage.trigger and stage.deferred_choice_group
            if chosen_early or status == WorkflowStatus.NOT_STARTED.name or watched in repeated:
                yield {ref, watched} | above(game, watched)  # whose tokens change it
            elif not WorkflowStatus[status].is_complete:
                yield {ref, watched}


def _users(game: Game, key: Callable[[StageNode], str | None]) -> Iterator[set[str]]:
    users: dict[str | None, set[str]] = {}
    for ref, stage in game.stages.items():
        users.setdefault(key(stage), set()).add(ref)
    users.pop(None, None)
    return iter(users.values())


def _may_hold_and_wait(game: Game, section: set[str]) -> bool:
    """Say whether a part of a section, once begun, may wait for what is outside, or end it."""
    for ref in section:
        part = game.sections[ref]
        entries = {r for r in part if not game.upstream[r] or set(game.upstream[r]) - part}
        waits = any(game.stages[r].milestone_ref_id for r in part - entries)
        if len(entries) > 1 or waits or any(game.stages[r].end for r in part):
            return True
    return False
