"""What an `EventRecorder` records when it is told to, one method for each kind of event."""

from __future__ import annotations

from typing import Any

from stabilize.clock import now_ms
from stabilize.events.base import EntityType, Event, EventType
from stabilize.models import StageExecution, TaskExecution, Workflow

Entity = Workflow | StageExecution | TaskExecution
ENTITY_TYPE: dict[type, EntityType] = {
    Workflow: EntityType.WORKFLOW,
    StageExecution: EntityType.STAGE,
    TaskExecution: EntityType.TASK,
}


class Recording:
    """The `record_...` methods; each returns the stored event."""

    def record(
        self,
        event_type: EventType,
        entity_type: EntityType,
        entity_id: str,
        workflow_id: str,
        data: dict[str, Any] | None = None,
    ) -> Event:
        """Store one event."""
        raise NotImplementedError(type(self).__name__)

    def _about(
        self, event_type: EventType, entity: Any, workflow_id: str = "", **data: Any
    ) -> Event:
        kind = ENTITY_TYPE[type(entity)]
        owner = entity.id if kind is EntityType.WORKFLOW else workflow_id or _owner(entity)
        return self.record(event_type, kind, entity.id, owner, data)

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
            start_time=workflow.start_time or now_ms(),
            initial_stage_ids=[stage.id for stage in workflow.initial_stages()],
            context=workflow.context,
        )

    def record_workflow_completed(self, workflow: Workflow) -> Event:
        return self._about(EventType.WORKFLOW_COMPLETED, workflow, **_end(workflow))

    def record_workflow_failed(self, workflow: Workflow, error: str) -> Event:
        return self._about(EventType.WORKFLOW_FAILED, workflow, **_end(workflow), error=error)

    def record_workflow_canceled(self, workflow: Workflow) -> Event:
        return self._about(
            EventType.WORKFLOW_CANCELED,
            workflow,
            **_end(workflow),
            canceled_by=workflow.canceled_by,
            reason=workflow.cancellation_reason,
        )

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
            **_names(stage),
            start_time=stage.start_time or now_ms(),
            is_synthetic=stage.is_synthetic(),
            parent_stage_id=stage.parent_stage_id,
            task_count=len(stage.tasks),
            context=dict(stage.context),
        )

    def record_stage_completed(self, stage: StageExecution) -> Event:
        outputs = dict(stage.outputs)
        return self._about(
            EventType.STAGE_COMPLETED, stage, **_names(stage), **_end(stage), outputs=outputs
        )

    def record_stage_failed(self, stage: StageExecution, error: str) -> Event:
        return self._about(
            EventType.STAGE_FAILED, stage, **_names(stage), **_end(stage), error=error
        )

    def record_stage_skipped(self, stage: StageExecution, reason: str = "Stage skipped") -> Event:
        return self._about(EventType.STAGE_SKIPPED, stage, **_names(stage), reason=reason)

    def record_stage_canceled(self, stage: StageExecution) -> Event:
        return self._about(EventType.STAGE_CANCELED, stage, **_names(stage))

    def record_stage_suspended(self, stage: StageExecution) -> Event:
        return self._about(EventType.STAGE_SUSPENDED, stage, **_names(stage))

    def record_stage_resumed(self, stage: StageExecution, signal_name: str | None = None) -> Event:
        return self._about(EventType.STAGE_RESUMED, stage, **_names(stage), signal_name=signal_name)

    def record_task_started(self, task: TaskExecution, workflow_id: str) -> Event:
        return self._about(
            EventType.TASK_STARTED,
            task,
            workflow_id,
            name=task.name,
            implementing_class=task.implementing_class,
            start_time=task.start_time or now_ms(),
            stage_id=task.stage_id,
        )

    def record_task_completed(
        self, task: TaskExecution, workflow_id: str, outputs: dict[str, Any] | None = None
    ) -> Event:
        return self._about(
            EventType.TASK_COMPLETED,
            task,
            workflow_id,
            name=task.name,
            **_end(task),
            outputs=outputs or {},
            stage_id=task.stage_id,
        )

    def record_task_failed(self, task: TaskExecution, workflow_id: str, error: str) -> Event:
        return self._about(
            EventType.TASK_FAILED,
            task,
            workflow_id,
            name=task.name,
            **_end(task),
            error=error,
            exception_details=task.task_exception_details,
            stage_id=task.stage_id,
        )

    def record_task_retried(
        self, task: TaskExecution, workflow_id: str, attempt: int, last_error: str | None = None
    ) -> Event:
        return self._about(
            EventType.TASK_RETRIED,
            task,
            workflow_id,
            name=task.name,
            attempt=attempt,
            last_error=last_error,
            stage_id=task.stage_id,
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


def _owner(entity: Any) -> str:
    return str(entity.workflow_id or entity.__dict__["workflow"].id)


def _names(stage: StageExecution) -> dict[str, Any]:
    return {"ref_id": stage.ref_id, "type": stage.type, "name": stage.name}


def _end(entity: Entity) -> dict[str, Any]:
    """Status and times of something that ended, in milliseconds."""
    end = entity.end_time or now_ms()
    duration = None if entity.start_time is None else end - entity.start_time
    return {"status": entity.status.name, "end_time": end, "duration_ms": duration}
