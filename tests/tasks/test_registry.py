"""Which task a name stands for."""

from __future__ import annotations

import logging

import pytest

from stabilize import ConfigurationError, StageExecution, Task, TaskRegistry, TaskResult
from stabilize.errors import TaskNotFoundError
from stabilize.tasks.backoff import Backoff
from stabilize.tasks.interface import CallableTask, NoOpTask


class Mine(Task):
    """A task with aliases and a hook."""

    aliases = ("my", "own")

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success()

    def on_cancel(self, stage: StageExecution) -> None:
        return None


def does(stage: StageExecution) -> TaskResult:
    """A plain function."""
    return TaskResult.success()


def test_a_class_is_found_under_all_its_names() -> None:
    registry = TaskRegistry()
    registry.register("mine", Mine, aliases=["extra"])

    for name in ("mine", "extra", "my", "own", "Mine", f"{__name__}.Mine"):
        assert registry.has(name)
        assert isinstance(registry.get(name), Mine)
    assert registry.get("mine") is not registry.get("mine")


def test_aliases_may_be_a_property() -> None:
    class Named(Mine):
        @property
        def aliases(self) -> list[str]:  # type: ignore[override]
            return ["named"]

    registry = TaskRegistry()
    registry.register("mine", Named)

    assert isinstance(registry.get("named"), Named)


def test_a_name_of_its_own_goes_before_an_alias() -> None:
    registry = TaskRegistry()
    registry.register("first", Mine)
    registry.register("my", does)

    assert isinstance(registry.get("my"), CallableTask)
    assert isinstance(registry.get("own"), Mine)


def test_an_instance_is_used_again_and_a_function_wrapped() -> None:
    registry, one = TaskRegistry(), Mine()
    registry.register("one", one)
    registry.register("does", does)

    assert registry.get("one") is one
    assert isinstance(registry.get("does"), CallableTask)


def test_what_is_built_in_comes_back_after_a_clear() -> None:
    registry = TaskRegistry()
    registry.register("mine", Mine)
    registry.clear()

    assert not registry.has("mine")
    assert isinstance(registry.get("noop"), NoOpTask)


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(TaskNotFoundError, match=r"type: ship.*NoOpTask") as caught:
        TaskRegistry().get("ship")
    assert caught.value.task_type == "ship"


def test_a_name_taken_twice_is_warned_of_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    registry = TaskRegistry()
    registry.register("mine", Mine)
    with caplog.at_level(logging.WARNING):
        registry.register("mine", does)

    assert "registered again" in caplog.text
    assert isinstance(registry.get("mine"), CallableTask)
    with pytest.raises(ValueError, match="already registered"):
        registry.register("mine", Mine, strict=True)


@pytest.mark.parametrize("thing", [3, "text", object(), dict])
def test_what_cannot_be_a_task_is_refused(thing: object) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the task 'x'"):
        TaskRegistry().register("x", thing)  # type: ignore[arg-type]


def test_a_name_that_is_registered_wins_over_an_alias() -> None:
    registry, own = TaskRegistry(), Mine()
    registry.register("noop", own)

    assert registry.get("noop") is own


def test_the_decorator_registers() -> None:
    registry = TaskRegistry()

    @registry.task("greet", aliases=["hello"])
    def greet(stage: StageExecution) -> TaskResult:
        return TaskResult.success()

    assert registry.has("greet")
    assert registry.has("hello")


def test_it_knows_which_hooks_a_task_has_of_its_own() -> None:
    registry = TaskRegistry()
    registry.register("mine", Mine)
    registry.register("does", does)

    assert registry.overrides("my", "on_cancel")
    assert not registry.overrides("mine", "on_cleanup")
    assert not registry.overrides("does", "on_cancel")
    assert not registry.overrides("unknown", "on_cancel")


def test_the_wait_doubles_up_to_its_cap_within_its_jitter() -> None:
    plain = Backoff(base=1, factor=2, cap=60, jitter=0)
    assert [plain.seconds(n) for n in (0, 1, 2, 3, 7, 1000)] == [1, 1, 2, 4, 60, 60]
    waits = [Backoff().seconds(1) for _ in range(200)]
    assert 0.75 <= min(waits) < 1 < max(waits) <= 1.25
