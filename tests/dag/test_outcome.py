"""What the parts of a stage, or of a workflow, amount to together."""

from __future__ import annotations

import pytest

from stabilize.dag.outcome import TOKEN_OF, stage_outcome, workflow_outcome
from stabilize.status import WorkflowStatus

S = WorkflowStatus


@pytest.mark.parametrize(
    ("core", "after", "status"),
    [
        ([], [], S.SUCCEEDED),
        ([S.SUCCEEDED], [], S.SUCCEEDED),
        ([S.SKIPPED], [], S.SUCCEEDED),
        ([S.SUCCEEDED, S.FAILED_CONTINUE], [], S.FAILED_CONTINUE),
        ([S.TERMINAL, S.STOPPED, S.CANCELED], [], S.STOPPED),
        ([S.STOPPED, S.CANCELED], [], S.STOPPED),
        ([S.CANCELED, S.FAILED_CONTINUE], [], S.CANCELED),
        ([S.SUCCEEDED], [S.TERMINAL, S.STOPPED], S.TERMINAL),
        ([S.SUCCEEDED], [S.FAILED_CONTINUE], S.SUCCEEDED),
        ([S.FAILED_CONTINUE], [S.CANCELED], S.CANCELED),
    ],
)
def test_the_worst_part_of_a_stage_decides(
    core: list[WorkflowStatus], after: list[WorkflowStatus], status: WorkflowStatus
) -> None:
    given = S.STOPPED if S.TERMINAL in core else S.TERMINAL
    assert stage_outcome(core, after, given) is status


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], S.TERMINAL),
        ([S.SUCCEEDED, S.SKIPPED, S.FAILED_CONTINUE], S.SUCCEEDED),
        ([S.SUCCEEDED, S.TERMINAL, S.STOPPED], S.TERMINAL),
        ([S.STOPPED, S.NOT_STARTED, S.SUCCEEDED], S.SUCCEEDED),
        ([S.CANCELED, S.SUCCEEDED], S.SUCCEEDED),
        ([S.NOT_STARTED], S.TERMINAL),
    ],
)
def test_a_workflow_is_as_good_as_its_stages(
    statuses: list[WorkflowStatus], status: WorkflowStatus
) -> None:
    assert workflow_outcome(set(statuses)) is status


def test_a_stopped_stage_may_ask_for_the_failure_of_its_workflow() -> None:
    assert workflow_outcome({S.STOPPED, S.SUCCEEDED}, fails_after_others=True) is S.TERMINAL
    assert workflow_outcome({S.SUCCEEDED}, fails_after_others=True) is S.SUCCEEDED


def test_every_way_to_end_puts_a_token() -> None:
    assert set(TOKEN_OF) == {status for status in WorkflowStatus if status.is_complete}
