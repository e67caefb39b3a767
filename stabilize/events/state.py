"""What a workflow's events add up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stabilize.clock import from_ms
from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.migrator import EventMigrator, get_event_migrator

REDUCER_VERSION = 1
"""Rises when the same events would add up to something else: older snapshots are not used."""

Part = dict[str, Any]


@dataclass
class WorkflowState:
    """The state of a workflow; `stages` and `tasks` by id. Times are aware, in UTC.

    `skipped` names the events that could not be taken in, with the reason.
    """

    workflow_id: str
    status: str | None = None
    application: str | None = None
    name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    context: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Part] = field(default_factory=dict)
    tasks: dict[str, Part] = field(default_factory=dict)
    skipped: list[Part] = field(default_factory=list)

    def apply(self, event: Event, migrator: EventMigrator | None = None) -> None:
        """Take in the next event of the workflow."""
        steps = migrator or get_event_migrator()
        if event.schema_version != steps.current_version:
            event = steps.migrate(event, strict=False)
            if event.schema_version != steps.current_version:
                self._skip(event, f"schema version {event.schema_version} is not known here")
                return
        take = _TAKE.get(event.event_type)
        if take is not None:
            take(self, event)
        elif event.event_type is EventType.UNKNOWN:
            self._skip(event, f"unknown type {event.data.get('_raw_event_type')!r}")

    def _skip(self, event: Event, reason: str) -> None:
        self.skipped.append(
            {"sequence": event.sequence, "event_id": event.event_id, "reason": reason}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; times as ISO text. The parts are those of this state, not copies."""
        return {
            **self.__dict__,
            "start_time": None if self.start_time is None else self.start_time.isoformat(),
            "end_time": None if self.end_time is None else self.end_time.isoformat(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WorkflowState:
        """The state of `to_dict`; its parts are copied as far as events change them."""
        state = cls(workflow_id=data["workflow_id"])
        for name in ("status", "application", "name"):
            setattr(state, name, data.get(name))
        for name in ("start_time", "end_time"):
            text = data.get(name)
            setattr(state, name, None if text is None else datetime.fromisoformat(text))
        state.context = dict(data.get("context") or {})
        for name in ("stages", "tasks"):
            parts = (data.get(name) or {}).items()
            setattr(state, name, {id: _copy(part) for id, part in parts})
        state.skipped = list(data.get("skipped") or [])
        return state

    # --- the parts --------------------------------------------------------------------------

    def stage(self, id: str) -> Part:
        found = self.stages.get(id)
        if found is None:
            found = self.stages[id] = {
                "id": id,
                "ref_id": None,
                "type": None,
                "name": None,
                "run": None,
                "status": "NOT_STARTED",
                "start_time": None,
                "end_time": None,
                "context": {},
                "outputs": {},
                "error": None,
                "skip_reason": None,
            }
        return found

    def task(self, id: str) -> Part:
        found = self.tasks.get(id)
        if found is None:
            found = self.tasks[id] = {
                "id": id,
                "name": None,
                "stage_id": None,
                "status": "NOT_STARTED",
                "start_time": None,
                "end_time": None,
                "outputs": {},
                "error": None,
                "retry_count": 0,
            }
        return found


def _copy(part: Part) -> Part:
    copied = dict(part)
    for name in ("context", "outputs"):
        if name in copied:
            copied[name] = dict(copied[name])
    return copied


def _instant(event: Event, key: str) -> datetime:
    ms = event.data.get(key)
    return event.timestamp if ms is None else from_ms(ms)


def _time(event: Event, key: str) -> str:
    return _instant(event, key).isoformat()


# --- the workflow -----------------------------------------------------------------------------


def _created(state: WorkflowState, event: Event) -> None:
    state.status = state.status or "NOT_STARTED"
    state.application = event.data.get("application")
    state.name = event.data.get("name")


def _started(state: WorkflowState, event: Event) -> None:
    state.status = "RUNNING"
    state.start_time = _instant(event, "start_time")
    state.context = dict(event.data.get("context") or {})


def _ended(state: WorkflowState, event: Event) -> None:
    state.status = event.data.get("status") or _DEFAULT_STATUS[event.event_type]
    state.end_time = _instant(event, "end_time")
    _merge(state.context, event.data.get("context"))


def _paused(state: WorkflowState, _: Event) -> None:
    state.status = "PAUSED"


def _resumed(state: WorkflowState, event: Event) -> None:
    state.status = event.data.get("status") or "RUNNING"


# --- stages -----------------------------------------------------------------------------------


def _merge(values: dict[str, Any], delta: dict[str, Any] | None) -> None:
    if delta:
        values.update(delta)


def _delta(stage: Part, data: dict[str, Any]) -> None:
    _merge(stage["context"], data.get("context"))
    _merge(stage["outputs"], data.get("outputs"))


def _named_stage(state: WorkflowState, event: Event) -> Part:
    stage, data = state.stage(event.entity_id), event.data
    for key in ("ref_id", "type", "name"):
        if key in data:
            stage[key] = data[key]
    return stage


def _stage_started(state: WorkflowState, event: Event) -> None:
    stage, data = _named_stage(state, event), event.data
    stage["run"] = data.get("run")
    stage["status"] = "RUNNING"
    stage["start_time"] = _time(event, "start_time")
    stage["context"] = dict(data.get("context") or {})


def _stage_ended(state: WorkflowState, event: Event) -> None:
    stage, data = _named_stage(state, event), event.data
    stage["status"] = data.get("status") or _DEFAULT_STATUS[event.event_type]
    if data.get("end_time") is not None:
        stage["end_time"] = _time(event, "end_time")
    if event.event_type is EventType.STAGE_FAILED:
        stage["error"] = data.get("error")
    elif event.event_type is EventType.STAGE_SKIPPED:
        stage["skip_reason"] = data.get("reason")
    _delta(stage, data)


def _stage_suspended(state: WorkflowState, event: Event) -> None:
    stage = _named_stage(state, event)
    stage["status"] = "SUSPENDED"
    _delta(stage, event.data)


def _stage_resumed(state: WorkflowState, event: Event) -> None:
    stage = _named_stage(state, event)
    stage["status"] = "RUNNING"


# --- tasks ------------------------------------------------------------------------------------


def _task_started(state: WorkflowState, event: Event) -> None:
    task, data = state.task(event.entity_id), event.data
    task["name"] = data.get("name")
    task["stage_id"] = data.get("stage_id")
    task["status"] = "RUNNING"
    task["start_time"] = _time(event, "start_time")


def _task_ended(state: WorkflowState, event: Event) -> None:
    task, data = state.task(event.entity_id), event.data
    task["name"] = data.get("name", task["name"])
    task["stage_id"] = data.get("stage_id", task["stage_id"])
    task["status"] = data.get("status") or _DEFAULT_STATUS[event.event_type]
    task["end_time"] = _time(event, "end_time")
    task["outputs"] = data.get("outputs") or {}
    if event.event_type is EventType.TASK_FAILED:
        task["error"] = data.get("error")
    _task_delta(state, task, data)


def _task_delta(state: WorkflowState, task: Part, data: dict[str, Any]) -> None:
    if task["stage_id"] and (data.get("context") or data.get("outputs")):
        _delta(state.stage(task["stage_id"]), data)


def _task_retried(state: WorkflowState, event: Event) -> None:
    task, data = state.task(event.entity_id), event.data
    task["retry_count"] = data.get("attempt") or task["retry_count"] + 1
    _task_delta(state, task, data)


def _task_suspended(state: WorkflowState, event: Event) -> None:
    state.task(event.entity_id)["status"] = "SUSPENDED"


# --- anything ---------------------------------------------------------------------------------


def _status_changed(state: WorkflowState, event: Event) -> None:
    data = event.data
    status = data.get("new_status")
    if event.entity_type is EntityType.WORKFLOW:
        state.status = status
        if status == "RUNNING":
            state.end_time = None
        return
    if event.entity_type is EntityType.STAGE:
        part = _named_stage(state, event)
        _delta(part, data)
    else:
        part = state.task(event.entity_id)
        for key in ("name", "stage_id"):
            part[key] = data.get(key, part[key])
        _task_delta(state, part, data)
    part["status"] = status
    if data.get("end_time") is not None:
        part["end_time"] = _time(event, "end_time")


def _updated(state: WorkflowState, event: Event) -> None:
    removed = event.data.get("removed") or ()
    if removed:
        part = "context" if event.event_type is EventType.CONTEXT_UPDATED else "outputs"
        of_stage = event.entity_type is EntityType.STAGE
        values = state.stage(event.entity_id)[part] if of_stage else state.context
        for key in removed:
            values.pop(key, None)
    if event.entity_type is EntityType.WORKFLOW:
        _merge(state.context, event.data.get("context"))
    elif event.entity_type is EntityType.STAGE:
        _delta(_named_stage(state, event), event.data)


_DEFAULT_STATUS = {
    EventType.WORKFLOW_COMPLETED: "SUCCEEDED",
    EventType.WORKFLOW_FAILED: "TERMINAL",
    EventType.WORKFLOW_CANCELED: "CANCELED",
    EventType.STAGE_COMPLETED: "SUCCEEDED",
    EventType.STAGE_FAILED: "TERMINAL",
    EventType.STAGE_SKIPPED: "SKIPPED",
    EventType.STAGE_CANCELED: "CANCELED",
    EventType.TASK_COMPLETED: "SUCCEEDED",
    EventType.TASK_FAILED: "TERMINAL",
}
_TAKE: dict[EventType, Callable[[WorkflowState, Event], None]] = {
    EventType.WORKFLOW_CREATED: _created,
    EventType.WORKFLOW_STARTED: _started,
    EventType.WORKFLOW_COMPLETED: _ended,
    EventType.WORKFLOW_FAILED: _ended,
    EventType.WORKFLOW_CANCELED: _ended,
    EventType.WORKFLOW_PAUSED: _paused,
    EventType.WORKFLOW_RESUMED: _resumed,
    EventType.STAGE_STARTED: _stage_started,
    EventType.STAGE_COMPLETED: _stage_ended,
    EventType.STAGE_FAILED: _stage_ended,
    EventType.STAGE_SKIPPED: _stage_ended,
    EventType.STAGE_CANCELED: _stage_ended,
    EventType.STAGE_SUSPENDED: _stage_suspended,
    EventType.STAGE_RESUMED: _stage_resumed,
    EventType.TASK_STARTED: _task_started,
    EventType.TASK_COMPLETED: _task_ended,
    EventType.TASK_FAILED: _task_ended,
    EventType.TASK_RETRIED: _task_retried,
    EventType.TASK_SUSPENDED: _task_suspended,
    EventType.STATUS_CHANGED: _status_changed,
    EventType.CONTEXT_UPDATED: _updated,
    EventType.OUTPUTS_UPDATED: _updated,
}
