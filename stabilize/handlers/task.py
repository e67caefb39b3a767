"""Handlers of messages about tasks."""

from __future__ import annotations

from stabilize.errors import TaskNotFoundError
from stabilize.events.base import EventType
from stabilize.handlers.admission import announce
from stabilize.handlers.base import Handler
from stabilize.handlers.children import start_child
from stabilize.handlers.runs import change_context
from stabilize.handlers.signal import take_buffered_signal
from stabilize.handlers.workflow import cancellation_of
from stabilize.models import StageExecution, TaskExecution
from stabilize.net import Net
from stabilize.queue.messages import (
    CompleteStage,
    CompleteTask,
    JumpToStage,
    RunHook,
    RunTask,
    StartTask,
)
from stabilize.status import WorkflowStatus
from stabilize.tasks.backoff import Backoff
from stabilize.tasks.body import Outcome, failure
from stabilize.turn import Turn

S = WorkflowStatus
MAX_EXECUTIONS = 10
"""How often a body runs whose errors are transient."""
DEFAULT_POLL_SECONDS = 1.0
_HALTS = (S.TERMINAL, S.CANCELED)


class StartTaskHandler(Handler[StartTask]):
    """Begin a task: its body is for the executor."""

    def handle(self, message: StartTask, turn: Turn) -> None:
        stage, task = turn.stage_and_task(message)
        if task.status is not S.NOT_STARTED or stage.status is not S.RUNNING:
            return
        workflow = turn.workflow(message)
        if workflow.is_canceled:
            turn.push(cancellation_of(workflow))
            return
        if workflow.status is S.PAUSED:
            turn.set(stage, status=S.PAUSED)
            turn.set(task, status=S.PAUSED)
            return
        turn.set(task, status=S.RUNNING, start_time=turn.now)
        turn.record(
            EventType.TASK_STARTED,
            task,
            name=task.name,
            implementing_class=task.implementing_class,
            start_time=turn.now,
            stage_id=stage.id,
        )
        if stage.context.get("manualSkip"):
            turn.push(CompleteTask.of_task(task, status=S.SKIPPED))
        else:
            turn.push(RunTask.of_task(task, task_type=task.implementing_class))


class RunTaskHandler(Handler[RunTask]):
    """Send a body to the executor; when it is back, act on what it came to."""

    def handle(self, message: RunTask, turn: Turn) -> None:
        stage, task = turn.stage_and_task(message)
        if task.status is not S.RUNNING or stage.status is not S.RUNNING:
            return
        outcome = turn.outcome_of(message)
        if outcome is not None:
            self._act(message, turn, stage, task, outcome)
        elif turn.workflow(message).is_canceled:
            turn.push(cancellation_of(turn.workflow(message)))
        elif turn.workflow(message).status is S.PAUSED:
            turn.park(message)
        elif turn.worker.knows(message.task_type):
            turn.execute(message)
        else:
            unknown = TaskNotFoundError(message.task_type, list(turn.worker.task_names))
            self._act(message, turn, stage, task, failure(unknown))

    def _act(
        self,
        message: RunTask,
        turn: Turn,
        stage: StageExecution,
        task: TaskExecution,
        outcome: Outcome,
    ) -> None:
        if outcome.child is not None:
            start_child(turn, turn.net(message), stage, task, outcome.child)
        elif outcome.status is S.RUNNING:
            if not outcome.transient or task.retries + 1 < MAX_EXECUTIONS:
                _run_again(message, turn, stage, task, outcome)
                return
            turn.push(_completion(stage, task, outcome, S.TERMINAL))
        elif outcome.status is S.SUSPENDED:
            _suspend(turn, turn.net(message), stage, task, outcome)
        elif outcome.status is S.REDIRECT:
            turn.push(
                JumpToStage.of(
                    stage,
                    target_stage_ref_id=outcome.target or "",
                    jump_context=outcome.context,
                    jump_outputs=outcome.outputs,
                )
            )
        else:
            turn.push(_completion(stage, task, outcome, outcome.status))


def merge_values(
    turn: Turn, stage: StageExecution, context: dict[str, object], outputs: dict[str, object]
) -> None:
    """Put what a body brought along where it belongs."""
    if context:
        change_context(turn, stage, context)
    if outputs:
        turn.set(stage, outputs={**stage.outputs, **outputs})


def _completion(
    stage: StageExecution, task: TaskExecution, outcome: Outcome, status: WorkflowStatus
) -> CompleteTask:
    stops = status not in (S.SUCCEEDED, S.SKIPPED, S.FAILED_CONTINUE)
    if status in _HALTS and not outcome.timed_out:
        status = stage.failure_status(default=status)
    return CompleteTask.of_task(
        task,
        status=status,
        context=outcome.context,
        outputs=outcome.outputs,
        exception=outcome.exception or {},
        error=outcome.error,
        stops_stage=stops,
        terminates=outcome.terminates,
    )


def _run_again(
    message: RunTask, turn: Turn, stage: StageExecution, task: TaskExecution, outcome: Outcome
) -> None:
    merge_values(turn, stage, outcome.context, outcome.outputs)
    if outcome.transient:
        turn.set(task, retries=task.retries + 1)
        wait = Backoff().seconds(task.retries) if outcome.wait is None else outcome.wait
        turn.record(
            EventType.TASK_RETRIED,
            task,
            name=task.name,
            attempt=task.retries,
            last_error=outcome.error,
            error=outcome.error,
            stage_id=stage.id,
            context=outcome.context,
        )
    else:
        if task.retries:
            turn.set(task, retries=0)
        wait = DEFAULT_POLL_SECONDS if outcome.wait is None else outcome.wait
        if outcome.context or outcome.outputs:
            turn.record(
                EventType.CONTEXT_UPDATED, stage, context=outcome.context, outputs=outcome.outputs
            )
    turn.again(message, int(max(0.0, wait) * 1000))


def _suspend(
    turn: Turn, net: Net, stage: StageExecution, task: TaskExecution, outcome: Outcome
) -> None:
    merge_values(turn, stage, outcome.context, outcome.outputs)
    signal = take_buffered_signal(turn, stage)
    if signal is not None:
        turn.set(stage, delivered={**stage.delivered, **signal})
        turn.push(RunTask.of_task(task, task_type=task.implementing_class))
        return
    turn.set(task, status=S.SUSPENDED)
    turn.set(stage, status=S.SUSPENDED)
    announce(turn, net, stage)
    turn.record(EventType.TASK_SUSPENDED, task, name=task.name, stage_id=stage.id)
    turn.record(
        EventType.STAGE_SUSPENDED,
        stage,
        ref_id=stage.ref_id,
        type=stage.type,
        name=stage.name,
        context=outcome.context,
        outputs=outcome.outputs,
    )


class CompleteTaskHandler(Handler[CompleteTask]):
    """Close the task; go on with the next one, or look what the stage has come to."""

    def handle(self, message: CompleteTask, turn: Turn) -> None:
        stage, task = turn.stage_and_task(message)
        if task.status is not S.RUNNING or stage.status is not S.RUNNING:
            return
        context = dict(message.context)
        if message.exception:
            context["exception"] = message.exception
        merge_values(turn, stage, context, message.outputs)
        turn.set(task, status=message.status, end_time=turn.now)
        if message.exception:
            turn.set(task, task_exception_details=message.exception)
        _record_end(message, turn, stage, task, context)
        tasks = turn.net(message).tasks_of(stage)
        following = tasks[tasks.index(task) + 1 :]
        if message.stops_stage:
            for passed in following:
                turn.set(passed, status=S.SKIPPED)
        if message.terminates:
            turn.set(stage, definition={**stage.definition, "terminates": True})
            for passed in following:
                turn.set(passed, status=S.SKIPPED)
        if following and not message.stops_stage and not message.terminates:
            turn.push(StartTask.of_task(following[0]))
        else:
            turn.push(CompleteStage.of(stage))


def _record_end(
    message: CompleteTask,
    turn: Turn,
    stage: StageExecution,
    task: TaskExecution,
    context: dict[str, object],
) -> None:
    if turn.recorder is None:
        return
    failed = message.status in (S.TERMINAL, S.STOPPED, S.FAILED_CONTINUE)
    duration = None if task.start_time is None else turn.now - task.start_time
    detail = {
        "name": task.name,
        "status": message.status.name,
        "end_time": turn.now,
        "duration_ms": duration,
        "stage_id": stage.id,
        "context": context,
        "outputs": message.outputs,
    }
    if failed:
        error = message.error or f"task {task.name!r} ended with status {message.status.name}"
        turn.record(
            EventType.TASK_FAILED,
            task,
            **detail,
            error=error,
            exception_details=message.exception,
        )
    elif message.status is S.SKIPPED:
        turn.record(
            EventType.STATUS_CHANGED, task, **detail, old_status="RUNNING", new_status="SKIPPED"
        )
    else:
        turn.record(EventType.TASK_COMPLETED, task, **detail)


class RunHookHandler(Handler[RunHook]):
    """Have a hook of a task called; what `on_cancel` returns is kept."""

    def handle(self, message: RunHook, turn: Turn) -> None:
        stage, task = turn.stage_and_task(message)
        outcome = turn.outcome_of(message)
        if outcome is None:
            if turn.worker.knows(message.task_type):
                turn.execute(message)
        elif message.hook == "on_cancel":
            merge_values(turn, stage, outcome.context, outcome.outputs)
            if outcome.context or outcome.outputs:
                turn.record(
                    EventType.OUTPUTS_UPDATED,
                    stage,
                    context=outcome.context,
                    outputs=outcome.outputs,
                )
        del task
