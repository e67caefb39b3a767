"""How many workflows of one configuration run at once."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from stabilize.models import Claim, Workflow
from stabilize.queue.messages import CancelWorkflow, StartWorkflow
from stabilize.status import WorkflowStatus
from stabilize.turn import Turn

_SLOT = "concurrency"
_ANCHOR = "concurrency-lock"


def _lock(turn: Turn, scope: str) -> None:
    """Be the only one who counts the slots of `scope`, until this turn ends."""
    anchor = select(Claim.id).where(Claim.scope == scope, Claim.kind == _ANCHOR).with_for_update()
    while turn.connection.execute(anchor).first() is None:
        turn.insert_once(
            insert(Claim).values(scope=scope, kind=_ANCHOR, key="", owner="", created_at=turn.now)
        )


def _limited(workflow: Workflow) -> str | None:
    limited = workflow.is_limit_concurrent and workflow.max_concurrent_executions > 0
    return workflow.pipeline_config_id if limited else None


def take_slot(turn: Turn, workflow: Workflow) -> bool:
    """Say whether the workflow may run now, and if so, count it."""
    scope = _limited(workflow)
    if scope is None:
        return True
    _lock(turn, scope)
    owners = _owners(turn, scope)
    if workflow.id in owners:
        return True
    if len(owners) >= workflow.max_concurrent_executions:
        return False
    _give(turn, scope, workflow.id)
    return True


def _owners(turn: Turn, scope: str) -> set[str]:
    """The workflows that hold a slot of `scope`; claims are written at once, and never late."""
    query = select(Claim.owner).where(Claim.scope == scope, Claim.kind == _SLOT)
    return set(turn.connection.scalars(query))


def _give(turn: Turn, scope: str, workflow_id: str) -> None:
    turn.connection.execute(
        insert(Claim).values(
            scope=scope, kind=_SLOT, key=workflow_id, owner=workflow_id, created_at=turn.now
        )
    )


def release_slot(turn: Turn, workflow: Workflow) -> None:
    """Hand the workflow's slot to the one that waits longest; the others wait or are canceled."""
    scope = _limited(workflow)
    if scope is None:
        return
    _lock(turn, scope)
    mine = delete(Claim).where(
        Claim.scope == scope, Claim.kind == _SLOT, Claim.owner == workflow.id
    )
    if turn.connection.execute(mine).rowcount == 0:
        return
    waiting = turn.read(
        select(Workflow.id, Workflow.keep_waiting_pipelines)
        .where(
            Workflow.pipeline_config_id == scope,
            Workflow.status == WorkflowStatus.BUFFERED,
            Workflow.id != workflow.id,
        )
        .order_by(Workflow.created_at, Workflow.id)
    ).all()
    holding = _owners(turn, scope)
    queued = [row for row in waiting if row.id not in holding]
    if not queued:
        return
    _give(turn, scope, queued[0].id)
    turn.push(StartWorkflow(execution_id=queued[0].id))
    for row in queued[1:]:
        if not row.keep_waiting_pipelines:
            turn.push(
                CancelWorkflow(
                    execution_id=row.id,
                    user="system",
                    reason="another execution was waiting and keepWaitingPipelines is off",
                )
            )
