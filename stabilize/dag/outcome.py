"""What the parts of a stage, or of a workflow, amount to together."""

from __future__ import annotations

from collections.abc import Collection

from stabilize.status import CONTINUABLE_STATUSES, TokenKind, WorkflowStatus

S = WorkflowStatus


def stage_outcome(
    core: Collection[WorkflowStatus],
    after: Collection[WorkflowStatus],
    failure_status: WorkflowStatus,
) -> WorkflowStatus:
    """The status of a stage none of whose parts is at work any more.

    `core`: its before-stages and tasks; `after`: its after-stages.
    """
    if S.TERMINAL in core:
        return failure_status
    for status in (S.STOPPED, S.CANCELED):
        if status in core:
            return status
    for status in (S.TERMINAL, S.STOPPED, S.CANCELED):
        if status in after:
            return status
    return S.FAILED_CONTINUE if S.FAILED_CONTINUE in core else S.SUCCEEDED


def workflow_outcome(
    statuses: Collection[WorkflowStatus], *, fails_after_others: bool = False
) -> WorkflowStatus:
    """The status of a workflow with nothing left to do, from its top-level stages' newest runs.

    A stage that never started does not count by itself: what kept it from starting does. A
    withdrawn stage (CANCELED) is not a failure. `fails_after_others`: a stage that stopped asked
    for the failure once the other branches are done.
    """
    if not statuses or S.TERMINAL in statuses:
        return S.TERMINAL
    if S.STOPPED in statuses and fails_after_others:
        return S.TERMINAL
    if all(s in CONTINUABLE_STATUSES or s in (S.STOPPED, S.CANCELED) for s in statuses):
        return S.SUCCEEDED
    return S.SUCCEEDED if S.STOPPED in statuses or S.CANCELED in statuses else S.TERMINAL


TOKEN_OF: dict[WorkflowStatus, TokenKind] = {
    S.SUCCEEDED: TokenKind.LIVE,
    S.FAILED_CONTINUE: TokenKind.LIVE,
    S.SKIPPED: TokenKind.LIVE,
    S.TERMINAL: TokenKind.FAILED,
    S.STOPPED: TokenKind.HALT,
    S.CANCELED: TokenKind.DEAD,
}
"""What a run that ended puts on its outgoing edges."""
