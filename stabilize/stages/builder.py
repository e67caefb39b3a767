"""Builders: what a stage of some type consists of beside what its definition says."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from stabilize.clock import new_id
from stabilize.dag.graph import StageGraphBuilder
from stabilize.errors import is_transient, truncate_error
from stabilize.models.stage import StageExecution
from stabilize.models.task import TaskExecution
from stabilize.status import SyntheticStageOwner
from stabilize.types import plain

logger = logging.getLogger(__name__)
Graph = StageGraphBuilder[StageExecution]


class StageDefinitionBuilder:
    """Gives the stages of one `type` their tasks and their stages before, after and on failure.

    Override what you need; register an instance with `register_builder`. The methods run in the
    executor, may be called again after a crash, and must not change `stage` in place.
    """

    aliases: tuple[str, ...] | list[str] = ()

    @property
    def type(self) -> str:
        name = self.__class__.__name__
        return (name.removesuffix("StageBuilder").removesuffix("Builder") or name).lower()

    def build_tasks(self, stage: StageExecution) -> list[TaskExecution]:
        """The tasks of a stage whose definition has none."""
        return []

    def before_stages(self, stage: StageExecution, graph: Graph) -> None:
        """Add to `graph` what runs before the tasks."""

    def after_stages(self, stage: StageExecution, graph: Graph) -> None:
        """Add to `graph` what runs after the tasks, unless the stage has failed."""

    def on_failure_stages(self, stage: StageExecution, graph: Graph) -> None:
        """Add to `graph` what runs, once, when the stage has failed."""

    def add_context_flags(self, stage: StageExecution) -> dict[str, Any] | None:
        """Values for the stage's context."""
        return None


@dataclass
class StagePlan:
    """What a builder gave one stage, or the error it raised."""

    tasks: list[TaskExecution] = field(default_factory=list)
    stages: list[StageExecution] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    transient: bool = False


def plan(builder: StageDefinitionBuilder, stage: StageExecution, for_failure: bool) -> StagePlan:
    """Ask `builder` for all of a stage but its failure part, or for that alone; never raises."""
    try:
        return _plan(builder, stage, for_failure)
    except Exception as error:  # noqa: BLE001  # the builder is the user's
        text = truncate_error(f"{type(builder).__name__}: {error}")
        return StagePlan(error=text, transient=is_transient(error))


def _plan(builder: StageDefinitionBuilder, stage: StageExecution, for_failure: bool) -> StagePlan:
    made = StagePlan()
    if for_failure:
        made.stages += _ask(builder.on_failure_stages, stage, SyntheticStageOwner.STAGE_FAILURE)
        return made
    if not stage.tasks:
        made.tasks = list(builder.build_tasks(stage))
    made.stages += _ask(builder.before_stages, stage, SyntheticStageOwner.STAGE_BEFORE)
    made.stages += _ask(builder.after_stages, stage, SyntheticStageOwner.STAGE_AFTER)
    flags = builder.add_context_flags(stage)
    if flags:
        made.context = plain(flags, "add_context_flags")
    return made


def _ask(method: Any, stage: StageExecution, owner: SyntheticStageOwner) -> list[StageExecution]:
    graph: Graph = StageGraphBuilder()
    method(stage, graph)
    for made in graph.stages:
        made.ref_id = made.ref_id or new_id()
        made.parent_stage_id = stage.id
        made.synthetic_stage_owner = owner
        made.planned = True
    return graph.build()


class StageDefinitionBuilderFactory:
    """Which builder a stage type has."""

    def __init__(self) -> None:
        self._builders: dict[str, StageDefinitionBuilder] = {}
        self.clear()

    def register(self, builder: StageDefinitionBuilder | type[StageDefinitionBuilder]) -> None:
        made = builder() if isinstance(builder, type) else builder
        for name in (made.type, *made.aliases):
            self._builders[name] = made

    def get(self, stage_type: str) -> StageDefinitionBuilder | None:
        return self._builders.get(stage_type)

    def has(self, stage_type: str) -> bool:
        return stage_type in self._builders

    def known_types(self) -> list[str]:
        return sorted(self._builders)

    def clear(self) -> None:
        """Forget every builder but those of the built-in types."""
        self._builders.clear()
        self.register(_OneTask("noop", "NoOpTask"))
        self.register(_OneTask("wait", "WaitTask"))


class _OneTask(StageDefinitionBuilder):
    """Gives the stages of a type one task."""

    type = ""

    def __init__(self, type: str, task: str) -> None:
        self.type, self._task = type, task

    def build_tasks(self, stage: StageExecution) -> list[TaskExecution]:
        return [TaskExecution.create(self.type, self._task, stage_start=True, stage_end=True)]


_default = StageDefinitionBuilderFactory()


def get_default_factory() -> StageDefinitionBuilderFactory:
    return _default


def register_builder(builder: StageDefinitionBuilder | type[StageDefinitionBuilder]) -> None:
    """Use `builder` for the stages of its type, in every processor of this process."""
    _default.register(builder)


def get_builder(stage_type: str) -> StageDefinitionBuilder | None:
    return _default.get(stage_type)
