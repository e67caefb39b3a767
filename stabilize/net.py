"""The rows of workflows that a process knows: what was just read is not read again."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from enum import Enum
from typing import Any, TypeVar

from stabilize.dag.joins import JoinRule, Tally
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.unwatched import unwatched
from stabilize.status import JoinType, StagePhase, SyntheticStageOwner, WorkflowStatus
from stabilize.store_rows import WorkflowRows

BLOCK = 64
"""Stages are read by blocks of neighbours in the definition: small workflows in one go, and of a
large one only what is near the token."""

BEYOND = 1 << 30
"""The place of instances, and of all that is made for them: behind the definition, where a block is
never read, plus that of their group. Each is read by itself, however many there are."""

INSTANCES_KEPT = 1_000
"""How many instances of one workflow a process knows at once."""

GATES = frozenset({"mutex_key", "section", "milestone_ref_id", "deferred_choice_group", "trigger"})
"""What a definition may make a stage wait for, beside its tokens."""

_ENTITIES_KEPT = 50_000
_TRIM_EVERY = 32
_ATOMS = (str, int, type(None), Enum)
PLAIN = JoinRule()
E = TypeVar("E", Workflow, StageExecution, TaskExecution)


class Net:
    """The part of one workflow's graph, runs and tokens that has been read, as of one version."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.stages: dict[str, StageExecution] = {}
        self.newest: dict[str, StageExecution] = {}
        self.tasks: dict[str, list[TaskExecution]] = {}
        self.children: dict[str, list[StageExecution]] = {}
        self.downstream: dict[str, dict[str, int]] = {}
        self.upstream: dict[str, dict[str, int]] = {}
        self.tallies: dict[str, dict[str, Tally]] = {}
        self.rules: dict[str, JoinRule] = {}
        self.blocks: set[int] = set()
        self.instances: dict[str, None] = {}
        """The instances among `stages`, those that were read longest ago first."""
        self.collections: dict[str, list[Any]] = {}
        """What groups are made from whose instances are not all made yet, by their run."""
        self.has_groups = False
        self.has_gates = False
        """Some stage may have to wait for more than its tokens."""
        self.has_quiet_joins = False
        """Some join asks whether anything can still come."""
        self.tokens_known = False
        """No token was put before this process began to look: tallies need not be read."""

    @property
    def is_complete(self) -> bool:
        """Every stage of the definition has been read."""
        return len(self.blocks) * BLOCK >= self.workflow.stage_count

    @property
    def is_paused(self) -> bool:
        """What begins something new has to wait."""
        return self.workflow.status is WorkflowStatus.PAUSED

    def keep(self, stage: StageExecution, tasks: Iterable[TaskExecution]) -> None:
        """Take in one run with its tasks, in order."""
        self.stages[stage.id] = stage
        self.tasks[stage.id] = list(tasks)
        if stage.definition:
            self.note(stage)
        if stage.latest:
            self.newest[stage.ref_id] = stage
        if stage.synthetic_stage_owner is SyntheticStageOwner.INSTANCE:
            self.instances[stage.id] = None
        elif stage.parent_stage_id is not None:
            siblings = self.children.setdefault(stage.parent_stage_id, [])
            if stage.run > 1:
                siblings[:] = [s for s in siblings if s.ref_id != stage.ref_id]
            siblings.append(stage)

    def note(self, stage: StageExecution) -> None:
        """See what a stage, read or not, asks of the turns of its workflow."""
        self.has_gates |= not GATES.isdisjoint(stage.definition)
        self.has_groups |= "mi_config" in stage.definition
        self.has_quiet_joins |= _rule_of(stage).asks_for_quiet

    def let_go(self) -> None:
        """Forget the instances read longest ago, beyond the bound."""
        while len(self.instances) > INSTANCES_KEPT:
            self._forget(self.stages[next(iter(self.instances))])

    def _forget(self, stage: StageExecution) -> None:
        for child in self.children.pop(stage.id, ()):
            self._forget(child)
        by_run: tuple[dict[str, Any], ...] = (self.stages, self.tasks, self.instances)
        for known in by_run:
            known.pop(stage.id, None)
        by_ref: tuple[dict[str, Any], ...] = (self.newest, self.downstream, self.upstream)
        for known in (*by_ref, self.tallies, self.rules):
            known.pop(stage.ref_id, None)

    def connect(self, up: str, up_position: int, down: str, down_position: int) -> None:
        self.downstream.setdefault(up, {})[down] = down_position
        self.upstream.setdefault(down, {})[up] = up_position

    def tasks_of(self, stage: StageExecution) -> list[TaskExecution]:
        return self.tasks.get(stage.__dict__["id"], [])

    def owned(self, stage: StageExecution, owner: SyntheticStageOwner) -> list[StageExecution]:
        """The synthetic stages that `stage` has before, after, or for its failure."""
        return [
            child
            for child in self.children.get(stage.id, ())
            if child.synthetic_stage_owner is owner
        ]

    def rule_of(self, stage: StageExecution) -> JoinRule:
        """How the stage joins."""
        rule = self.rules.get(stage.ref_id)
        if rule is None:
            rule = self.rules[stage.ref_id] = _rule_of(stage)
        return rule

    def runs(self) -> Iterator[StageExecution]:
        return iter(self.newest.values())


def net_of(rows: WorkflowRows) -> Net:
    """The net of a workflow that is about to be stored: its caller's objects stay apart."""
    net = Net(_entity(Workflow, rows.workflow))
    tasks: dict[str, list[TaskExecution]] = defaultdict(list)
    for row in rows.tasks:
        tasks[row["stage_id"]].append(_entity(TaskExecution, row))
    for row in rows.stages:
        stage = _entity(StageExecution, row)
        net.keep(stage, tasks[stage.id])
        net.blocks.add(stage.position // BLOCK)
    for edge in rows.edges:
        net.connect(
            edge["upstream_ref_id"],
            edge["upstream_position"],
            edge["downstream_ref_id"],
            edge["downstream_position"],
        )
    return net


def _entity(kind: type[E], row: Mapping[str, Any]) -> E:
    kind = unwatched(kind)
    entity = kind.__new__(kind)
    state = entity.__dict__
    for name, value in row.items():
        state[name] = value if isinstance(value, _ATOMS) else deepcopy(value)
    return entity


def _rule_of(stage: StageExecution) -> JoinRule:
    if not stage.definition:
        return PLAIN
    settings = (stage.join_keep, stage.join_scope, stage.on_branch_failure)
    if stage.join_type is JoinType.AND and not any(settings):
        return PLAIN
    return JoinRule.of(stage)


def is_active(stage: StageExecution) -> bool:
    """The run has been given its tokens and has not ended."""
    return stage.phase is not StagePhase.WAITING and stage.phase is not StagePhase.ENDED


class Nets:
    """The nets of the workflows moved lately, the oldest dropped first."""

    def __init__(self, kept: int = _ENTITIES_KEPT) -> None:
        self._kept = kept
        self._nets: OrderedDict[str, Net] = OrderedDict()
        self._calls = 0

    def forget(self, workflow_id: str) -> None:
        self._nets.pop(workflow_id, None)

    def clear(self) -> None:
        self._nets.clear()

    def known(self, versions: Mapping[str, int]) -> dict[str, Net]:
        """The nets that are as the database has them."""
        found: dict[str, Net] = {}
        for workflow_id, version in versions.items():
            net = self._nets.get(workflow_id)
            if net is None:
                continue
            if net.workflow.version == version:
                net.let_go()
                found[workflow_id] = net
                self._nets.move_to_end(workflow_id)
            else:
                del self._nets[workflow_id]
        return found

    def add(self, net: Net) -> None:
        self._nets[net.workflow.id] = net

    def trim(self) -> None:
        """Drop the nets used least lately beyond the bound; called often, it seldom looks."""
        self._calls += 1
        if self._calls % _TRIM_EVERY:
            return
        size = sum(len(net.stages) + len(net.tasks) + 2 for net in self._nets.values())
        while size > self._kept and self._nets:
            _, net = self._nets.popitem(last=False)
            size -= len(net.stages) + len(net.tasks) + 2
