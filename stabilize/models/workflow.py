"""One run of a workflow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Enum, Index, Integer, String, and_
from sqlalchemy.orm import Mapped, mapped_column, relationship

from stabilize.clock import new_id, now_ms
from stabilize.dag.draw import to_dot, to_mermaid
from stabilize.dag.soundness import MAX_STEPS, Finding, check
from stabilize.dag.topological import topological_sort
from stabilize.dag.validation import validate_stage_graph
from stabilize.models.base import PREFIX, TABLE_OPTIONS, Base
from stabilize.models.stage import StageExecution
from stabilize.models.task import STATUS
from stabilize.models.values import PausedDetails, Trigger
from stabilize.status import WorkflowStatus, WorkflowType, validate_transition
from stabilize.types import Identifier, Json, Structured

__all__ = ["PausedDetails", "Trigger", "Workflow", "WorkflowType"]


class Workflow(Base, kw_only=True, eq=False):
    """The top-level container of an execution: a graph of stages, with its status and times.

    Times are milliseconds since the epoch. `context` is the workflow's own data, read by tasks as
    `stage.execution.context`. `stages` is the newest run of each stage in the order of the
    definition, `stage_runs` every run.
    """

    __tablename__ = PREFIX + "workflows"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True, default_factory=new_id)
    type: Mapped[WorkflowType] = mapped_column(
        Enum(WorkflowType, native_enum=False, length=20), default=WorkflowType.PIPELINE
    )
    application: Mapped[str] = mapped_column(String(255), default="")
    name: Mapped[str] = mapped_column(String(255), default="")
    status: Mapped[WorkflowStatus] = mapped_column(STATUS, default=WorkflowStatus.NOT_STARTED)
    context: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    trigger: Mapped[Trigger] = mapped_column(Structured(Trigger), default_factory=Trigger)
    created_at: Mapped[int] = mapped_column(BigInteger, default_factory=now_ms)
    start_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    end_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    start_time_expiry: Mapped[int | None] = mapped_column(BigInteger, default=None)
    is_canceled: Mapped[bool] = mapped_column(Boolean, default=False)
    canceled_by: Mapped[str | None] = mapped_column(String(255), default=None)
    cancellation_reason: Mapped[str | None] = mapped_column(String(1024), default=None)
    paused: Mapped[PausedDetails | None] = mapped_column(Structured(PausedDetails), default=None)
    pipeline_config_id: Mapped[str | None] = mapped_column(Identifier(255), default=None)
    is_limit_concurrent: Mapped[bool] = mapped_column(Boolean, default=False)
    max_concurrent_executions: Mapped[int] = mapped_column(Integer, default=0)
    keep_waiting_pipelines: Mapped[bool] = mapped_column(Boolean, default=False)
    origin: Mapped[str] = mapped_column(String(255), default="api")
    parent_workflow_id: Mapped[str | None] = mapped_column(Identifier(), default=None)
    parent_stage_id: Mapped[str | None] = mapped_column(Identifier(), default=None)
    parent_task_id: Mapped[str | None] = mapped_column(Identifier(), default=None)
    depth: Mapped[int] = mapped_column(Integer, default=0)
    definition_hash: Mapped[str] = mapped_column(String(64), default="")
    stage_count: Mapped[int] = mapped_column(Integer, default=0)
    jumps: Mapped[int] = mapped_column(Integer, default=0)
    open_runs: Mapped[int] = mapped_column(Integer, default=0)
    version: Mapped[int] = mapped_column(Integer, default=0)
    event_version: Mapped[int] = mapped_column(Integer, default=0)

    stages: Mapped[list[StageExecution]] = relationship(
        primaryjoin=lambda: and_(
            Workflow.id == StageExecution.workflow_id, StageExecution.latest.is_(True)
        ),
        order_by=StageExecution.position,
        back_populates="workflow",
        lazy="raise_on_sql",
        default_factory=list,
        repr=False,
    )

    __table_args__ = (
        Index(None, "application", "start_time"),
        Index(None, "pipeline_config_id", "status"),
        Index(None, "status", "created_at"),
        Index(None, "parent_workflow_id"),
        TABLE_OPTIONS,
    )

    @classmethod
    def create(
        cls,
        application: str,
        name: str,
        stages: Sequence[StageExecution],
        trigger: Trigger | None = None,
        pipeline_config_id: str | None = None,
        context: dict[str, Any] | None = None,
        *,
        id: str | None = None,
    ) -> Workflow:
        """Make a workflow of `stages` and check that its graph can mean something.

        With an `id` of your own the submission is idempotent: storing the same definition under it
        again returns the stored one. Raises `InvalidStageGraphError` or `CircularDependencyError`.
        """
        workflow = cls(
            application=application,
            name=name,
            stages=list(stages),
            trigger=trigger or Trigger(),
            pipeline_config_id=pipeline_config_id,
            context=dict(context or {}),
            id=id or new_id(),
        )
        validate_stage_graph(workflow.stages)
        return workflow

    @classmethod
    def create_orchestration(
        cls, application: str, name: str, stages: Sequence[StageExecution]
    ) -> Workflow:
        """Make a workflow whose graph is not checked."""
        return cls(
            application=application,
            name=name,
            stages=list(stages),
            type=WorkflowType.ORCHESTRATION,
        )

    def check(
        self, *, may_fail: Collection[str] = (), max_steps: int = MAX_STEPS
    ) -> tuple[Finding, ...]:
        """What the definition can get wrong, each with a path that shows it; empty: it is sound.

        A condition may hold or not, whatever the others do; a task succeeds, and does not jump.
        `may_fail`: refs of stages that may fail too. `max_steps`: how many moves are tried before
        it gives up, which is a finding as well. Raises as `create` does.
        """
        return check(self.stages, may_fail=may_fail, max_steps=max_steps)

    def to_mermaid(self) -> str:
        """Draw the definition, or the run with its statuses, as a Mermaid flowchart."""
        return to_mermaid(self.stages, self.stage_runs)

    def to_dot(self) -> str:
        """Draw the definition, or the run with its statuses, for Graphviz."""
        return to_dot(self.stages, self.stage_runs)

    @property
    def stage_runs(self) -> list[StageExecution]:
        """Every run of every stage: by place in the definition, then by run."""
        newest = list(self.stages)  # inside a task this is what reads them
        runs: list[StageExecution] | None = self.__dict__.get("all_runs")
        return newest if runs is None else list(runs)

    def add_stage(self, stage: StageExecution) -> None:
        self.stages.append(stage)

    def remove_stage(self, stage_id: str) -> None:
        self.stages.remove(self.stage_by_id(stage_id))

    def stage_by_id(self, stage_id: str) -> StageExecution:
        """The run with this id; `ValueError` when there is none."""
        for stage in self.stage_runs:
            if stage.id == stage_id:
                return stage
        raise ValueError(f"Stage {stage_id} not found in workflow {self.id}")

    def stage_by_ref_id(self, ref_id: str) -> StageExecution | None:
        """The newest run of the stage called `ref_id`, None when there is no such stage."""
        return next((stage for stage in self.stages if stage.ref_id == ref_id), None)

    def initial_stages(self) -> list[StageExecution]:
        return [stage for stage in self.top_level_stages() if stage.is_initial()]

    def top_level_stages(self) -> list[StageExecution]:
        return [stage for stage in self.stages if not stage.is_synthetic()]

    def get_context(self) -> dict[str, Any]:
        """The outputs of all top-level stages in topological order: later wins, lists add up."""
        return merge_in_order(self.top_level_stages())

    def update_status(self, status: WorkflowStatus) -> None:
        """Go to `status`; `InvalidStateTransitionError` when that cannot follow the present one."""
        validate_transition(self.status, status, "workflow", self.id)
        self.status = status

    def cancel(self, user: str, reason: str) -> None:
        self.is_canceled, self.canceled_by, self.cancellation_reason = True, user, reason

    def pause(self, user: str) -> None:
        self.paused = PausedDetails(paused_by=user, pause_time=now_ms())
        self.status = WorkflowStatus.PAUSED

    def resume(self) -> None:
        if self.paused is not None and self.paused.pause_time is not None:
            now = now_ms()
            self.paused = PausedDetails(
                paused_by=self.paused.paused_by,
                pause_time=self.paused.pause_time,
                resume_time=now,
                paused_ms=self.paused.paused_ms + now - self.paused.pause_time,
            )
        self.status = WorkflowStatus.RUNNING

    def paused_duration_relative_to(self, instant_ms: int) -> int:
        """Milliseconds spent paused up to `instant_ms`."""
        if self.paused is None or self.paused.pause_time is None:
            return 0
        if self.paused.resume_time is None:
            return max(0, instant_ms - self.paused.pause_time)
        return self.paused.paused_ms


def merge_in_order(stages: Iterable[Any]) -> dict[str, Any]:
    """Merge what stages put out: requisites before what requires them, else by `ref_id`.

    Names that begin with an underscore are the engine's (`_signal_name`): data does not set them.
    """
    ordered = topological_sort(sorted(stages, key=lambda stage: stage.ref_id), lambda _: True)
    merged = merge_outputs(stage.outputs for stage in ordered)
    return {key: value for key, value in merged.items() if not key.startswith("_")}


def merge_outputs(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge in order: later values win, two lists under one key add up without duplicates."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            present = merged.get(key)
            if isinstance(present, list) and isinstance(value, list):
                merged[key] = present + [item for item in value if item not in present]
            else:
                merged[key] = value
    return merged
