"""Running a complete stage, and what follows it, once more."""

from __future__ import annotations

import pytest

from stabilize import StageExecution, TaskResult
from tests.support.builders import Engine, Recorder, Script, eventually, puts, stage, workflow


def test_a_failed_stage_of_a_finished_workflow_is_restarted_and_the_rest_completes(
    engine: Engine,
) -> None:
    flaky = Script(TaskResult.terminal("boom"), TaskResult.success(outputs={"n": 2}))
    first, last = Recorder(), Recorder()
    ran = engine.run(
        stage("a", does=first), stage("b", after="a", does=flaky), stage("c", after="b", does=last)
    )
    assert ran.statuses == {"a": "SUCCEEDED", "b": "TERMINAL", "c": "NOT_STARTED"}

    engine.orchestrator.restart(ran.workflow, ran["b"].id)
    again = engine.go_on(ran.workflow)

    assert again.status == "SUCCEEDED"
    assert set(again.statuses.values()) == {"SUCCEEDED"}
    assert again.runs("b") == ["TERMINAL", "SUCCEEDED"]
    assert (first.calls, flaky.calls, last.calls) == (1, 2, 1)
    assert last.contexts[0]["n"] == 2
    assert "error" not in again["b"].context


def test_a_restart_runs_everything_after_the_stage_again(engine: Engine) -> None:
    bodies = {ref: Recorder() for ref in "abcd"}
    ran = engine.run(
        stage("a", does=bodies["a"]),
        stage("b", after="a", does=bodies["b"]),
        stage("c", after="a", does=bodies["c"]),
        stage("d", after=["b", "c"], does=bodies["d"]),
    )

    engine.orchestrator.restart(ran.workflow, ran["b"].id)
    again = engine.go_on(ran.workflow)

    assert again.status == "SUCCEEDED"
    assert {ref: body.calls for ref, body in bodies.items()} == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert again.runs("d") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_restarted_stage_inherits_what_it_inherited_before(engine: Engine) -> None:
    body = Recorder()
    ran = engine.run(stage("a", does=puts(n=1)), stage("b", after="a", does=body))

    engine.orchestrator.restart(ran.workflow, ran["b"].id)
    engine.go_on(ran.workflow)

    assert [context["n"] for context in body.contexts] == [1, 1]


def test_a_stage_is_restarted_while_its_workflow_waits(engine: Engine) -> None:
    body = Recorder()
    made = workflow(stage("a", does=body), stage("b", does=lambda stage: TaskResult.suspend()))
    engine.submit(made)
    engine.play()

    engine.orchestrator.restart(made, made.stages[0].id)
    ran = engine.go_on(made)

    assert body.calls == 2
    assert (ran.status, ran.statuses) == ("RUNNING", {"a": "SUCCEEDED", "b": "SUSPENDED"})


def test_a_stage_that_is_not_complete_is_not_restarted_and_the_log_says_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    body = Script(TaskResult.suspend())
    made = workflow(stage("a", does=body), stage("b", after="a"))
    engine.submit(made)
    engine.play()

    engine.orchestrator.restart(made, made.stages[0].id)
    engine.orchestrator.restart(made, made.stages[1].id)
    ran = engine.go_on(made)

    assert ran.runs("a") == ["SUSPENDED"]
    assert ran.runs("b") == ["NOT_STARTED"]
    assert engine.queue.size() == 0
    assert [record.getMessage() for record in caplog.records] == [
        "stage 'a' is not restarted: it is SUSPENDED, not complete",
        "stage 'b' is not restarted: it is NOT_STARTED, not complete",
    ]


def test_a_canceled_workflow_is_not_restarted(engine: Engine) -> None:
    made = workflow(stage("a"), stage("b", after="a", does=lambda stage: TaskResult.suspend()))
    engine.submit(made)
    engine.play()
    engine.orchestrator.cancel(made)
    engine.play()

    engine.orchestrator.restart(made, made.stages[0].id)

    assert engine.go_on(made).status == "CANCELED"


def test_the_id_of_an_old_run_restarts_the_stage(engine: Engine) -> None:
    body = Recorder()
    ran = engine.run(stage("a", does=body))
    for _ in range(2):
        engine.orchestrator.restart(ran.workflow, ran["a"].id)
        engine.play()

    assert engine.look(ran.workflow).runs("a") == ["SUCCEEDED"] * 3
    assert body.calls == 3


def test_the_failed_branch_of_a_join_is_restarted_and_the_join_runs(engine: Engine) -> None:
    flaky = Script(TaskResult.terminal("boom"), TaskResult.success())

    def fails_after_the_other(stage: StageExecution) -> TaskResult:
        eventually(lambda: engine.look(made).statuses["b"] == "SUCCEEDED")
        return flaky(stage)

    made = workflow(
        stage("a", does=fails_after_the_other),
        stage("b"),
        stage("c", after=["a", "b"]),
        stage("d", after="c"),
    )
    engine.submit(made)
    assert engine.go_on(made).statuses["c"] == "NOT_STARTED"

    engine.orchestrator.restart(made, made.stages[0].id)
    again = engine.go_on(made)

    assert again.status == "SUCCEEDED"
    assert set(again.statuses.values()) == {"SUCCEEDED"}
    assert again.runs("b") == ["SUCCEEDED"]


def test_a_stage_that_ended_the_workflow_once_need_not_do_so_again(engine: Engine) -> None:
    last = Recorder()
    body = Script(TaskResult.terminate(), TaskResult.success())
    ran = engine.run(stage("a", does=body), stage("b", after="a", does=last))
    assert (ran.status, ran.statuses["b"]) == ("SUCCEEDED", "NOT_STARTED")

    engine.orchestrator.restart(ran.workflow, ran["a"].id)
    again = engine.go_on(ran.workflow)

    assert again.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
    assert last.calls == 1


def test_what_a_stage_kept_from_starting_that_ended_the_workflow_does_not_have_to(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("x"),
        stage("y"),
        stage("a", after="y", does=Script(TaskResult.terminate())),
        stage("b", after="a"),
        stage("j", after=["x", "a"]),
    )
    assert (ran.status, ran.statuses["b"], ran.statuses["j"]) == (
        "SUCCEEDED",
        "NOT_STARTED",
        "NOT_STARTED",
    )

    engine.orchestrator.restart(ran.workflow, ran["x"].id)
    again = engine.go_on(ran.workflow)

    assert (again.status, again.runs("x")) == ("SUCCEEDED", ["SUCCEEDED", "SUCCEEDED"])
