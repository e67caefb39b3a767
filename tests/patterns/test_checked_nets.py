"""`workflow.check()` on random nets, against those who play them one by one.

`STABILIZE_NETS=2000 pytest tests/patterns/test_checked_nets.py` checks so many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations, count, islice, product

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stabilize import Fault, Finding, JoinType, SplitType, StageExecution
from stabilize.dag.marking import Marking, Move
from stabilize.dag.soundness import Check
from stabilize.dag.validation import InvalidStageGraphError
from tests.patterns.simulator import Node, Outcome, Simulator
from tests.patterns.test_generated_nets import nets
from tests.support.builders import stage, workflow

NETS = int(os.environ.get("STABILIZE_NETS", "60"))
pytestmark = pytest.mark.timeout(120 + 5 * NETS)
_HERE = settings(
    max_examples=NETS,
    deadline=None,
    print_blob=True,
    derandomize="STABILIZE_NETS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
_MOST_RUNS, _MOST_WAYS = 60, 1_000


def by_kind(findings: tuple[Finding, ...]) -> dict[Fault, set[str | None]]:
    return {kind: {f.stage for f in findings if f.kind is kind} for kind in Fault}


# --- sound by construction --------------------------------------------------------------------


class Blocks:
    """Makes nets of blocks with one way in and one way out."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.stages: list[StageExecution] = []
        self.numbers = count()

    def add(self, after: list[str], **fields: object) -> str:
        ref_id = f"s{next(self.numbers)}"
        self.stages.append(stage(ref_id, after=after, **fields))  # type: ignore[arg-type]
        return ref_id

    def block(self, after: list[str], depth: int, in_threads: bool = False) -> str:
        """Add a block behind these stages; return its last stage."""
        kinds = ["one", "sequence", "AND", "XOR", "OR", "some", *["THREADS"] * (not in_threads)]
        kind = self.draw(st.sampled_from(kinds if depth and len(self.stages) < 25 else ["one"]))
        if kind == "one":
            return self.add(after, mutex_key=self.draw(st.sampled_from([None, "k"])))
        if kind == "sequence":
            return self.block([self.block(after, depth - 1, in_threads)], depth - 1, in_threads)
        if kind == "THREADS":
            many = self.draw(st.integers(1, 3))
            split = self.add(after, split_type=SplitType.THREADS, split_count=many)
            last = self.block([split], depth - 1, True)
            return self.add([last], join_type=JoinType.THREADS, join_threshold=many)
        return self.fan(kind, after, depth, in_threads)

    def fan(self, kind: str, after: list[str], depth: int, in_threads: bool) -> str:
        split = self.add(after)
        first = len(self.stages)
        width = self.draw(st.integers(2, 3))
        ends, branches = [], []
        for _ in range(width):
            branches.append(f"s{len(self.stages)}")
            ends.append(self.block([split], depth - 1, in_threads))
        if kind in ("XOR", "OR"):
            chooser = self.stages[first - 1]
            chooser.split_type = SplitType[kind]
            chooser.split_conditions = {ref_id: f"to_{ref_id}" for ref_id in branches}
            chooser.split_default = branches[0]
            return self.add(ends, join_type=JoinType[kind])
        if kind == "some":
            needed = self.draw(st.integers(1, width))
            return self.add(ends, join_type=JoinType.N_OF_M, join_threshold=needed)
        return self.add(ends)


@st.composite
def structured(draw: st.DrawFn) -> list[StageExecution]:
    blocks = Blocks(draw)
    blocks.block([], 4)
    return blocks.stages


@_HERE
@given(stages=structured())
def test_nothing_is_found_in_a_net_of_blocks(stages: list[StageExecution]) -> None:
    assert workflow(*stages).check() == ()


# --- as the simulator says --------------------------------------------------------------------


class Watched(Simulator):
    """The simulator, and which joins started although a branch brought nothing."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__(nodes)
        self.loose: set[str] = set()

    def _all(self, node: Node, came: dict[str, str], thread: str) -> None:
        if len(came) == len(node.after) and set(came.values()) == {"LIVE", "DEAD"}:
            self.loose |= {node.ref} if node.join == "AND" else set()
        super()._all(node, came, thread)

    @property
    def left_over(self) -> set[str]:
        lying = ((*where, came) for where, came in self.came.items())
        return {r for r, t, came in lying if "LIVE" in came.values() and not self.fired[r, t]}


def following(node: Node, nodes: list[Node]) -> list[str]:
    return [other.ref for other in nodes if node.ref in other.after]


def with_conditions(nodes: list[Node]) -> list[StageExecution]:
    """The net as a workflow in which each condition may hold or not."""
    return [
        stage(
            node.ref,
            after=node.after,
            join_type=JoinType[node.join],
            join_threshold=node.needs if node.join == "N_OF_M" else 0,
            split_type=SplitType[node.split],
            split_conditions={
                ref: f"from_{node.ref}_to_{ref}"
                for ref in following(node, nodes)
                if node.split != "AND"
            },
            split_default=node.default,
        )
        for node in nodes
    ]


def ways(nodes: list[Node]) -> Iterator[tuple[Node, ...]]:
    """The net with every set of conditions that may hold."""
    return product(
        *(
            [replace(node, chosen=frozenset(chosen)) for chosen in _sets(following(node, nodes))]
            if node.split != "AND"
            else [node]
            for node in nodes
        )
    )


def _sets(refs: list[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(refs, size) for size in range(len(refs) + 1))


@pytest.mark.slow
@_HERE
@given(nodes=nets(("ok",)))
def test_all_is_found_that_the_simulator_runs_into_and_nothing_else(nodes: list[Node]) -> None:
    played: list[tuple[Watched, Outcome]] = []
    for way in islice(ways(nodes), _MOST_WAYS + 1):
        game = Watched(list(way))
        played.append((game, game.play()))
        assume(sum(map(len, played[-1][1].runs.values())) <= _MOST_RUNS)
    assume(len(played) <= _MOST_WAYS)

    findings = workflow(*with_conditions(nodes)).check()

    fatal = {f.stage for f in findings if f.is_fatal}
    failed = {ref for _, o in played for ref, ends in o.runs.items() if "TERMINAL" in ends}
    went_wrong = any(o.status != "SUCCEEDED" for _, o in played)
    assert bool(fatal) == (went_wrong or bool(failed))
    assert failed <= fatal  # it stops at the first failure of each way, the check does not
    if fatal:
        return
    ran = {ref for _, o in played for ref, ends in o.runs.items() if "SUCCEEDED" in ends}
    again = {ref for _, o in played for ref, ends in o.runs.items() if ends.count("SUCCEEDED") > 1}
    found = by_kind(findings)
    assert found[Fault.DEAD_STAGE] == {n.ref for n in nodes if n.ref not in ran >= set(n.after)}
    assert found[Fault.LOOSE_JOIN] == set().union(*(game.loose for game, _ in played))
    assert found[Fault.LEFTOVER] == set().union(*(game.left_over for game, _ in played))
    assert found[Fault.REPEATED] <= again
    assert bool(found[Fault.REPEATED]) == bool(again)


# --- the orders that are left out -------------------------------------------------------------


class Unreduced(Check):
    """Plays every order of everything."""

    def _moves(self, marking: Marking) -> list[Move]:
        return [move for run in marking.active for move in self._game.moves(marking, run)]


JOINS = ["AND", "AND", "OR", "XOR", "MULTI_MERGE", "DISCRIMINATOR", "N_OF_M", "THREADS"]
WATCHED = ["RUNNING", "SUCCEEDED", "SUSPENDED", "NOT_STARTED", "SKIPPED", "TERMINAL"]


@st.composite
def everything(draw: st.DrawFn) -> list[StageExecution]:
    """A net in which stages hinder and withdraw each other in all ways there are."""

    def maybe(*values: object) -> object:
        return draw(st.sampled_from([None, None, None, *values]))

    refs = [f"s{n}" for n in range(draw(st.integers(2, 6)))]
    after = {
        ref: draw(st.sets(st.sampled_from(refs[max(0, n - 3) : n]), max_size=3)) if n else set()
        for n, ref in enumerate(refs)
    }
    made = []
    for ref in refs:
        branches = [other for other in refs if ref in after[other]]
        fields: dict[str, object] = {
            "section": maybe("m", "n"),
            "mutex_key": maybe("k"),
            "deferred_choice_group": maybe("g"),
            "end": maybe("terminate"),
            "on_branch_failure": maybe("fail", "dead", "arrive"),
        }
        join = draw(st.sampled_from(JOINS)) if after[ref] else "AND"
        fields["join_type"] = JoinType[join]
        if join in ("N_OF_M", "THREADS"):
            fields["join_threshold"] = draw(st.integers(1, len(after[ref])))
        if join in ("N_OF_M", "DISCRIMINATOR"):
            fields["join_rest"] = maybe("block", "cancel")
        if join in ("AND", "OR"):
            fields |= {"join_keep": draw(st.booleans()), "join_scope": maybe("general")}
        if branches:
            fields["split_type"] = draw(st.sampled_from(SplitType))
            fields["split_count"] = draw(st.integers(0, 2))
            fields["split_conditions"] = {branch: f"c_{ref}_{branch}" for branch in branches}
            fields["split_default"] = branches[0]
        if fields.get("split_type") in (None, SplitType.AND, SplitType.THREADS):
            fields |= {"split_conditions": None, "split_default": None}
        if maybe(True):
            fields["milestone_ref_id"] = draw(st.sampled_from(refs))
            fields["milestone_status"] = draw(st.sampled_from(WATCHED))
        made.append(stage(ref, after=sorted(after[ref]), **fields))  # type: ignore[arg-type]
    return made


@_HERE
@given(stages=everything(), failing=st.sets(st.sampled_from(["s0", "s2", "s4"])))
def test_to_leave_out_orders_that_make_no_difference_makes_none(
    stages: list[StageExecution], failing: set[str]
) -> None:
    try:
        made = workflow(*stages)
    except InvalidStageGraphError:
        assume(False)
    reduced = Check(made.stages, failing, 40_000)  # it may have to start over
    full = Unreduced(made.stages, failing, 20_000)

    some, every = by_kind(reduced.findings()), by_kind(full.findings())

    assume(not every[Fault.UNDECIDED])
    assert some == every
