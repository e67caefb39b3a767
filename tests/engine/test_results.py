"""What the result of a task means for its stage, for what follows, and for the workflow."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import (
    PermanentError,
    StageExecution,
    TaskResult,
    TransientError,
    Workflow,
    WorkflowStatus,
)
from tests.support.builders import Engine, Gate, Script, fails, ok, puts, raises, returns, stage

ONE_TASK = [
    ("success", returns(TaskResult.success()), "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"),
    ("terminal", fails, "TERMINAL", "TERMINAL", "NOT_STARTED", "TERMINAL"),
    ("ValueError", raises(ValueError("x")), "TERMINAL", "TERMINAL", "NOT_STARTED", "TERMINAL"),
    (
        "PermanentError",
        raises(PermanentError("x")),
        "TERMINAL",
        "TERMINAL",
        "NOT_STARTED",
        "TERMINAL",
    ),
    ("SystemExit", raises(SystemExit(1)), "TERMINAL", "TERMINAL", "NOT_STARTED", "TERMINAL"),
    ("None", returns(None), "TERMINAL", "TERMINAL", "NOT_STARTED", "TERMINAL"),
    ("a dict", returns({"a": 1}), "TERMINAL", "TERMINAL", "NOT_STARTED", "TERMINAL"),
    (
        "a status no task can have",
        returns(TaskResult(WorkflowStatus.PAUSED)),
        "TERMINAL",
        "TERMINAL",
        "NOT_STARTED",
        "TERMINAL",
    ),
    (
        "failed_continue",
        returns(TaskResult.failed_continue("x")),
        "FAILED_CONTINUE",
        "FAILED_CONTINUE",
        "SUCCEEDED",
        "SUCCEEDED",
    ),
    ("skipped", returns(TaskResult.skipped()), "SUCCEEDED", "SKIPPED", "SUCCEEDED", "SUCCEEDED"),
    ("canceled", returns(TaskResult.canceled()), "CANCELED", "CANCELED", "CANCELED", "CANCELED"),
    ("stopped", returns(TaskResult.stopped()), "STOPPED", "STOPPED", "NOT_STARTED", "SUCCEEDED"),
    (
        "redirect without target",
        returns(TaskResult.redirect()),
        "TERMINAL",
        "TERMINAL",
        "NOT_STARTED",
        "TERMINAL",
    ),
    ("suspend", returns(TaskResult.suspend()), "SUSPENDED", "SUSPENDED", "NOT_STARTED", "RUNNING"),
]


@pytest.mark.parametrize(
    ("does", "a", "task", "b", "status"),
    [row[1:] for row in ONE_TASK],
    ids=[r[0] for r in ONE_TASK],
)
def test_a_result_decides_over_its_stage_and_what_follows(
    engine: Engine, does: Any, a: str, task: str, b: str, status: str
) -> None:
    ran = engine.run(stage("a", does=does), stage("b", after="a"))

    assert (ran.status, ran.statuses) == (status, {"a": a, "b": b})
    assert ran.tasks("a") == [task]
    assert engine.queue.size() == 0


TWO_TASKS = [
    ("a failure ends the stage", fails, ["TERMINAL", "SKIPPED"], "TERMINAL", "NOT_STARTED"),
    (
        "failed_continue goes on",
        returns(TaskResult.failed_continue("x")),
        ["FAILED_CONTINUE", "SUCCEEDED"],
        "FAILED_CONTINUE",
        "SUCCEEDED",
    ),
    (
        "skipped goes on",
        returns(TaskResult.skipped()),
        ["SKIPPED", "SUCCEEDED"],
        "SUCCEEDED",
        "SUCCEEDED",
    ),
    (
        "stopped ends the stage",
        returns(TaskResult.stopped()),
        ["STOPPED", "SKIPPED"],
        "STOPPED",
        "NOT_STARTED",
    ),
    (
        "canceled ends everything",
        returns(TaskResult.canceled()),
        ["CANCELED", "SKIPPED"],
        "CANCELED",
        "CANCELED",
    ),
]


@pytest.mark.parametrize(
    ("does", "tasks", "a", "b"), [row[1:] for row in TWO_TASKS], ids=[r[0] for r in TWO_TASKS]
)
def test_the_first_of_two_tasks_decides_whether_the_second_runs(
    engine: Engine, does: Any, tasks: list[str], a: str, b: str
) -> None:
    ran = engine.run(stage("a", does=[does, ok]), stage("b", after="a"))

    assert ran.tasks("a") == tasks
    assert ran.statuses == {"a": a, "b": b}


def test_tasks_of_a_stage_run_one_after_another_and_see_what_went_before(engine: Engine) -> None:
    first = Script(TaskResult.success(outputs={"n": 1}, context={"c": "kept"}))
    second = Script(TaskResult.success(outputs={"n": 2}))

    ran = engine.run(stage("a", does=[first, second]))

    assert second.contexts[0]["c"] == "kept"
    assert ran["a"].outputs == {"n": 2}
    assert ran["a"].context == {"c": "kept"}


def test_a_task_reads_the_outputs_of_the_task_before_it(engine: Engine) -> None:
    seen: list[dict[str, Any]] = []

    def look(stage: StageExecution) -> TaskResult:
        seen.append(dict(stage.outputs))
        return TaskResult.success()

    engine.run(stage("a", does=[puts(n=1), look]))

    assert seen == [{"n": 1}]


def test_a_failure_keeps_the_outputs_and_tells_its_reason(engine: Engine) -> None:
    result = TaskResult(WorkflowStatus.TERMINAL, {"error": "no fuel"}, {"reached": "orbit"})

    ran = engine.run(stage("a", does=returns(result)))

    assert ran["a"].outputs == {"reached": "orbit"}
    assert ran.error("a") == "no fuel"


def test_an_exception_is_told_in_the_context_and_on_the_task(engine: Engine) -> None:
    ran = engine.run(stage("a", does=raises(KeyError("fuel"))))

    details = ran["a"].context["exception"]["details"]
    assert details["error"] == "'fuel'"
    assert details["transient"] is False
    assert ran["a"].tasks[0].task_exception_details["details"]["error"] == "'fuel'"


def test_a_body_that_returns_no_result_is_told_what_to_return(engine: Engine) -> None:
    ran = engine.run(stage("a", does=returns(None)))

    assert "returned NoneType, not a TaskResult" in ran.error("a")
    assert "TaskResult.success" in ran.error("a")


def test_running_is_executed_again_with_what_it_put_in_the_context(engine: Engine) -> None:
    engine.stop_time()
    poll = Script(TaskResult.running({"n": 1}), TaskResult.running({"n": 2}), TaskResult.success())

    ran = engine.run(stage("a", does=poll))

    assert [context.get("n") for context in poll.contexts] == [None, 1, 2]
    assert ran.status == "SUCCEEDED"


def test_running_has_no_limit_of_executions(engine: Engine) -> None:
    engine.stop_time()
    poll = Script(*[TaskResult.running()] * 25, TaskResult.success())

    assert engine.run(stage("a", does=poll)).status == "SUCCEEDED"
    assert poll.calls == 26


def test_running_forgives_the_transient_errors_before_it(engine: Engine) -> None:
    engine.stop_time()
    error = TransientError("busy")
    poll = Script(*[error] * 9, TaskResult.running(), *[error] * 9, TaskResult.success())

    assert engine.run(stage("a", does=poll)).status == "SUCCEEDED"
    assert poll.calls == 20


def test_terminate_ends_the_workflow_and_withdraws_the_rest(engine: Engine) -> None:
    hangs = Gate()

    def end(stage: StageExecution) -> TaskResult:
        assert hangs.entered.wait(10)
        return TaskResult.terminate(outputs={"answer": 42})

    try:
        ran = engine.run(stage("a", does=end), stage("b", does=hangs), stage("c", after=["a", "b"]))
    finally:
        hangs.opened.set()

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "SUCCEEDED", "b": "CANCELED", "c": "NOT_STARTED"}
    assert ran["a"].outputs == {"answer": 42}


def test_a_stage_without_tasks_succeeds(engine: Engine) -> None:
    ran = engine.run(stage("a", does=[]), stage("b", after="a"))

    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_a_workflow_without_a_first_stage_is_terminal_and_says_why(engine: Engine) -> None:
    stages = [stage("a", after="b"), stage("b", after="a")]
    circle = Workflow.create_orchestration("tests", "unchecked", stages)
    engine.submit(circle)

    ran = [engine.run(), engine.go_on(circle)]

    assert [one.status for one in ran] == ["TERMINAL", "TERMINAL"]
    assert ran[0].workflow.context["error"] == "the workflow has no stages"
    assert "each requires another" in ran[1].workflow.context["error"]


def test_independent_stages_end_one_workflow(engine: Engine) -> None:
    ran = engine.run(stage("a"), stage("b", does=puts(n=1)), stage("c"))

    assert ran.status == "SUCCEEDED"
    assert ran.workflow.start_time is not None
    assert ran.workflow.end_time is not None
    assert ran.workflow.end_time >= ran.workflow.start_time


def test_the_name_of_a_status_does_for_the_status(engine: Engine) -> None:
    result = TaskResult("succeeded", outputs={"n": 1})  # type: ignore[arg-type]

    ran = engine.run(stage("a", does=returns(result)))

    assert (ran.status, ran["a"].outputs) == ("SUCCEEDED", {"n": 1})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "SUCEEDED"}, "status='SUCEEDED', which is no WorkflowStatus: did you mean"),
        ({"status": None}, "status=None, which is no WorkflowStatus"),
        ({"outputs": [1]}, "outputs of type list: write a dict"),
        ({"context": "x"}, "context of type str: write a dict"),
        ({"target_stage_ref_id": 5}, "target_stage_ref_id=5: write the ref_id of a stage"),
    ],
)
def test_a_result_with_a_field_of_a_wrong_type_fails_and_names_stage_and_field(
    engine: Engine, fields: dict[str, Any], told: str
) -> None:
    result = TaskResult(**{"status": WorkflowStatus.SUCCEEDED, **fields})

    ran = engine.run(stage("a", does=returns(result)))

    assert ran.status == "TERMINAL"
    assert "stage 'a'" in ran.error("a")
    assert told in ran.error("a")
