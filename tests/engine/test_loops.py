"""Structured loops: inside each other, begun anew, and beside processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from stabilize import LoopBuilder, StageExecution, TaskResult
from tests.support.bodies import Adds
from tests.support.builders import Engine, stage

Make = Callable[[str, Sequence[StageExecution], str], list[StageExecution]]


class Counter:
    """A body that counts its executions and puts the number out."""

    calls = 0

    def __call__(self, stage: StageExecution) -> TaskResult:
        self.calls += 1
        return TaskResult.success(outputs={"n": self.calls})


def two_rounds(kind: str, body: Sequence[StageExecution], prefix: str) -> list[StageExecution]:
    if kind == "while":
        return LoopBuilder.while_loop("iteration < 2", body, prefix)
    return LoopBuilder.repeat_until("iteration >= 2", body, prefix)


@pytest.mark.parametrize("outer", ["while", "repeat"])
@pytest.mark.parametrize("inner", ["while", "repeat"])
def test_a_loop_in_a_loop_begins_anew_in_each_round(engine: Engine, outer: str, inner: str) -> None:
    body = Counter()
    inside = two_rounds(inner, [stage("body", does=body)], "inner")
    loop = two_rounds(outer, inside, "outer")

    ran = engine.run(*loop, stage("end", after=loop[-1].ref_id))

    assert (ran.status, body.calls) == ("SUCCEEDED", 4)
    assert ran[loop[-1].ref_id].outputs["loop_iterations"] == 2
    assert ran.context["n"] == 4
    assert not [key for key in ran.context if key.startswith("_")]


@pytest.mark.parametrize("kind", ["while", "repeat"])
def test_a_loop_that_is_restarted_begins_anew(engine: Engine, kind: str) -> None:
    body = Counter()
    loop = two_rounds(kind, [stage("body", does=body)], "loop")
    ran = engine.run(*loop, stage("end", after=loop[-1].ref_id))

    engine.orchestrator.restart(ran.workflow, ran[loop[0].ref_id].id)
    ran = engine.go_on(ran.workflow)

    assert (ran.status, body.calls) == ("SUCCEEDED", 4)
    assert ran[loop[-1].ref_id].outputs["loop_iterations"] == 2


def test_a_loop_whose_bodies_run_in_other_processes_ends(engine: Engine) -> None:
    engine.registry.register("add", Adds)
    body = stage("body", does="add", context={"m": 1})
    loop = LoopBuilder.while_loop("iteration < 2 and sum < 9", [body], context={"sum": 0})
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        engine.executor = pool
        ran = engine.run(*loop)

    assert ran.status == "SUCCEEDED"
    assert ran["loop_loopback"].outputs == {"sum": 2, "loop_iterations": 2, "loop_exhausted": False}
