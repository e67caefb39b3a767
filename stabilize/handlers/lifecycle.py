"""How runs of stages begin and end, and what that means for their workflow."""

from __future__ import annotations

from typing import Any

from stabilize.dag.expressions import ExpressionError
from stabilize.dag.joins import branch_of
from stabilize.dag.outcome import TOKEN_OF
from stabilize.dag.splits import NoBranchError, SplitRule, split
from stabilize.events.base import EventType
from stabilize.handlers.admission import leave_sections, waiting_runs, waits_for_trigger
from stabilize.handlers.children import tell_parent
from stabilize.handlers.closing import (
    close,
    error_of,
    left_at_work,
    withdraw,
    withdraw_instances,
)
from stabilize.handlers.concurrency import release_slot
from stabilize.handlers.context import names_for
from stabilize.handlers.flow import (
    Arrival,
    is_absorbed,
    put,
    runs_under_way,
    settle_quiet,
)
from stabilize.handlers.runs import CUT_SHORT, activate
from stabilize.models import StageExecution, Workflow
from stabilize.net import Net, is_active
from stabilize.queue.messages import (
    CancelWorkflow,
    CompleteStage,
    CompleteWorkflow,
    ContinueParentStage,
    InstanceEnded,
    StageLevel,
    StartTask,
)
from stabilize.status import (
    ENDING_STATUSES,
    SplitType,
    StagePhase,
    SyntheticStageOwner,
    TokenKind,
    WorkflowStatus,
)
from stabilize.turn import Turn

S = WorkflowStatus
NOTHING_CAN_GO_ON = "nothing can go on: "


def run_next_phase(turn: Turn, net: Net, stage: StageExecution) -> None:
    """Go on with the stage: its stages before, then its tasks; then look what they came to."""
    if stage.phase is StagePhase.PLANNING:
        turn.set(stage, phase=StagePhase.BEFORE)
        if start_owned(turn, net, stage, SyntheticStageOwner.STAGE_BEFORE):
            return
    if stage.phase is StagePhase.BEFORE:
        turn.set(stage, phase=StagePhase.TASKS)
        tasks = net.tasks_of(stage)
        if tasks:
            turn.push(StartTask.of_task(tasks[0]))
            return
    turn.push(CompleteStage.of(stage))


def start_owned(turn: Turn, net: Net, stage: StageExecution, owner: SyntheticStageOwner) -> bool:
    """Start the synthetic stages of one kind that wait for nothing; say whether there are any."""
    firsts = [s for s in net.owned(stage, owner) if s.ref_id not in net.upstream]
    for first in firsts:
        activate(turn, net, first, thread=stage.thread)
    return bool(firsts)


def finish_stage(
    turn: Turn, net: Net, stage: StageExecution, status: WorkflowStatus, **event: Any
) -> None:
    """End a run, put its tokens, and tell its parent or its workflow."""
    arrivals = _tokens_of(turn, net, stage, status)
    if isinstance(arrivals, str):
        event["error"] = arrivals
        turn.set(stage, context={**stage.context, "error": arrivals})
        status = stage.failure_status()
        none = TokenKind.DEAD if status is S.FAILED_CONTINUE else TOKEN_OF[status]
        arrivals = _all_edges(net, stage, none)
    close(turn, net, stage, status, **event)
    if status in ENDING_STATUSES and terminates(stage):
        end_workflow(turn, net, S.SUCCEEDED)
    elif stage.parent_stage_id is not None:
        if status is not S.TERMINAL:
            put(turn, net, arrivals)
        turn.push(news_for_parent(stage, stage.parent_stage_id))
    elif status is S.TERMINAL and not is_absorbed(turn, net, stage):
        end_workflow(turn, net, S.TERMINAL, error=event.get("error") or error_of(stage))
    elif status is S.TERMINAL:
        put(turn, net, _all_edges(net, stage, TokenKind.FAILED))
    elif status is S.CANCELED:
        turn.push(
            CancelWorkflow(
                execution_id=stage.workflow_id,
                user="task",
                reason=f"a task of stage {stage.ref_id!r} asked for it",
            )
        )
    else:
        put(turn, net, arrivals)
    if not _is_part_of_open(turn, net, stage):
        complete_if_idle(turn, net)


def terminates(stage: StageExecution) -> bool:
    """Say whether the workflow ends with this run, by its definition or by its task."""
    return stage.end == "terminate" or bool(stage.definition.get("terminates"))


def _is_part_of_open(turn: Turn, net: Net, stage: StageExecution) -> bool:
    """Say whether a run is a part of one that is under way, so that the workflow goes on."""
    if stage.parent_stage_id is None:
        return False
    parent = turn.reader.stage(net, stage.parent_stage_id)
    return parent is not None and is_active(parent)


def news_for_parent(stage: StageExecution, parent_id: str) -> StageLevel:
    """What tells a parent that a synthetic stage of it has ended."""
    workflow_id = stage.workflow_id
    if stage.synthetic_stage_owner is SyntheticStageOwner.INSTANCE:
        return InstanceEnded(execution_id=workflow_id, stage_id=parent_id, instance_id=stage.id)
    return ContinueParentStage(execution_id=workflow_id, stage_id=parent_id)


def complete_if_idle(turn: Turn, net: Net) -> None:
    """Have the workflow completed when nothing of it is left open."""
    workflow = net.workflow
    if workflow.status.is_complete:
        return
    settle_quiet(turn, net)
    if workflow.open_runs == 0:
        turn.push(CompleteWorkflow(execution_id=workflow.id))
    elif net.has_gates:
        _end_if_deadlocked(turn, net)


def _end_if_deadlocked(turn: Turn, net: Net) -> None:
    """End a workflow in which every open run waits for another one (WCP-11)."""
    waiting = waiting_runs(turn, net)
    if any(waits_for_trigger(stage) or stage.start_time_expiry for stage in waiting):
        return
    stuck = {stage.id for stage in waiting}
    for stage in waiting:  # what it is a part of waits for it
        while stage.parent_stage_id and stage.parent_stage_id not in stuck:
            parent = turn.reader.stage(net, stage.parent_stage_id)
            if parent is None or not is_active(parent):
                break
            stuck.add(parent.id)
            stage = parent
    if len(stuck) < net.workflow.open_runs:
        return
    end_deadlocked(turn, net, "; ".join(f"{s.ref_id!r} waits for {s.waits_for}" for s in waiting))


def end_deadlocked(turn: Turn, net: Net, reason: str) -> None:
    """End a workflow in which nothing can go on, and say why."""
    error = f"{NOTHING_CAN_GO_ON}{reason}"
    turn.record(EventType.WORKFLOW_DEADLOCKED, net.workflow, reason=reason, error=error)
    turn.set(net.workflow, context={**net.workflow.context, "error": error})
    end_workflow(turn, net, S.TERMINAL, error=error)


def _all_edges(net: Net, stage: StageExecution, kind: TokenKind) -> list[Arrival]:
    following = net.downstream.get(stage.ref_id, ())
    return [Arrival(stage, ref_id, kind, stage.thread) for ref_id in following]


def _tokens_of(
    turn: Turn, net: Net, stage: StageExecution, status: WorkflowStatus
) -> list[Arrival] | str:
    """The tokens a run puts, or the reason why its split fails."""
    following = net.downstream.get(stage.ref_id)
    if not following:
        return []
    kind = TOKEN_OF[status]
    if kind is not TokenKind.LIVE or stage.split_type is SplitType.AND:
        return _all_edges(net, stage, kind)
    edges = sorted(following, key=lambda ref_id: following[ref_id])
    rule = SplitRule.of(stage)
    try:
        chosen = split(rule, edges, names_for(turn, stage))
    except (NoBranchError, ExpressionError) as error:
        return f"{type(error).__name__}: {error}"
    return [arrival for edge in edges for arrival in _on_edge(stage, edge, chosen[edge], rule.type)]


def _on_edge(stage: StageExecution, edge: str, live: int, kind: SplitType) -> list[Arrival]:
    if live == 0:
        return [Arrival(stage, edge, TokenKind.DEAD, stage.thread)]
    if kind is not SplitType.THREADS:
        return [Arrival(stage, edge, TokenKind.LIVE, stage.thread)]
    return [
        Arrival(
            stage,
            edge,
            TokenKind.LIVE,
            branch_of(stage.position, stage.thread, f"{stage.run}.{ordinal}"),
            ordinal,
        )
        for ordinal in range(live)
    ]


def end_workflow(turn: Turn, net: Net, status: WorkflowStatus, **event: Any) -> None:
    """End the workflow now: what is still under way is withdrawn."""
    workflow = net.workflow
    turn.purge(workflow.id)
    left = left_at_work(turn, net)
    unstarted = S.CANCELED if status is S.CANCELED else S.NOT_STARTED
    cut_short: set[str] = set()  # a restart goes on with these, where they are
    for stage in runs_under_way(turn, net):
        if is_active(stage):
            withdraw(turn, net, stage, unstarted=unstarted)
            if status is S.TERMINAL and stage.parent_stage_id is None:
                turn.set(stage, definition={**stage.definition, CUT_SHORT: True})
                cut_short.update(filter(None, [stage.section]))
    for group in left:
        withdraw_instances(turn, net, group, unstarted=unstarted)
    leave_sections(turn, net, cut_short)
    turn.set(workflow, status=status, end_time=turn.now)
    record_end(turn, workflow, status, **event)
    release_slot(turn, workflow)


def record_end(turn: Turn, workflow: Workflow, status: WorkflowStatus, **event: Any) -> None:
    """Record that a workflow has ended, and tell the one that waits for it."""
    tell_parent(turn, workflow)
    duration = None if workflow.start_time is None else turn.now - workflow.start_time
    detail: dict[str, Any] = {"status": status.name, "end_time": turn.now, "duration_ms": duration}
    if status is S.SUCCEEDED:
        turn.record(EventType.WORKFLOW_COMPLETED, workflow, **detail)
    elif status is S.CANCELED:
        detail |= {"canceled_by": workflow.canceled_by, "reason": workflow.cancellation_reason}
        turn.record(EventType.WORKFLOW_CANCELED, workflow, **detail)
    else:
        detail["error"] = event.get("error") or f"Workflow ended with status {status.name}"
        turn.record(EventType.WORKFLOW_FAILED, workflow, **detail)
