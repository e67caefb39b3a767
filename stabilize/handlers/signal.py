"""Signals: to a stage that waits, or kept until it does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select

from stabilize.clock import new_id
from stabilize.events.base import EventType
from stabilize.handlers.admission import announce
from stabilize.handlers.base import Handler
from stabilize.models import BufferedSignal, StageExecution
from stabilize.models.triggers import Signal
from stabilize.net import Net
from stabilize.queue.messages import RunTask, SignalStage, StartStage
from stabilize.status import StagePhase, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
MAX_BUFFERED = 1_000
COUNT = "_buffered_signals"


def reached_run(turn: Turn, net: Net, stage: StageExecution) -> StageExecution:
    """The run a message reaches: the id of any run names its stage.

    The run that waits or is running if there is one, else the newest.
    """
    if stage.status in (S.SUSPENDED, S.RUNNING):
        return stage
    query = select(StageExecution.id).where(
        StageExecution.workflow_id == stage.workflow_id,
        StageExecution.ref_id == stage.ref_id,
        StageExecution.status.in_((S.SUSPENDED, S.RUNNING)),
    )
    id = turn.read(query.order_by(StageExecution.run).limit(1)).scalar()
    found = turn.reader.stage(net, id) if id else turn.reader.newest(net, stage.ref_id)
    return found or stage


class SignalStageHandler(Handler[SignalStage]):
    """Wake the stage that waits; keep a persistent signal that came early; drop the rest."""

    def handle(self, message: SignalStage, turn: Turn) -> None:
        net = turn.net(message)
        stage = reached_run(turn, net, turn.stage(message))
        if stage.status is S.SUSPENDED and not net.workflow.status.is_complete:
            _wake(turn, net, stage, message)
            return
        if _triggers(stage, message):
            sent = _values(message.signal_name, message.signal_data)
            turn.set(stage, delivered={**stage.delivered, **sent})
            turn.push(StartStage.of(stage, triggered=True))
            return
        kept = stage.delivered.get(COUNT, 0)
        if (
            message.persistent
            and kept < MAX_BUFFERED
            and not stage.status.is_complete
            and not net.workflow.status.is_complete
        ):
            _keep(turn, stage, message, kept)
            return
        turn.record(
            EventType.SIGNAL_DROPPED,
            stage,
            ref_id=stage.ref_id,
            name=stage.name,
            signal_name=message.signal_name,
            reason=_why(message, stage, kept),
        )


def _triggers(stage: StageExecution, message: SignalStage) -> bool:
    """The stage has its tokens and waits for this very signal to begin."""
    trigger = stage.trigger
    waits = stage.waits_for == f"trigger:{stage.ref_id}" and stage.phase is StagePhase.READY
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
    turn.set(stage, delivered={**stage.delivered, COUNT: kept + 1})
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


def take_buffered_signal(turn: Turn, stage: StageExecution) -> dict[str, Any] | None:
    """Use up the oldest signal kept for the stage, if there is one."""
    kept = stage.delivered.get(COUNT, 0)
    if not kept:
        return None
    row = turn.connection.execute(
        select(BufferedSignal.id, BufferedSignal.name, BufferedSignal.data)
        .where(
            BufferedSignal.workflow_id == stage.workflow_id,
            BufferedSignal.ref_id == stage.ref_id,
        )
        .order_by(BufferedSignal.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    turn.connection.execute(delete(BufferedSignal).where(BufferedSignal.id == row.id))
    return {**_values(row.name, row.data), COUNT: kept - 1}
