"""How many workflows of one configuration run at once."""

from __future__ import annotations

import threading
from typing import Any

from stabilize import StageExecution, TaskResult, Workflow
from stabilize.clock import now_ms
from tests.support.builders import Engine, Script, eventually, ok, raises, stage, workflow


def _limited(does: Any, limit: int, *, keep: bool = True, config: str = "nightly") -> Workflow:
    return workflow(
        stage("a", does=does),
        pipeline_config_id=config,
        is_limit_concurrent=True,
        max_concurrent_executions=limit,
        keep_waiting_pipelines=keep,
    )


def test_two_of_ten_run_at_once_and_all_end(engine: Engine) -> None:
    lock, two = threading.Lock(), threading.Barrier(2, timeout=20)
    running, most = 0, 0

    def body(stage: StageExecution) -> TaskResult:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        two.wait()  # each pair is at work together
        with lock:
            running -= 1
        return TaskResult.success()

    engine.registry.register("body", body)
    all_of_them = [_limited("body", 2) for _ in range(10)]
    with engine.started():
        engine.submit(*all_of_them)
        eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in all_of_them))

    assert most == 2


def test_workflows_beyond_the_limit_are_buffered(engine: Engine) -> None:
    made = [_limited(lambda stage: TaskResult.suspend(), 1) for _ in range(3)]
    engine.submit(*made)
    engine.play()

    assert [engine.status(one) for one in made] == ["RUNNING", "BUFFERED", "BUFFERED"]
    assert engine.look(made[1]).statuses == {"a": "NOT_STARTED"}


def test_the_one_that_waits_longest_goes_first(engine: Engine) -> None:
    order: list[str] = []

    def body(stage: StageExecution) -> TaskResult:
        order.append(stage.workflow_id)
        return TaskResult.success()

    engine.registry.register("body", body)
    made = [_limited("body", 1) for _ in range(4)]
    engine.submit(*made)
    engine.play()

    assert order == [one.id for one in made]
    assert [engine.status(one) for one in made] == ["SUCCEEDED"] * 4


def test_without_keep_waiting_only_the_next_one_runs_and_the_rest_are_canceled(
    engine: Engine,
) -> None:
    made = [_limited(ok, 1, keep=False) for _ in range(4)]
    engine.submit(*made)
    engine.play()

    statuses = [engine.status(one) for one in made]
    assert statuses == ["SUCCEEDED", "SUCCEEDED", "CANCELED", "CANCELED"]
    last = engine.look(made[3])
    assert last.workflow.canceled_by == "system"
    assert "keepWaitingPipelines" in str(last.workflow.cancellation_reason)


def test_a_workflow_that_fails_or_is_canceled_gives_its_slot_back(engine: Engine) -> None:
    bodies = [raises(ValueError("x")), lambda stage: TaskResult.canceled(), ok]
    made = [_limited(body, 1) for body in bodies]
    engine.submit(*made)
    engine.play()

    assert [engine.status(one) for one in made] == ["TERMINAL", "CANCELED", "SUCCEEDED"]


def test_a_buffered_workflow_can_be_canceled_and_takes_no_slot(engine: Engine) -> None:
    holder = Script(TaskResult.suspend(), TaskResult.success())
    first, second, third = _limited(holder, 1), _limited(ok, 1), _limited(ok, 1)
    engine.submit(first, second, third)
    engine.play()

    engine.orchestrator.cancel(second)
    engine.orchestrator.signal(first, first.stages[0].id, "go on")
    engine.play()

    assert [engine.status(one) for one in (first, second, third)] == [
        "SUCCEEDED",
        "CANCELED",
        "SUCCEEDED",
    ]


def test_configurations_do_not_wait_for_each_other(engine: Engine) -> None:
    def waits(stage: StageExecution) -> TaskResult:
        return TaskResult.suspend()

    one, two = _limited(waits, 1), _limited(waits, 1, config="weekly")
    engine.submit(one, two)
    engine.play()

    assert [engine.status(one), engine.status(two)] == ["RUNNING", "RUNNING"]


def test_a_finished_workflow_that_is_restarted_waits_for_a_slot(engine: Engine) -> None:
    engine.stop_time()
    first = _limited(ok, 1)
    second = _limited(Script(TaskResult.suspend(), TaskResult.success()), 1)
    engine.submit(first, second)
    engine.play()
    assert [engine.status(first), engine.status(second)] == ["SUCCEEDED", "RUNNING"]

    engine.orchestrator.restart(first, first.stages[0].id)
    engine.processor().process_one()
    assert engine.look(first).runs("a") == ["SUCCEEDED"]
    engine.orchestrator.signal(second, second.stages[0].id, "go on")
    engine.play()

    assert engine.look(first).runs("a") == ["SUCCEEDED", "SUCCEEDED"]
    assert engine.status(first) == "SUCCEEDED"


def _waits(stage: StageExecution) -> TaskResult:
    return TaskResult.success() if "_signal_name" in stage.context else TaskResult.suspend()


def test_a_buffered_workflow_is_canceled_when_the_time_to_start_is_past(engine: Engine) -> None:
    clock = engine.stop_time()
    first, second = _limited(_waits, 1), _limited(ok, 1)
    second.start_time_expiry = clock.now_ms() + 60_000
    engine.submit(first, second)

    ran = engine.go_on(second)

    assert (ran.status, ran.workflow.canceled_by) == ("CANCELED", "system")
    assert 60_000 < (ran.workflow.end_time or 0) - (second.start_time_expiry - 60_000) < 61_000
    assert engine.status(first) == "RUNNING"


def test_a_buffered_workflow_that_starts_in_time_leaves_no_deadline_behind(engine: Engine) -> None:
    first, second = _limited(_waits, 1), _limited(ok, 1)
    second.start_time_expiry = now_ms() + 3_600_000
    engine.submit(first, second)
    engine.play()
    waiting = engine.status(second), engine.queue.size()
    engine.orchestrator.signal(first, first.stages[0].id, "go")

    ran = engine.go_on(second)

    assert waiting == ("BUFFERED", 1)
    assert ran.status == "SUCCEEDED"
    assert engine.queue.size() == 0
