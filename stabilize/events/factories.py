"""Events about an entity of one kind, made in one call; version 0 gets the next when appended."""

from __future__ import annotations

from typing import Any

from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.context import get_event_metadata

Data = dict[str, Any] | None


def _create(kind: EntityType, id: str, event_type: EventType, workflow_id: str, **of: Any) -> Event:
    return Event(
        event_type=event_type,
        entity_type=kind,
        entity_id=id,
        workflow_id=workflow_id,
        metadata=get_event_metadata(workflow_id),
        **of,
    )


def create_workflow_event(
    event_type: EventType, workflow_id: str, data: Data = None, version: int = 0
) -> Event:
    kind, id = EntityType.WORKFLOW, workflow_id
    return _create(kind, id, event_type, workflow_id, data=data or {}, version=version)


def create_stage_event(
    event_type: EventType, stage_id: str, workflow_id: str, data: Data = None, version: int = 0
) -> Event:
    kind, id = EntityType.STAGE, stage_id
    return _create(kind, id, event_type, workflow_id, data=data or {}, version=version)


def create_task_event(
    event_type: EventType, task_id: str, workflow_id: str, data: Data = None, version: int = 0
) -> Event:
    kind, id = EntityType.TASK, task_id
    return _create(kind, id, event_type, workflow_id, data=data or {}, version=version)
