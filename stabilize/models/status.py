"""The statuses, where many programs import them from."""

from stabilize.status import (
    ACTIVE_STATUSES,
    COMPLETED_STATUSES,
    CONTINUABLE_STATUSES,
    HALT_STATUSES,
    VALID_TRANSITIONS,
    InvalidStateTransitionError,
    WorkflowStatus,
    can_transition,
    validate_transition,
)

__all__ = [
    "ACTIVE_STATUSES",
    "COMPLETED_STATUSES",
    "CONTINUABLE_STATUSES",
    "HALT_STATUSES",
    "VALID_TRANSITIONS",
    "InvalidStateTransitionError",
    "WorkflowStatus",
    "can_transition",
    "validate_transition",
]
