"""Makes and starts runs of stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabilize.models import StageExecution, TaskExecution
from stabilize.net import Net
from stabilize.queue.messages import StartStage
from stabilize.status import StagePhase
from stabilize.turn import Turn

_GIVEN = "given"
"""The context a run began with, kept once it has changed."""
CUT_SHORT = "cut_short"
"""Stands in the definition of a run that was under way when the workflow failed."""
REASON = "reason"
"""Stands in the definition of a run that was passed over or withdrawn: why."""
_OF_ONE_RUN = frozenset({"withdrawn", "planned_tasks", "terminates", CUT_SHORT, REASON, _GIVEN})
"""What a run keeps in its definition that the next run does not get."""
_FAILURE_KEYS = frozenset({"error", "exception", "jump_error", "beforeStagePlanningFailed"})


def activate(
    turn: Turn, net: Net, stage: StageExecution, *, thread: str = "", **values: Any
) -> StageExecution:
    """Start the next run of a stage: the one that waits, else a new one."""
    run = stage if stage.phase is StagePhase.WAITING else new_run(turn, net, stage)
    if run.thread != thread:
        values["thread"] = thread
    turn.set(run, phase=StagePhase.READY, **values)
    turn.set(net.workflow, open_runs=net.workflow.open_runs + 1)
    turn.push(StartStage.of(run))
    return run


def new_run(
    turn: Turn,
    net: Net,
    old: StageExecution,
    *,
    opens: int = 0,
    parent_id: str | None = None,
) -> StageExecution:
    """Make the next run of a stage; the earlier one keeps its history.

    It begins with the context that one began with; when a jump or a restart opens this part of the
    graph again (`opens` is 1), with what has become of it.
    """
    turn.set(old, latest=False)
    run = StageExecution(
        workflow_id=old.workflow_id,
        ref_id=old.ref_id,
        run=old.run + 1,
        generation=old.generation + opens,
        position=old.position,
        type=old.type,
        name=old.name,
        context=begun_anew(old, old.context if opens else old.definition.get(_GIVEN)),
        requisite_stage_ref_ids=old.requisite_stage_ref_ids,
        parent_stage_id=parent_id or old.parent_stage_id,
        synthetic_stage_owner=old.synthetic_stage_owner,
        definition={k: v for k, v in old.definition.items() if k not in _OF_ONE_RUN},
        thread=old.thread,
    )
    if old.delivered.get("_buffered_signals"):
        run.delivered = {"_buffered_signals": old.delivered["_buffered_signals"]}
    planned = old.definition.get("planned_tasks")  # its builder makes them anew
    add_run(turn, net, run, [] if planned else unstarted(net.tasks_of(old), run))
    for child in list(net.children.get(old.id, ())):
        if not child.planned:
            new_run(turn, net, child, opens=opens, parent_id=run.id)
    return run


def begun_anew(old: StageExecution, context: dict[str, Any] | None = None) -> dict[str, Any]:
    """The context, else that of the old run, without what it says of its failure."""
    begun_with = old.context if context is None else context
    return {k: v for k, v in begun_with.items() if k not in _FAILURE_KEYS}


def change_context(turn: Turn, stage: StageExecution, changes: Mapping[str, Any]) -> None:
    """Put values into the context of a run; what it began with is kept for the next one."""
    if _GIVEN not in stage.definition:
        turn.set(stage, definition={**stage.definition, _GIVEN: stage.context})
    turn.set(stage, context={**stage.context, **changes})


def unstarted(tasks: list[TaskExecution], run: StageExecution) -> list[TaskExecution]:
    """The same tasks once more, for another run."""
    return [
        TaskExecution(
            workflow_id=run.workflow_id,
            stage_id=run.id,
            position=task.position,
            name=task.name,
            implementing_class=task.implementing_class,
            stage_start=task.stage_start,
            stage_end=task.stage_end,
            loop_start=task.loop_start,
            loop_end=task.loop_end,
        )
        for task in tasks
    ]


def add_run(turn: Turn, net: Net, run: StageExecution, tasks: list[TaskExecution]) -> None:
    """Put a run that was just made, with its tasks, in the database and in the net."""
    turn.add(run)
    for task in tasks:
        turn.add(task)
    net.keep(run, tasks)
