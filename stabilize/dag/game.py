"""The token game of one definition, played over values: what may happen next, what comes of it.

Joins, splits, gates and outcomes decide here as they do in the engine; what handlers carry out on
rows is carried out here on a `Marking`. A condition may hold or not, a choice may fall on any of
its stages, a signal comes; a task succeeds, unless its stage is said to be one that may fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from stabilize.dag import gates
from stabilize.dag.joins import (
    Decision,
    JoinRule,
    Tally,
    Verdict,
    branch_of,
    counts_as,
    decide,
    failure_is_absorbed,
    parent_of,
    resets,
    to_be_closed,
    to_be_taken,
)
from stabilize.dag.marking import Arrival, Kept, Marking, Move, Run, numbered, remove
from stabilize.dag.nodes import StageNode
from stabilize.dag.outcome import TOKEN_OF
from stabilize.dag.splits import Deal, SplitRule, deals
from stabilize.dag.topological import reach, topological_sort
from stabilize.dag.withdrawal import lies_in, withdrawal
from stabilize.status import ENDING_STATUSES, JoinType, SplitType, TokenKind, WorkflowStatus

S = WorkflowStatus
Teller = Callable[[Marking, str, Tally, Decision], None]
"""Is told what a join decides, before it is done."""


class Game:
    """The moves of one definition, whose graph has been found valid."""

    def __init__(
        self, stages: Iterable[StageNode], may_fail: Collection[str], tell: Teller
    ) -> None:
        self.stages = {stage.ref_id: stage for stage in stages}
        self.rules = {ref: JoinRule.of(stage) for ref, stage in self.stages.items()}
        self.upstream = {r: sorted(s.requisite_stage_ref_ids) for r, s in self.stages.items()}
        self.downstream: dict[str, list[str]] = {ref: [] for ref in self.stages}
        for ref, sources in self.upstream.items():
            for source in sources:
                self.downstream[source].append(ref)
        self.watched: dict[str, list[WorkflowStatus]] = {}
        for stage in self.stages.values():
            if stage.milestone_ref_id and stage.milestone_status:
                wanted = self.watched.setdefault(stage.milestone_ref_id, [])
                wanted.append(WorkflowStatus[stage.milestone_status])
        chosen = {r for r, s in self.stages.items() if s.deferred_choice_group}
        self.lasting = chosen.union(self.watched)
        """The stages that begin in one move and end in another, for others are told of it."""
        self.sections = {r: self._section(r) for r, s in self.stages.items() if s.section}
        self._quiet = [r for r in self._in_order() if self.rules[r].asks_for_quiet]
        self._place = {ref: place for place, ref in enumerate(self.stages)}
        self._counts = {0, 1, 2, *(r.needed for r in self.rules.values())}
        self._deals: dict[str, list[Deal | None]] = {}
        self._fresh: list[Run] = []
        self.doubled: set[str] = set()
        """Stages seen to run twice in one thread: two of their tokens lie on one edge."""
        self._may_fail = may_fail
        self._tell = tell

    def _in_order(self) -> list[str]:
        return [stage.ref_id for stage in topological_sort(self.stages.values())]

    def _section(self, ref_id: str) -> set[str]:
        """The stages of the same section that hang together with this one."""
        name = self.stages[ref_id].section
        return reach(
            [ref_id],
            lambda ref: (
                near
                for near in (*self.upstream[ref], *self.downstream[ref])
                if self.stages[near].section == name
            ),
        )

    def start(self) -> Marking:
        marking = Marking()
        for ref_id, upstream in self.upstream.items():
            if not upstream:
                self._activate(marking, ref_id, "")
        self._turn_over(marking)
        return marking

    # --- what may happen ------------------------------------------------------------------------

    def moves(self, marking: Marking, run: Run) -> list[Move]:
        """What a run may do next; nothing: it waits."""
        stage, wanted = self.stages[run.ref_id], self.watched.get(run.ref_id, [])
        if run.status is S.TERMINAL:
            return self.endings(run, stage.failure_status())
        if run.status is S.NOT_STARTED:
            match self.obstacle(marking, run):
                case gates.PassOver():
                    return self.endings(run, S.SKIPPED)
                case gates.Withdraw():
                    return [Move(run, S.CANCELED)]
                case gates.Wait() if stage.trigger and self._may_choose(marking, run):
                    return [Move(run, S.NOT_STARTED)]  # its trigger comes
                case gates.Wait():
                    return []
        if run.ref_id in self.lasting:
            course = [S.NOT_STARTED, S.RUNNING, *(s for s in wanted if not s.is_complete)]
            course = list(dict.fromkeys(course))
            if run.status is not course[-1]:
                return [Move(run, course[course.index(run.status) + 1])]
        ends = [S.SUCCEEDED, *(status for status in wanted if status.is_complete)]
        if run.ref_id in self._may_fail:
            ends.append(stage.failure_status())
        return [move for end in dict.fromkeys(ends) for move in self.endings(run, end)]

    def obstacle(self, marking: Marking, run: Run) -> gates.Obstacle | None:
        """What keeps a run from beginning."""
        stage, claims = self.stages[run.ref_id], marking.claims
        found: gates.Obstacle | None = None
        if group := stage.deferred_choice_group:
            key = gates.choice_key(group, run.thread)
            found = gates.choice(group, claims.get(("choice", key)), run.id)
        if not found and (ref := stage.milestone_ref_id) and stage.milestone_status:
            status, ended = marking.statuses.get(ref, S.NOT_STARTED), self._ended(marking, ref)
            found = gates.milestone(
                ref, WorkflowStatus[stage.milestone_status], status, has_ended=ended
            )
        if not found and (mutex := stage.mutex_key):
            found = gates.right("mutex", mutex, claims.get(("mutex", mutex)), run.id)
        if not found and (name := stage.section):
            part = min(self.sections[run.ref_id])
            found = gates.right("section", name, claims.get(("section", name)), part)
        return found

    def _may_choose(self, marking: Marking, run: Run) -> bool:
        group = self.stages[run.ref_id].deferred_choice_group or ""
        return group != "" and ("choice", gates.choice_key(group, run.thread)) not in marking.claims

    def _ended(self, marking: Marking, ref_id: str) -> bool:
        return ref_id in marking.runs and all(run.ref_id != ref_id for run in marking.active)

    def endings(self, run: Run, status: WorkflowStatus) -> list[Move]:
        edges = self.downstream[run.ref_id]
        if TOKEN_OF[status] is not TokenKind.LIVE or not edges:
            return [Move(run, status, {})]
        if (found := self._deals.get(run.ref_id)) is None:
            rule = SplitRule.of(self.stages[run.ref_id])
            found = self._deals[run.ref_id] = deals(rule, edges, self._counts)
        fails = self.stages[run.ref_id].failure_status()
        none = dict.fromkeys(edges, 0) if fails is S.FAILED_CONTINUE else None
        return [Move(run, *((status, d) if d is not None else (fails, none))) for d in found]

    # --- what comes of it -----------------------------------------------------------------------

    def play(self, marking: Marking, move: Move) -> None:
        """Change a marking by what one run does."""
        run, status = move.run, move.status
        if status is S.NOT_STARTED:
            self._choose(marking, run)
        elif run.status is S.NOT_STARTED and status not in (S.SKIPPED, S.CANCELED):
            marking.trail = (marking.trail, run.ref_id)
            self._take_rights(marking, run)
        if status.is_complete:
            self._end(marking, run, status, move.deal)
        else:
            del marking.active[run]
            marking.active[run._replace(status=status)] = None
            marking.statuses[run.ref_id] = status
        if not marking.is_terminated:
            self._settle_quiet(marking)
        self._turn_over(marking)

    def _turn_over(self, marking: Marking) -> None:
        """Of the runs that became active together the first comes last: it is played first."""
        while self._fresh:
            run = self._fresh.pop()
            if run in marking.active:
                del marking.active[run]
                marking.active[run] = None

    def _take_rights(self, marking: Marking, run: Run) -> None:
        stage, claims = self.stages[run.ref_id], marking.claims
        if stage.mutex_key:
            claims["mutex", stage.mutex_key] = run.id
        if stage.section:
            claims["section", stage.section] = min(self.sections[run.ref_id])
        self._choose(marking, run)

    def _choose(self, marking: Marking, run: Run) -> None:
        if group := self.stages[run.ref_id].deferred_choice_group:
            marking.claims["choice", gates.choice_key(group, run.thread)] = run.id
            for other in list(marking.active):
                offered = self.stages[other.ref_id].deferred_choice_group == group
                waits = (other.thread, other.status) == (run.thread, S.NOT_STARTED)
                if offered and waits and other != run:
                    self._end(marking, other, S.CANCELED)

    def _end(
        self, marking: Marking, run: Run, status: WorkflowStatus, deal: Deal | None = None
    ) -> None:
        """End a run and put its tokens."""
        del marking.active[run]
        self._leave(marking, run, status)
        if self.stages[run.ref_id].end and status in ENDING_STATUSES:
            marking.active.clear()
            marking.is_terminated = True
        elif status is S.TERMINAL and not self.failure_is_absorbed(run.ref_id):
            marking.has_failed = True
        else:
            self._put(marking, self._tokens(run, TOKEN_OF[status], deal or {}))

    def failure_is_absorbed(self, ref_id: str) -> bool:
        return failure_is_absorbed(ref_id, self._joins_after)

    def _joins_after(self, ref_id: str) -> Iterator[tuple[str, JoinRule]]:
        return ((ref, self.rules[ref]) for ref in self.downstream[ref_id])

    def _leave(self, marking: Marking, run: Run, status: WorkflowStatus) -> None:
        stage, claims = self.stages[run.ref_id], marking.claims
        if run.ref_id in self.watched:
            withdrawn = (run.status, status) == (S.NOT_STARTED, S.CANCELED)
            marking.statuses[run.ref_id] = S.SKIPPED if withdrawn else status
        if stage.mutex_key and claims.get(("mutex", stage.mutex_key)) == run.id:
            del claims["mutex", stage.mutex_key]
        if stage.section:
            part = self.sections[run.ref_id]
            owns = claims.get(("section", stage.section)) == min(part)
            if owns and all(self._ended(marking, ref) for ref in part):
                del claims["section", stage.section]

    def _tokens(self, run: Run, kind: TokenKind, deal: Deal) -> Iterator[Arrival]:
        apart = self.stages[run.ref_id].split_type is SplitType.THREADS
        for ref_id in self.downstream[run.ref_id]:
            count = deal.get(ref_id)
            if not count:
                dead = kind if count is None else TokenKind.DEAD
                yield Arrival(run, ref_id, dead, run.thread)
            for ordinal in range(count or 0):
                number = f"{run.number}.{ordinal}"
                own = branch_of(self._place[run.ref_id], run.thread, number)
                yield Arrival(run, ref_id, kind, own if apart else run.thread)

    def _activate(
        self, marking: Marking, ref_id: str, thread: str, status: WorkflowStatus = S.NOT_STARTED
    ) -> Run:
        number = marking.runs[ref_id] = marking.runs.get(ref_id, 0) + 1
        run = Run(ref_id, thread, number, status)
        if (ref_id, thread) in marking.threads:
            self.doubled.add(ref_id)
        marking.threads.add((ref_id, thread))
        marking.active[run] = None
        marking.statuses.pop(ref_id, None)
        self._fresh.append(run)
        return run

    def _put(self, marking: Marking, arrivals: Iterable[Arrival]) -> None:
        wave = deque(arrivals)
        while wave:
            arrival = wave.popleft()
            source, ref_id, kind, thread = arrival
            rule = self.rules[ref_id]
            kind = counts_as(kind, rule)
            if rule.matches_threads:
                self._settle(marking, arrival._replace(kind=kind), rule, wave)
            else:
                kept = marking.kept.setdefault(ref_id, [])
                number = len(kept) + 1 if rule.rest == "block" else source.number
                kept.append(Kept(source.ref_id, kind, thread, number))
                self._settle_kept(marking, ref_id, rule, wave)

    def _settle(
        self, marking: Marking, arrival: Arrival, rule: JoinRule, wave: deque[Arrival]
    ) -> None:
        _, ref_id, kind, thread = arrival
        tallies = marking.tallies.setdefault(ref_id, {})
        tally = tallies.get(thread)
        if tally is None:
            tally = tallies[thread] = Tally(edges=len(self.upstream[ref_id]))
        tally.add(arrival.source.ref_id, kind)
        decision = decide(tally, rule)
        self._tell(marking, ref_id, tally, decision)
        if decision.verdict is Verdict.FIRE:
            if rule.type is JoinType.MULTI_MERGE and tally.fired:
                number = marking.runs[ref_id] + 1
                thread = branch_of(self._place[ref_id], thread, number)
            self._activate(marking, ref_id, thread)
            tally.fired += 1
            if rule.rest == "cancel":
                self._withdraw_branches(marking, ref_id, tally, arrival.thread, wave)
        elif decision.verdict is Verdict.FAIL:
            self._activate(marking, ref_id, thread, S.TERMINAL)
            tally.fired += 1
        elif decision.verdict is Verdict.PASS:
            self._pass_over(marking, ref_id, decision, thread, wave)
        if decision.verdict is Verdict.PASS or (tally.fired and resets(tally, rule)):
            tallies.pop(arrival.thread)

    def _settle_kept(
        self,
        marking: Marking,
        ref_id: str,
        rule: JoinRule,
        wave: deque[Arrival],
        *,
        quiet: bool = False,
    ) -> None:
        while tokens := marking.kept[ref_id]:
            tokens.sort(key=lambda token: token.number)
            if rule.rest == "block":
                tokens[:] = numbered(tokens)
            tally = self.tally_of(marking, ref_id)
            tally.quiet = quiet
            decision = decide(tally, rule)
            self._tell(marking, ref_id, tally, decision)
            verdict, blocks = decision.verdict, rule.rest == "block"
            if verdict is Verdict.WAIT:
                if not (blocks and tally.fired and resets(tally, rule)):
                    return
                remove(tokens, to_be_closed(tokens))
                continue
            picked = to_be_taken(tokens, rule)
            thread = min((token.thread for token in picked or tokens), key=len)
            passed = verdict is Verdict.PASS
            remove(tokens, to_be_closed(tokens) if passed and blocks else picked)
            if passed:
                self._pass_over(marking, ref_id, decision, thread, wave)
                continue
            thread = parent_of(thread) if rule.type is JoinType.THREADS else thread
            status = S.TERMINAL if verdict is Verdict.FAIL else S.NOT_STARTED
            run = self._activate(marking, ref_id, thread, status)
            if blocks:
                tokens += [token._replace(consumer_id=run.id) for token in picked]

    def tally_of(self, marking: Marking, ref_id: str) -> Tally:
        """What lies before a join that keeps tokens."""
        tally = Tally(edges=len(self.upstream[ref_id]))
        for token in marking.kept.get(ref_id, ()):
            consumed = int(token.consumer_id is not None)
            tally.add(token.upstream_ref_id, token.kind, consumed=consumed)
        return tally

    def _settle_quiet(self, marking: Marking) -> None:
        for ref_id in self._quiet:
            wave: deque[Arrival] = deque()
            if marking.kept.get(ref_id) and not self._may_come(marking, ref_id):
                self._settle_kept(marking, ref_id, self.rules[ref_id], wave, quiet=True)
                self._put(marking, wave)

    def _may_come(self, marking: Marking, ref_id: str) -> bool:
        lacking = set(self.upstream[ref_id])
        if self.rules[ref_id].type is not JoinType.THREADS:
            lacking -= {token.upstream_ref_id for token in marking.kept[ref_id]}
        above = reach(lacking, lambda ref: (r for r in self.upstream[ref] if r != ref_id))
        return any(run.ref_id in above for run in marking.active)

    def _withdraw_branches(
        self, marking: Marking, ref_id: str, tally: Tally, thread: str, wave: deque[Arrival]
    ) -> None:
        """The join has what it needs: end what is still under way on its other branches."""

        def active(ref: str, below: bool) -> list[Run]:
            runs = (run for run in marking.active if run.ref_id == ref)
            going_on = (run for run in runs if run.status is not S.TERMINAL)  # which has failed
            return [run for run in going_on if lies_in(run.thread, thread, below)]

        lost = withdrawal(
            [source for source in self.upstream[ref_id] if source not in tally.best],
            has_begun=lambda ref, below: (
                (ref, thread) in marking.threads or bool(active(ref, below))
            ),
            merges_threads=lambda ref: self.rules[ref].type is JoinType.THREADS,
            upstream=self.upstream.__getitem__,
        )
        for ref, below in lost.begun.items():
            for run in active(ref, below):
                del marking.active[run]
                self._leave(marking, run, S.CANCELED)
                wave.extend(self._tokens(run, TokenKind.DEAD, {}))
        for ref, below in lost.ahead.items():
            marking.deaden(ref, thread, below)

    def _pass_over(
        self, marking: Marking, ref_id: str, decision: Decision, thread: str, wave: deque[Arrival]
    ) -> None:
        assert decision.passes is not None
        run = self._activate(marking, ref_id, thread)
        del marking.active[run]
        skipped = decision.passes is TokenKind.DEAD
        self._leave(marking, run, S.SKIPPED if skipped else S.NOT_STARTED)
        wave.extend(self._tokens(run, decision.passes, {}))
