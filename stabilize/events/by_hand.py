"""What is recorded when somebody says so, one method for each kind of event."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from stabilize.clock import now_ms
from stabilize.database import Joinable
from stabilize.events.account import named
from stabilize.events.base import ENDS, STARTS, EntityType, Event, EventType
from stabilize.events.bus import EventBus, get_event_bus
from stabilize.events.context import get_event_metadata
from stabilize.events.store import EventStore
from stabilize.joining import after_commit
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.unwatched import Entity
from stabilize.types import plain

ENTITY_TYPE: dict[type, EntityType] = {
    Workflow: EntityType.WORKFLOW,
    StageExecution: EntityType.STAGE,
    TaskExecution: EntityType.TASK,
}
PAYLOADS = ("full", "keys")
_VALUES = ("context", "outputs")


class RecorderByHand:
    """The `record_...` methods; each returns the stored event."""

    def __init__(
        self, event_store: EventStore, publish_to_bus: bool, bus: EventBus | None, payload: str
    ) -> None:
        if payload not in PAYLOADS:
            raise ValueError(f"payload={payload!r}: it is {' or '.join(PAYLOADS)}")
        self.event_store = event_store
        self.publish_to_bus = publish_to_bus
        self.payload = payload
        self._bus = bus

    @property
    def bus(self) -> EventBus:
        return self._bus or get_event_bus()

    def record(
        self,
        event_type: EventType,
        entity_type: EntityType,
        entity_id: str,
        workflow_id: str,
        data: dict[str, Any] | None = None,
        *,
        connection: Joinable | None = None,
    ) -> Event:
        """Store one event of your own, in your transaction or one of its own, and publish it.

        In your transaction (`connection`, on the event store's database): a `Session` publishes it
        when it is committed; with a `Connection` it is not published, for nothing tells when.
        """
        event = Event(
            event_type=event_type,
            entity_type=entity_type,
            entity_id=entity_id,
            workflow_id=workflow_id,
            data=self._told(plain(data or {}, event_type.value)),
            metadata=get_event_metadata(workflow_id, type(self).__name__),
        )
        stored = self.event_store.append(event, connection)
        if not self.publish_to_bus:
            return stored
        if isinstance(connection, Session):
            after_commit(connection, lambda: self.bus.publish(stored))
        elif connection is None:
            self.bus.publish(stored)
        return stored

    def _told(self, data: dict[str, Any]) -> dict[str, Any]:
        """`data` with the values of contexts and outputs, or their keys alone."""
        if self.payload == "full":
            return data
        keys = {f"{key}_keys": sorted(data[key]) for key in _VALUES if data.get(key)}
        return {key: value for key, value in data.items() if key not in _VALUES} | keys

    def _about(
        self, event_type: EventType, entity: Any, workflow_id: str = "", **data: Any
    ) -> Event:
        kind = ENTITY_TYPE[type(entity)]
        if kind is EntityType.WORKFLOW:
            workflow_id = entity.id
        names = named(entity)
        if event_type in STARTS:
            names["start_time"] = entity.start_time or now_ms()
        elif event_type in ENDS - {EventType.STAGE_CANCELED}:
            names |= _end(entity)
        owner = workflow_id or entity.workflow_id or entity.__dict__["workflow"].id
        return self.record(event_type, kind, entity.id, owner, names | data)

    def record_workflow_created(self, workflow: Workflow) -> Event:
        return self._about(
            EventType.WORKFLOW_CREATED,
            workflow,
            application=workflow.application,
            name=workflow.name,
            type=workflow.type.name,
            trigger_type=workflow.trigger.type,
            stage_count=len(workflow.stages),
            initial_stage_count=len(workflow.initial_stages()),
        )

    def record_workflow_started(self, workflow: Workflow) -> Event:
        return self._about(
            EventType.WORKFLOW_STARTED,
            workflow,
            initial_stage_ids=[stage.id for stage in workflow.initial_stages()],
            context=workflow.context,
        )

    def record_workflow_completed(self, workflow: Workflow) -> Event:
        return self._about(EventType.WORKFLOW_COMPLETED, workflow)

    def record_workflow_failed(self, workflow: Workflow, error: str) -> Event:
        return self._about(EventType.WORKFLOW_FAILED, workflow, error=error)

    def record_workflow_canceled(self, workflow: Workflow) -> Event:
        by, reason = workflow.canceled_by, workflow.cancellation_reason
        return self._about(EventType.WORKFLOW_CANCELED, workflow, canceled_by=by, reason=reason)

    def record_workflow_paused(self, workflow: Workflow) -> Event:
        paused = workflow.paused
        return self._about(
            EventType.WORKFLOW_PAUSED,
            workflow,
            paused_by=paused.paused_by if paused else None,
            pause_time=paused.pause_time if paused else now_ms(),
        )

    def record_workflow_resumed(self, workflow: Workflow) -> Event:
        paused = workflow.paused
        return self._about(
            EventType.WORKFLOW_RESUMED,
            workflow,
            resume_time=(paused.resume_time if paused else None) or now_ms(),
            paused_ms=paused.paused_ms if paused else 0,
        )

    def record_stage_started(self, stage: StageExecution) -> Event:
        return self._about(
            EventType.STAGE_STARTED,
            stage,
            is_synthetic=stage.is_synthetic(),
            parent_stage_id=stage.parent_stage_id,
            task_count=len(stage.tasks),
            context=dict(stage.context),
        )

    def record_stage_completed(self, stage: StageExecution) -> Event:
        return self._about(EventType.STAGE_COMPLETED, stage, outputs=dict(stage.outputs))

    def record_stage_failed(self, stage: StageExecution, error: str) -> Event:
        return self._about(EventType.STAGE_FAILED, stage, error=error)

    def record_stage_skipped(self, stage: StageExecution, reason: str = "Stage skipped") -> Event:
        return self._about(EventType.STAGE_SKIPPED, stage, reason=reason)

    def record_stage_canceled(self, stage: StageExecution) -> Event:
        return self._about(EventType.STAGE_CANCELED, stage)

    def record_stage_suspended(self, stage: StageExecution) -> Event:
        return self._about(EventType.STAGE_SUSPENDED, stage)

    def record_stage_resumed(self, stage: StageExecution, signal_name: str | None = None) -> Event:
        return self._about(EventType.STAGE_RESUMED, stage, signal_name=signal_name)

    def record_task_started(self, task: TaskExecution, workflow_id: str) -> Event:
        kind = task.implementing_class
        return self._about(EventType.TASK_STARTED, task, workflow_id, implementing_class=kind)

    def record_task_completed(
        self, task: TaskExecution, workflow_id: str, outputs: dict[str, Any] | None = None
    ) -> Event:
        return self._about(EventType.TASK_COMPLETED, task, workflow_id, outputs=outputs or {})

    def record_task_failed(self, task: TaskExecution, workflow_id: str, error: str) -> Event:
        details = task.task_exception_details
        return self._about(
            EventType.TASK_FAILED, task, workflow_id, error=error, exception_details=details
        )

    def record_task_retried(
        self, task: TaskExecution, workflow_id: str, attempt: int, last_error: str | None = None
    ) -> Event:
        return self._about(
            EventType.TASK_RETRIED, task, workflow_id, attempt=attempt, last_error=last_error
        )

    def record_status_change(self, entity: Entity, old_status: str, new_status: str) -> Event:
        return self._about(
            EventType.STATUS_CHANGED, entity, old_status=old_status, new_status=new_status
        )

    def record_context_updated(self, stage: StageExecution, context: dict[str, Any]) -> Event:
        return self._about(EventType.CONTEXT_UPDATED, stage, context=context)

    def record_outputs_updated(self, stage: StageExecution, outputs: dict[str, Any]) -> Event:
        return self._about(EventType.OUTPUTS_UPDATED, stage, outputs=outputs)

    def record_jump_executed(
        self, workflow: Workflow, from_stage_id: str, to_stage_id: str, jump_type: str
    ) -> Event:
        return self._about(
            EventType.JUMP_EXECUTED,
            workflow,
            from_stage_id=from_stage_id,
            to_stage_id=to_stage_id,
            jump_type=jump_type,
        )


def _end(entity: Entity) -> dict[str, Any]:
    """Status and times of something that ended, in milliseconds."""
    end = entity.end_time or now_ms()
    duration = None if entity.start_time is None else end - entity.start_time
    return {"status": entity.status.name, "end_time": end, "duration_ms": duration}
