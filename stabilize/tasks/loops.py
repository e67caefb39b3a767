"""The tasks that structured loops are made of (WCP-21)."""

from __future__ import annotations

from typing import Any

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.models.stage import StageExecution
from stabilize.tasks.interface import Task
from stabilize.tasks.result import TaskResult


def _published(stage: StageExecution) -> dict[str, Any]:
    """What the stages of the body put out in this round."""
    body = set(stage.settings.get("_loop_body", ()))
    values: dict[str, Any] = dict(stage.settings.get("_loop_values", {}))
    for other in stage.execution.stages:
        if other.ref_id in body:
            values.update(other.outputs)
    return values


def _holds(stage: StageExecution, values: dict[str, Any], done: int) -> bool:
    counters = {
        "iteration": done,
        "loop_iteration": done,
        "iteration_count": done,
        "max_iterations": stage.settings["_loop_max"],
    }
    condition = compile_expression(stage.settings["_loop_condition"])
    names = {**stage.context, **values, **counters}
    missing = sorted(name for name in condition.names if name not in names)
    if missing:
        raise ExpressionError(
            f"{condition.text!r}: {', '.join(missing)} is not defined: give it in context= or "
            "put it out in the body"
        )
    return bool(condition.evaluate(names))


def _end(stage: StageExecution, done: int, exhausted: bool, values: dict[str, Any]) -> TaskResult:
    outputs = {**values, "loop_iterations": done, "loop_exhausted": exhausted}
    if exhausted:
        error = f"the loop ended after max_iterations={stage.settings['_loop_max']}"
        return TaskResult.failed_continue(error, outputs=outputs)
    return TaskResult.success(outputs=outputs)


class LoopConditionTask(Task):
    """Decides whether the body runs: before it in a while-loop, after it in a repeat-until."""

    def execute(self, stage: StageExecution) -> TaskResult:
        settings = stage.settings
        done = int(settings.get("_loop_done", 0))
        if settings["_loop_kind"] == "while":
            values = dict(settings.get("_loop_values", {}))
            goes_on = _holds(stage, values, done)
            if goes_on and done < settings["_loop_max"]:
                return TaskResult.success(outputs={**values, "_loop_round": done})
            told = {
                "_loop_over": True,
                "_loop_done": done,
                "_loop_values": values,
                "_loop_exhausted": goes_on,
            }
            return TaskResult.jump_to(settings["_loop_target"], context=told)
        values, done = _published(stage), done + 1
        if _holds(stage, values, done):
            return _end(stage, done, False, values)
        if done >= settings["_loop_max"]:
            return _end(stage, done, True, values)
        told = {"_loop_done": done, "_loop_values": values}
        return TaskResult.jump_to(settings["_loop_target"], context=told)


class LoopBackTask(Task):
    """Goes back to the condition of a while-loop, or ends the loop when that said so."""

    def execute(self, stage: StageExecution) -> TaskResult:
        settings = stage.settings
        done = int(settings.get("_loop_done", 0))
        if settings.get("_loop_over"):
            exhausted = bool(settings["_loop_exhausted"])
            return _end(stage, done, exhausted, dict(settings["_loop_values"]))
        count = int(stage.context.get("_loop_round", 0))
        told = {"_loop_done": count + 1, "_loop_values": _published(stage)}
        return TaskResult.jump_to(settings["_loop_target"], context=told)


class LoopEntryTask(Task):
    """Begins each round of a repeat-until."""

    def execute(self, stage: StageExecution) -> TaskResult:
        values = dict(stage.settings.get("_loop_values", {}))
        return TaskResult.success(outputs=values)
