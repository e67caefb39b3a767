"""Sees to it that nothing changes in a turn without an event that tells of it.

Handlers record what has a meaning of its own. Whatever else they changed of a status, a context or
outputs (a task passed over, a stage paused, an error noted) is found here by comparing what the
events of the turn have told with what is there, and told by a generic event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stabilize.events.base import EventType, status_after
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.unwatched import KIND_OF, Entity
from stabilize.status import WorkflowStatus

_NOTHING: dict[str, Any] = {}
Finding = tuple[EventType, Entity, dict[str, Any]]


@dataclass(slots=True)
class _Told:
    """What the events so far say of an entity."""

    entity: Entity
    status: str
    end_time: int | None
    context: dict[str, Any]
    outputs: dict[str, Any]


class Account:
    """What a turn has changed of entities, against what its events tell."""

    def __init__(self) -> None:
        self._open: dict[str, _Told] = {}

    def before_change(self, entity: Entity, values: Mapping[str, Any]) -> None:
        """Note how an entity is told, before it is changed."""
        state = entity.__dict__
        id = state["id"]
        if id in self._open or not (
            "status" in values or "context" in values or "outputs" in values
        ):
            return
        status = state["status"]
        untold = status is WorkflowStatus.NOT_STARTED
        self._open[id] = _Told(
            entity,
            status.name,
            state["end_time"],
            _NOTHING if untold else state.get("context", _NOTHING),
            _NOTHING if untold else state.get("outputs", _NOTHING),
        )

    def tell(self, event_type: EventType, entity: Entity, data: Mapping[str, Any]) -> None:
        """Note what an event tells."""
        told = self._open.get(entity.__dict__["id"])
        if told is not None:
            status = status_after(event_type, data)
            if status is not None:
                told.status = status
                told.end_time = data.get("end_time", told.end_time)
        if isinstance(entity, TaskExecution):
            told = self._open.get(entity.__dict__["stage_id"])
        if told is None:
            return
        if event_type in (EventType.STAGE_STARTED, EventType.WORKFLOW_STARTED):
            told.context = data.get("context") or {}
            return
        if data.get("context"):
            told.context = {**told.context, **data["context"]}
        if data.get("outputs"):
            told.outputs = {**told.outputs, **data["outputs"]}

    def untold(self) -> Iterator[Finding]:
        """What changed and was not told, as events to be recorded; the account begins anew."""
        if not self._open:
            return
        opened, self._open = self._open, {}
        for told in opened.values():
            entity = told.entity
            state = entity.__dict__
            status = state["status"]
            if status.name != told.status:
                yield _status_changed(entity, told)
            if status is WorkflowStatus.NOT_STARTED or isinstance(entity, TaskExecution):
                continue
            for event_type, key, before in (
                (EventType.CONTEXT_UPDATED, "context", told.context),
                (EventType.OUTPUTS_UPDATED, "outputs", told.outputs),
            ):
                actual = state.get(key, before)
                if actual is not before and actual != before:
                    yield event_type, entity, _changes(entity, key, before, actual)


def _status_changed(entity: Entity, told: _Told) -> Finding:
    data = named(entity) | {"old_status": told.status, "new_status": entity.status.name}
    if entity.end_time is not None and entity.end_time != told.end_time:
        data["end_time"] = entity.end_time
    return EventType.STATUS_CHANGED, entity, data


def _changes(
    entity: Entity, key: str, told: dict[str, Any], actual: dict[str, Any]
) -> dict[str, Any]:
    delta = {k: v for k, v in actual.items() if k not in told or told[k] != v}
    removed = [k for k in told if k not in actual]
    return named(entity) | {key: delta} | ({"removed": removed} if removed else {})


def named(entity: Entity) -> dict[str, Any]:
    """What every event of an entity says of it."""
    return {name: getattr(entity, name) for name in _NAMES[KIND_OF[type(entity)]]}


_NAMES: dict[type, tuple[str, ...]] = {
    Workflow: (),
    StageExecution: ("ref_id", "type", "name"),
    TaskExecution: ("name", "stage_id"),
}
