"""Handlers of messages about stages: start, plan, go on, complete."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sqlalchemy import select

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.dag.gates import PassOver, Wait, Withdraw
from stabilize.dag.outcome import stage_outcome
from stabilize.dag.reducers import unknown_reducer
from stabilize.events.base import EventType
from stabilize.handlers.admission import (
    admit,
    announce,
    is_gated,
    pull_trigger,
)
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import cancel_child, describe, withdraw_parts
from stabilize.handlers.context import names_for
from stabilize.handlers.expiry import begin_by, has_begun, is_past
from stabilize.handlers.instances import open_group
from stabilize.handlers.lifecycle import (
    complete_if_idle,
    finish_stage,
    run_next_phase,
    start_owned,
)
from stabilize.handlers.runs import REASON, add_run, change_context
from stabilize.handlers.signal import take_buffered_signal
from stabilize.handlers.tokens import discard_tokens
from stabilize.models import StageExecution
from stabilize.models.triggers import Signal, Timer
from stabilize.net import BEYOND, Net, is_active
from stabilize.queue.messages import (
    CancelStage,
    CompleteStage,
    ContinueParentStage,
    FailStage,
    PlanStage,
    SkipStage,
    StageDeadline,
    StartStage,
)
from stabilize.queue.rows import MESSAGES
from stabilize.stages.builder import StagePlan
from stabilize.status import StagePhase, SyntheticStageOwner, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
Owner = SyntheticStageOwner
_LOOK_AGAIN_MS = 200


class StartStageHandler(Handler[StartStage]):
    """Begin a run, unless its definition says that it is to be passed over."""

    def handle(self, message: StartStage, turn: Turn) -> None:
        stage = turn.stage(message)
        if stage.status is not S.NOT_STARTED or stage.phase is not StagePhase.READY:
            return
        if message.triggered:
            pull_trigger(turn, turn.net(message), stage)
        if turn.workflow(message).status is S.PAUSED:
            turn.park(message)
            return
        if stage.definition.get("withdrawn"):
            turn.push(CancelStage.of(stage, user="system", reason="withdrawn before it began"))
            return
        if stage.scheduled_time is not None and stage.scheduled_time > turn.now:
            turn.push(message, delay_ms=stage.scheduled_time - turn.now)
            return
        if _is_passed_over(turn, stage):
            return
        net = turn.net(message)
        if is_gated(stage) and not _admitted(turn, net, stage):
            return
        begin(turn, net, stage)
        if stage.mi_config is not None:
            open_group(turn, net, stage, stage.mi_config)
        elif turn.worker.has_planner(stage.type) and not stage.definition.get("planned_tasks"):
            turn.push(PlanStage.of(stage))
        else:
            run_next_phase(turn, net, stage)


def _is_passed_over(turn: Turn, stage: StageExecution) -> bool:
    reason = _reason_to_skip(turn, stage)
    if isinstance(reason, ValueError):
        turn.push(FailStage.of(stage, error=str(reason)))
    elif reason is not None:
        turn.push(SkipStage.of(stage, reason=reason))
    return reason is not None


def _admitted(turn: Turn, net: Net, stage: StageExecution) -> bool:
    obstacle = admit(turn, net, stage)
    match obstacle:
        case Wait(key):
            offered = stage.waits_for is None and key.startswith("trigger:")
            if offered and _offer(turn, stage):
                pull_trigger(turn, net, stage)
                return _admitted(turn, net, stage)
            if stage.waiting_since is None:
                begin_by(turn, StartStage.of(stage), stage.start_time_expiry)
            turn.set(stage, waits_for=key, waiting_since=stage.waiting_since or turn.now)
            complete_if_idle(turn, net)
        case PassOver(reason):
            turn.push(SkipStage.of(stage, reason=reason))
        case Withdraw(reason):
            turn.push(CancelStage.of(stage, user="system", reason=reason))
        case None:
            if stage.waits_for is not None:
                turn.set(stage, waits_for=None)
    return obstacle is None


def _offer(turn: Turn, stage: StageExecution) -> bool:
    """Let a trigger come from now on; True when its signal is there already."""
    if isinstance(stage.trigger, Timer):
        turn.push(StartStage.of(stage, triggered=True), delay_ms=stage.trigger.milliseconds)
        return False
    if not isinstance(stage.trigger, Signal):
        return False
    signal = take_buffered_signal(turn, stage, name=stage.trigger.name)
    if signal is None:
        return False
    turn.set(stage, delivered={**stage.delivered, **signal})
    return True


def begin(turn: Turn, net: Net, stage: StageExecution) -> None:
    """The run is under way from now on."""
    if stage.waiting_since is not None:
        has_begun(turn, StartStage.of(stage), stage.start_time_expiry)
    turn.set(stage, status=S.RUNNING, start_time=turn.now, phase=StagePhase.PLANNING)
    if turn.recorder is not None:
        turn.record(
            EventType.STAGE_STARTED,
            stage,
            **describe(stage),
            start_time=turn.now,
            is_synthetic=stage.parent_stage_id is not None,
            parent_stage_id=stage.parent_stage_id,
            task_count=len(net.tasks_of(stage)),
            context=stage.context,
            run=stage.run,
        )
    announce(turn, net, stage)
    limit = stage.context.get("stageTimeoutMs")
    if isinstance(limit, (int, float)):
        turn.push(StageDeadline.of(stage), delay_ms=max(1, int(limit)))


def _reason_to_skip(turn: Turn, stage: StageExecution) -> str | ValueError | None:
    """Why the stage is passed over, or the error for which it fails."""
    if is_past(stage.start_time_expiry, turn):
        return "The time by which it had to start is past"
    unknown = unknown_reducer(stage.definition.get("output_reducers") or {})
    if unknown is not None:
        return ValueError(unknown)
    enabled: Any = stage.context.get("stageEnabled")
    if isinstance(enabled, dict) and enabled.get("type") == "expression":
        try:
            names = names_for(turn, stage)
            enabled = compile_expression(str(enabled.get("expression"))).evaluate(names)
        except ExpressionError as error:
            return ValueError(f"stageEnabled: {error}")
        enabled = bool(enabled)
    return "stageEnabled is false" if enabled is False else None


class SkipStageHandler(Handler[SkipStage]):
    """Pass a stage over that has not begun; what follows it runs."""

    def handle(self, message: SkipStage, turn: Turn) -> None:
        stage = turn.stage(message)
        if stage.status is not S.NOT_STARTED or not is_active(stage):
            return
        turn.set(stage, definition={**stage.definition, REASON: message.reason})
        finish_stage(turn, turn.net(message), stage, S.SKIPPED, reason=message.reason)


class FailStageHandler(Handler[FailStage]):
    """End a stage that cannot do what its definition says."""

    def handle(self, message: FailStage, turn: Turn) -> None:
        stage = turn.stage(message)
        if stage.status.is_complete or not is_active(stage):
            return
        net = turn.net(message)
        turn.set(stage, context={**stage.context, "error": message.error})
        _stop_tasks(turn, net, stage, S.TERMINAL)
        finish_stage(turn, net, stage, stage.failure_status(), error=message.error)


class StageDeadlineHandler(Handler[StageDeadline]):
    """Fail a stage that has taken longer than its `stageTimeoutMs`.

    A body at work just now has the same limit where it is executed, which may ask `on_timeout`: it
    comes first.
    """

    def handle(self, message: StageDeadline, turn: Turn) -> None:
        stage = turn.stage(message)
        if stage.status.is_complete or stage.start_time is None:
            return
        if _is_executing(turn, stage):
            turn.again(message, _LOOK_AGAIN_MS)
            return
        spent, limit = turn.now - stage.start_time, stage.context.get("stageTimeoutMs")
        error = f"Stage exceeded timeout ({spent}ms > {limit}ms)"
        details = {"details": {"error": error, "errors": [error], "transient": False}}
        turn.set(stage, context={**stage.context, "exception": details})
        turn.push(FailStage.of(stage, error=error))


def _is_executing(turn: Turn, stage: StageExecution) -> bool:
    """Say whether a live worker holds the message of one of the stage's tasks."""
    held = select(MESSAGES.c.id).where(
        MESSAGES.c.workflow_id == stage.workflow_id,
        MESSAGES.c.stage_id == stage.id,
        MESSAGES.c.type == "RunTask",
        MESSAGES.c.holder.is_not(None),
        MESSAGES.c.visible_at > turn.now,
    )
    return turn.connection.execute(held.limit(1)).first() is not None


def _stop_tasks(turn: Turn, net: Net, stage: StageExecution, status: WorkflowStatus) -> None:
    """Close the open tasks and synthetic stages of a stage that ends out of turn."""
    turn.purge(stage.workflow_id, stage.id)
    withdraw_parts(turn, net, stage)
    cancel_child(turn, stage, "has ended")
    for task in net.tasks_of(stage):
        if task.status is S.NOT_STARTED:
            turn.set(task, status=S.SKIPPED)
        elif not task.status.is_complete:
            turn.set(task, status=status, end_time=turn.now)


class PlanStageHandler(Handler[PlanStage]):
    """Have the builder of the stage's type asked; then take in what it made."""

    def handle(self, message: PlanStage, turn: Turn) -> None:
        stage = turn.stage(message)
        if stage.status is not S.RUNNING:
            return
        outcome = turn.outcome_of(message)
        if outcome is None:
            turn.execute(message)
            return
        net = turn.net(message)
        plan = deepcopy(outcome.plan)  # a turn that does not commit is played again
        if not isinstance(plan, StagePlan):
            missing = f"the builder of {stage.type!r} returned no plan"
            _planning_failed(turn, net, stage, outcome.error or missing)
            return
        if plan.error is not None:
            _planning_failed(turn, net, stage, plan.error)
            return
        adopt(turn, net, stage, plan)
        if message.for_failure:
            turn.push(CompleteStage.of(stage))
        else:
            run_next_phase(turn, net, stage)


def _planning_failed(turn: Turn, net: Net, stage: StageExecution, error: str) -> None:
    details = {"details": {"error": error, "errors": [error], "transient": False}}
    turn.set(
        stage,
        context={**stage.context, "exception": details, "beforeStagePlanningFailed": True},
    )
    finish_stage(turn, net, stage, S.TERMINAL, error=error)


def adopt(turn: Turn, net: Net, stage: StageExecution, plan: StagePlan) -> None:
    """Take in the tasks and synthetic stages that a builder made for `stage`."""
    if plan.context:
        change_context(turn, stage, plan.context)
    if plan.tasks:
        turn.set(stage, definition={**stage.definition, "planned_tasks": True})
        for position, task in enumerate(plan.tasks):
            task.workflow_id, task.stage_id, task.position = stage.workflow_id, stage.id, position
            turn.add(task)
        net.tasks[stage.id] = list(plan.tasks)
    _name_apart(turn, net, stage, plan)
    for child in plan.stages:
        child.workflow_id, child.position = stage.workflow_id, stage.position
        tasks = list(child.tasks)
        for position, task in enumerate(tasks):
            task.workflow_id, task.stage_id, task.position = child.workflow_id, child.id, position
        add_run(turn, net, child, tasks)
    for child in plan.stages:
        known = net.upstream.get(child.ref_id, {})
        for requisite in child.requisite_stage_ref_ids - known.keys():
            net.connect(requisite, stage.position, child.ref_id, stage.position)
            turn.add_edge(
                workflow_id=stage.workflow_id,
                upstream_ref_id=requisite,
                downstream_ref_id=child.ref_id,
                upstream_position=stage.position,
                downstream_position=stage.position,
            )


def _name_apart(turn: Turn, net: Net, stage: StageExecution, plan: StagePlan) -> None:
    """Make planned stages the next runs of those of an earlier run, or give them other names."""
    renamed: dict[str, str] = {}
    for child in plan.stages:
        old = turn.reader.newest(net, child.ref_id)
        of_instance = stage.position >= BEYOND  # another one may have taken the name, unread here
        if of_instance or (old is not None and not _was_planned_for(turn, net, stage, old)):
            renamed[child.ref_id] = f"{stage.ref_id}/{stage.run}/{child.ref_id}"
            child.ref_id = renamed[child.ref_id]
        elif old is not None:
            turn.set(old, latest=False)
            child.run, child.generation = old.run + 1, stage.generation
            discard_tokens(turn, net, child.ref_id)
    for child in plan.stages:
        names = {renamed.get(name, name) for name in child.requisite_stage_ref_ids}
        child.requisite_stage_ref_ids = names


def _was_planned_for(turn: Turn, net: Net, stage: StageExecution, old: StageExecution) -> bool:
    """Say whether a builder made `old` for an earlier run of `stage`, which is over."""
    if not old.planned or old.parent_stage_id is None:
        return False
    parent = turn.reader.stage(net, old.parent_stage_id)
    return parent is not None and parent.ref_id == stage.ref_id and parent.status.is_complete


class ContinueParentStageHandler(Handler[ContinueParentStage]):
    """A synthetic stage has ended: go on with its parent once none of its kind is open."""

    def handle(self, message: ContinueParentStage, turn: Turn) -> None:
        net, stage = turn.net(message), turn.stage(message)
        if stage.status.is_complete or any(is_active(c) for c in net.children.get(stage.id, ())):
            return
        if stage.phase is StagePhase.TASKS:  # its stages before had ended when it began them
            return
        if stage.phase is StagePhase.BEFORE and not _failed(net, stage, Owner.STAGE_BEFORE):
            run_next_phase(turn, net, stage)
        else:
            turn.push(CompleteStage.of(stage))


def _statuses(net: Net, stage: StageExecution, owner: SyntheticStageOwner) -> list[WorkflowStatus]:
    return [child.status for child in net.owned(stage, owner)]


def _failed(net: Net, stage: StageExecution, owner: SyntheticStageOwner) -> bool:
    return any(status.is_halt for status in _statuses(net, stage, owner))


class CompleteStageHandler(Handler[CompleteStage]):
    """Find what the parts of the stage come to; run its stages after, or for its failure."""

    def handle(self, message: CompleteStage, turn: Turn) -> None:
        net, stage = turn.net(message), turn.stage(message)
        if stage.status is not S.RUNNING or any(
            is_active(child) for child in net.children.get(stage.id, ())
        ):
            return
        for part in net.children.get(stage.id, ()):
            if part.status is S.CANCELED and part.definition.get("withdrawn"):
                reason = f"its stage {part.ref_id!r} was withdrawn"
                turn.push(CancelStage.of(stage, user="system", reason=reason))
                return
        core = [task.status for task in net.tasks_of(stage) if task.status.is_complete]
        core += _statuses(net, stage, Owner.STAGE_BEFORE)
        after = _statuses(net, stage, Owner.STAGE_AFTER)
        status = stage_outcome(core, after, stage.failure_status())
        if status is S.FAILED_CONTINUE or not status.is_halt:
            if stage.phase in (StagePhase.BEFORE, StagePhase.TASKS):
                turn.set(stage, phase=StagePhase.AFTER)
                if start_owned(turn, net, stage, Owner.STAGE_AFTER):
                    return
        elif status in (S.TERMINAL, S.STOPPED) and self._runs_failure_stages(turn, net, stage):
            return
        finish_stage(turn, net, stage, status)

    def _runs_failure_stages(self, turn: Turn, net: Net, stage: StageExecution) -> bool:
        if stage.phase is StagePhase.FAILURE:
            waiting = net.owned(stage, Owner.STAGE_FAILURE)
            untouched = all(child.phase is StagePhase.WAITING for child in waiting)
            return untouched and start_owned(turn, net, stage, Owner.STAGE_FAILURE)
        turn.set(stage, phase=StagePhase.FAILURE)
        if turn.worker.has_planner(stage.type):
            turn.push(PlanStage.of(stage, for_failure=True))
            return True
        return start_owned(turn, net, stage, Owner.STAGE_FAILURE)
