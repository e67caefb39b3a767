"""Stages as plain values: how a definition travels inside another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabilize.models.stage import StageExecution
from stabilize.models.task import TaskExecution
from stabilize.types import from_order, in_order

SUB_WORKFLOW = "_sub_workflow_config"
"""The context key under which a stage defines the child workflow it runs."""


def stage_to_dict(stage: StageExecution) -> dict[str, Any]:
    """What the definition of a stage says."""
    return {
        "ref_id": stage.ref_id,
        "type": stage.type,
        "name": stage.name,
        "context": with_plain_stages(stage.context),
        "requisite_stage_ref_ids": sorted(stage.requisite_stage_ref_ids),
        "definition": dict(in_order(stage.definition)),
        "tasks": [
            {"name": task.name, "implementing_class": task.implementing_class}
            for task in stage.tasks
        ],
    }


def stage_from_dict(data: Mapping[str, Any]) -> StageExecution:
    """The stage that `stage_to_dict` described."""
    return StageExecution(
        ref_id=data["ref_id"],
        type=data.get("type", ""),
        name=data.get("name", ""),
        context=dict(data.get("context", {})),
        requisite_stage_ref_ids=set(data.get("requisite_stage_ref_ids", ())),
        definition=dict(from_order(data.get("definition", {}))),
        tasks=[
            TaskExecution.create(task.get("name", ""), task["implementing_class"])
            for task in data.get("tasks", ())
        ],
    )


def with_plain_stages(context: Mapping[str, Any]) -> dict[str, Any]:
    """The context with the stages of a child workflow as plain values."""
    config = context.get(SUB_WORKFLOW)
    if not isinstance(config, Mapping):
        return dict(context)
    stages = [_plain_stage(stage) for stage in config.get("stages", ())]
    return {**context, SUB_WORKFLOW: {**config, "stages": stages}}


def _plain_stage(stage: Any) -> Any:
    if isinstance(stage, StageExecution):
        return stage_to_dict(stage)
    if not isinstance(stage, Mapping):
        return stage
    return {
        **stage,
        "context": with_plain_stages(stage.get("context", {})),
        "definition": in_order(stage.get("definition", {})),
    }
