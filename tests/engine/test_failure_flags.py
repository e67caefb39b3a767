"""What a failure amounts to by the flags of its stage, and for the branches beside it."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import SplitType, StageExecution, TaskResult
from tests.support.builders import (
    Engine,
    Gate,
    Recorder,
    Script,
    fails,
    ok,
    puts,
    raises,
    returns,
    stage,
)

THEN_FAIL = {"failPipeline": False, "completeOtherBranchesThenFail": True}


@pytest.mark.parametrize(
    "does",
    [fails, raises(ValueError("x")), returns(TaskResult.canceled()), returns(None)],
    ids=["terminal", "exception", "canceled", "no result"],
)
def test_continue_pipeline_on_failure_lets_what_follows_run(engine: Engine, does: Any) -> None:
    ran = engine.run(
        stage("a", does=[does, ok], context={"continuePipelineOnFailure": True}),
        stage("b", after="a"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "FAILED_CONTINUE", "b": "SUCCEEDED"}
    assert ran.tasks("a") == ["FAILED_CONTINUE", "SKIPPED"]


def test_fail_pipeline_false_stops_the_branch_and_not_the_workflow(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=fails, context={"failPipeline": False}),
        stage("b", after="a"),
        stage("c"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "STOPPED", "b": "NOT_STARTED", "c": "SUCCEEDED"}
    assert ran.tasks("a") == ["STOPPED"]


def test_complete_other_branches_then_fail_ends_terminal_after_the_others(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=fails, context=THEN_FAIL), stage("c"), stage("d", after="c", does=puts(n=1))
    )

    assert ran.status == "TERMINAL"
    assert ran.statuses == {"a": "STOPPED", "c": "SUCCEEDED", "d": "SUCCEEDED"}


@pytest.mark.parametrize("more", [0, 70])
def test_a_branch_that_asked_for_the_failure_may_have_stopped_in_any_thread(
    engine: Engine, more: int
) -> None:
    """Stages are read by blocks: in a larger workflow the outcome is asked of the database."""

    def fails_first(stage: StageExecution) -> TaskResult:
        return TaskResult.terminal("boom") if stage.run == 1 else TaskResult.success()

    ran = engine.run(
        stage("s", split_type=SplitType.THREADS, split_count=2),
        stage("a", after="s", does=fails_first, context=THEN_FAIL),
        *(stage(f"filler {n}") for n in range(more)),
    )

    assert ran.runs("a") == ["STOPPED", "SUCCEEDED"]
    assert ran.status == "TERMINAL"


def test_a_branch_that_asked_for_the_failure_and_ran_again_is_judged_by_its_last_run(
    engine: Engine,
) -> None:
    def then_jumps(stage: StageExecution) -> TaskResult:
        if stage.run == 2:
            return TaskResult.success()
        again = "_signal_name" in stage.context
        return TaskResult.jump_to("s") if again else TaskResult.suspend()

    ran = engine.run(
        stage("s"),
        stage(
            "a",
            after="s",
            does=Script(TaskResult.terminal("boom"), TaskResult.success()),
            context=THEN_FAIL,
        ),
        stage("b", after="s", does=then_jumps),
    )
    engine.orchestrator.signal(ran.workflow, ran["b"].id, "go", {})
    ran = engine.go_on(ran.workflow)

    assert ran.runs("a") == ["STOPPED", "SUCCEEDED"]
    assert ran.status == "SUCCEEDED"


def _branches(context: dict[str, Any]) -> list[StageExecution]:
    return [
        stage("a", does=fails, context=context),
        stage("b"),
        stage("d", after="b"),
        stage("e", after=["a", "b"]),
    ]


def test_a_failed_branch_fails_the_workflow_and_withdraws_what_still_runs(engine: Engine) -> None:
    beside = Gate()

    def fail(stage: StageExecution) -> TaskResult:
        assert beside.entered.wait(10)
        return TaskResult.terminal("boom")

    try:
        ran = engine.run(
            stage("a", does=fail),
            stage("b", does=beside),
            stage("d", after="b"),
            stage("e", after=["a", "b"]),
        )
    finally:
        beside.opened.set()

    assert ran.status == "TERMINAL"
    assert ran.statuses == {
        "a": "TERMINAL",
        "b": "CANCELED",
        "d": "NOT_STARTED",
        "e": "NOT_STARTED",
    }


def test_a_branch_that_may_fail_leaves_the_others_alone(engine: Engine) -> None:
    ran = engine.run(*_branches({"continuePipelineOnFailure": True}))

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {
        "a": "FAILED_CONTINUE",
        "b": "SUCCEEDED",
        "d": "SUCCEEDED",
        "e": "SUCCEEDED",
    }


def test_a_stopped_branch_keeps_the_join_behind_it_from_starting(engine: Engine) -> None:
    ran = engine.run(*_branches({"failPipeline": False}))

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "STOPPED", "b": "SUCCEEDED", "d": "SUCCEEDED", "e": "NOT_STARTED"}


NO_BRANCH = {"b": "False", "c": "False"}
BAD_CONDITION = {"b": "no_number > 1", "c": "True"}


@pytest.mark.parametrize("split", [NO_BRANCH, BAD_CONDITION], ids=["no branch", "bad condition"])
@pytest.mark.parametrize(
    ("flags", "status", "of_a", "of_b"),
    [
        ({}, "TERMINAL", "TERMINAL", "NOT_STARTED"),
        ({"failPipeline": False}, "SUCCEEDED", "STOPPED", "NOT_STARTED"),
        (
            {"failPipeline": False, "completeOtherBranchesThenFail": True},
            "TERMINAL",
            "STOPPED",
            "NOT_STARTED",
        ),
        ({"continuePipelineOnFailure": True}, "SUCCEEDED", "FAILED_CONTINUE", "SKIPPED"),
    ],
)
def test_a_split_that_fails_counts_as_a_failure_of_its_stage(
    engine: Engine,
    split: dict[str, str],
    flags: dict[str, Any],
    status: str,
    of_a: str,
    of_b: str,
) -> None:
    ran = engine.run(
        stage("a", context=flags, split_type=SplitType.XOR, split_conditions=split),
        stage("b", after="a"),
        stage("c", after="a"),
        stage("d", after=["b", "c"]),
    )

    expected = {"a": of_a, "b": of_b, "c": of_b, "d": of_b}
    assert (ran.status, ran.statuses) == (status, expected)
    assert "Error" in ran.error("a")


def test_what_follows_a_tolerated_failure_still_inherits_its_outputs(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("a", does=returns(TaskResult.failed_continue("x", outputs={"part": 1}))),
        stage("b", after="a", does=last),
    )

    assert last.contexts[0]["part"] == 1


@pytest.mark.parametrize(
    ("enabled", "status"),
    [
        (False, "SKIPPED"),
        (True, "SUCCEEDED"),
        ({"type": "expression", "expression": "n > 1"}, "SUCCEEDED"),
        ({"type": "expression", "expression": "n > 2"}, "SKIPPED"),
        ({"type": "expression", "expression": "a.n == 2"}, "SUCCEEDED"),
        ({"type": "expression", "expression": "unknown"}, "SKIPPED"),
    ],
)
def test_a_stage_that_is_not_enabled_is_skipped_and_what_follows_runs(
    engine: Engine, enabled: Any, status: str
) -> None:
    ran = engine.run(
        stage("a", does=puts(n=2)),
        stage("b", after="a", context={"stageEnabled": enabled}),
        stage("c", after="b"),
    )

    assert ran.statuses == {"a": "SUCCEEDED", "b": status, "c": "SUCCEEDED"}
    assert ran.tasks("b") == ["NOT_STARTED" if status == "SKIPPED" else "SUCCEEDED"]


def test_a_workflow_whose_last_stage_is_not_enabled_succeeds(engine: Engine) -> None:
    ran = engine.run(stage("a"), stage("b", after="a", context={"stageEnabled": False}))

    assert (ran.status, ran["b"].status.name) == ("SUCCEEDED", "SKIPPED")


def test_a_condition_that_raises_fails_its_stage_with_its_text(engine: Engine) -> None:
    condition = {"type": "expression", "expression": "name > 3"}

    ran = engine.run(stage("a", context={"name": "x", "stageEnabled": condition}))

    assert ran.status == "TERMINAL"
    assert "name > 3" in ran.error("a")


def test_a_stage_under_a_failed_one_never_starts_enabled_or_not(engine: Engine) -> None:
    ran = engine.run(stage("a", does=fails), stage("b", after="a", context={"stageEnabled": False}))

    assert ran.statuses == {"a": "TERMINAL", "b": "NOT_STARTED"}


def test_manual_skip_passes_every_task_over(engine: Engine) -> None:
    never = Recorder()

    ran = engine.run(
        stage("a", does=[never, never], context={"manualSkip": True}), stage("b", after="a")
    )

    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
    assert ran.tasks("a") == ["SKIPPED", "SKIPPED"]
    assert never.calls == 0


def test_flags_are_never_taken_from_an_upstream_output(engine: Engine) -> None:
    poison = puts(
        continuePipelineOnFailure=True,
        failPipeline=False,
        stageEnabled=False,
        manualSkip=True,
        stageTimeoutMs=1,
        _max_jumps=0,
    )

    ran = engine.run(stage("a", does=poison), stage("b", after="a", does=fails))

    assert ran.status == "TERMINAL"
    assert ran.statuses == {"a": "SUCCEEDED", "b": "TERMINAL"}
    assert ran.tasks("b") == ["TERMINAL"]
