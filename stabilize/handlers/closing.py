"""How runs of stages are closed: at their end, or withdrawn."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select

from stabilize.events.base import EventType
from stabilize.handlers.admission import leave
from stabilize.handlers.children import CHILD
from stabilize.models import BufferedSignal, StageExecution, TaskExecution
from stabilize.net import BEYOND, Net, is_active
from stabilize.queue.messages import CancelWorkflow, RunHook, WithdrawInstances
from stabilize.reader import UNDER_WAY
from stabilize.status import BEGUN_STATUSES, StagePhase, SyntheticStageOwner, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
BUFFERED = "_buffered_signals"
"""Where a run keeps how many signals are kept for its stage."""
COUNTS = "_mi"
"""Where a run that is a group keeps what it counts."""
ROWS_WITHDRAWN = 400
"""Instances are withdrawn so many rows, stages and tasks, in a turn: 200 of one task each."""
_ENDED = {
    S.SUCCEEDED: EventType.STAGE_COMPLETED,
    S.CANCELED: EventType.STAGE_CANCELED,
    S.SKIPPED: EventType.STAGE_SKIPPED,
}


def describe(stage: StageExecution) -> dict[str, Any]:
    """What every event of a stage says of it."""
    return {"ref_id": stage.ref_id, "type": stage.type, "name": stage.name}


def close(
    turn: Turn, net: Net, stage: StageExecution, status: WorkflowStatus, **event: Any
) -> None:
    turn.set(stage, status=status, end_time=turn.now, phase=StagePhase.ENDED)
    if stage.waits_for is not None:
        turn.set(stage, waits_for=None)
    turn.set(net.workflow, open_runs=net.workflow.open_runs - 1)
    if turn.recorder is not None:
        _record_end(turn, stage, status, event)
    if stage.delivered.get(BUFFERED):
        _hand_on_signals(turn, net, stage)
    clean_up(turn, net, stage)
    if stage.definition:
        leave(turn, net, stage)


def _record_end(
    turn: Turn, stage: StageExecution, status: WorkflowStatus, event: dict[str, Any]
) -> None:
    error = event.get("error")
    duration = None if stage.start_time is None else turn.now - stage.start_time
    kind = _ENDED.get(status, EventType.STAGE_FAILED)
    detail: dict[str, Any] = {"status": status.name, "end_time": turn.now}
    if kind is EventType.STAGE_COMPLETED:
        detail |= {"duration_ms": duration, "outputs": stage.outputs}
    elif kind is EventType.STAGE_FAILED:
        detail |= {"error": error or error_of(stage), "duration_ms": duration}
    turn.record(kind, stage, **describe(stage), **detail, **_without(event, detail))


def _without(event: dict[str, Any], taken: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in taken}


def error_of(stage: StageExecution) -> str:
    """The reason a stage failed, as its context tells it."""
    exception = stage.context.get("exception")
    if isinstance(exception, dict):
        return str(exception.get("details", {}).get("error", "failed"))
    return str(stage.context.get("error") or f"stage {stage.ref_id!r} failed without a reason")


def clean_up(turn: Turn, net: Net, stage: StageExecution) -> None:
    has_waited = stage.start_time is None and stage.waiting_since is not None
    if has_waited or stage.context.get("stageTimeoutMs") is not None:
        turn.purge(stage.workflow_id, stage.id)
    for task in net.tasks_of(stage):
        if turn.worker.overrides(task.implementing_class, "on_cleanup"):
            _push_hook(turn, task, "on_cleanup")


def _hand_on_signals(turn: Turn, net: Net, stage: StageExecution) -> None:
    """Signals kept for the stage are for its other runs under way, or for nobody."""
    others = [
        run
        for run in net.stages.values()
        if run.ref_id == stage.ref_id and run is not stage and is_active(run)
    ]
    if others:
        for run in others:
            turn.set(run, delivered={**run.delivered, BUFFERED: stage.delivered[BUFFERED]})
        return
    turn.connection.execute(
        delete(BufferedSignal).where(
            BufferedSignal.workflow_id == stage.workflow_id,
            BufferedSignal.ref_id == stage.ref_id,
        )
    )


def _push_hook(turn: Turn, task: TaskExecution, hook: str) -> None:
    turn.push(RunHook.of_task(task, task_type=task.implementing_class, hook=hook))


def withdraw(
    turn: Turn,
    net: Net,
    stage: StageExecution,
    *,
    unstarted: WorkflowStatus = S.NOT_STARTED,
    **event: Any,
) -> None:
    """End a run that is under way, without tokens: CANCELED if it had begun, else `unstarted`."""
    begun = stage.status in BEGUN_STATUSES
    hooks = [t for t in net.tasks_of(stage) if t.status is S.RUNNING]
    withdraw_parts(turn, net, stage, unstarted=unstarted)
    turn.purge(stage.workflow_id, stage.id)
    if begun:
        cancel_child(turn, stage, "was withdrawn")
        for task in net.tasks_of(stage):
            if not task.status.is_complete:
                turn.set(task, status=S.CANCELED, end_time=turn.now)
        close(turn, net, stage, S.CANCELED, **event)
    else:
        turn.set(stage, status=unstarted, phase=StagePhase.ENDED)
        turn.set(net.workflow, open_runs=net.workflow.open_runs - 1)
        turn.set(stage, waits_for=None)
        leave(turn, net, stage)
        if unstarted is S.SKIPPED:
            turn.record(EventType.STAGE_SKIPPED, stage, **describe(stage), reason="Withdrawn")
    for task in hooks:
        if turn.worker.overrides(task.implementing_class, "on_cancel"):
            _push_hook(turn, task, "on_cancel")


def cancel_child(turn: Turn, stage: StageExecution, why: str) -> None:
    """Cancel the workflow that a task of the stage has started and waits for."""
    if CHILD in stage.delivered:
        reason = f"stage {stage.ref_id!r} of its parent {why}"
        child_id = stage.delivered[CHILD]
        turn.push(CancelWorkflow(execution_id=child_id, user="parent", reason=reason))


def withdraw_parts(
    turn: Turn, net: Net, stage: StageExecution, *, unstarted: WorkflowStatus = S.NOT_STARTED
) -> None:
    """End the synthetic stages of a run that are under way."""
    for child in net.children.get(stage.id, ()):
        if is_active(child):
            withdraw(turn, net, child, unstarted=unstarted)
    if stage.mi_config is not None:
        withdraw_instances(turn, net, stage, unstarted=unstarted)


def withdraw_instances(
    turn: Turn, net: Net, group: StageExecution, *, start: int = 0, unstarted: WorkflowStatus
) -> None:
    """End the instances of a group that are under way: a bounded number now, the rest in turns to
    come, ahead of whatever those instances would do next."""
    made = group.delivered.get(COUNTS, {}).get("created", 0)
    if start >= made:
        return
    until = min(made, start + at_once(net, group, ROWS_WITHDRAWN))
    net.collections.pop(group.id, None)
    names = [instance_ref(group, index) for index in range(start, until)]
    here = (StageExecution.workflow_id == group.workflow_id, StageExecution.ref_id.in_(names))
    ids = turn.read(select(StageExecution.id).where(*here, UNDER_WAY)).scalars().all()
    turn.reader.stages({net.workflow.id: net}, [id for id in ids if id not in net.stages])
    for id in ids:
        withdraw(turn, net, net.stages[id], unstarted=unstarted)
    if until < made:
        rest = WithdrawInstances.of(group, start=until, status=unstarted)
        turn.push_later(rest, priority=net.workflow.created_at)


def at_once(net: Net, group: StageExecution, rows: int) -> int:
    """How many instances of a group are so many rows, one at least."""
    return max(1, rows // (1 + len(net.tasks_of(group))))


def instance_ref(group: StageExecution, index: int) -> str:
    """What an instance is called."""
    return f"{group.ref_id}#{group.run}[{index}]"


def left_at_work(turn: Turn, net: Net) -> list[StageExecution]:
    """The groups that have ended while instances of theirs run on."""
    if net.is_complete and not net.has_groups:
        return []
    query = select(StageExecution.parent_stage_id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.position >= BEYOND,
        StageExecution.synthetic_stage_owner == SyntheticStageOwner.INSTANCE,
        UNDER_WAY,
    )
    ids = turn.read(query.distinct()).scalars().all()
    groups = [turn.reader.stage(net, id) for id in ids if id is not None]
    return [group for group in groups if group is not None and not is_active(group)]
