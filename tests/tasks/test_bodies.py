"""User code, run and turned into values."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from stabilize import Task, TaskResult, TransientError, WorkflowStatus
from stabilize.errors import truncate_error
from stabilize.models import StageExecution
from stabilize.tasks.body import (
    CancellationToken,
    TaskCancelledError,
    bound,
    failure,
    is_cancellation_requested,
    raise_if_cancellation_requested,
    run_body,
)
from stabilize.tasks.interface import CallableTask

STAGE = StageExecution(ref_id="s")


def outcome_of(does: Any) -> Any:
    """What comes of a function as a body."""
    return run_body(CallableTask(does), STAGE)


def _raising(error: BaseException) -> Any:
    def body(stage: StageExecution) -> TaskResult:
        raise error

    return body


def test_a_result_becomes_plain_values() -> None:
    outcome = outcome_of(lambda stage: TaskResult.success({"t": (1, {2})}, {"c": None}))

    assert outcome.status is WorkflowStatus.SUCCEEDED
    assert (outcome.outputs, outcome.context) == ({"t": [1, [2]]}, {"c": None})
    assert outcome.error is None


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(2), GeneratorExit(), RecursionError()]
)
def test_an_error_of_the_user_becomes_an_outcome(error: BaseException) -> None:
    outcome = outcome_of(_raising(error))

    assert outcome.status is WorkflowStatus.TERMINAL
    assert outcome.exception["details"]["type"] == type(error).__name__


def test_an_interrupt_from_the_keyboard_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        outcome_of(_raising(KeyboardInterrupt()))


def test_a_transient_error_says_when_and_with_what_to_go_on() -> None:
    outcome = outcome_of(_raising(TransientError("x", retry_after=3, context_update={"n": 1})))

    assert (outcome.status, outcome.transient, outcome.wait) == (WorkflowStatus.RUNNING, True, 3)
    assert outcome.context == {"n": 1}


def test_a_context_update_no_database_can_hold_is_a_failure_for_good() -> None:
    outcome = outcome_of(_raising(TransientError("x", context_update={"n": float("nan")})))

    assert (outcome.status, outcome.transient) == (WorkflowStatus.TERMINAL, False)
    assert "context_update.n" in str(outcome.error)


def test_an_error_message_is_made_fit_for_any_database() -> None:
    outcome = outcome_of(_raising(ValueError("a\x00b\ud800")))

    assert outcome.error == "a\\x00b?"


def test_a_long_error_message_is_cut_between_characters() -> None:
    assert truncate_error("ü" * 10, 5) == "üü [TRUNCATED]"
    assert truncate_error("ü", 2) == "ü"
    assert len(str(failure(ValueError("x" * 200_000)).error)) < 110_000


def test_an_error_without_text_is_told_by_its_name() -> None:
    assert outcome_of(_raising(TimeoutError())).error == "TimeoutError"


def test_a_hook_that_says_nothing_is_no_failure() -> None:
    class Quiet(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            raise NotImplementedError

    assert run_body(Quiet(), STAGE, "on_cancel").status is WorkflowStatus.SKIPPED


def test_values_that_are_no_mapping_are_left_out() -> None:
    outcome = outcome_of(lambda s: TaskResult(WorkflowStatus.SUCCEEDED, ["x"], "y"))  # type: ignore[arg-type]

    assert (outcome.context, outcome.outputs) == ({}, {})


def test_code_outside_of_a_body_is_never_asked_to_stop() -> None:
    assert not is_cancellation_requested()
    raise_if_cancellation_requested()


def test_a_body_is_asked_to_stop_through_its_token() -> None:
    token = CancellationToken()
    with bound(token):
        assert not is_cancellation_requested()
        threading.Thread(target=token.cancel).start()
        assert token.wait(10)
        with pytest.raises(TaskCancelledError):
            raise_if_cancellation_requested()
    assert not is_cancellation_requested()
