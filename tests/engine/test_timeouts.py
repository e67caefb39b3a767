"""Bodies and stages that take too long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from stabilize import QueueProcessorConfig, RetryableTask, StageExecution, Task, TaskResult
from stabilize.executor import BodyThreads
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, Gate, Recorder, eventually, ok, stage, workflow


@pytest.fixture
def hang() -> Iterator[Gate]:
    """A body that hangs until the test is over."""
    gate = Gate()
    yield gate
    gate.opened.set()


def test_a_body_that_takes_too_long_fails_its_task(engine: Engine, hang: Gate) -> None:
    ran = engine.run(
        stage("a", does=[hang, ok], context={"stageTimeoutMs": 60}), stage("b", after="a")
    )

    assert ran.status == "TERMINAL"
    assert ran.statuses == {"a": "TERMINAL", "b": "NOT_STARTED"}
    assert ran.tasks("a") == ["TERMINAL", "SKIPPED"]
    assert "time" in ran.error("a")


def test_a_stage_that_may_fail_may_time_out(engine: Engine, hang: Gate) -> None:
    flags = {"stageTimeoutMs": 60, "continuePipelineOnFailure": True}

    ran = engine.run(stage("a", does=hang, context=flags), stage("b", after="a"))

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "FAILED_CONTINUE", "b": "SUCCEEDED"}
    assert ran.tasks("a") == ["TERMINAL"]


def test_a_hung_body_gives_its_slot_back(backend: BackendUnderTest, hang: Gate) -> None:
    config = QueueProcessorConfig(max_workers=1)
    with Engine(backend.url, config=config) as engine:
        hung = workflow(stage("a", does=hang, context={"stageTimeoutMs": 60}))
        others = [workflow(stage("a")) for _ in range(3)]
        engine.submit(hung, *others)
        with engine.started():
            assert hang.entered.wait(10)
            eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in others))
            eventually(lambda: engine.status(hung) == "TERMINAL")
        assert not hang.opened.is_set()


def test_a_hung_hook_gives_its_slot_back(backend: BackendUnderTest, hang: Gate) -> None:
    class Untidy(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            return TaskResult.success()

        def on_cleanup(self, stage: StageExecution) -> None:
            hang(stage)

    config = QueueProcessorConfig(max_workers=1, task_timeout=0.06)
    with Engine(backend.url, config=config) as engine:
        made, after = workflow(stage("a", does=Untidy)), workflow(stage("a"))
        engine.submit(made)
        with engine.started():
            assert hang.entered.wait(10)
            engine.submit(after)
            eventually(lambda: engine.status(after) == "SUCCEEDED")
        assert not hang.opened.is_set()
        assert engine.status(made) == "SUCCEEDED"


def test_a_process_carries_so_many_hung_bodies_and_no_more() -> None:
    """Then they keep their slots: threads are not without end."""
    threads, hang = BodyThreads(1, carries=2), Gate()
    ran: list[int] = []
    try:
        for began in (1, 2, 3):
            threads.call(lambda: hang(stage("a")))
            eventually(lambda: hang.calls == began)  # noqa: B023
            threads.abandon()
        threads.call(lambda: ran.append(1))
        assert (hang.calls, threads.stuck, ran) == (3, 1, [])
    finally:
        hang.opened.set()
    eventually(lambda: ran == [1])


def test_the_result_of_a_body_written_off_changes_nothing(engine: Engine) -> None:
    hang = Gate(TaskResult.success(outputs={"late": True}))
    made = workflow(
        stage("a", does=hang, context={"stageTimeoutMs": 60, "continuePipelineOnFailure": True}),
        stage("b", after="a", does=lambda stage: TaskResult.suspend()),
    )
    engine.submit(made)
    with engine.started() as processor:
        eventually(lambda: engine.look(made).statuses["b"] == "SUSPENDED")
        hang.opened.set()
        eventually(lambda: processor.active_count == 0)
    engine.play()

    ran = engine.look(made)
    assert ran.statuses == {"a": "FAILED_CONTINUE", "b": "SUSPENDED"}
    assert "late" not in ran.context


def test_a_body_written_off_is_told_to_stop(engine: Engine) -> None:
    told = Recorder()

    def body(stage: StageExecution) -> TaskResult:
        from stabilize.tasks.body import current_token

        token = current_token()
        assert token is not None
        if token.wait(20):
            told(stage)
        return TaskResult.success()

    engine.run(stage("a", does=body, context={"stageTimeoutMs": 60}))

    eventually(lambda: told.calls == 1)


class Rescues(Task):
    """Hangs, and has something to say about it."""

    def __init__(self, gate: Gate, result: TaskResult | None) -> None:
        self.gate, self.result = gate, result
        self.asked = 0

    def execute(self, stage: StageExecution) -> TaskResult:
        return self.gate(stage)

    def on_timeout(self, stage: StageExecution) -> TaskResult | None:
        self.asked += 1
        return self.result


class Polls(RetryableTask):
    """Hangs, with a limit of its own for one execution."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def get_timeout(self) -> timedelta:
        return timedelta(hours=1)

    def get_execution_timeout(self, stage: StageExecution) -> timedelta:
        return timedelta(seconds=0.06)

    def execute(self, stage: StageExecution) -> TaskResult:
        return self.gate(stage)


class Rescued(Polls):
    """The same, with something to say about it."""

    def on_timeout(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"rescued": True})


def test_one_execution_is_limited_by_the_task_itself(engine: Engine, hang: Gate) -> None:
    ran = engine.run(stage("a", does=Polls(hang)))

    assert ran.status == "TERMINAL"
    assert "timeout of 0.06 s" in ran.error("a")


def test_on_timeout_may_replace_the_failure(engine: Engine, hang: Gate) -> None:
    ran = engine.run(stage("a", does=Rescued(hang)), stage("b", after="a"))

    assert ran.status == "SUCCEEDED"
    assert ran["a"].outputs == {"rescued": True}


def test_on_timeout_is_asked_before_a_stage_deadline_fails_the_task(
    engine: Engine, hang: Gate
) -> None:
    task = Rescues(hang, TaskResult.success(outputs={"rescued": True}))

    ran = engine.run(stage("a", does=task, context={"stageTimeoutMs": 60}))

    assert (ran.status, task.asked) == ("SUCCEEDED", 1)


def test_on_timeout_that_says_nothing_leaves_the_failure(engine: Engine, hang: Gate) -> None:
    task = Rescues(hang, None)

    ran = engine.run(stage("a", does=task, context={"stageTimeoutMs": 60}))

    assert (ran.status, task.asked) == ("TERMINAL", 1)


def test_the_processor_has_a_limit_for_bodies_that_set_none(
    backend: BackendUnderTest, hang: Gate
) -> None:
    with Engine(backend.url, config=QueueProcessorConfig(task_timeout=0.06)) as engine:
        ran = engine.run(stage("a", does=hang))

    assert ran.status == "TERMINAL"
    assert "0.06 s" in ran.error("a")


def test_a_stage_that_polls_beyond_its_time_is_ended(engine: Engine) -> None:
    engine.stop_time()

    ran = engine.run(
        stage("a", does=lambda stage: TaskResult.running(), context={"stageTimeoutMs": 5_000})
    )

    assert ran.status == "TERMINAL"
    assert "Stage exceeded timeout" in ran.error("a")


def test_a_stage_that_waits_for_a_signal_beyond_its_time_is_ended(engine: Engine) -> None:
    engine.stop_time()

    ran = engine.run(
        stage("a", does=lambda stage: TaskResult.suspend(), context={"stageTimeoutMs": 5_000})
    )

    assert ran.status == "TERMINAL"
    assert "Stage exceeded timeout (5" in ran.error("a")


def test_a_stage_in_time_takes_its_deadline_with_it(engine: Engine) -> None:
    ran = engine.run(stage("a", context={"stageTimeoutMs": 3_600_000}))

    assert ran.status == "SUCCEEDED"
    assert engine.queue.size() == 0
