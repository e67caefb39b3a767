"""The rows a workflow consists of: made from objects, read back, deleted."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stabilize.dag.validation import InvalidStageGraphError
from stabilize.database import insert_into
from stabilize.errors import ConflictError
from stabilize.models import (
    BufferedSignal,
    Claim,
    QueueMessage,
    StageEdge,
    StageExecution,
    TaskExecution,
    Token,
    Workflow,
)
from stabilize.models.base import Base
from stabilize.models.definition import with_plain_stages
from stabilize.types import encode, plain

_TABLES: tuple[Table, ...] = tuple(
    kind.__table__  # type: ignore[misc]
    for kind in (Workflow, StageExecution, TaskExecution, StageEdge)
)
MAX_STAGES = 10_000


@dataclass(frozen=True)
class WorkflowRows:
    """The rows a new workflow consists of."""

    workflow: dict[str, Any]
    stages: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    edges: list[dict[str, Any]]

    def insert(self, connection: Connection) -> None:
        connection.execute(insert_into(_TABLES[0]), [self.workflow])
        for table, rows in (
            (_TABLES[1], self.stages),
            (_TABLES[2], self.tasks),
            (_TABLES[3], self.edges),
        ):
            if rows:
                connection.execute(insert_into(table), rows)


def _columns(kind: type[Base]) -> tuple[str, ...]:
    return tuple(attribute.key for attribute in kind.__mapper__.column_attrs)


def _limits(table: Table, *names: str) -> dict[str, int]:
    kinds: dict[str, Any] = {column.key: column.type for column in table.columns}
    return {name: kinds[name].length for name in names}


_LIMITS = {
    "workflow": _limits(_TABLES[0], "id", "application", "name", "pipeline_config_id", "origin"),
    "stage": _limits(_TABLES[1], "id", "ref_id", "type", "name"),
    "task": _limits(_TABLES[2], "id", "name", "implementing_class"),
}
_WORKFLOW, _STAGE, _TASK = _columns(Workflow), _columns(StageExecution), _columns(TaskExecution)


def rows_of_workflow(workflow: Workflow) -> WorkflowRows:
    """Complete the objects (owners, places, hash) and turn them into rows."""
    stages = workflow.stages
    if len(stages) > MAX_STAGES:
        raise ConflictError(
            f"workflow {workflow.id!r} has {len(stages)} stages, the limit is "
            f"{MAX_STAGES}: split it into child workflows"
        )
    workflow.context = plain(workflow.context, "workflow context")
    workflow.stage_count = len(stages)
    positions = {stage.ref_id: position for position, stage in enumerate(stages)}
    if len(positions) < len(stages):
        raise _fault(stages)
    tasks: list[TaskExecution] = []
    edges: list[dict[str, Any]] = []
    watched = {stage.milestone_ref_id for stage in stages}
    for position, stage in enumerate(stages):
        if stage.ref_id in watched:
            stage.definition["watched"] = True
        stage.workflow_id, stage.position = workflow.id, position
        stage.context = plain(with_plain_stages(stage.context), f"stage {stage.ref_id!r}: context")
        stage.definition = {k: v for k, v in stage.definition.items() if v not in ({}, [])}
        if not stage.requisite_stage_ref_ids <= positions.keys():
            raise _fault(stages)
        for place, task in enumerate(stage.tasks):
            task.workflow_id, task.stage_id, task.position = workflow.id, stage.id, place
            task.stage_start = place == 0 or task.stage_start
            task.stage_end = place == len(stage.tasks) - 1
            tasks.append(task)
        edges += [
            {
                "workflow_id": workflow.id,
                "upstream_ref_id": upstream,
                "downstream_ref_id": stage.ref_id,
                "upstream_position": positions[upstream],
                "downstream_position": position,
            }
            for upstream in sorted(stage.requisite_stage_ref_ids)
        ]
    workflow.definition_hash = definition_hash(workflow)
    row = {name: getattr(workflow, name) for name in _WORKFLOW}
    stage_rows = [{name: getattr(stage, name) for name in _STAGE} for stage in stages]
    task_rows = [{name: getattr(task, name) for name in _TASK} for task in tasks]
    return WorkflowRows(
        _within_limits("workflow", [row])[0],
        _within_limits("stage", stage_rows),
        _within_limits("task", task_rows),
        edges,
    )


def _fault(stages: list[StageExecution]) -> InvalidStageGraphError:
    """What is wrong with a graph that nobody has checked: a ref given twice, or to no stage."""
    refs = Counter(stage.ref_id for stage in stages)
    for stage in stages:
        if refs[stage.ref_id] > 1:
            return InvalidStageGraphError(
                f"duplicate_ref: {stage.ref_id!r} is the ref_id of {refs[stage.ref_id]} stages: "
                "give each a ref_id of its own"
            )
    stage = next(s for s in stages if not s.requisite_stage_ref_ids <= refs.keys())
    unknown = min(stage.requisite_stage_ref_ids - refs.keys())
    return InvalidStageGraphError(
        f"unknown_ref: stage {stage.ref_id!r} requires {unknown!r}, which is no stage of this "
        "workflow: add it, or take it out"
    )


def _within_limits(kind: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refuse what some databases would cut or refuse: the same on each of them."""
    for name, limit in _LIMITS[kind].items():
        for row in rows:
            if len(row[name] or "") > limit:
                told = row.get("ref_id") or row["name"] or row["id"]
                raise ValueError(
                    f"{kind} {told!r}: {name} has {len(row[name])} characters, the limit is {limit}"
                )
    return rows


def definition_hash(workflow: Workflow) -> str:
    """A digest of what a workflow is told to do: two submissions with the same one are the same."""
    said = [
        workflow.application,
        workflow.name,
        workflow.context,
        [
            [
                stage.ref_id,
                stage.type,
                stage.context,
                sorted(stage.requisite_stage_ref_ids),
                sorted(stage.definition.items()),
                [[task.name, task.implementing_class] for task in stage.tasks],
            ]
            for stage in workflow.stages
        ],
    ]
    return hashlib.sha256(encode(said).encode()).hexdigest()


def fill(session: Session, workflows: list[Workflow]) -> None:
    """Read the runs and tasks of workflows and tie them together, with no lazy loading left."""
    ids = [workflow.id for workflow in workflows]
    tasks: dict[str, list[TaskExecution]] = defaultdict(list)
    for task in session.scalars(
        select(TaskExecution)
        .where(TaskExecution.workflow_id.in_(ids))
        .order_by(TaskExecution.stage_id, TaskExecution.position)
    ):
        tasks[task.stage_id].append(task)
    runs: dict[str, list[StageExecution]] = defaultdict(list)
    for stage in session.scalars(
        select(StageExecution)
        .where(StageExecution.workflow_id.in_(ids))
        .order_by(StageExecution.position, StageExecution.run, StageExecution.id)
    ):
        runs[stage.workflow_id].append(stage)
    for workflow in workflows:
        for stage in runs[workflow.id]:
            set_committed_value(stage, "workflow", workflow)
            set_committed_value(stage, "tasks", tasks[stage.id])
            for task in tasks[stage.id]:
                set_committed_value(task, "stage", stage)
        newest = [stage for stage in runs[workflow.id] if stage.latest]
        set_committed_value(workflow, "stages", newest)
        workflow.__dict__["all_runs"] = runs[workflow.id]


def lock_workflow(connection: Connection, workflow_id: str) -> None:
    connection.execute(
        select(Workflow.id).where(Workflow.id == workflow_id).with_for_update(key_share=True)
    )
    connection.execute(
        update(Workflow).where(Workflow.id == workflow_id).values(version=Workflow.version + 1)
    )


def delete_workflows(connection: Connection, ids: list[str]) -> None:
    for model in (Token, BufferedSignal, StageEdge, QueueMessage, TaskExecution, StageExecution):
        connection.execute(delete(model).where(model.workflow_id.in_(ids)))
    connection.execute(delete(Claim).where(or_(Claim.owner.in_(ids), Claim.scope.in_(ids))))
    connection.execute(delete(Workflow).where(Workflow.id.in_(ids)))
