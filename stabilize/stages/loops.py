"""Structured loops as stages (WCP-21): every round is kept as a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stabilize.dag.expressions import compile_expression
from stabilize.models.stage import StageExecution
from stabilize.models.task import TaskExecution


class LoopBuilder:
    """Makes the stages of a loop around the stages of its body.

    The condition reads what the body puts out, `context`, and `iteration`, `loop_iteration` or
    `iteration_count` (rounds done) and `max_iterations`. The last stage puts out `loop_iterations`
    and `loop_exhausted`; an exhausted loop ends FAILED_CONTINUE and the workflow goes on.
    """

    @staticmethod
    def while_loop(
        condition: str,
        body_stages: Sequence[StageExecution],
        loop_ref_prefix: str = "loop",
        max_iterations: int = 100,
        context: dict[str, Any] | None = None,
    ) -> list[StageExecution]:
        """`[<prefix>_condition, body..., <prefix>_loopback]`: what follows the loop waits for the
        last; what comes before it goes into the requisites of the first."""
        head, tail = f"{loop_ref_prefix}_condition", f"{loop_ref_prefix}_loopback"
        settings = _settings("while", condition, max_iterations, body_stages, context)
        first = _stage(head, "LoopConditionTask", {**settings, "_loop_target": tail})
        last = _stage(tail, "LoopBackTask", {**settings, "_loop_target": head})
        return _chain(first, body_stages, last)

    @staticmethod
    def repeat_until(
        condition: str,
        body_stages: Sequence[StageExecution],
        loop_ref_prefix: str = "loop",
        max_iterations: int = 100,
        context: dict[str, Any] | None = None,
    ) -> list[StageExecution]:
        """`[<prefix>_entry, body..., <prefix>_condition]`: the body runs at least once."""
        head, tail = f"{loop_ref_prefix}_entry", f"{loop_ref_prefix}_condition"
        settings = _settings("repeat", condition, max_iterations, body_stages, context)
        first = _stage(head, "LoopEntryTask", settings)
        last = _stage(tail, "LoopConditionTask", {**settings, "_loop_target": head})
        return _chain(first, body_stages, last)


def _settings(
    kind: str,
    condition: str,
    max_iterations: int,
    body: Sequence[StageExecution],
    context: dict[str, Any] | None,
) -> dict[str, Any]:
    compile_expression(condition)  # what cannot be parsed is refused here
    if not body:
        raise ValueError(f"the loop {condition!r} has no body: give it at least one stage")
    if max_iterations < 1:
        raise ValueError(f"max_iterations={max_iterations}: a loop runs at least once")
    return {
        "_loop_kind": kind,
        "_loop_condition": condition,
        "_loop_max": max_iterations,
        "_loop_body": [stage.ref_id for stage in body],
        "_loop_values": dict(context or {}),
    }


def _stage(ref_id: str, task: str, context: dict[str, Any]) -> StageExecution:
    stage = StageExecution(
        ref_id=ref_id,
        type="loop",
        name=ref_id,
        context=context,
        tasks=[TaskExecution.create(ref_id, task, stage_start=True, stage_end=True)],
    )
    stage.loop = True
    return stage


def _chain(
    first: StageExecution, body: Sequence[StageExecution], last: StageExecution
) -> list[StageExecution]:
    names = {stage.ref_id for stage in body}
    for stage in body:
        if not stage.requisite_stage_ref_ids & names:
            stage.requisite_stage_ref_ids.add(first.ref_id)
    wanted = {ref_id for stage in body for ref_id in stage.requisite_stage_ref_ids}
    last.requisite_stage_ref_ids = {ref_id for ref_id in names if ref_id not in wanted}
    return [first, *body, last]
