"""The constructors of a result."""

from __future__ import annotations

import pytest

from stabilize import TaskResult, WorkflowStatus


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (TaskResult.success(), "SUCCEEDED"),
        (TaskResult.running(), "RUNNING"),
        (TaskResult.terminal("x"), "TERMINAL"),
        (TaskResult.failed_continue("x"), "FAILED_CONTINUE"),
        (TaskResult.skipped(), "SKIPPED"),
        (TaskResult.canceled(), "CANCELED"),
        (TaskResult.stopped(), "STOPPED"),
        (TaskResult.suspend(), "SUSPENDED"),
        (TaskResult.redirect(), "REDIRECT"),
        (TaskResult.jump_to("a"), "REDIRECT"),
        (TaskResult.terminate(), "SUCCEEDED"),
    ],
)
def test_each_constructor_has_its_status(result: TaskResult, status: str) -> None:
    assert result.status.name == status


def test_a_failure_carries_its_error_beside_what_it_is_given() -> None:
    assert TaskResult.terminal("x", {"a": 1}).context == {"a": 1, "error": "x"}
    assert TaskResult.failed_continue("x", {"o": 1}).outputs == {"o": 1}


def test_a_jump_names_its_target() -> None:
    result = TaskResult.jump_to("retry", context={"why": 1}, outputs={"o": 2})

    assert (result.target_stage_ref_id, result.context, result.outputs) == (
        "retry",
        {"why": 1},
        {"o": 2},
    )


def test_what_is_given_is_copied() -> None:
    given = {"a": 1}
    result = TaskResult.success(given)
    given["a"] = 2

    assert result.outputs == {"a": 1}


def test_merged_results_keep_the_first_status_and_the_later_values() -> None:
    merged = TaskResult.success({"a": 1, "b": 1}).merge_outputs(
        TaskResult.jump_to("x", {"c": 1}, {"b": 2})
    )

    assert merged.status is WorkflowStatus.SUCCEEDED
    assert (merged.outputs, merged.context) == ({"a": 1, "b": 2}, {"c": 1})
    assert merged.target_stage_ref_id is None


def test_a_result_is_built_step_by_step() -> None:
    built = (
        TaskResult.builder(WorkflowStatus.SUCCEEDED)
        .context({"a": 1})
        .outputs({"b": 1})
        .add_context("c", 2)
        .add_output("d", 2)
        .build()
    )

    assert (built.context, built.outputs) == ({"a": 1, "c": 2}, {"b": 1, "d": 2})
