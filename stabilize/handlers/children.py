"""Child workflows: started by a task, waited for without polling, canceled with their parent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from stabilize.handlers.base import Handler
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.definition import stage_from_dict
from stabilize.models.workflow import merge_in_order
from stabilize.net import Net
from stabilize.queue.messages import ChildEnded, CompleteTask, StartWorkflow
from stabilize.status import WorkflowStatus
from stabilize.store import WorkflowStore
from stabilize.turn import Turn

S = WorkflowStatus
CHILD = "_sub_workflow_id"


def start_child(
    turn: Turn, net: Net, stage: StageExecution, task: TaskExecution, config: dict[str, Any]
) -> None:
    """Store and start the child in this turn; the task goes on being RUNNING until it ends."""
    try:
        child = Workflow.create(
            application=config.get("application") or net.workflow.application,
            name=config.get("name") or f"{net.workflow.name}/{stage.ref_id}",
            stages=[stage_from_dict(data) for data in config["stages"]],
            context={**config.get("context", {}), "_parent_workflow_id": net.workflow.id},
        )
    except Exception as error:  # noqa: BLE001  # the definition is the user's
        reason = f"the child workflow cannot be made: {error}"
        turn.push(
            CompleteTask.of_task(
                task, status=S.TERMINAL, error=reason, stops_stage=True, context={"error": reason}
            )
        )
        return
    child.parent_workflow_id, child.depth = net.workflow.id, net.workflow.depth + 1
    child.parent_stage_id, child.parent_task_id = stage.id, task.id
    WorkflowStore(turn.queue.database).store_on(turn.connection, child)
    turn.set(stage, delivered={**stage.delivered, CHILD: child.id})
    turn.push(StartWorkflow(execution_id=child.id))


def tell_parent(turn: Turn, workflow: Workflow) -> None:
    """A child has ended: the task that waits for it is woken."""
    if workflow.parent_workflow_id is None:
        return
    turn.push(
        ChildEnded(
            execution_id=workflow.parent_workflow_id,
            stage_id=workflow.parent_stage_id or "",
            task_id=workflow.parent_task_id or "",
            child_id=workflow.id,
        )
    )


class ChildEndedHandler(Handler[ChildEnded]):
    """Bring the child's outputs back and complete the task that started it."""

    def handle(self, message: ChildEnded, turn: Turn) -> None:
        stage, task = turn.stage_and_task(message)
        if task.status is not S.RUNNING or stage.delivered.get(CHILD) != message.child_id:
            return
        query = select(Workflow.status).where(Workflow.id == message.child_id)
        status = turn.read(query).scalar()  # it may have ended in this very turn
        outputs = {
            "sub_workflow_id": message.child_id,
            "sub_workflow_status": str(status),
            "sub_workflow_outputs": _outputs_of(turn, message.child_id),
        }
        if status is S.SUCCEEDED:
            turn.push(CompleteTask.of_task(task, outputs=outputs))
            return
        error = f"the child workflow {message.child_id} ended {status}"
        failed = stage.failure_status()
        turn.push(
            CompleteTask.of_task(
                task,
                status=failed,
                outputs=outputs,
                error=error,
                context={"error": error},
                stops_stage=True,
            )
        )


def _outputs_of(turn: Turn, workflow_id: str) -> dict[str, Any]:
    rows = turn.read(
        select(
            StageExecution.ref_id, StageExecution.requisite_stage_ref_ids, StageExecution.outputs
        ).where(
            StageExecution.workflow_id == workflow_id,
            StageExecution.latest,
            StageExecution.parent_stage_id.is_(None),
        )
    )
    return merge_in_order(rows)
