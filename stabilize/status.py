"""The enumerations of the engine: what an entity can be, how branches split and join."""

from __future__ import annotations

from enum import Enum


class WorkflowStatus(Enum):
    """The status of a workflow, a stage or a task.

    `is_complete`: nothing more happens to it by itself. `is_halt`: what depends on it does not run.
    """

    NOT_STARTED = ("NOT_STARTED", False, False)
    RUNNING = ("RUNNING", False, False)
    PAUSED = ("PAUSED", False, False)
    SUSPENDED = ("SUSPENDED", False, False)
    SUCCEEDED = ("SUCCEEDED", True, False)
    FAILED_CONTINUE = ("FAILED_CONTINUE", True, False)
    TERMINAL = ("TERMINAL", True, True)
    CANCELED = ("CANCELED", True, True)
    REDIRECT = ("REDIRECT", False, False)
    STOPPED = ("STOPPED", True, True)
    SKIPPED = ("SKIPPED", True, False)
    BUFFERED = ("BUFFERED", False, False)

    is_complete: bool
    is_halt: bool

    def __init__(self, label: str, is_complete: bool, is_halt: bool) -> None:
        self.is_complete = is_complete
        self.is_halt = is_halt

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"WorkflowStatus.{self.name}"

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def is_successful(self) -> bool:
        """It did what it was there for, or was rightly passed over."""
        return self in (WorkflowStatus.SUCCEEDED, WorkflowStatus.SKIPPED)

    @property
    def is_failure(self) -> bool:
        """It went wrong; a cancellation is not a failure."""
        failures = (WorkflowStatus.TERMINAL, WorkflowStatus.STOPPED, WorkflowStatus.FAILED_CONTINUE)
        return self in failures

    @property
    def is_skipped(self) -> bool:
        return self is WorkflowStatus.SKIPPED

    @property
    def is_dirty(self) -> bool:
        """User code may be at work on it right now."""
        return self in (WorkflowStatus.RUNNING, WorkflowStatus.REDIRECT)


_S = WorkflowStatus
COMPLETED_STATUSES = frozenset(s for s in WorkflowStatus if s.is_complete)
HALT_STATUSES = frozenset(s for s in WorkflowStatus if s.is_halt)
CONTINUABLE_STATUSES = frozenset({_S.SUCCEEDED, _S.FAILED_CONTINUE, _S.SKIPPED, _S.REDIRECT})
ENDING_STATUSES = CONTINUABLE_STATUSES - {_S.SKIPPED}
"""With these a stage that ends the workflow does so: one that did not run ends nothing."""
ACTIVE_STATUSES = frozenset({_S.NOT_STARTED, _S.RUNNING, _S.PAUSED, _S.SUSPENDED})
BEGUN_STATUSES = frozenset({_S.RUNNING, _S.PAUSED, _S.SUSPENDED, _S.REDIRECT})

_AFTER_RUNNING = COMPLETED_STATUSES | {_S.PAUSED, _S.SUSPENDED, _S.REDIRECT}
_AFTER_A_WAIT = frozenset({_S.RUNNING, _S.CANCELED, _S.STOPPED})
VALID_TRANSITIONS: dict[WorkflowStatus, frozenset[WorkflowStatus]] = {
    **{status: frozenset() for status in WorkflowStatus},
    _S.NOT_STARTED: frozenset({_S.RUNNING, _S.CANCELED, _S.SKIPPED, _S.BUFFERED, _S.TERMINAL}),
    _S.BUFFERED: frozenset({_S.NOT_STARTED, _S.RUNNING, _S.CANCELED, _S.SKIPPED}),
    _S.RUNNING: _AFTER_RUNNING,
    _S.PAUSED: _AFTER_A_WAIT,
    _S.SUSPENDED: _AFTER_A_WAIT,
    _S.REDIRECT: frozenset({_S.RUNNING, _S.SUCCEEDED, _S.CANCELED}),
}


def can_become(status: WorkflowStatus, wanted: WorkflowStatus) -> bool:
    """Say whether one transition after another leads from `status` to `wanted`."""
    seen: set[WorkflowStatus] = set()
    waiting = [status]
    while waiting:
        following = VALID_TRANSITIONS[waiting.pop()] - seen
        seen |= following
        waiting.extend(following)
    return wanted in seen


class InvalidStateTransitionError(Exception):
    """A status was asked for that the present one does not lead to."""

    def __init__(
        self,
        current: WorkflowStatus,
        target: WorkflowStatus,
        entity_type: str = "entity",
        entity_id: str | None = None,
    ) -> None:
        self.current = current
        self.target = target
        self.entity_type = entity_type
        self.entity_id = entity_id
        allowed = ", ".join(sorted(s.name for s in VALID_TRANSITIONS[current])) or "none"
        super().__init__(
            f"{entity_type} {entity_id or '(no id)'} cannot go from {current} to {target}: "
            f"allowed from {current}: {allowed}"
        )


def can_transition(current: WorkflowStatus, target: WorkflowStatus) -> bool:
    """Say whether `target` may follow `current`; staying where it is always may."""
    return current is target or target in VALID_TRANSITIONS[current]


def validate_transition(
    current: WorkflowStatus,
    target: WorkflowStatus,
    entity_type: str = "entity",
    entity_id: str | None = None,
) -> None:
    """Raise `InvalidStateTransitionError` unless `target` may follow `current`."""
    if not can_transition(current, target):
        raise InvalidStateTransitionError(current, target, entity_type, entity_id)


class _ByName(Enum):
    def __str__(self) -> str:
        return self.name


class WorkflowType(_ByName):
    PIPELINE = "PIPELINE"
    ORCHESTRATION = "ORCHESTRATION"


class SyntheticStageOwner(_ByName):
    """When a synthetic stage runs, seen from its parent."""

    STAGE_BEFORE = "STAGE_BEFORE"
    STAGE_AFTER = "STAGE_AFTER"
    STAGE_FAILURE = "STAGE_FAILURE"
    INSTANCE = "INSTANCE"


class JoinType(_ByName):
    """How a stage decides from its incoming tokens that it starts."""

    AND = "AND"
    OR = "OR"
    XOR = "XOR"
    MULTI_MERGE = "MULTI_MERGE"
    DISCRIMINATOR = "DISCRIMINATOR"
    N_OF_M = "N_OF_M"
    THREADS = "THREADS"


class SplitType(_ByName):
    """How a stage that ended decides which outgoing edges get a live token."""

    AND = "AND"
    OR = "OR"
    XOR = "XOR"
    THREADS = "THREADS"


class TokenKind(_ByName):
    """What a token says of the branch it came by."""

    LIVE = "LIVE"
    DEAD = "DEAD"
    FAILED = "FAILED"
    HALT = "HALT"


class StagePhase(_ByName):
    """How far a stage run has come.

    WAITING for tokens, READY to start, then its synthetic stages before, its tasks, those after.
    """

    WAITING = "WAITING"
    READY = "READY"
    PLANNING = "PLANNING"
    BEFORE = "BEFORE"
    TASKS = "TASKS"
    AFTER = "AFTER"
    FAILURE = "FAILURE"
    ENDED = "ENDED"
