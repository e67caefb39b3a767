"""The forms a task can have: coroutine, function, instance, class."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stabilize import SkippableTask, StageExecution, Task, TaskResult, TransientError
from tests.support.builders import Engine, Recorder, puts, stage


async def counts(stage: StageExecution) -> TaskResult:
    """An async function."""
    await asyncio.sleep(0)
    return TaskResult.success(outputs={"n": stage.context.get("n", 0) + 1})


class AsyncTask(Task):
    """A task whose body is a coroutine."""

    async def execute(self, stage: StageExecution) -> TaskResult:
        return await counts(stage)


class PlainTask(Task):
    """A task that remembers how often this very object was used."""

    def __init__(self) -> None:
        self.uses = 0

    def execute(self, stage: StageExecution) -> TaskResult:
        self.uses += 1
        return TaskResult.success(outputs={"n": self.uses})


def plain(stage: StageExecution) -> TaskResult:
    """A plain function."""
    return TaskResult.success(outputs={"n": 1})


@pytest.mark.parametrize(
    "make",
    [lambda: counts, lambda: AsyncTask, AsyncTask, lambda: PlainTask, PlainTask, lambda: plain],
    ids=["async function", "async class", "async instance", "class", "instance", "function"],
)
def test_a_task_may_have_any_of_these_forms(engine: Engine, make: Callable[[], Any]) -> None:
    ran = engine.run(stage("a", does=make()), stage("b", after="a", does=Recorder()))

    assert ran.status == "SUCCEEDED"
    assert ran["a"].outputs == {"n": 1}


def test_coroutines_run_side_by_side(engine: Engine) -> None:
    ran = engine.run(*[stage(f"s{n}", does=counts, context={"n": n}) for n in range(5)])

    assert sorted(s.outputs["n"] for s in ran.workflow.stages) == [1, 2, 3, 4, 5]


def test_a_coroutine_that_raises_is_tried_again(engine: Engine) -> None:
    engine.stop_time()
    tries: list[int] = []

    async def flaky(stage: StageExecution) -> TaskResult:
        tries.append(1)
        if len(tries) < 3:
            raise TransientError("busy")
        return TaskResult.success()

    assert engine.run(stage("a", does=flaky)).status == "SUCCEEDED"
    assert len(tries) == 3


def test_a_class_is_made_anew_for_each_use_and_an_instance_is_not(engine: Engine) -> None:
    shared = PlainTask()

    ran = engine.run(
        stage("a", does=PlainTask),
        stage("b", after="a", does=PlainTask),
        stage("c", after="b", does=shared),
        stage("d", after="c", does=shared),
    )

    assert [s.outputs["n"] for s in ran.workflow.stages] == [1, 1, 1, 2]


def test_a_class_is_found_under_its_own_name_and_its_path(engine: Engine) -> None:
    engine.registry.register("counter", PlainTask, aliases=["tally"])
    path = f"{PlainTask.__module__}.PlainTask"

    ran = engine.run(
        *[
            stage(f"s{n}", does=name)
            for n, name in enumerate(["counter", "tally", "PlainTask", path])
        ]
    )

    assert ran.status == "SUCCEEDED"


class Wanted(SkippableTask):
    """Runs when its stage wants it."""

    def is_enabled(self, stage: StageExecution) -> bool:
        return bool(stage.context["wanted"])

    def do_execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"done": True})


@pytest.mark.parametrize(("wanted", "task"), [(True, "SUCCEEDED"), (False, "SKIPPED")])
def test_a_skippable_task_is_asked_first(engine: Engine, wanted: bool, task: str) -> None:
    ran = engine.run(stage("a", does=Wanted, context={"wanted": wanted}), stage("b", after="a"))

    assert ran.tasks("a") == [task]
    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_a_skippable_task_that_cannot_say_fails(engine: Engine) -> None:
    ran = engine.run(stage("a", does=Wanted))

    assert ran.status == "TERMINAL"
    assert "wanted" in ran.error("a")


def test_a_wait_takes_as_long_as_it_says(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=[], type="wait", context={"waitTime": 0.05}),
        stage("b", after="a", does="wait", context={"waitTime": 0}),
    )

    assert ran.status == "SUCCEEDED"
    assert 0.05 <= ran["a"].outputs["waitedSeconds"] < 5


def test_how_long_to_wait_is_not_taken_from_an_upstream_output(engine: Engine) -> None:
    ran = engine.run(stage("a", does=puts(waitTime=60)), stage("b", after="a", does="wait"))

    assert ran.status == "SUCCEEDED"
    assert ran["b"].outputs["waitedSeconds"] < 5


def test_the_built_in_types_need_no_registration(engine: Engine) -> None:
    ran = engine.run(stage("a", does="noop"), stage("b", does=[], type="noop"))

    assert ran.status == "SUCCEEDED"
    assert ran.tasks("b") == ["SUCCEEDED"]
