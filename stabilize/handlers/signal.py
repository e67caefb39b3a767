"""Signals: to a stage that waits, or kept until it does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, or_, select, true

from stabilize.clock import new_id
from stabilize.events.base import EventType
from stabilize.handlers.admission import announce, pull_trigger
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import BUFFERED
from stabilize.models import BufferedSignal, StageExecution, Workflow
from stabilize.models.triggers import Signal
from stabilize.net import Net
from stabilize.queue.messages import RunTask, SignalStage, StartStage
from stabilize.status import StagePhase, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
MAX_BUFFERED = 1_000


def reached_run(turn: Turn, net: Net, stage: StageExecution) -> StageExecution:
    """The run a message reaches: the id of any run names its stage.

    That run if it waits for a signal, else the oldest that does; else the one that is running, else
    the newest.
    """
    if _waits(stage):
        return stage
    waits = or_(
        StageExecution.status == S.SUSPENDED, StageExecution.waits_for == _trigger_of(stage)
    )
    here = (
        StageExecution.workflow_id == stage.workflow_id,
        StageExecution.ref_id == stage.ref_id,
    )
    runs = select(StageExecution.id).order_by(StageExecution.run).limit(1)
    id = turn.read(runs.where(*here, waits)).scalar()
    if id is None and stage.status is not S.RUNNING:
        id = turn.read(runs.where(*here, StageExecution.status == S.RUNNING)).scalar()
    if id is None and stage.status is S.RUNNING:
        return stage
    found = turn.reader.stage(net, id) if id else turn.reader.newest(net, stage.ref_id)
    return found or stage


def run_under_way(turn: Turn, net: Net, stage: StageExecution) -> StageExecution:
    """The run that a message reaches which is for one at work rather than for one that waits."""
    return stage if stage.status is S.RUNNING else reached_run(turn, net, stage)


def _waits(stage: StageExecution) -> bool:
    return stage.status is S.SUSPENDED or (
        stage.phase is StagePhase.READY and stage.waits_for == _trigger_of(stage)
    )


def _trigger_of(stage: StageExecution) -> str:
    return f"trigger:{stage.ref_id}"


class SignalStageHandler(Handler[SignalStage]):
    """Wake the stage that waits; keep a persistent signal that came early; drop the rest."""

    def handle(self, message: SignalStage, turn: Turn) -> None:
        net = turn.net(message)
        if turn.reader.stage(net, message.stage_id) is None:
            _drop(turn, net.workflow, message, reason=f"there is no stage {message.stage_id}")
        stage = reached_run(turn, net, turn.stage(message))
        if stage.status is S.SUSPENDED and not net.workflow.status.is_complete:
            _wake(turn, net, stage, message)
            return
        if _triggers(stage, message):
            sent = _values(message.signal_name, message.signal_data)
            turn.set(stage, delivered={**stage.delivered, **sent}, waits_for=None)
            pull_trigger(turn, net, stage)
            turn.push(StartStage.of(stage, triggered=True))
            return
        kept = stage.delivered.get(BUFFERED, 0)
        if (
            message.persistent
            and kept < MAX_BUFFERED
            and not stage.status.is_complete
            and not net.workflow.status.is_complete
        ):
            _keep(turn, stage, message, kept)
            return
        reason = _why(message, stage, kept)
        _drop(turn, stage, message, ref_id=stage.ref_id, name=stage.name, reason=reason)


def _drop(
    turn: Turn, entity: StageExecution | Workflow, message: SignalStage, **detail: str
) -> None:
    turn.record(EventType.SIGNAL_DROPPED, entity, signal_name=message.signal_name, **detail)


def _triggers(stage: StageExecution, message: SignalStage) -> bool:
    """The stage has its tokens and waits for this very signal to begin."""
    trigger = stage.trigger
    waits = stage.status is S.NOT_STARTED and _waits(stage)
    return waits and isinstance(trigger, Signal) and trigger.name == message.signal_name


def _why(message: SignalStage, stage: StageExecution, kept: int) -> str:
    if stage.status.is_complete:
        return f"the stage is {stage.status}"
    return f"{kept} are kept already" if message.persistent else "nobody waits for it"


def _values(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"_signal_name": name, "_signal_data": data}


def _wake(turn: Turn, net: Net, stage: StageExecution, message: SignalStage) -> None:
    turn.set(
        stage,
        status=S.RUNNING,
        delivered={**stage.delivered, **_values(message.signal_name, message.signal_data)},
    )
    announce(turn, net, stage)
    with turn.actor(message.user):
        turn.record(
            EventType.STAGE_RESUMED,
            stage,
            ref_id=stage.ref_id,
            type=stage.type,
            name=stage.name,
            signal_name=message.signal_name,
        )
    for task in net.tasks_of(stage):
        if task.status is S.SUSPENDED:
            turn.set(task, status=S.RUNNING)
            turn.push(RunTask.of_task(task, task_type=task.implementing_class))


def _keep(turn: Turn, stage: StageExecution, message: SignalStage, kept: int) -> None:
    turn.set(stage, delivered={**stage.delivered, BUFFERED: kept + 1})
    turn.connection.execute(
        insert(BufferedSignal),
        [
            {
                "id": new_id(),
                "workflow_id": stage.workflow_id,
                "ref_id": stage.ref_id,
                "name": message.signal_name,
                "data": message.signal_data,
                "user_name": message.user,
                "created_at": turn.now,
            }
        ],
    )
    turn.record(
        EventType.SIGNAL_BUFFERED,
        stage,
        ref_id=stage.ref_id,
        name=stage.name,
        signal_name=message.signal_name,
    )


def take_buffered_signal(
    turn: Turn, stage: StageExecution, *, name: str | None = None
) -> dict[str, Any] | None:
    """Use up the oldest signal kept for the stage, of that name if one is given."""
    kept = stage.delivered.get(BUFFERED, 0)
    if not kept:
        return None
    row = turn.connection.execute(
        select(BufferedSignal.id, BufferedSignal.name, BufferedSignal.data)
        .where(
            BufferedSignal.workflow_id == stage.workflow_id,
            BufferedSignal.ref_id == stage.ref_id,
            true() if name is None else BufferedSignal.name == name,
        )
        .order_by(BufferedSignal.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    turn.connection.execute(delete(BufferedSignal).where(BufferedSignal.id == row.id))
    return {**_values(row.name, row.data), BUFFERED: kept - 1}
