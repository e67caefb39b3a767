"""Errors worth another try: how often, when, and what is kept in between."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select

from stabilize import RetryableTask, StageExecution, TaskResult, TransientError
from stabilize.models import QueueMessage
from tests.support.builders import Engine, Script, raises, stage


@pytest.mark.parametrize("error", [TransientError("busy"), ConnectionError("gone"), TimeoutError()])
def test_a_transient_error_is_tried_ten_times_in_all(engine: Engine, error: Exception) -> None:
    engine.stop_time()
    body = Script(error)

    ran = engine.run(stage("a", does=body), stage("b", after="a"))

    assert body.calls == 10
    assert ran.status == "TERMINAL"
    assert ran.statuses == {"a": "TERMINAL", "b": "NOT_STARTED"}
    assert ran["a"].context["exception"]["details"]["transient"] is True


def test_a_transient_error_that_passes_is_forgotten(engine: Engine) -> None:
    engine.stop_time()
    body = Script(TransientError("busy"), TransientError("busy"), TaskResult.success())

    ran = engine.run(stage("a", does=body))

    assert ran.status == "SUCCEEDED"
    assert "exception" not in ran["a"].context
    assert ran["a"].tasks[0].retries == 2


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), RuntimeError("x"), OSError(5, "x")]
)
def test_any_other_error_is_tried_once(engine: Engine, error: Exception) -> None:
    body = Script(error)

    assert engine.run(stage("a", does=body)).status == "TERMINAL"
    assert body.calls == 1


def test_retry_after_is_the_least_wait_before_the_next_try(engine: Engine) -> None:
    clock = engine.stop_time()
    started: list[int] = []

    def body(stage: StageExecution) -> TaskResult:
        started.append(clock.now_ms())
        if len(started) == 1:
            raise TransientError("rate limited", retry_after=30)
        return TaskResult.success()

    assert engine.run(stage("a", does=body)).status == "SUCCEEDED"
    assert started[1] - started[0] >= 30_000


def test_process_all_does_not_wait_for_a_retry_beyond_its_time(engine: Engine) -> None:
    body = Script(TransientError("rate limited", retry_after=3600))

    ran = engine.run(stage("a", does=body))

    assert (ran.status, ran.tasks("a"), body.calls) == ("RUNNING", ["RUNNING"], 1)
    assert engine.queue.size() == 1


def test_the_wait_grows_from_one_second_by_two_with_some_jitter(engine: Engine) -> None:
    clock = engine.stop_time()
    started: list[int] = []

    def body(stage: StageExecution) -> TaskResult:
        started.append(clock.now_ms())
        raise TransientError("busy")

    engine.run(stage("a", does=body))

    gaps = [(after - before) / 1000 for before, after in pairwise(started)]
    for number, gap in enumerate(gaps):
        plain = min(60.0, 2.0**number)
        assert 0.75 * plain - 0.01 <= gap <= 1.25 * plain + 0.01


def test_context_update_is_there_at_the_next_try_and_kept(engine: Engine) -> None:
    engine.stop_time()
    body = Script(
        TransientError("busy", context_update={"done": 10}),
        TransientError("busy", context_update={"done": 20}),
        TaskResult.success(),
    )

    ran = engine.run(stage("a", does=body, context={"done": 0, "all": 30}))

    assert [context["done"] for context in body.contexts] == [0, 10, 20]
    assert ran["a"].context == {"done": 20, "all": 30}


def test_context_update_of_the_last_try_is_kept_too(engine: Engine) -> None:
    engine.stop_time()

    ran = engine.run(stage("a", does=raises(TransientError("busy", context_update={"done": 7}))))

    assert (ran.status, ran["a"].context["done"]) == ("TERMINAL", 7)


class Polls(RetryableTask):
    """Polls twice with a backoff of its own."""

    def __init__(self, results: Script, total: float = 3600, period: float = 40) -> None:
        self.results = results
        self.total, self.period = total, period

    def get_timeout(self) -> timedelta:
        return timedelta(seconds=self.total)

    def get_backoff_period(self, stage: StageExecution, duration: timedelta) -> timedelta:
        return timedelta(seconds=self.period)

    def execute(self, stage: StageExecution) -> TaskResult:
        return self.results(stage)


def test_a_retryable_task_is_polled_after_its_own_backoff(engine: Engine) -> None:
    clock = engine.stop_time()
    before = clock.now_ms()
    results = Script(TaskResult.running(), TaskResult.running(), TaskResult.success())

    assert engine.run(stage("a", does=Polls(results))).status == "SUCCEEDED"
    assert clock.now_ms() - before == pytest.approx(80_000, abs=50)


def test_a_retryable_task_is_tried_again_after_its_own_backoff(engine: Engine) -> None:
    clock = engine.stop_time()
    before = clock.now_ms()
    results = Script(
        ConnectionError("gone"), TransientError("busy", retry_after=5), TaskResult.success()
    )

    assert engine.run(stage("a", does=Polls(results))).status == "SUCCEEDED"
    assert clock.now_ms() - before == pytest.approx(45_000, abs=50)


def test_a_retryable_task_ends_when_its_total_time_is_over(engine: Engine) -> None:
    engine.stop_time()
    results = Script(TaskResult.running())

    ran = engine.run(stage("a", does=Polls(results, total=100, period=40)))

    assert (ran.status, results.calls) == ("TERMINAL", 3)
    assert "total timeout" in ran.error("a")


def test_a_retry_keeps_one_message_and_its_count(engine: Engine) -> None:
    engine.run(stage("a", does=raises(TransientError("busy", retry_after=3600))))

    with engine.database.reading() as session:
        rows = session.execute(select(QueueMessage.type, QueueMessage.attempts)).all()
    assert [tuple(row) for row in rows] == [("RunTask", 1)]
