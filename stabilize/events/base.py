"""What an event is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NoReturn, Self, TypeVar

from stabilize.clock import new_id, utc_now


class EventType(Enum):
    """Everything that can happen, as the dotted name that is stored."""

    WORKFLOW_CREATED = "workflow.created"
    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_COMPLETED = "workflow.completed"
    WORKFLOW_FAILED = "workflow.failed"
    WORKFLOW_CANCELED = "workflow.canceled"
    WORKFLOW_PAUSED = "workflow.paused"
    WORKFLOW_RESUMED = "workflow.resumed"
    WORKFLOW_DEADLOCKED = "workflow.deadlocked"
    STAGE_STARTED = "stage.started"
    STAGE_COMPLETED = "stage.completed"
    STAGE_FAILED = "stage.failed"
    STAGE_SKIPPED = "stage.skipped"
    STAGE_CANCELED = "stage.canceled"
    STAGE_SUSPENDED = "stage.suspended"
    STAGE_RESUMED = "stage.resumed"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_RETRIED = "task.retried"
    TASK_SUSPENDED = "task.suspended"
    STATUS_CHANGED = "status.changed"
    CONTEXT_UPDATED = "context.updated"
    OUTPUTS_UPDATED = "outputs.updated"
    JUMP_EXECUTED = "jump.executed"
    SIGNAL_DROPPED = "signal.dropped"
    SIGNAL_BUFFERED = "signal.buffered"
    CUSTOM = "custom.progress"
    UNKNOWN = "unknown.event"


class EntityType(Enum):
    """What an event can be about."""

    WORKFLOW = "workflow"
    STAGE = "stage"
    TASK = "task"


STARTS = frozenset(kind for kind in EventType if kind.name.endswith("_STARTED"))
ENDS = frozenset(
    kind for kind in EventType if kind.name.endswith(("_COMPLETED", "_FAILED", "_CANCELED"))
)
WORKFLOW_ENDS = frozenset(kind for kind in ENDS if kind.name.startswith("WORKFLOW"))
_STATUS_OF = {
    "started": "RUNNING",
    "resumed": "RUNNING",
    "paused": "PAUSED",
    "suspended": "SUSPENDED",
    "completed": "SUCCEEDED",
    "failed": "TERMINAL",
    "canceled": "CANCELED",
    "skipped": "SKIPPED",
}
_STATUSES = {kind.value: _STATUS_OF.get(kind.value.partition(".")[2]) for kind in EventType}
_BY_VALUE = {member.value: member for member in EventType}
T = TypeVar("T")


def event_type_of(value: str) -> EventType:
    """The type stored as `value`, UNKNOWN when this version has no such type."""
    return _BY_VALUE.get(value, EventType.UNKNOWN)


def status_after(kind: EventType, data: Mapping[str, Any]) -> str | None:
    """The status of an entity after an event, None when the event says nothing of it."""
    return data.get("status") or data.get("new_status") or _STATUSES[kind._value_]


def built(kind: type[T], values: dict[str, Any]) -> T:
    """A frozen `kind` of all its values, made without its constructor: events are many."""
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    return made


class Payload(dict[str, Any]):
    """The data of an event: a dict that nobody changes."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the data of an event is read-only: change a copy, dict(event.data)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Payload], tuple[dict[str, Any]]]:
        return Payload, (dict(self),)


@dataclass(frozen=True)
class EventMetadata:
    """Who and what an event goes back to.

    `correlation_id`: usually the workflow's id. `causation_id`: the event or message that led here.
    `actor`: a user, or "system". `source_handler`: the class that recorded it.
    """

    correlation_id: str
    causation_id: str | None = None
    actor: str = "system"
    source_handler: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{"correlation_id": "", **_fields(cls, data)})


@dataclass(frozen=True)
class Event:
    """One thing that happened, for good.

    `sequence` (from 1, 0 until stored) orders all events of a store; `version` counts those of one
    entity. `timestamp` is aware and in UTC. `data` is JSON, and read-only.
    """

    event_id: str = field(default_factory=new_id)
    event_type: EventType = EventType.STATUS_CHANGED
    timestamp: datetime = field(default_factory=utc_now)
    sequence: int = 0
    entity_type: EntityType = EntityType.WORKFLOW
    entity_id: str = ""
    workflow_id: str = ""
    version: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    metadata: EventMetadata = field(default_factory=lambda: EventMetadata(correlation_id=""))
    schema_version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Payload(self.data))

    def with_sequence(self, sequence: int) -> Self:
        """The same event with its number in a store."""
        return replace(self, sequence=sequence)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "event_type": self.event_type.value,
            "timestamp": self.timestamp.isoformat(),
            "entity_type": self.entity_type.value,
            "data": dict(self.data),
            "metadata": self.metadata.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The event of `to_dict`; an unknown type becomes UNKNOWN and keeps its name in `data`."""
        payload = dict(data.get("data", {}))
        raw = data.get("event_type", EventType.STATUS_CHANGED.value)
        if raw not in _BY_VALUE:
            payload.setdefault("_raw_event_type", raw)
        instant = datetime.fromisoformat(str(data["timestamp"]).replace("Z", "+00:00"))
        given = {
            "event_type": event_type_of(raw),
            "timestamp": instant.astimezone(UTC),
            "entity_type": EntityType(data.get("entity_type", "workflow")),
            "data": payload,
            "metadata": EventMetadata.from_dict(data.get("metadata", {})),
        }
        return cls(**{**_fields(cls, data), **given})


def _fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in kind.__dataclass_fields__ if name in data}
