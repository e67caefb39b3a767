"""The tasks that structured loops are made of (WCP-21)."""

from __future__ import annotations

from typing import Any

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.models.stage import StageExecution
from stabilize.status import StagePhase
from stabilize.tasks.interface import Task
from stabilize.tasks.result import TaskResult


def _carried(run: StageExecution | None) -> dict[str, Any]:
    """What the last round has handed on to the stage that begins this one; nothing to the first."""
    return dict((run and run.delivered.get("_jump_outputs")) or {})


def _values(stage: StageExecution, carried: dict[str, Any]) -> dict[str, Any]:
    return dict(carried.get("_loop_values", stage.settings["_loop_values"]))


def _around(stage: StageExecution) -> dict[str, StageExecution]:
    """The newest run of each stage in the thread of this one."""
    runs = (run for run in stage.execution.stage_runs if run.thread == stage.thread)
    return {run.ref_id: run for run in runs if run.phase is not StagePhase.WAITING}


def _head(stage: StageExecution) -> StageExecution | None:
    return _around(stage).get(stage.settings["_loop_target"])


def _published(stage: StageExecution, carried: dict[str, Any]) -> dict[str, Any]:
    """What the stages of the body put out in this round."""
    values, around = _values(stage, carried), _around(stage)
    body = [around[ref] for ref in stage.settings["_loop_body"] if ref in around]
    for other in sorted(body, key=lambda run: run.position):
        values.update({k: v for k, v in other.outputs.items() if not k.startswith("_")})
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


class LoopTask(Task):
    """Looks at the other stages of its loop, for which it has to run in this very process."""


class LoopConditionTask(LoopTask):
    """Decides whether the body runs: before it in a while-loop, after it in a repeat-until."""

    def execute(self, stage: StageExecution) -> TaskResult:
        is_while = stage.settings["_loop_kind"] == "while"
        return _before(stage) if is_while else _after(stage)


def _before(stage: StageExecution) -> TaskResult:
    settings, carried = stage.settings, _carried(stage)
    done, values = carried.get("_loop_done", 0), _values(stage, carried)
    goes_on = _holds(stage, values, done)
    if goes_on and done < settings["_loop_max"]:
        return TaskResult.success(outputs=values)
    told = {"_loop_over": True, "_loop_exhausted": goes_on}
    return _jump(settings["_loop_target"], done, values, told)


def _after(stage: StageExecution) -> TaskResult:
    carried = _carried(_head(stage))
    done, values = carried.get("_loop_done", 0) + 1, _published(stage, carried)
    if _holds(stage, values, done):
        return _end(stage, done, False, values)
    if done >= stage.settings["_loop_max"]:
        return _end(stage, done, True, values)
    return _jump(stage.settings["_loop_target"], done, values)


def _jump(
    target: str, done: int, values: dict[str, Any], told: dict[str, Any] | None = None
) -> TaskResult:
    """Hand on to the next round as outputs of the jump: whoever enters the loop begins anew."""
    outputs = {**(told or {}), "_loop_done": done, "_loop_values": values}
    return TaskResult.jump_to(target, outputs=outputs)


class LoopBackTask(LoopTask):
    """Goes back to the condition of a while-loop, or ends the loop when that said so."""

    def execute(self, stage: StageExecution) -> TaskResult:
        told = _carried(stage)
        if told.get("_loop_over"):
            return _end(stage, told["_loop_done"], told["_loop_exhausted"], told["_loop_values"])
        carried = _carried(_head(stage))
        done = carried.get("_loop_done", 0) + 1
        return _jump(stage.settings["_loop_target"], done, _published(stage, carried))


class LoopEntryTask(LoopTask):
    """Begins each round of a repeat-until."""

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs=_values(stage, _carried(stage)))
