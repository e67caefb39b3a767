"""The rows of workflows that a process knows: what was just read is not read again."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
)

from stabilize.dag.joins import JoinRule, Tally
from stabilize.models import StageEdge, StageExecution, TaskExecution, Token, Workflow
from stabilize.status import JoinType, StagePhase, SyntheticStageOwner

BLOCK = 64
"""Stages are read by blocks of neighbours in the definition: small workflows in one go, and of a
large one only what is near the token."""

GATES = frozenset({"mutex_key", "section", "milestone_ref_id", "deferred_choice_group", "trigger"})
"""What a definition may make a stage wait for, beside its tokens."""

_ENTITIES_KEPT = 50_000
_PLAIN = JoinRule()
_WORKFLOWS: Table = Workflow.__table__  # type: ignore[assignment]
_STAGES: Table = StageExecution.__table__  # type: ignore[assignment]
_TASKS: Table = TaskExecution.__table__  # type: ignore[assignment]
_IDS: BindParameter[str] = bindparam("ids", expanding=True)


def _within(column: Any) -> ColumnElement[bool]:
    return and_(column >= bindparam("low"), column < bindparam("high"))


_HERE = and_(_STAGES.c.workflow_id.in_(_IDS), _within(_STAGES.c.position), _STAGES.c.latest)
_WORKFLOWS_BY_ID = select(_WORKFLOWS).where(_WORKFLOWS.c.id.in_(_IDS))
_BLOCK_STAGES = select(_STAGES).where(_HERE).order_by(_STAGES.c.position, _STAGES.c.id)
_BLOCK_TASKS = (
    select(_TASKS)
    .join(_STAGES, _TASKS.c.stage_id == _STAGES.c.id)
    .where(_HERE)
    .order_by(_TASKS.c.stage_id, _TASKS.c.position)
)
_BLOCK_EDGES = select(
    StageEdge.workflow_id,
    StageEdge.upstream_ref_id,
    StageEdge.upstream_position,
    StageEdge.downstream_ref_id,
    StageEdge.downstream_position,
).where(
    StageEdge.workflow_id.in_(_IDS),
    or_(_within(StageEdge.upstream_position), _within(StageEdge.downstream_position)),
)
_STAGE_BY_ID = select(_STAGES).where(_STAGES.c.id.in_(_IDS))
_TASKS_BY_STAGE = select(_TASKS).where(_TASKS.c.stage_id.in_(_IDS)).order_by(_TASKS.c.position)
E = TypeVar("E", Workflow, StageExecution, TaskExecution)


def _read(
    connection: Connection, kind: type[E], query: Select[Any], values: Mapping[str, Any]
) -> list[E]:
    """Read rows into entities that no session watches: a turn writes them by primary key.

    This costs a third of loading them through a session.
    """
    found: list[E] = []
    result = connection.execute(query, values)
    names = tuple(result.keys())
    for row in result:
        entity = kind.__new__(kind)
        entity.__dict__.update(zip(names, row, strict=True))
        found.append(entity)
    return found


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
        self.has_gates = False
        """Some stage may have to wait for more than its tokens."""
        self.has_quiet_joins = False
        """Some join asks whether anything can still come."""
        self.view: tuple[int, Workflow] | None = None
        """The workflow as tasks see it, as of one version."""
        self.tokens_known = False
        """No token was put before this process began to look: tallies need not be read."""

    @property
    def is_complete(self) -> bool:
        """Every stage of the workflow has been read."""
        return len(self.blocks) * BLOCK >= self.workflow.stage_count

    def keep(self, stage: StageExecution, tasks: Iterable[TaskExecution]) -> None:
        """Take in one run with its tasks, in order."""
        self.stages[stage.id] = stage
        self.tasks[stage.id] = list(tasks)
        if stage.definition and not GATES.isdisjoint(stage.definition):
            self.has_gates = True
        if stage.definition and self.rule_of(stage).asks_for_quiet:
            self.has_quiet_joins = True
        if stage.latest:
            self.newest[stage.ref_id] = stage
        if stage.parent_stage_id is not None:
            siblings = self.children.setdefault(stage.parent_stage_id, [])
            if stage.run > 1 and stage.latest:
                siblings[:] = [s for s in siblings if s.ref_id != stage.ref_id]
            if stage.latest:
                siblings.append(stage)

    def connect(self, up: str, up_position: int, down: str, down_position: int) -> None:
        self.downstream.setdefault(up, {})[down] = down_position
        self.upstream.setdefault(down, {})[up] = up_position

    def tasks_of(self, stage: StageExecution) -> list[TaskExecution]:
        return self.tasks.get(stage.id, [])

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


def _rule_of(stage: StageExecution) -> JoinRule:
    if stage.join_type is JoinType.AND and not stage.join_keep and not stage.on_branch_failure:
        return _PLAIN
    return JoinRule(
        type=stage.join_type,
        threshold=stage.join_threshold,
        keep=stage.join_keep,
        rest=stage.join_rest,
        scope=stage.join_scope,
        on_failure=stage.on_branch_failure,
    )


def is_active(stage: StageExecution) -> bool:
    """The run has been given its tokens and has not ended."""
    return stage.phase is not StagePhase.WAITING and stage.phase is not StagePhase.ENDED


class Nets:
    """The nets of the workflows moved lately, the oldest dropped first."""

    def __init__(self, kept: int = _ENTITIES_KEPT) -> None:
        self._kept = kept
        self._nets: OrderedDict[str, Net] = OrderedDict()

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
                found[workflow_id] = net
                self._nets.move_to_end(workflow_id)
            else:
                del self._nets[workflow_id]
        return found

    def add(self, net: Net) -> None:
        self._nets[net.workflow.id] = net

    def trim(self) -> None:
        """Drop the nets used least lately beyond the bound."""
        size = sum(len(net.stages) + len(net.tasks) + 2 for net in self._nets.values())
        while size > self._kept and self._nets:
            _, net = self._nets.popitem(last=False)
            size -= len(net.stages) + len(net.tasks) + 2


class NetReader:
    """Reads what a turn needs of nets, several workflows at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, workflow_ids: Collection[str]) -> list[Net]:
        """New nets of these workflows, with their first block."""
        ids = {"ids": list(workflow_ids)}
        found = _read(self._connection, Workflow, _WORKFLOWS_BY_ID, ids)
        nets = {workflow.id: Net(workflow) for workflow in found}
        self._read_block(nets, 0)
        return list(nets.values())

    def block_at(self, net: Net, position: int) -> None:
        """Make sure the block around `position` has been read."""
        if position // BLOCK not in net.blocks:
            self._read_block({net.workflow.id: net}, position // BLOCK)

    def everything(self, net: Net) -> None:
        """Make sure every stage of the workflow has been read."""
        for position in range(0, net.workflow.stage_count, BLOCK):
            self.block_at(net, position)

    def stage(self, net: Net, stage_id: str) -> StageExecution | None:
        """The run with this id, if it is one of this workflow."""
        stage = net.stages.get(stage_id)
        if stage is not None:
            return stage
        ids = {"ids": [stage_id]}
        found = _read(self._connection, StageExecution, _STAGE_BY_ID, ids)
        if not found or found[0].workflow_id != net.workflow.id:
            return None
        self.block_at(net, found[0].position)
        if stage_id not in net.stages:
            tasks = _read(self._connection, TaskExecution, _TASKS_BY_STAGE, ids)
            net.keep(found[0], tasks)
        return net.stages[stage_id]

    def newest(self, net: Net, ref_id: str, position: int | None = None) -> StageExecution | None:
        """The newest run of the stage called `ref_id`."""
        stage = net.newest.get(ref_id)
        if stage is None and not net.is_complete:
            if position is None:
                position = self._connection.scalar(
                    select(StageExecution.position).where(
                        StageExecution.workflow_id == net.workflow.id,
                        StageExecution.ref_id == ref_id,
                        StageExecution.latest,
                    )
                )
                if position is None:
                    return None
            self.block_at(net, position)
            stage = net.newest.get(ref_id)
        return stage

    def tallies(self, net: Net, ref_id: str) -> dict[str, Tally]:
        """What lies before the join `ref_id`, by thread."""
        tallies = net.tallies.get(ref_id)
        if tallies is None:
            tallies = net.tallies[ref_id] = {}
            if not net.tokens_known:
                self._count_tokens(net, ref_id, tallies)
        return tallies

    def _count_tokens(self, net: Net, ref_id: str, tallies: dict[str, Tally]) -> None:
        consumed = func.sum(case((Token.consumer_id.is_not(None), 1), else_=0))
        rows = self._connection.execute(
            select(Token.thread, Token.upstream_ref_id, Token.kind, func.count(), consumed)
            .where(
                Token.workflow_id == net.workflow.id,
                Token.downstream_ref_id == ref_id,
                Token.closed.is_(False),
            )
            .group_by(Token.thread, Token.upstream_ref_id, Token.kind)
        )
        edges = len(net.upstream.get(ref_id, ()))
        apart = net.rules.get(ref_id, _PLAIN).matches_threads
        for thread, upstream, kind, count, used in rows:
            tally = tallies.setdefault(thread if apart else "", Tally(edges=edges))
            tally.add(upstream, kind, int(count), consumed=int(used))

    def _read_block(self, nets: Mapping[str, Net], block: int) -> None:
        low, high = block * BLOCK, (block + 1) * BLOCK
        for net in nets.values():
            net.blocks.add(block)
        where = {"ids": list(nets), "low": low, "high": high}
        stages = _read(self._connection, StageExecution, _BLOCK_STAGES, where)
        tasks: dict[str, list[TaskExecution]] = defaultdict(list)
        for task in _read(self._connection, TaskExecution, _BLOCK_TASKS, where):
            tasks[task.stage_id].append(task)
        for stage in stages:
            net = nets[stage.workflow_id]
            if stage.id not in net.stages:
                net.keep(stage, tasks[stage.id])
        for workflow_id, up, up_position, down, down_position in self._connection.execute(
            _BLOCK_EDGES, where
        ):
            nets[workflow_id].connect(up, up_position, down, down_position)
