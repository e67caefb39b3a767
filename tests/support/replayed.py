"""Compares what events add up to with what the tables say."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from stabilize import Database, StageExecution, TaskExecution, Workflow, WorkflowStatus
from stabilize.clock import from_ms
from stabilize.events import EntityType, EventReplayer, EventStore, SqlEventStore
from stabilize.store import WorkflowStore


def of_store(workflow: Workflow) -> dict[str, Any]:
    """The part of a stored workflow that events tell of, as a replay words it."""
    runs = [run for run in workflow.stage_runs if _was_told_of(run)]
    return {
        "status": workflow.status.name,
        "context": workflow.context if workflow.start_time is not None else None,
        "start_time": _iso(workflow.start_time),
        "end_time": _iso(workflow.end_time),
        "stages": {run.id: _stage(run) for run in runs},
        "tasks": {t.id: _task(t) for run in runs for t in run.tasks if _was_told_of(t)},
    }


def of_events(state: dict[str, Any]) -> dict[str, Any]:
    """The same part of a rebuilt state."""
    return {
        "status": state["status"],
        "context": state["context"] if state["start_time"] is not None else None,
        "start_time": state["start_time"],
        "end_time": state["end_time"],
        "stages": {
            id: {
                k: part[k]
                for k in ("ref_id", "status", "start_time", "end_time", "context", "outputs")
            }
            for id, part in state["stages"].items()
            if part["status"] != "NOT_STARTED"
        },
        "tasks": {
            id: {k: part[k] for k in ("name", "stage_id", "status", "start_time", "end_time")}
            for id, part in state["tasks"].items()
            if part["status"] != "NOT_STARTED"
        },
    }


def check(database: Database, event_store: EventStore | None = None) -> int:
    """Every workflow that has events is rebuilt as it is stored; versions have no gaps.

    Returns how many workflows were compared.
    """
    events = event_store or SqlEventStore(database)
    store, replayer = WorkflowStore(database), EventReplayer(events)
    with database.reading() as session:
        ids = list(session.scalars(Workflow.__table__.select().with_only_columns(Workflow.id)))
    compared = 0
    for id in ids:
        told = replayer.rebuild_workflow_state(id)
        stored = store.retrieve(id)
        if told["status"] is None:
            assert stored.status is WorkflowStatus.NOT_STARTED, stored
            continue
        assert told["skipped"] == []
        assert of_events(told) == of_store(stored)
        check_versions(events, id)
        compared += 1
    return compared


def check_versions(events: EventStore, workflow_id: str) -> None:
    """The events of each entity are numbered from 1 on without a gap, in their order."""
    versions: dict[tuple[EntityType, str], list[int]] = defaultdict(list)
    for event in events.get_events_for_workflow(workflow_id):
        versions[event.entity_type, event.entity_id].append(event.version)
    for entity, found in versions.items():
        assert found == list(range(1, len(found) + 1)), entity


def _was_told_of(entity: StageExecution | TaskExecution) -> bool:
    return entity.status is not WorkflowStatus.NOT_STARTED


def _stage(run: StageExecution) -> dict[str, Any]:
    return {
        "ref_id": run.ref_id,
        "status": run.status.name,
        "start_time": _iso(run.start_time),
        "end_time": _iso(run.end_time),
        "context": dict(run.context),
        "outputs": dict(run.outputs),
    }


def _task(task: TaskExecution) -> dict[str, Any]:
    return {
        "name": task.name,
        "stage_id": task.stage_id,
        "status": task.status.name,
        "start_time": _iso(task.start_time),
        "end_time": _iso(task.end_time),
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat()
