"""What an event is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Self

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
        return cls(
            correlation_id=data.get("correlation_id", ""),
            causation_id=data.get("causation_id"),
            actor=data.get("actor", "system"),
            source_handler=data.get("source_handler"),
        )


@dataclass(frozen=True)
class Event:
    """One thing that happened, for good.

    `sequence` (from 1, 0 until stored) orders all events of a store; `version` counts those of one
    entity. `timestamp` is aware and in UTC. `data` is JSON.
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

    def with_sequence(self, sequence: int) -> Self:
        """The same event with its number in a store."""
        return replace(self, sequence=sequence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "event_id": self.event_id,
            "event_type": self.event_type.value,
            "timestamp": self.timestamp.isoformat(),
            "sequence": self.sequence,
            "entity_type": self.entity_type.value,
            "entity_id": self.entity_id,
            "workflow_id": self.workflow_id,
            "version": self.version,
            "data": dict(self.data),
            "metadata": self.metadata.to_dict(),
            "schema_version": self.schema_version,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The event of `to_dict`; an unknown type becomes UNKNOWN and keeps its name in `data`."""
        values = dict(data.get("data", {}))
        raw = data.get("event_type", EventType.STATUS_CHANGED.value)
        event_type = event_type_of(raw)
        if event_type is EventType.UNKNOWN and raw != EventType.UNKNOWN.value:
            values.setdefault("_raw_event_type", raw)
        instant = datetime.fromisoformat(str(data["timestamp"]).replace("Z", "+00:00"))
        return cls(
            event_id=data.get("event_id") or new_id(),
            event_type=event_type,
            timestamp=instant.astimezone(UTC),
            sequence=int(data.get("sequence", 0)),
            entity_type=EntityType(data.get("entity_type", "workflow")),
            entity_id=data.get("entity_id", ""),
            workflow_id=data.get("workflow_id", ""),
            version=int(data.get("version", 0)),
            data=values,
            metadata=EventMetadata.from_dict(data.get("metadata", {})),
            schema_version=int(data.get("schema_version", 1)),
        )


_BY_VALUE = {member.value: member for member in EventType}


def event_type_of(value: str) -> EventType:
    """The type stored as `value`, UNKNOWN when this version has no such type."""
    return _BY_VALUE.get(value, EventType.UNKNOWN)
