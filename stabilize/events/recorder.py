"""Turns what a turn did into events, and appends them in that very transaction."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, insert

from stabilize.clock import utc_now
from stabilize.events.base import EntityType, Event, EventMetadata, EventType
from stabilize.models import EventRecord, StageExecution, TaskExecution, Workflow
from stabilize.types import encode

if TYPE_CHECKING:
    from stabilize.queue.messages import Message

_EVENTS: Table = EventRecord.__table__  # type: ignore[assignment]
_ENTITY_TYPE: dict[type, EntityType] = {
    Workflow: EntityType.WORKFLOW,
    StageExecution: EntityType.STAGE,
    TaskExecution: EntityType.TASK,
}


class EventRecorder:
    """Records what happens."""

    def draft(
        self,
        event_type: EventType,
        entity: Workflow | StageExecution | TaskExecution,
        data: dict[str, Any],
        *,
        workflow_id: str,
        timestamp: datetime,
        cause: Message | None,
        handler: str | None,
        actor: str = "system",
    ) -> Event:
        """An event of this turn, not stored yet."""
        return Event(
            event_type=event_type,
            timestamp=timestamp,
            entity_type=_ENTITY_TYPE[type(entity)],
            entity_id=entity.id,
            workflow_id=workflow_id,
            version=entity.event_version,
            data=data,
            metadata=EventMetadata(
                correlation_id=workflow_id,
                causation_id=None if cause is None else cause.message_id,
                actor=actor,
                source_handler=handler,
            ),
        )

    def append(self, connection: Connection, events: list[Event]) -> list[Event]:
        """Store the events of a turn, within its transaction."""
        connection.execute(insert(_EVENTS), [record_values(event) for event in events])
        return events

    def publish(self, events: list[Event]) -> None:
        """Tell the subscribers of this process; called after the commit."""


def record_values(event: Event) -> dict[str, Any]:
    """The row of an event, with the columns that reports ask for."""
    data = event.data
    content = encode([event.event_type.value, event.entity_type.value, event.entity_id, data])
    return {
        "event_id": event.event_id,
        "event_type": event.event_type.value,
        "timestamp": event.timestamp,
        "recorded_at": utc_now(),
        "entity_type": event.entity_type.value,
        "entity_id": event.entity_id,
        "workflow_id": event.workflow_id,
        "version": event.version,
        "data": data,
        "schema_version": event.schema_version,
        "correlation_id": event.metadata.correlation_id,
        "causation_id": event.metadata.causation_id,
        "actor": event.metadata.actor,
        "source_handler": event.metadata.source_handler,
        "entity_name": data.get("name"),
        "ref_id": data.get("ref_id"),
        "stage_type": data.get("type") if event.entity_type is EntityType.STAGE else None,
        "implementing_class": data.get("implementing_class"),
        "stage_id": data.get("stage_id"),
        "status": data.get("status"),
        "duration_ms": data.get("duration_ms"),
        "attempt": data.get("attempt"),
        "error": data.get("error"),
        "content_hash": hashlib.sha256(content.encode()).hexdigest(),
    }


_recorder: EventRecorder | None = None


def get_event_recorder() -> EventRecorder | None:
    """The recorder in force, None while event sourcing is off."""
    return _recorder


def set_event_recorder(recorder: EventRecorder | None) -> None:
    global _recorder
    _recorder = recorder
