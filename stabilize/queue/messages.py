"""Everything that can be said: the messages that move workflows."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Self, dataclass_transform

from stabilize.errors import QueueError
from stabilize.models.stage import StageExecution
from stabilize.models.task import TaskExecution
from stabilize.status import WorkflowStatus
from stabilize.types import plain

PAYLOAD_VERSION = 1
BUILDER = "stage:"
"""With the type of a stage behind it, this is to a worker that has its builder what a task type is
to one that has the task."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Value:
    """Makes every class derived from it a frozen dataclass, constructed by keyword."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Message(_Value):
    """A message; the fields of this class describe its delivery, those of subclasses its content.

    `message_id` is None until it was taken from a queue.
    """

    starts_work: ClassVar[bool] = False
    """It begins something new, which a paused workflow does not."""
    runs_user_code: ClassVar[bool] = False
    """It is carried out in the executor; a handler gets it together with the outcome."""
    tidies_up: ClassVar[bool] = False
    """It is about what has ended: it stays when the messages of a workflow or stage are purged."""
    is_for_any_run: ClassVar[bool] = False
    """It came from outside for a stage, by the id of a run: it stays when that run is withdrawn."""

    execution_type: str = "PIPELINE"
    execution_id: str = ""
    message_id: str | None = field(default=None, compare=False)
    attempts: int = field(default=0, compare=False)
    max_attempts: int = field(default=10, compare=False)
    last_error: str | None = field(default=None, compare=False)

    @property
    def row_id(self) -> str:
        """The id of a message that was taken from a queue."""
        assert self.message_id is not None
        return self.message_id

    def copy_with_attempts(self, attempts: int) -> Self:
        return self.delivered(self.message_id, attempts)

    def delivered(self, message_id: str | None, attempts: int) -> Self:
        """This message as a queue delivers it, for the `attempts`-th time."""
        delivered = object.__new__(type(self))
        delivered.__dict__.update(self.__dict__, message_id=message_id, attempts=attempts)
        return delivered


class WorkflowLevel(Message):
    """About a workflow."""


class StartWorkflow(WorkflowLevel):
    starts_work: ClassVar[bool] = True

    user: str = ""


class CompleteWorkflow(WorkflowLevel):
    """Look whether anything is left to do; if not, the workflow is over."""


class CancelWorkflow(WorkflowLevel):
    user: str = ""
    reason: str = ""


class PauseWorkflow(WorkflowLevel):
    user: str = ""


class ResumeWorkflow(WorkflowLevel):
    user: str = ""


class FailWorkflow(WorkflowLevel):
    """A message of this workflow was given up: stop it where people can see why."""

    error: str = ""
    stage_id: str = ""
    task_id: str = ""


class CancelRegion(WorkflowLevel):
    """Withdraw every stage whose `cancel_region` is `region` (WCP-25)."""

    region: str = ""
    user: str = ""


class StageLevel(Message):
    """About a stage run."""

    stage_id: str = ""

    @classmethod
    def of(cls, stage: StageExecution, **values: Any) -> Self:
        return cls(execution_id=stage.workflow_id, stage_id=stage.id, **values)


class StartStage(StageLevel):
    """Begin a run that has its tokens; `triggered` when its trigger has come as well."""

    starts_work: ClassVar[bool] = True

    triggered: bool = False


class PlanStage(StageLevel):
    """Ask the builder of the stage's type for its tasks and synthetic stages."""

    starts_work: ClassVar[bool] = True
    runs_user_code: ClassVar[bool] = True

    task_type: str = ""
    for_failure: bool = False

    @classmethod
    def of(cls, stage: StageExecution, **values: Any) -> Self:
        return super().of(stage, task_type=BUILDER + stage.type, **values)


class CompleteStage(StageLevel):
    """Everything of the stage that was to run has run: find what it came to."""


class SkipStage(StageLevel):
    reason: str = "Stage skipped"


class FailStage(StageLevel):
    """The stage cannot do what its definition says."""

    error: str = ""


class CancelStage(StageLevel):
    """Withdraw the stage; the rest of the workflow goes on."""

    user: str = ""
    reason: str = ""


class RestartStage(StageLevel):
    """Run a stage that is complete, and what follows it, once more."""

    is_for_any_run: ClassVar[bool] = True

    user: str = ""


class SpawnInstances(StageLevel):
    """Make the next instances of a group, a bounded number at a time."""

    starts_work: ClassVar[bool] = True


class AddMultiInstance(StageLevel):
    """Add one instance to a group that is open (WCP-15, 36)."""

    is_for_any_run: ClassVar[bool] = True

    instance_context: dict[str, Any] = field(default_factory=dict)


class CancelMultiInstance(StageLevel):
    """Withdraw the unfinished instances of a group; its branch brings nothing (WCP-26)."""


class CompleteMultiInstance(StageLevel):
    """Withdraw the unfinished instances of a group and go on with what there is (WCP-27)."""


class WithdrawInstances(StageLevel):
    """Withdraw the next instances of a group, from number `start`, a bounded number at a time.

    `status` is what those become that have not begun.
    """

    tidies_up: ClassVar[bool] = True

    start: int = 0
    status: WorkflowStatus = WorkflowStatus.NOT_STARTED


class InstanceEnded(StageLevel):
    """An instance of the group `stage_id` has ended."""

    instance_id: str = ""


class ContinueParentStage(StageLevel):
    """A synthetic stage of this parent has ended."""


class JumpToStage(StageLevel):
    """Leave `stage_id` and go on at `target_stage_ref_id`, with what the jump brings along."""

    target_stage_ref_id: str = ""
    jump_context: dict[str, Any] = field(default_factory=dict)
    jump_outputs: dict[str, Any] = field(default_factory=dict)


class SignalStage(StageLevel):
    """Send a signal to a stage: taken if it waits; else kept when `persistent`, or dropped."""

    is_for_any_run: ClassVar[bool] = True

    signal_name: str = ""
    signal_data: dict[str, Any] = field(default_factory=dict)
    persistent: bool = False
    user: str = ""


class StageDeadline(StageLevel):
    """The stage's time (`stageTimeoutMs`) is over; it comes late by design."""


class TaskLevel(StageLevel):
    """About a task."""

    task_id: str = ""

    @classmethod
    def of_task(cls, task: TaskExecution, **values: Any) -> Self:
        return cls(execution_id=task.workflow_id, stage_id=task.stage_id, task_id=task.id, **values)


class StartTask(TaskLevel):
    """Begin a task; in a paused workflow its handler pauses task and stage, for people to see."""


class RunTask(TaskLevel):
    """Execute the body of a task."""

    starts_work: ClassVar[bool] = True
    runs_user_code: ClassVar[bool] = True

    task_type: str = ""


class RunHook(TaskLevel):
    """Call `on_cancel` or `on_cleanup` of a task whose stage is over."""

    runs_user_code: ClassVar[bool] = True
    tidies_up: ClassVar[bool] = True

    task_type: str = ""
    hook: str = ""


class ChildEnded(TaskLevel):
    """The child workflow that a task started has ended."""

    child_id: str = ""


class CompleteTask(TaskLevel):
    """The body of a task came to `status`, and brought `context` and `outputs` along.

    `stops_stage`: the tasks after it do not run. `terminates`: nor does the rest of the workflow.
    """

    status: WorkflowStatus = WorkflowStatus.SUCCEEDED
    context: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    exception: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stops_stage: bool = False
    terminates: bool = False


def _concrete(kind: type[Message]) -> list[type[Message]]:
    return [
        found
        for sub in kind.__subclasses__()
        for found in ([sub] if not sub.__subclasses__() else _concrete(sub))
    ]


MESSAGE_TYPES: dict[str, type[Message]] = {kind.__name__: kind for kind in _concrete(Message)}
"""Every message that can be put in a queue, by name."""

_ROUTED = {"stage_id", "task_id", "task_type"}
_ROUTING = {f.name for f in fields(Message)} - {"execution_type"} | _ROUTED
_CONTENT: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind) if f.name not in _ROUTING)
    for kind in MESSAGE_TYPES.values()
}


def get_message_type_name(message: Message) -> str:
    return type(message).__name__


def payload_of(message: Message) -> dict[str, Any]:
    """What of `message` has no column of its own, as plain JSON values."""
    kind = type(message)
    values: dict[str, Any] = {}
    for name in _CONTENT[kind]:
        value = getattr(message, name)
        if isinstance(value, WorkflowStatus):
            value = value.name
        if value and value != "PIPELINE":
            values[name] = value
    return plain(values, kind.__name__) if values else values


def create_message_from_dict(name: str, data: dict[str, Any]) -> Message:
    """Build the message called `name`; `ValueError` when there is none, `QueueError` bad fields.

    Fields this version does not know are refused: a newer one wrote them.
    """
    kind = MESSAGE_TYPES.get(name)
    if kind is None:
        raise ValueError(
            f"unknown message type {name!r}: known are {', '.join(sorted(MESSAGE_TYPES))}"
        )
    values = dict(data)
    if isinstance(values.get("status"), str):
        values["status"] = WorkflowStatus[values["status"]]
    try:
        return kind(**values)
    except TypeError as error:
        raise QueueError(f"message {name} cannot be read: {error}") from error
