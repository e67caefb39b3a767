"""What a workflow's events add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stabilize.clock import from_ms
from stabilize.events.base import ENDS, EntityType, Event, EventType, status_after
from stabilize.events.migrator import EventMigrator, get_event_migrator
from stabilize.events.rows import BROKEN, RAW_ENTITY, RAW_TYPE

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
        if event.event_type in _KEPT:
            _TAKE[event.entity_type](self, event)
        elif event.event_type is EventType.UNKNOWN:
            self._skip(event, _what(event.data))

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
        state = cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
        for name in ("start_time", "end_time"):
            if data.get(name) is not None:
                setattr(state, name, datetime.fromisoformat(data[name]))
        state.context, state.skipped = dict(state.context), list(state.skipped)
        state.stages = {id: _copy(part) for id, part in state.stages.items()}
        state.tasks = {id: _copy(part) for id, part in state.tasks.items()}
        return state

    # --- the parts --------------------------------------------------------------------------

    def stage(self, id: str) -> Part:
        if id not in self.stages:
            self.stages[id] = _copy({"id": id, **_STAGE})
        return self.stages[id]

    def task(self, id: str) -> Part:
        if id not in self.tasks:
            self.tasks[id] = _copy({"id": id, **_TASK})
        return self.tasks[id]


_UNKNOWN = dict.fromkeys(("name", "start_time", "end_time", "error"))
_BOTH: Part = {**_UNKNOWN, "status": "NOT_STARTED", "outputs": {}}
_STAGE: Part = {**_BOTH, **dict.fromkeys(("ref_id", "type", "run", "skip_reason")), "context": {}}
_TASK: Part = {**_BOTH, "stage_id": None, "retry_count": 0}


def _what(data: Part) -> str:
    raw = data.get(RAW_TYPE)
    if BROKEN in data:
        return f"{raw} with a broken payload"
    if RAW_ENTITY in data:
        return f"{raw} of an unknown {data[RAW_ENTITY]!r}"
    return f"unknown type {raw!r}"


def _copy(part: Part) -> Part:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in part.items()}


def _instant(event: Event, key: str) -> datetime:
    ms = event.data.get(key)
    return event.timestamp if ms is None else from_ms(ms)


def _change(values: dict[str, Any], event: Event, key: str) -> None:
    """Carry a change of a context or of outputs over to `values`."""
    if event.event_type is _REMOVES[key]:
        for gone in event.data.get("removed") or ():
            values.pop(gone, None)
    delta = event.data.get(key)
    if delta:
        values.update(delta)


def _workflow(state: WorkflowState, event: Event) -> None:
    data, kind = event.data, event.event_type
    if kind is EventType.WORKFLOW_CREATED:
        state.status = state.status or "NOT_STARTED"
        state.application, state.name = data.get("application"), data.get("name")
        return
    state.status = status_after(kind, data) or state.status
    if kind is EventType.WORKFLOW_STARTED:
        state.start_time = _instant(event, "start_time")
        state.context = dict(data.get("context") or {})
        return
    if kind in ENDS:
        state.end_time = _instant(event, "end_time")
    elif kind is EventType.STATUS_CHANGED and state.status == "RUNNING":
        state.end_time = None
    _change(state.context, event, "context")


def _stage(state: WorkflowState, event: Event) -> None:
    stage, data, kind = state.stage(event.entity_id), event.data, event.event_type
    _copy_named(stage, data, ("ref_id", "type", "name"))
    stage["status"] = status_after(kind, data) or stage["status"]
    if kind is EventType.STAGE_STARTED:
        stage["run"] = data.get("run")
        stage["start_time"] = _instant(event, "start_time").isoformat()
        stage["context"] = dict(data.get("context") or {})
        return
    if data.get("end_time") is not None:
        stage["end_time"] = _instant(event, "end_time").isoformat()
    if kind is EventType.STAGE_FAILED:
        stage["error"] = data.get("error")
    elif kind is EventType.STAGE_SKIPPED:
        stage["skip_reason"] = data.get("reason")
    for key in _REMOVES:
        _change(stage[key], event, key)


def _task(state: WorkflowState, event: Event) -> None:
    task, data, kind = state.task(event.entity_id), event.data, event.event_type
    _copy_named(task, data, ("name", "stage_id"))
    task["status"] = status_after(kind, data) or task["status"]
    if kind is EventType.TASK_STARTED:
        task["start_time"] = _instant(event, "start_time").isoformat()
        return
    if kind in ENDS or data.get("end_time") is not None:
        task["end_time"] = _instant(event, "end_time").isoformat()
    if kind in ENDS:
        task["outputs"] = dict(data.get("outputs") or {})
    if kind is EventType.TASK_FAILED:
        task["error"] = data.get("error")
    elif kind is EventType.TASK_RETRIED:
        task["retry_count"] = data.get("attempt") or task["retry_count"] + 1
    if task["stage_id"] and (data.get("context") or data.get("outputs")):
        for key in _REMOVES:
            _change(state.stage(task["stage_id"])[key], event, key)


def _copy_named(part: Part, data: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in data:
            part[name] = data[name]


_REMOVES = {"context": EventType.CONTEXT_UPDATED, "outputs": EventType.OUTPUTS_UPDATED}
_KEPT = frozenset(
    {
        *(kind for kind in EventType if status_after(kind, {})),
        *_REMOVES.values(),
        EventType.WORKFLOW_CREATED,
        EventType.TASK_RETRIED,
        EventType.STATUS_CHANGED,
    }
)
"""What changes a state; the rest only tells something."""
_TAKE: dict[EntityType, Callable[[WorkflowState, Event], None]] = {
    EntityType.WORKFLOW: _workflow,
    EntityType.STAGE: _stage,
    EntityType.TASK: _task,
}
