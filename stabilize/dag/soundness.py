"""What can go wrong in a workflow by its definition alone, each fault with a path that shows it.

A workflow is sound if whatever has begun can end, nothing is left over then, and every stage can
run: W. van der Aalst and others, *Soundness of workflow nets: classification, decidability, and
analysis*, Formal Aspects of Computing 23(3), 2011. Every way that the token game can go is played,
but for orders that make no difference (`rivalry`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from stabilize.dag.expressions import compile_expression
from stabilize.dag.game import Game
from stabilize.dag.gates import Wait
from stabilize.dag.joins import Decision, Tally, Verdict
from stabilize.dag.marking import Marking, Move
from stabilize.dag.nodes import StageNode
from stabilize.dag.rivalry import Rivals, above, counted_in, rivals_in
from stabilize.dag.splits import SplitRule, has_many_conditions
from stabilize.dag.topological import reach
from stabilize.dag.validation import validate_stage_graph
from stabilize.status import ENDING_STATUSES, JoinType, TokenKind, WorkflowStatus

S = WorkflowStatus
MAX_STEPS = 50_000


class Fault(Enum):
    """What can go wrong, and what helps. To a workflow that ends TERMINAL by it, it is fatal."""

    DEADLOCK = "let what is waited for go on by itself, and take their turns in one order", True
    MERGED_TWICE = "join with JoinType.AND or OR, or choose one of them with an XOR split", True
    TOO_FEW_BRANCHES = "lower its join_threshold, or take more branches before it", True
    NO_BRANCH = "give it a split_default", True
    REPEATED = "join with JoinType.AND or OR if one run is meant", False
    LOOSE_JOIN = "join with JoinType.XOR or OR to say so, or take every branch before it", False
    LEFTOVER = "let its branches come equally often, and in the same thread", False
    DEAD_STAGE = "take it out, or mend what is asked before it", False
    ENDLESS_LOOP = "let its condition read what its body puts out", False
    UNDECIDED = "allow more max_steps, or check parts of the workflow by themselves", False

    remedy: str
    is_fatal: bool

    def __init__(self, remedy: str, is_fatal: bool) -> None:
        self.remedy = remedy
        self.is_fatal = is_fatal

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Fault.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fault at a stage, and a way there: `path` has the stages that run first, in their order.

    Stages that have nothing to do with it are left out of the path. `UNDECIDED` is at no stage.
    """

    kind: Fault
    stage: str | None
    path: tuple[str, ...]
    cause: str
    remedy: str

    @property
    def is_fatal(self) -> bool:
        return self.kind.is_fatal

    def __str__(self) -> str:
        what = f"stage {self.stage!r} {self.cause}" if self.stage else self.cause
        way = f", after {' -> '.join(self.path)}" if self.path else ""
        return f"{self.kind}: {what}{way}; {self.remedy}"


def check(
    stages: Iterable[StageNode], *, may_fail: Collection[str] = (), max_steps: int = MAX_STEPS
) -> tuple[Finding, ...]:
    """Find what the top-level stages of a workflow can get wrong, what is fatal first.

    `may_fail`: the refs of stages that may fail as well as succeed. When `max_steps` moves were not
    enough, the last finding is `UNDECIDED`. Raises what `validate_stage_graph` raises.
    """
    tops = [stage for stage in stages if stage.parent_stage_id is None]
    validate_stage_graph(tops)
    return Check(tops, may_fail, max_steps).findings()


class Check:
    """One exploration, and what it has found."""

    def __init__(
        self, stages: Collection[StageNode], may_fail: Collection[str], max_steps: int
    ) -> None:
        self._game = Game(stages, may_fail, self._judge_join)
        self._steps = max_steps
        self._found: dict[tuple[Fault, str | None], Finding] = {}
        self._ran: set[str] = set()
        self._passed: dict[str, Any] = {}

    def findings(self) -> tuple[Finding, ...]:
        is_complete = self._explore()
        splits = (SplitRule.of(stage) for stage in self._game.stages.values())
        if is_complete and not any(map(has_many_conditions, splits)):
            self._note_dead_stages()
        else:
            cause = "there are more ways than were tried, and they may go wrong"
            self._note(Fault.UNDECIDED, None, None, cause)
        place = {ref: place for place, ref in enumerate(self._game.stages)}
        return tuple(
            sorted(
                self._found.values(),
                key=lambda found: (not found.is_fatal, place.get(found.stage or "", len(place))),
            )
        )

    # --- every way --------------------------------------------------------------------------

    def _explore(self) -> bool:
        """Play every way, again when stages came up whose order counts; False: too many steps."""
        while True:
            doubled = set(self._game.doubled)
            self._rivals = rivals_in(self._game)
            self._counted = counted_in(self._game, self._rivals)
            is_complete = self._play_all()
            if not is_complete or self._game.doubled == doubled:
                return is_complete

    def _play_all(self) -> bool:
        """Play every way to its end; False: there were too many steps."""
        seen: set[Hashable] = set()
        waiting: list[tuple[Marking, Move | None]] = [(self._game.start(), None)]
        while waiting:
            marking, move = waiting.pop()
            if move is not None:
                marking = marking.copy()
                self._play(marking, move)
            while len(moves := self._moves(marking)) == 1 and self._steps > 0:
                self._play(marking, moves[0])
            if not moves:
                self._judge_end(marking)
            elif self._steps <= 0:
                return False
            elif (key := marking.key(self._counted)) not in seen:
                seen.add(key)
                waiting += [(marking, move) for move in reversed(moves)]
        return True

    def _moves(self, marking: Marking) -> list[Move]:
        """Moves enough to reach whatever can be reached; none: nothing can go on."""
        contested: dict[Rivals, list[Move]] = {}
        ending: list[Move] = []
        for run in reversed(marking.active):  # the furthest on: ways that part meet again soon
            rivals, moves = self._rivals.get(run.ref_id), self._game.moves(marking, run)
            if self._game.stages[run.ref_id].end:
                cuts = [move for move in moves if move.status in ENDING_STATUSES]
                ending += cuts  # short what the others do: after them nothing is missed
                self._ran |= {run.ref_id for move in cuts if _begins(move)}
                moves = [move for move in moves if move not in cuts]
            if rivals is not None:
                contested.setdefault(rivals, []).extend(moves)
            elif moves:
                return moves
        for rivals, moves in contested.items():
            others = (run for run in marking.active if run.ref_id not in rivals.members)
            if moves and all(run.ref_id not in rivals.above for run in others):
                return moves
        contending = [move for moves in contested.values() for move in moves]
        return contending or ending or self._late(marking)

    def _late(self, marking: Marking) -> list[Move]:
        """Nothing else can go on: the time comes by which stages that wait had to begin."""
        timed = (r for r in marking.active if self._game.stages[r.ref_id].start_time_expiry)
        return [move for run in timed for move in self._game.endings(run, S.SKIPPED)]

    def _play(self, marking: Marking, move: Move) -> None:
        self._steps -= 1
        run, stage = move.run, self._game.stages[move.run.ref_id]
        if _begins(move):
            self._ran.add(run.ref_id)
            if stage.loop and (cause := _endless(stage)):
                self._note(Fault.ENDLESS_LOOP, run.ref_id, marking.trail, cause)
        elif run.status is S.NOT_STARTED and move.status.is_complete:
            self._passed.setdefault(run.ref_id, marking.trail)
        if move.status is S.TERMINAL and move.deal is None:
            cause = "has a split of whose conditions none need hold"
            self._note(Fault.NO_BRANCH, run.ref_id, marking.trail, cause)
        self._game.play(marking, move)

    # --- what is wrong ----------------------------------------------------------------------

    def _judge_join(self, marking: Marking, ref: str, tally: Tally, decision: Decision) -> None:
        rule, trail = self._game.rules[ref], marking.trail
        match decision.verdict, rule.type:
            case Verdict.PASS, _:
                self._passed.setdefault(ref, trail)
            case Verdict.FAIL, JoinType.XOR:
                came = _both(tally.came_live[0], tally.came_live[-1])
                self._note(Fault.MERGED_TWICE, ref, trail, f"is an XOR join that {came} reach")
            case Verdict.FAIL, _:
                self._note(Fault.TOO_FEW_BRANCHES, ref, trail, f"fails: {decision.reason}")
            case Verdict.FIRE, JoinType.MULTI_MERGE if tally.fired:
                cause = "runs once for each branch that reaches it, and so does what follows it"
                self._note(Fault.REPEATED, ref, trail, cause)
            case Verdict.FIRE, JoinType.AND | JoinType.N_OF_M if rule.waits_for_all and tally.lost:
                cause = f"is an AND join that starts although {_all(tally.lost)} brings nothing"
                self._note(Fault.LOOSE_JOIN, ref, trail, cause)

    def _judge_end(self, marking: Marking) -> None:
        """Look at a marking in which nothing can go on."""
        if marking.has_failed or marking.is_terminated:
            return
        if marking.active:
            self._note_waits(marking)
            return
        game, trail = self._game, marking.trail
        lying = [(ref, tally) for ref, by in marking.tallies.items() for tally in by.values()]
        lying += [(ref, game.tally_of(marking, ref)) for ref, kept in marking.kept.items() if kept]
        stuck = {ref for ref, _ in lying if ref not in marking.runs}
        for ref, tally in lying:
            if ref in stuck and stuck.isdisjoint(above(game, ref)):
                self._note(Fault.DEADLOCK, ref, trail, *_lack(game, ref, tally))
            elif not stuck and _is_left_over(marking, ref, tally):
                cause = f"keeps a token of {_all(set(tally.came_live))} for which it never starts"
                self._note(Fault.LEFTOVER, ref, trail, cause)

    def _note_waits(self, marking: Marking) -> None:
        obstacles = ((run.ref_id, self._game.obstacle(marking, run)) for run in marking.active)
        waits = {ref: wait.key for ref, wait in obstacles if isinstance(wait, Wait)}
        told = "; ".join(f"{ref!r} waits for {_name(key)}" for ref, key in sorted(waits.items()))
        owners = (owner for (kind, _), owner in marking.claims.items() if kind == "section")
        cause = f"never begins ({told})"
        self._note(Fault.DEADLOCK, min(waits), marking.trail, cause, near=(*waits, *owners))

    def _note_dead_stages(self) -> None:
        known = self._ran.union(f.stage for f in self._found.values() if f.stage and f.is_fatal)
        for ref, before in self._game.upstream.items():
            if ref not in known and self._ran.issuperset(before):
                cause = "never runs, whatever is chosen"
                self._note(Fault.DEAD_STAGE, ref, self._passed.get(ref), cause)

    def _note(
        self,
        kind: Fault,
        ref: str | None,
        trail: Any,
        cause: str,
        remedy: str = "",
        near: Iterable[str] = (),
    ) -> None:
        """Keep the first finding of its kind at its stage."""
        if (kind, ref) in self._found:
            return
        before = reach([*near, ref] if ref else [], self._related)
        path: list[str] = []
        while trail is not None:
            trail, begun = trail
            if begun in before and begun != ref:
                path.append(begun)
        self._found[kind, ref] = Finding(
            kind=kind,
            stage=ref,
            path=tuple(reversed(path)),
            cause=cause,
            remedy=remedy or kind.remedy,
        )

    def _related(self, ref: str) -> Iterator[str]:
        """What it directly hangs on whether a stage begins."""
        yield from self._game.upstream[ref]
        yield from self._game.sections.get(ref, ())
        stage, stages = self._game.stages[ref], self._game.stages.values()
        if stage.milestone_ref_id:
            yield stage.milestone_ref_id
        if group := stage.deferred_choice_group:
            yield from (other.ref_id for other in stages if other.deferred_choice_group == group)


def _begins(move: Move) -> bool:
    never = (S.NOT_STARTED, S.SKIPPED, S.CANCELED)
    return move.run.status is S.NOT_STARTED and move.status not in never


def _both(first: str, second: str) -> str:
    return f"both {first!r} and {second!r}" if first != second else f"{first!r} twice"


def _all(refs: Iterable[str]) -> str:
    return " and ".join(map(repr, sorted(refs)))


def _name(key: str) -> str:
    kind, _, name = key.partition(":")
    return f"the {kind} {name!r}"


def _lack(game: Game, ref: str, tally: Tally) -> tuple[str, str]:
    """What a join waits for that never comes, and what helps."""
    rule = game.rules[ref]
    if rule.type is JoinType.THREADS:
        cause = f"waits for {rule.needed} threads for ever, and {tally.arrivals} came"
        return cause, "let split_count be a multiple of its join_threshold"
    missing = [source for source in game.upstream[ref] if source not in tally.best]
    cause = f"waits for ever for {_all(missing)} in the thread in which {_all(tally.best)} came"
    return cause, "join the threads before it, or split both of its branches into the same ones"


def _is_left_over(marking: Marking, ref: str, tally: Tally) -> bool:
    """Say whether a live token lies there that is no loser of a round which has started."""
    kept = marking.kept.get(ref, ())
    live = Counter(token.upstream_ref_id for token in kept if token.kind is TokenKind.LIVE)
    return any(count > 1 for count in live.values()) if tally.fired else tally.arrivals > 0


def _endless(stage: StageNode) -> str:
    """Why the loop that this stage decides about ends only at its limit, if it does."""
    settings, requisites = stage.context, set(stage.requisite_stage_ref_ids)
    condition = compile_expression(settings["_loop_condition"])
    is_while = settings["_loop_kind"] == "while"
    decides = requisites.isdisjoint(settings["_loop_body"]) == is_while
    if not decides or condition.names or bool(condition.evaluate({})) != is_while:
        return ""
    return (
        f"asks {condition.text!r}, which never changes, so that only max_iterations ends the loop"
    )
