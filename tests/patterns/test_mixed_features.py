"""Random definitions of many features end as the token game of `workflow.check()` may end.

`STABILIZE_NETS=2000 pytest tests/patterns/test_mixed_features.py` plays so many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stabilize import JoinType, Signal, SplitType, StageExecution, Workflow
from stabilize.dag.game import Game
from stabilize.dag.joins import Decision
from stabilize.dag.marking import Marking, Run
from stabilize.dag.validation import InvalidStageGraphError
from stabilize.models import Claim
from stabilize.status import StagePhase, TokenKind, WorkflowStatus
from tests.conftest import lend_or_skip
from tests.patterns.conftest import engine_at
from tests.support.builders import Engine, Ran, stage, workflow

NETS = int(os.environ.get("STABILIZE_NETS", "150"))
_HERE = settings(
    max_examples=NETS,
    deadline=None,
    print_blob=True,
    derandomize="STABILIZE_NETS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
_MOST_WAYS, _MOST_RUNS = 5_000, 40
_JOINS: list[dict[str, Any]] = [
    {},
    {"join_keep": True},
    {"join_type": JoinType.OR},
    {"join_type": JoinType.OR, "join_scope": "general"},
    {"join_type": JoinType.XOR},
    {"join_type": JoinType.MULTI_MERGE},
    *({"join_type": JoinType.DISCRIMINATOR, "join_rest": r} for r in (None, "block", "cancel")),
    *(
        {"join_type": JoinType.N_OF_M, "join_threshold": 2, "join_rest": rest}
        for rest in (None, "block", "cancel")
    ),
]
_GATES: list[dict[str, Any]] = [
    {},
    {},
    {},
    {},
    {"mutex_key": "k"},
    {"section": "m"},
    {"deferred_choice_group": "g"},
    {"deferred_choice_group": "g", "trigger": Signal("go")},
    {"trigger": Signal("go")},
    {"end": "terminate"},
]


@pytest.fixture(scope="module")
def engine(databases: Any) -> Iterator[Engine]:
    with lend_or_skip(databases, "sqlite-memory") as lent, engine_at(lent.url) as engine:
        yield engine


@st.composite
def definitions(draw: st.DrawFn) -> Workflow:
    made: list[StageExecution] = []
    for place in range(draw(st.integers(3, 6))):
        before = [one.ref_id for one in made[-4:]]
        least = min(len(before), draw(st.integers(0, 2)))
        picked = st.lists(st.sampled_from(before), min_size=least, max_size=3, unique=True)
        after = draw(picked) if before else []
        fields = dict(draw(st.sampled_from(_GATES)))
        if len(after) > 1:
            fields |= draw(st.sampled_from(_JOINS))
        elif after and draw(st.integers(0, 5)) == 5:
            fields |= {"join_type": JoinType.THREADS, "join_threshold": draw(st.integers(1, 2))}
        if draw(st.integers(0, 5)) == 5:
            fields |= {"split_type": SplitType.THREADS, "split_count": draw(st.integers(0, 2))}
        if after and draw(st.integers(0, 3)) == 3:
            fields["on_branch_failure"] = draw(st.sampled_from(["dead", "arrive"]))
        does = draw(st.sampled_from(["waits", "waits", "waits", "ok", "ok", "ok", "fails"]))
        flags = [{}, {"failPipeline": False}, {"continuePipelineOnFailure": True}]
        context = dict(draw(st.sampled_from(flags))) if does == "fails" else {}
        made.append(stage(f"s{place}", after=after, does=does, context=context, **fields))
    try:
        return workflow(*made)
    except InvalidStageGraphError:
        assume(False)
        raise


@dataclass
class Ended(Marking):
    """A state of the game that knows how often a run of each stage has ended how.

    A run that is withdrawn counts as skipped: to the game it is the same whether it had begun.
    """

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)

    def copy(self) -> Ended:
        return replace(super().copy(), ends=self.ends.copy())  # type: ignore[type-var, call-arg]


class Watching(Game):
    """Writes down how each run ends."""

    def begin(self) -> Ended:
        return Ended(**vars(self.start()))

    def _end(self, marking: Any, run: Run, status: WorkflowStatus, deal: Any = None) -> None:
        marking.ends[run.ref_id, _kind_of(status)] += 1
        super()._end(marking, run, status, deal)

    def _pass_over(self, marking: Any, ref_id: str, decision: Decision, *rest: Any) -> None:
        skipped = decision.passes is TokenKind.DEAD
        marking.ends[ref_id, "SKIPPED" if skipped else "NOT_STARTED"] += 1
        super()._pass_over(marking, ref_id, decision, *rest)

    def _withdraw_branches(self, marking: Any, *rest: Any) -> None:
        before = list(marking.active)
        super()._withdraw_branches(marking, *rest)
        for run in before:
            if run not in marking.active:
                marking.ends[run.ref_id, "SKIPPED"] += 1


def _kind_of(status: WorkflowStatus) -> str:
    return "SKIPPED" if status is WorkflowStatus.CANCELED else status.name


def status_of(marking: Marking) -> str:
    """How a workflow ends in which nothing can go on."""
    if marking.is_terminated:
        return "SUCCEEDED"
    lying = [ref for ref, by in (*marking.tallies.items(), *marking.kept.items()) if by]
    stuck = any(ref not in marking.runs for ref in lying)
    return "TERMINAL" if marking.has_failed or marking.active or stuck else "SUCCEEDED"


def outcomes(made: Workflow) -> set[tuple[str, Any]]:
    """Every way in which a workflow may end: its status, and how often each stage ended how.

    None instead where it ends before all is done.
    """
    failing = {s.ref_id for s in made.stages if s.tasks[0].implementing_class == "fails"}
    game = Watching(made.stages, failing, lambda *told: None)
    waiting, seen, found = [game.begin()], set[Any](), set[tuple[str, Any]]()
    while waiting:
        marking = waiting.pop()
        assume(len(seen) < _MOST_WAYS and sum(marking.runs.values()) < _MOST_RUNS)
        moves = [
            move
            for run in (() if marking.has_failed else marking.active)
            for move in game.moves(marking, run)
            if run.ref_id not in failing or move.status is not WorkflowStatus.SUCCEEDED
        ]
        if not moves:
            status = status_of(marking)
            is_cut = marking.is_terminated or status == "TERMINAL"
            found.add((status, None if is_cut else frozenset(marking.ends.items())))
        for move in moves:
            following = marking.copy()
            game.play(following, move)
            ends = frozenset(following.ends.items())
            key = following.key(game.stages), ends, following.is_terminated
            if key not in seen:
                seen.add(key)
                waiting.append(following)
    return found


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * NETS)
@_HERE
@given(made=definitions(), order=st.randoms(use_true_random=False))
def test_a_workflow_of_many_features_ends_in_one_of_the_ways_of_the_game(
    engine: Engine, made: Workflow, order: Any
) -> None:
    expected = outcomes(made)

    ran = _played(engine, made, order)

    assert ran.workflow.open_runs == 0
    runs = [run for run in ran.workflow.stage_runs if run.phase is StagePhase.ENDED]
    ends = Counter((run.ref_id, _kind_of(run.status)) for run in runs)
    ways = {(ran.status, frozenset(ends.items())), (ran.status, None)}
    assert ways & expected, (ran.status, ends)
    with engine.database.reading() as session:
        held = session.query(Claim.kind).where(Claim.scope == made.id, Claim.kind != "choice").all()
    assert ran.status == "TERMINAL" or not held


def _played(engine: Engine, made: Workflow, order: Any) -> Ran:
    """Play it to its end, one signal after another."""
    engine.submit(made)
    ran = engine.go_on(made)
    while not ran.workflow.status.is_complete:
        runs = ran.workflow.stage_runs
        waiting = [r for r in runs if r.status.name == "SUSPENDED" or r.waits_for]
        waiting = [r for r in waiting if not (r.waits_for or "").startswith(("mutex", "section"))]
        assert waiting, ran.statuses
        one = order.choice(waiting)
        engine.orchestrator.signal(made, one.id, "go", persistent=False)
        ran = engine.go_on(made)
        engine.orchestrator.explain(made)
        assert ran.workflow.to_mermaid()
        assert ran.workflow.to_dot()
    return ran
