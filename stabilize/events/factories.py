"""Events about an entity of one kind, made in one call."""

from __future__ import annotations

from typing import Any

from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.context import get_event_metadata


def _create(
    entity_type: EntityType,
    event_type: EventType,
    entity_id: str,
    workflow_id: str,
    data: dict[str, Any] | None,
    version: int,
) -> Event:
    return Event(
        event_type=event_type,
        entity_type=entity_type,
        entity_id=entity_id,
        workflow_id=workflow_id,
        version=version,
        data=dict(data or {}),
        metadata=get_event_metadata(workflow_id),
    )


def create_workflow_event(
    event_type: EventType,
    workflow_id: str,
    data: dict[str, Any] | None = None,
    version: int = 0,
) -> Event:
    """An event about a workflow; version 0 gets the next one when it is appended."""
    return _create(EntityType.WORKFLOW, event_type, workflow_id, workflow_id, data, version)


def create_stage_event(
    event_type: EventType,
    stage_id: str,
    workflow_id: str,
    data: dict[str, Any] | None = None,
    version: int = 0,
) -> Event:
    """An event about a stage run."""
    return _create(EntityType.STAGE, event_type, stage_id, workflow_id, data, version)


def create_task_event(
    event_type: EventType,
    task_id: str,
    workflow_id: str,
    data: dict[str, Any] | None = None,
    version: int = 0,
) -> Event:
    """An event about a task."""
    return _create(EntityType.TASK, event_type, task_id, workflow_id, data, version)
