"""Random nets of splits and joins end as a small simulator of the token game says.

`STABILIZE_NETS=2000 pytest tests/patterns/test_generated_nets.py` plays so many, and
`STABILIZE_NETS_ON=postgresql,mariadb` on those databases. A failure prints the net, and the seed
that makes it again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stabilize import JoinType, SplitType, StageExecution
from stabilize.queue.messages import CancelRegion, CancelStage, RestartStage
from stabilize.status import StagePhase
from tests.conftest import lend_or_skip
from tests.patterns.conftest import engine_at
from tests.patterns.simulator import Node, Simulator
from tests.support.builders import Engine, stage, workflow

NETS = int(os.environ.get("STABILIZE_NETS", "150"))
PLACES = os.environ.get("STABILIZE_NETS_ON", "sqlite-memory").split(",")
_HERE = settings(
    max_examples=NETS,
    deadline=None,
    print_blob=True,
    derandomize="STABILIZE_NETS" not in os.environ,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
    ],
)
_JOINS = ["AND", "OR", "XOR", "MULTI_MERGE", "DISCRIMINATOR", "N_OF_M"]
_ENDS = ("ok", "ok", "ok", "skips", "stops", "fails")
_MOST = 40
WAITING, ENDED = StagePhase.WAITING, StagePhase.ENDED


@pytest.fixture(scope="module", params=PLACES)
def engine(databases: Any, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with lend_or_skip(databases, request.param) as lent, engine_at(lent.url) as engine:
        yield engine


@st.composite
def nets(draw: st.DrawFn, ends: tuple[str, ...] = _ENDS) -> list[Node]:
    """A net without loops, in which each stage comes after some of those before it."""
    size = draw(st.integers(2, 9))
    refs = [f"s{n}" for n in range(size)]
    after: dict[str, tuple[str, ...]] = {}
    for place, ref in enumerate(refs):
        before = refs[max(0, place - 4) : place]
        most = min(3, len(before))
        picked = (
            draw(st.lists(st.sampled_from(before), min_size=1, max_size=most, unique=True))
            if before
            else []
        )
        after[ref] = tuple(sorted(picked))
    return [_node(draw, ref, refs, after, ends) for ref in refs]


def _node(
    draw: st.DrawFn,
    ref: str,
    refs: list[str],
    after: dict[str, tuple[str, ...]],
    ends: tuple[str, ...],
) -> Node:
    following = [other for other in refs if ref in after[other]]
    split = draw(st.sampled_from(["AND", "OR", "XOR"])) if len(following) > 1 else "AND"
    chosen = draw(st.sets(st.sampled_from(following))) if split != "AND" else set()
    default = draw(st.sampled_from([None, *following])) if split != "AND" else None
    join = draw(st.sampled_from(_JOINS)) if len(after[ref]) > 1 else "AND"
    needs = draw(st.integers(1, len(after[ref]))) if join == "N_OF_M" else 1
    return Node(
        ref, after[ref], join, needs, split, frozenset(chosen), default, draw(st.sampled_from(ends))
    )


def stages_of(nodes: list[Node], does: str = "ok") -> list[StageExecution]:
    """The same net for the engine."""
    made = []
    for node in nodes:
        following = [other.ref for other in nodes if node.ref in other.after]
        conditions = {ref: str(ref in node.chosen) for ref in following}
        context = {"skips": {"stageEnabled": False}, "stops": {"failPipeline": False}}
        made.append(
            stage(
                node.ref,
                after=node.after,
                does="fails" if node.ends in ("stops", "fails") else does,
                context=dict(context.get(node.ends, {})),
                join_type=JoinType[node.join],
                join_threshold=node.needs if node.join == "N_OF_M" else 0,
                split_type=SplitType[node.split],
                split_conditions={} if node.split == "AND" else conditions,
                split_default=node.default,
            )
        )
    return made


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * NETS)
@_HERE
@given(nodes=nets())
def test_a_generated_net_ends_as_the_simulator_says(engine: Engine, nodes: list[Node]) -> None:
    expected = Simulator(nodes).play()
    assume(sum(map(len, expected.runs.values())) <= _MOST)  # no merges of merges of merges
    assume(not expected.is_racy)

    ran = engine.run(*stages_of(nodes))

    assert ran.status == expected.status
    if ran.status == "SUCCEEDED":  # a failure stops the others wherever they are
        runs = {n.ref: Counter(ran.runs(n.ref)) for n in nodes}
        assert runs == {n.ref: Counter(expected.runs[n.ref]) for n in nodes}


@st.composite
def disturbances(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = st.sampled_from(["signal", "signal", "cancel", "region", "jump", "restart", "pause"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 8)), max_size=12))


@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * NETS)
@_HERE
@given(nodes=nets(("ok",)), disturbed=disturbances())
def test_a_workflow_never_runs_on_with_nothing_left_to_do(
    engine: Engine, nodes: list[Node], disturbed: list[tuple[str, int]]
) -> None:
    assume(sum(map(len, Simulator(nodes).play().runs.values())) <= _MOST)
    stages = stages_of(nodes, "obeys")
    for place, one in enumerate(stages):
        one.cancel_region = f"r{place % 3}"
    made = workflow(*stages)
    engine.submit(made)
    engine.play()
    for kind, place in disturbed:
        _disturb(engine, made, kind, place % len(nodes))
        engine.play()
    for _ in range(500):
        waiting = [s for s in engine.look(made).workflow.stage_runs if s.status.name == "SUSPENDED"]
        if not waiting:
            break
        for one in waiting:
            engine.orchestrator.signal(made, one.id, "go")
        engine.play()

    ran = engine.look(made)
    assert ran.workflow.status.is_complete, ran.statuses
    assert ran.workflow.open_runs == 0
    assert all(run.phase in (WAITING, ENDED) for run in ran.workflow.stage_runs), ran.statuses
    assert not engine.queue.has_pending_message_for_execution(made.id)


def _disturb(engine: Engine, made: Any, kind: str, place: int) -> None:
    one = engine.look(made)[f"s{place}"]
    match kind:
        case "signal":
            engine.orchestrator.signal(made, one.id, "go", persistent=False)
        case "cancel":
            engine.queue.push(CancelStage.of(one, user="tests"))
        case "region":
            engine.queue.push(CancelRegion(execution_id=made.id, region=f"r{place % 3}"))
        case "restart":
            engine.queue.push(RestartStage.of(one, user="tests"))
        case "pause":
            engine.store.pause(made.id, "tests")
            engine.play()
            engine.orchestrator.unpause(made)
        case "jump":
            for waiting in engine.look(made).workflow.stages:
                if waiting.status.name == "SUSPENDED":
                    engine.orchestrator.signal(made, waiting.id, "jump", {"to": one.ref_id})
                    break
