"""The story of one workflow, as people read it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stabilize.events.base import ENDS, STARTS, WORKFLOW_ENDS, EntityType, Event, EventType
from stabilize.events.projections.base import Projection

_SILENT = frozenset(
    {EventType.STATUS_CHANGED, EventType.CONTEXT_UPDATED, EventType.OUTPUTS_UPDATED}
)
_FAILURES = frozenset({"stage.failed", "task.failed", "workflow.failed", "workflow.canceled"})
_DETAILS: dict[EventType, tuple[str, ...]] = {
    EventType.WORKFLOW_CREATED: ("application", "type", "stage_count"),
    EventType.STAGE_STARTED: ("type", "is_synthetic", "task_count"),
    EventType.STAGE_SKIPPED: ("reason",),
    EventType.WORKFLOW_CANCELED: ("canceled_by", "reason"),
    EventType.TASK_RETRIED: ("attempt", "error"),
    EventType.JUMP_EXECUTED: ("from_ref_id", "to_ref_id", "jump_type"),
}


@dataclass
class TimelineEntry:
    """One line of the story; `duration_ms` where something ended."""

    timestamp: datetime
    event_type: str
    entity_type: str
    entity_id: str
    entity_name: str | None = None
    status: str | None = None
    duration_ms: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class WorkflowTimeline:
    """The whole story; `total_duration_ms` is None until the workflow has ended."""

    workflow_id: str
    entries: list[TimelineEntry] = field(default_factory=list)
    total_duration_ms: int | None = None
    status: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


class WorkflowTimelineProjection(Projection):
    """Builds the timeline of one workflow; events of others are ignored, order does not matter."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        self._events: dict[str, Event] = {}

    @property
    def name(self) -> str:
        return f"workflow-timeline-{self.workflow_id}"

    def apply(self, event: Event) -> None:
        if event.workflow_id == self.workflow_id:
            self._events.setdefault(event.event_id, event)

    def get_state(self) -> WorkflowTimeline:
        timeline = WorkflowTimeline(self.workflow_id)
        starts: dict[tuple[EntityType, str], datetime] = {}
        for event in sorted(self._events.values(), key=_place):
            key = (event.entity_type, event.entity_id)
            if event.event_type in STARTS:
                starts[key] = event.timestamp
            if event.event_type not in _SILENT:
                timeline.entries.append(_entry(event, starts.get(key)))
            _note(timeline, event)
        return timeline

    def get_stages(self) -> list[TimelineEntry]:
        """The entries about stages."""
        return self._about(EntityType.STAGE)

    def get_tasks(self) -> list[TimelineEntry]:
        """The entries about tasks."""
        return self._about(EntityType.TASK)

    def _about(self, kind: EntityType) -> list[TimelineEntry]:
        return [e for e in self.get_state().entries if e.entity_type == kind.value]

    def get_failures(self) -> list[TimelineEntry]:
        """The entries about what failed or was canceled."""
        return [e for e in self.get_state().entries if e.event_type in _FAILURES]

    def reset(self) -> None:
        self._events.clear()


def _place(event: Event) -> tuple[int, datetime]:
    return event.sequence, event.timestamp


def _entry(event: Event, started: datetime | None) -> TimelineEntry:
    data = event.data
    duration = data.get("duration_ms")
    if duration is None and event.event_type in ENDS and started is not None:
        duration = int((event.timestamp - started).total_seconds() * 1000)
    details = {key: data[key] for key in _DETAILS.get(event.event_type, ()) if key in data}
    if event.event_type.value in _FAILURES and data.get("error") is not None:
        details["error"] = data["error"]
    return TimelineEntry(
        timestamp=event.timestamp,
        event_type=event.event_type.value,
        entity_type=event.entity_type.value,
        entity_id=event.entity_id,
        entity_name=data.get("name") or data.get("ref_id"),
        status=data.get("status"),
        duration_ms=duration,
        details=deepcopy(details),
    )


def _note(timeline: WorkflowTimeline, event: Event) -> None:
    """What the event says of the workflow as a whole."""
    if event.event_type is EventType.WORKFLOW_STARTED:
        timeline.start_time = event.timestamp
        timeline.status = "RUNNING"
    elif event.event_type in WORKFLOW_ENDS:
        timeline.end_time = event.timestamp
        default = "CANCELED" if event.event_type is EventType.WORKFLOW_CANCELED else None
        timeline.status = event.data.get("status") or default
        if event.data.get("duration_ms") is not None:
            timeline.total_duration_ms = int(event.data["duration_ms"])
        elif timeline.start_time is not None:
            spent = event.timestamp - timeline.start_time
            timeline.total_duration_ms = int(spent.total_seconds() * 1000)
