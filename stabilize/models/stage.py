"""One run of one stage, and the edges between stages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Enum,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from stabilize.clock import new_id
from stabilize.dag.names import member_of
from stabilize.models.base import PREFIX, TABLE_OPTIONS, Base, RowBase
from stabilize.models.task import STATUS, TaskExecution
from stabilize.models.triggers import StageTrigger, trigger_from_dict, trigger_to_dict
from stabilize.models.values import MultiInstanceConfig, StageStateSnapshot
from stabilize.status import (
    CONTINUABLE_STATUSES,
    JoinType,
    SplitType,
    StagePhase,
    SyntheticStageOwner,
    WorkflowStatus,
)
from stabilize.types import DefinitionJson, Identifier, Json, StringSet, setting

if TYPE_CHECKING:
    from stabilize.models.workflow import Workflow

__all__ = ["JoinType", "SplitType", "StageEdge", "StageExecution", "SyntheticStageOwner"]

E = TypeVar("E", bound=enum.Enum)


def _by_name(kind: type[E], default: E | None = None) -> Any:
    """A setting that is a member of an enum, or what is yet to be refused: its name is kept."""

    def load(raw: Any) -> Any:
        found = kind.__members__.get(raw) if isinstance(raw, str) else None
        return member_of(kind, raw) if found is None else found

    return setting(default, load=load, dump=partial(_name_in, kind))


def _name_in(kind: type[E], value: Any) -> Any:
    found = member_of(kind, value)
    return found.name if isinstance(found, kind) else found


def _config_to_dict(config: Any) -> dict[str, Any]:
    if not isinstance(config, MultiInstanceConfig):
        raise TypeError("write MultiInstanceConfig(count=...)")
    return config.to_dict()


class StageExecution(Base, kw_only=True, eq=False):
    """A logical step of a workflow: **one run** of it.

    A loop, a multi-merge or a jump makes another run of the same `ref_id`; the earlier one keeps
    its history. `context` holds what the definition and the tasks put there; inside a task it is
    read over the outputs of everything this run came from. Times are milliseconds since the epoch.

    What the definition says and no query asks for (joins, splits, keys of patterns) stands in
    `definition` and is read and written as attributes of the stage.
    """

    __tablename__ = PREFIX + "stages"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True, default_factory=new_id)
    workflow_id: Mapped[str] = mapped_column(
        ForeignKey(PREFIX + "workflows.id", ondelete="CASCADE"), default=""
    )
    ref_id: Mapped[str] = mapped_column(Identifier(255), default="")
    run: Mapped[int] = mapped_column(Integer, default=1)
    generation: Mapped[int] = mapped_column(Integer, default=1)
    latest: Mapped[bool] = mapped_column(Boolean, default=True)
    position: Mapped[int] = mapped_column(Integer, default=0)
    thread: Mapped[str] = mapped_column(Identifier(255), default="")
    type: Mapped[str] = mapped_column(String(255), default="")
    name: Mapped[str] = mapped_column(String(255), default="")
    status: Mapped[WorkflowStatus] = mapped_column(STATUS, default=WorkflowStatus.NOT_STARTED)
    phase: Mapped[StagePhase] = mapped_column(
        Enum(StagePhase, native_enum=False, length=20), default=StagePhase.WAITING
    )
    context: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    outputs: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    delivered: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    start_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    end_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    waits_for: Mapped[str | None] = mapped_column(Identifier(300), default=None)
    waiting_since: Mapped[int | None] = mapped_column(BigInteger, default=None)
    requisite_stage_ref_ids: Mapped[set[str]] = mapped_column(StringSet, default_factory=set)
    parent_stage_id: Mapped[str | None] = mapped_column(Identifier(), default=None)
    synthetic_stage_owner: Mapped[SyntheticStageOwner | None] = mapped_column(
        Enum(SyntheticStageOwner, native_enum=False, length=20), default=None
    )
    definition: Mapped[dict[str, Any]] = mapped_column(
        DefinitionJson, default_factory=dict, repr=False
    )
    version: Mapped[int] = mapped_column(Integer, default=0)
    event_version: Mapped[int] = mapped_column(Integer, default=0)

    join_type: JoinType = _by_name(JoinType, JoinType.AND)
    join_threshold: int = setting(0)
    join_keep: bool = setting(False)
    join_rest: str | None = setting()
    join_scope: str | None = setting()
    on_branch_failure: str | None = setting()
    split_type: SplitType = _by_name(SplitType, SplitType.AND)
    split_conditions: dict[str, str] | None = setting(factory=dict)
    split_default: str | None = setting()
    split_count: int | str | None = setting()
    mutex_key: str | None = setting()
    section: str | None = setting()
    milestone_ref_id: str | None = setting()
    milestone_status: str | None = setting(dump=partial(_name_in, WorkflowStatus))
    deferred_choice_group: str | None = setting()
    trigger: StageTrigger | None = setting(load=trigger_from_dict, dump=trigger_to_dict)
    cancel_region: str | None = setting()
    end: str | None = setting()
    mi_config: MultiInstanceConfig | None = setting(
        load=MultiInstanceConfig.from_dict, dump=_config_to_dict
    )
    output_reducers: dict[str, str] | None = setting(factory=dict)
    start_time_expiry: int | None = setting()
    scheduled_time: int | None = setting()
    loop: bool = setting(False)
    planned: bool = setting(False)

    tasks: Mapped[list[TaskExecution]] = relationship(
        back_populates="stage",
        order_by=TaskExecution.position,
        lazy="raise_on_sql",
        default_factory=list,
        repr=False,
    )
    workflow: Mapped[Workflow] = relationship(
        back_populates="stages", lazy="raise_on_sql", default=None, repr=False
    )

    __table_args__ = (
        UniqueConstraint("workflow_id", "ref_id", "run"),
        Index(None, "workflow_id", "position"),
        Index(None, "parent_stage_id"),
        TABLE_OPTIONS,
    )

    def __post_init__(self) -> None:
        threshold: object = self.join_threshold
        if not isinstance(threshold, int):
            raise TypeError(f"stage {self.ref_id!r}: join_threshold={threshold!r}: write a number")
        if threshold < 0:
            raise ValueError(
                f"stage {self.ref_id!r}: join_threshold is {self.join_threshold}, it counts "
                "branches and cannot be negative"
            )
        requisites: object = self.requisite_stage_ref_ids
        if isinstance(requisites, str):
            raise TypeError(
                f"stage {self.ref_id!r}: requisite_stage_ref_ids={requisites!r} is text, write a "
                f"set: {{{requisites!r}}}"
            )
        self.requisite_stage_ref_ids = set(self.requisite_stage_ref_ids or ())
        owner: Any = member_of(SyntheticStageOwner, self.synthetic_stage_owner)
        if owner is not self.synthetic_stage_owner:
            self.synthetic_stage_owner = owner

    @classmethod
    def create(
        cls,
        type: str,
        name: str,
        ref_id: str,
        context: dict[str, Any] | None = None,
        requisite_stage_ref_ids: set[str] | None = None,
        tasks: list[TaskExecution] | None = None,
    ) -> StageExecution:
        """Make a stage of the definition."""
        return cls(
            type=type,
            name=name,
            ref_id=ref_id,
            context=dict(context or {}),
            requisite_stage_ref_ids=set(requisite_stage_ref_ids or ()),
            tasks=list(tasks or ()),
        )

    @classmethod
    def create_synthetic(
        cls,
        type: str,
        name: str,
        parent: StageExecution,
        owner: SyntheticStageOwner,
        context: dict[str, Any] | None = None,
        tasks: list[TaskExecution] | None = None,
    ) -> StageExecution:
        """Make a stage that runs before or after `parent`, as part of it."""
        return cls(
            type=type,
            name=name,
            ref_id=new_id(),
            context=dict(context or {}),
            parent_stage_id=parent.id,
            synthetic_stage_owner=owner,
            tasks=list(tasks or ()),
        )

    # --- the workflow around it -------------------------------------------------------------

    def has_execution(self) -> bool:
        return self.__dict__.get("workflow") is not None

    @property
    def execution(self) -> Workflow:
        """The workflow this stage belongs to; `ValueError` when it belongs to none yet."""
        if not self.has_execution():
            raise ValueError(f"stage {self.ref_id!r} belongs to no workflow yet")
        return self.workflow

    def _siblings(self, accept: Callable[[StageExecution], bool]) -> list[StageExecution]:
        return [stage for stage in self.execution.stages if accept(stage)]

    def is_initial(self) -> bool:
        return not self.requisite_stage_ref_ids

    def is_join(self) -> bool:
        return len(self.requisite_stage_ref_ids) > 1

    def is_synthetic(self) -> bool:
        return self.parent_stage_id is not None

    def upstream_stages(self) -> list[StageExecution]:
        return self._siblings(lambda s: s.ref_id in self.requisite_stage_ref_ids)

    def downstream_stages(self) -> list[StageExecution]:
        return self._siblings(lambda s: self.ref_id in s.requisite_stage_ref_ids)

    def all_upstream_stages_complete(self) -> bool:
        return all(s.status in CONTINUABLE_STATUSES for s in self.upstream_stages())

    def any_upstream_stages_failed(self) -> bool:
        """Say whether an upstream halted, or never started because one before it did."""
        seen: set[str] = set()
        waiting = self.upstream_stages()
        while waiting:
            stage = waiting.pop()
            if stage.status.is_halt:
                return True
            if stage.status is WorkflowStatus.NOT_STARTED and stage.id not in seen:
                seen.add(stage.id)
                waiting.extend(stage.upstream_stages())
        return False

    def synthetic_stages(self) -> list[StageExecution]:
        return self._siblings(lambda s: s.parent_stage_id == self.id)

    def before_stages(self) -> list[StageExecution]:
        return self._owned(SyntheticStageOwner.STAGE_BEFORE)

    def after_stages(self) -> list[StageExecution]:
        return self._owned(SyntheticStageOwner.STAGE_AFTER)

    def first_before_stages(self) -> list[StageExecution]:
        return [stage for stage in self.before_stages() if stage.is_initial()]

    def first_after_stages(self) -> list[StageExecution]:
        return [stage for stage in self.after_stages() if stage.is_initial()]

    def _owned(self, owner: SyntheticStageOwner) -> list[StageExecution]:
        return [s for s in self.synthetic_stages() if s.synthetic_stage_owner is owner]

    def parent(self) -> StageExecution:
        """The stage this one is a part of; `ValueError` when it is not synthetic."""
        if self.parent_stage_id is None:
            raise ValueError(f"stage {self.ref_id!r} is not synthetic: it has no parent")
        return self.execution.stage_by_id(self.parent_stage_id)

    def ancestors(self) -> list[StageExecution]:
        """Everything upstream, nearest first, each once; through the parent of a synthetic one."""
        return list(self._walk_up())

    def _walk_up(self) -> Iterator[StageExecution]:
        if not self.has_execution():
            return
        seen = {self.id}
        level = [self]
        while level:
            above: list[StageExecution] = []
            for stage in level:
                above.extend(stage.upstream_stages())
                if stage.parent_stage_id is not None:
                    above.extend(self._siblings(lambda s, p=stage.parent_stage_id: s.id == p))  # type: ignore[misc]
            level = [stage for stage in above if stage.id not in seen]
            seen.update(stage.id for stage in level)
            yield from {stage.id: stage for stage in level}.values()

    # --- its tasks --------------------------------------------------------------------------

    def has_tasks(self) -> bool:
        return bool(self.tasks)

    def first_task(self) -> TaskExecution | None:
        return self.tasks[0] if self.tasks else None

    def next_task(self, task: TaskExecution) -> TaskExecution | None:
        """The task after `task`, None after the last."""
        if task.stage_end:
            return None
        ids = [t.id for t in self.tasks]
        following = ids.index(task.id) + 1
        return self.tasks[following] if following < len(self.tasks) else None

    # --- reading its state ------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """What the definition of this stage says, never what an upstream stage put out."""
        own = self.__dict__.get("own_context")
        return dict(self.context if own is None else own)

    @property
    def phase_version(self) -> tuple[str, int]:
        return (self.status.name, self.version)

    def state_snapshot(self) -> StageStateSnapshot:
        return StageStateSnapshot(
            status=self.status.name,
            version=self.version,
            context=tuple(sorted(self.context.items())),
            outputs=tuple(sorted(self.outputs.items())),
        )

    def failure_status(self, default: WorkflowStatus = WorkflowStatus.TERMINAL) -> WorkflowStatus:
        """What a failure of this stage amounts to, by the flags of its own context."""
        settings = self.settings
        if settings.get("continuePipelineOnFailure"):
            return WorkflowStatus.FAILED_CONTINUE
        return default if settings.get("failPipeline", True) else WorkflowStatus.STOPPED


class StageEdge(RowBase):
    """One edge of one workflow's graph, with the places of both ends in the definition."""

    __tablename__ = PREFIX + "stage_edges"

    workflow_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    upstream_ref_id: Mapped[str] = mapped_column(Identifier(255), primary_key=True)
    downstream_ref_id: Mapped[str] = mapped_column(Identifier(255), primary_key=True)
    upstream_position: Mapped[int] = mapped_column(Integer)
    downstream_position: Mapped[int] = mapped_column(Integer)

    __table_args__ = (
        Index(None, "workflow_id", "upstream_position"),
        Index(None, "workflow_id", "downstream_position"),
        TABLE_OPTIONS,
    )
