"""Handlers of messages about workflows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from stabilize.dag.outcome import workflow_outcome
from stabilize.events.base import EventType
from stabilize.handlers.base import Handler
from stabilize.handlers.concurrency import release_slot, take_slot
from stabilize.handlers.expiry import begin_by, has_begun, is_past
from stabilize.handlers.flow import is_absorbed
from stabilize.handlers.lifecycle import (
    complete_if_idle,
    end_deadlocked,
    end_workflow,
    record_end,
    terminates,
)
from stabilize.handlers.runs import activate
from stabilize.models import PausedDetails, StageExecution, Workflow
from stabilize.net import Net
from stabilize.queue.messages import (
    CancelWorkflow,
    CompleteWorkflow,
    FailWorkflow,
    PauseWorkflow,
    ResumeWorkflow,
    StartTask,
    StartWorkflow,
)
from stabilize.status import ENDING_STATUSES, StagePhase, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
_NAMED = 10


class StartWorkflowHandler(Handler[StartWorkflow]):
    """Start the stages that wait for nothing, unless the workflow has to wait or came too late."""

    def handle(self, message: StartWorkflow, turn: Turn) -> None:
        net = turn.net(message)
        workflow = net.workflow
        if workflow.status not in (S.NOT_STARTED, S.BUFFERED):
            return
        expiry = workflow.start_time_expiry
        if workflow.is_canceled or is_past(expiry, turn):
            reason = "the time by which it had to start is past"
            turn.push(cancellation_of(workflow, reason))
            return
        if not take_slot(turn, workflow):
            if workflow.status is S.NOT_STARTED:
                begin_by(turn, message, expiry)
            turn.set(workflow, status=S.BUFFERED)
            turn.record(
                EventType.STATUS_CHANGED, workflow, old_status="NOT_STARTED", new_status="BUFFERED"
            )
            return
        has_begun(turn, message, expiry)
        turn.set(workflow, status=S.RUNNING, start_time=turn.now)
        net.tokens_known = True
        firsts = _initial_stages(turn, net)
        with turn.actor(message.user):
            _record_start(turn, workflow, firsts)
        for stage in firsts:
            activate(turn, net, stage)
        if not firsts:
            error = "no stage can be the first: each requires another"
            error = error if workflow.stage_count else "the workflow has no stages"
            turn.set(workflow, context={**workflow.context, "error": error})
            end_workflow(turn, net, S.TERMINAL, error=error)


def cancellation_of(workflow: Workflow, reason: str = "") -> CancelWorkflow:
    """What ends a workflow that `store.cancel` has marked."""
    return CancelWorkflow(
        execution_id=workflow.id,
        user=workflow.canceled_by or "system",
        reason=workflow.cancellation_reason or reason,
    )


def _initial_stages(turn: Turn, net: Net) -> list[StageExecution]:
    if not net.is_complete:
        positions = turn.connection.scalars(
            select(StageExecution.position).where(
                StageExecution.workflow_id == net.workflow.id,
                StageExecution.parent_stage_id.is_(None),
                StageExecution.requisite_stage_ref_ids == set(),
            )
        ).all()
        for position in positions:
            turn.reader.block_at(net, position)
    return [
        stage
        for stage in net.runs()
        if stage.parent_stage_id is None and not stage.requisite_stage_ref_ids
    ]


def _record_start(turn: Turn, workflow: Workflow, firsts: list[StageExecution]) -> None:
    turn.record(
        EventType.WORKFLOW_CREATED,
        workflow,
        application=workflow.application,
        name=workflow.name,
        type=workflow.type.name,
        trigger_type=workflow.trigger.type,
        stage_count=workflow.stage_count,
        initial_stage_count=len(firsts),
    )
    turn.record(
        EventType.WORKFLOW_STARTED,
        workflow,
        start_time=turn.now,
        initial_stage_ids=[stage.id for stage in firsts],
        context=workflow.context,
    )


class CompleteWorkflowHandler(Handler[CompleteWorkflow]):
    """End the workflow once nothing of it is left open."""

    def handle(self, message: CompleteWorkflow, turn: Turn) -> None:
        net = turn.net(message)
        workflow = net.workflow
        if workflow.status is not S.RUNNING or workflow.open_runs > 0:
            return
        stuck = _stuck_joins(turn, net)
        if stuck and not _was_terminated(turn, net):
            end_deadlocked(turn, net, stuck)
            return
        statuses, fails_after = _top_level(turn, net)
        if S.TERMINAL in statuses and _failures_are_absorbed(turn, net):
            statuses = {S.STOPPED if s is S.TERMINAL else s for s in statuses}
        status = workflow_outcome(statuses, fails_after_others=fails_after)
        nothing_failed = not fails_after and S.TERMINAL not in statuses
        if status is S.TERMINAL and nothing_failed and _was_terminated(turn, net):
            status = S.SUCCEEDED
        turn.set(workflow, status=status, end_time=turn.now)
        record_end(turn, workflow, status)
        release_slot(turn, workflow)


def _stuck_joins(turn: Turn, net: Net) -> str:
    """Which joins have tokens and wait for others that nobody can bring any more, in words."""
    stuck = []
    for ref_id in _never_reached(turn, net):
        turn.write_rows()
        turn.reader.newest(net, ref_id)
        tallies = turn.reader.tallies(net, ref_id).values()
        came = {edge for tally in tallies for edge in tally.best}
        missing = sorted(set(net.upstream.get(ref_id, ())) - came)
        if came:
            lacks = f"tokens of {', '.join(map(repr, missing))}" if missing else "further tokens"
            stuck.append(f"{ref_id!r} waits for {lacks}")
    return "; ".join(stuck)


def _was_terminated(turn: Turn, net: Net) -> bool:
    """Say whether a stage has ended the workflow, which was restarted elsewhere since.

    What that kept from starting does not have to.
    """
    turn.reader.everything(net)
    return any(run.status in ENDING_STATUSES and terminates(run) for run in net.runs())


def _never_reached(turn: Turn, net: Net) -> Sequence[str]:
    waiting = StagePhase.WAITING
    if net.is_complete:
        tops = (stage for stage in net.runs() if stage.parent_stage_id is None)
        return [stage.ref_id for stage in tops if stage.phase is waiting][:_NAMED]
    query = select(StageExecution.ref_id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.latest,
        StageExecution.parent_stage_id.is_(None),
        StageExecution.phase == waiting,
    )
    return turn.read(query.order_by(StageExecution.position).limit(_NAMED)).scalars().all()


def _failures_are_absorbed(turn: Turn, net: Net) -> bool:
    """Say whether every stage that failed is one whose failure ends at a join."""
    query = select(StageExecution.id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.latest,
        StageExecution.parent_stage_id.is_(None),
        StageExecution.status == S.TERMINAL,
    )
    failed = [turn.reader.stage(net, id) for id in turn.read(query).scalars().all()]
    return all(stage is not None and is_absorbed(turn, net, stage) for stage in failed)


def _top_level(turn: Turn, net: Net) -> tuple[set[WorkflowStatus], bool]:
    """How the newest runs of all stages ended, and whether one that stopped asked for a failure."""
    if net.is_complete:
        tops = [stage for stage in net.runs() if stage.parent_stage_id is None]
        found = {stage.status for stage in tops}
        if all(stage.run == 1 for stage in tops):
            stopped = (stage.context for stage in tops if stage.status is S.STOPPED)
            return found, any(_asks_to_fail(context) for context in stopped)
    query = select(StageExecution.status, StageExecution.latest).where(
        StageExecution.workflow_id == net.workflow.id, StageExecution.parent_stage_id.is_(None)
    )
    ended = turn.read(query.distinct()).all()
    found = {run.status for run in ended if run.latest}
    if any(run.status is S.STOPPED for run in ended) and _asked_in_some_run(turn, net):
        return found | {S.STOPPED}, True
    return found, False


def _asks_to_fail(context: dict[str, Any]) -> bool:
    return bool(context.get("completeOtherBranchesThenFail"))


def _asked_in_some_run(turn: Turn, net: Net) -> bool:
    """Say whether a run that stopped, and that none has replaced, asked for a failure."""
    query = select(
        StageExecution.ref_id,
        StageExecution.thread,
        StageExecution.run,
        StageExecution.generation,
        StageExecution.context,
    ).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.parent_stage_id.is_(None),
        StageExecution.status == S.STOPPED,
    )
    stopped = turn.read(query).all()
    return any(_asks_to_fail(run.context) and not _is_replaced(turn, net, run) for run in stopped)


def _is_replaced(turn: Turn, net: Net, run: Any) -> bool:
    """Say whether a stage has run again in the same thread, or its part was opened again."""
    newest = turn.reader.newest(net, run.ref_id)
    if newest is None or newest.generation > run.generation:
        return True
    later = select(StageExecution.id).where(
        StageExecution.workflow_id == net.workflow.id,
        StageExecution.ref_id == run.ref_id,
        StageExecution.thread == run.thread,
        StageExecution.run > run.run,
        StageExecution.phase != StagePhase.WAITING,
    )
    return newest.run > run.run and turn.read(later.limit(1)).first() is not None


class CancelWorkflowHandler(Handler[CancelWorkflow]):
    """Withdraw everything; the workflow is CANCELED."""

    def handle(self, message: CancelWorkflow, turn: Turn) -> None:
        net = turn.net(message)
        if net.workflow.status.is_complete:
            return
        turn.set(
            net.workflow,
            is_canceled=True,
            canceled_by=message.user[:255],
            cancellation_reason=message.reason[:1024],
        )
        with turn.actor(message.user):
            end_workflow(turn, net, S.CANCELED)
        turn.reader.everything(net)
        for stage in net.runs():
            if stage.status is S.NOT_STARTED:
                turn.set(stage, status=S.CANCELED, phase=StagePhase.ENDED)
            for task in net.tasks_of(stage):
                if stage.status is S.CANCELED and task.status is S.NOT_STARTED:
                    turn.set(task, status=S.CANCELED)


class FailWorkflowHandler(Handler[FailWorkflow]):
    """A message was given up: end the workflow TERMINAL and say why where people look."""

    def handle(self, message: FailWorkflow, turn: Turn) -> None:
        net = turn.net(message)
        if net.workflow.status.is_complete:
            return
        details = {
            "details": {"error": message.error, "errors": [message.error], "transient": False}
        }
        stage = turn.reader.stage(net, message.stage_id) if message.stage_id else None
        end_workflow(turn, net, S.TERMINAL, error=message.error)
        if stage is None:
            turn.set(net.workflow, context={**net.workflow.context, "error": message.error})
            return
        turn.set(stage, status=S.TERMINAL, context={**stage.context, "exception": details})
        for task in net.tasks_of(stage):
            if task.id == message.task_id:
                turn.set(task, status=S.TERMINAL, task_exception_details=details)


class PauseWorkflowHandler(Handler[PauseWorkflow]):
    """Let nothing new begin; what is being executed ends, and its successor waits."""

    def handle(self, message: PauseWorkflow, turn: Turn) -> None:
        workflow = turn.workflow(message)
        if workflow.status.is_complete or workflow.status is S.PAUSED:
            return
        paused = PausedDetails(paused_by=message.user, pause_time=turn.now)
        turn.set(workflow, status=S.PAUSED, paused=paused)
        with turn.actor(message.user):
            turn.record(
                EventType.WORKFLOW_PAUSED, workflow, paused_by=message.user, pause_time=turn.now
            )


class ResumeWorkflowHandler(Handler[ResumeWorkflow]):
    """Go on where the workflow was paused."""

    def handle(self, message: ResumeWorkflow, turn: Turn) -> None:
        net = turn.net(message)
        workflow = net.workflow
        if workflow.status is not S.PAUSED:
            return
        paused = workflow.paused or PausedDetails(pause_time=turn.now)
        spent = paused.paused_ms + turn.now - (paused.pause_time or turn.now)
        started = workflow.start_time is not None
        turn.set(
            workflow,
            status=S.RUNNING if started else S.NOT_STARTED,
            paused=PausedDetails(
                paused_by=paused.paused_by,
                pause_time=paused.pause_time,
                resume_time=turn.now,
                paused_ms=spent,
            ),
        )
        with turn.actor(message.user):
            turn.record(
                EventType.WORKFLOW_RESUMED,
                workflow,
                status=workflow.status.name,
                resume_time=turn.now,
                paused_ms=spent,
            )
        turn.outbox.unpark(turn.connection, workflow.id)
        if not started:
            turn.push(StartWorkflow(execution_id=workflow.id))
            return
        _resume_stages(turn, net)
        complete_if_idle(turn, net)  # its last stage may have ended while it was paused


def _resume_stages(turn: Turn, net: Net) -> None:
    query = select(StageExecution.id).where(
        StageExecution.workflow_id == net.workflow.id, StageExecution.status == S.PAUSED
    )
    ids = turn.read(query).scalars().all()
    turn.reader.stages({net.workflow.id: net}, [id for id in ids if id not in net.stages])
    for id in ids:
        stage = net.stages[id]
        turn.set(stage, status=S.RUNNING)
        for task in net.tasks_of(stage):
            if task.status is S.PAUSED:
                turn.set(task, status=S.NOT_STARTED)
                turn.push(StartTask.of_task(task))
