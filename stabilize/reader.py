"""Reads what a turn needs of workflows' graphs, several workflows at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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

from stabilize.dag.joins import Tally
from stabilize.models import StageEdge, StageExecution, TaskExecution, Token, Workflow
from stabilize.models.unwatched import unwatched
from stabilize.net import BEYOND, BLOCK, PLAIN, Net
from stabilize.status import StagePhase, SyntheticStageOwner

E = TypeVar("E", Workflow, StageExecution, TaskExecution)
_INSTANCE = SyntheticStageOwner.INSTANCE
_WORKFLOWS: Table = Workflow.__table__  # type: ignore[assignment]
_STAGES: Table = StageExecution.__table__  # type: ignore[assignment]
_TASKS: Table = TaskExecution.__table__  # type: ignore[assignment]
_IDS: BindParameter[str] = bindparam("ids", expanding=True)


def _within(column: Any) -> ColumnElement[bool]:
    return and_(column >= bindparam("low"), column < bindparam("high"))


UNDER_WAY = _STAGES.c.phase.not_in((StagePhase.WAITING, StagePhase.ENDED))
_HERE = and_(
    _STAGES.c.workflow_id.in_(_IDS),
    _within(_STAGES.c.position),
    or_(_STAGES.c.latest, UNDER_WAY),  # an earlier run may go on beside the newest
)
STORED = select(_WORKFLOWS.c.id).where(_WORKFLOWS.c.id.in_(_IDS))
_WORKFLOWS_BY_ID = select(_WORKFLOWS).where(_WORKFLOWS.c.id.in_(_IDS))
_IN_ORDER = (_STAGES.c.position, _STAGES.c.run, _STAGES.c.id)
_BLOCK_STAGES = select(_STAGES).where(_HERE).order_by(*_IN_ORDER)
_BLOCK_TASKS = (
    select(_TASKS)
    .join(_STAGES, _TASKS.c.stage_id == _STAGES.c.id)
    .where(_HERE)
    .order_by(_TASKS.c.stage_id, _TASKS.c.position)
)
_EDGES: Any = select(
    StageEdge.workflow_id,
    StageEdge.upstream_ref_id,
    StageEdge.upstream_position,
    StageEdge.downstream_ref_id,
    StageEdge.downstream_position,
).where(StageEdge.workflow_id.in_(_IDS))
_BLOCK_EDGES = _EDGES.where(
    or_(_within(StageEdge.upstream_position), _within(StageEdge.downstream_position)),
)
_EDGES_FROM = _EDGES.where(StageEdge.upstream_ref_id.in_(bindparam("refs", expanding=True)))
_DEFINITIONS = (
    select(_STAGES.c.workflow_id, _STAGES.c.definition)
    .where(_STAGES.c.workflow_id.in_(_IDS), _STAGES.c.position < BEYOND)
    .distinct()
)
_STAGES_BY_ID = select(_STAGES).where(_STAGES.c.id.in_(_IDS))
_IS_PART = _STAGES.c.synthetic_stage_owner.is_distinct_from(_INSTANCE)
_PARTS = select(_STAGES).where(_STAGES.c.parent_stage_id.in_(_IDS), _IS_PART).order_by(*_IN_ORDER)
_TASKS_BY_STAGE = select(_TASKS).where(_TASKS.c.stage_id.in_(_IDS)).order_by(_TASKS.c.position)


def _is_part(run: StageExecution) -> bool:
    """Say whether a run is a synthetic stage of an instance."""
    return run.position >= BEYOND and run.synthetic_stage_owner is not _INSTANCE


def _owners(runs: Iterable[StageExecution]) -> set[str]:
    return {run.parent_stage_id for run in runs if run.parent_stage_id and _is_part(run)}


def _read(
    connection: Connection, kind: type[E], query: Select[Any], values: Mapping[str, Any]
) -> list[E]:
    """Read rows into entities that no session watches: a turn writes them by primary key.

    This costs a third of loading them through a session.
    """
    found: list[E] = []
    result = connection.execute(query, values)
    names = tuple(result.keys())
    kind = unwatched(kind)
    for row in result:
        entity = kind.__new__(kind)
        entity.__dict__.update(zip(names, row, strict=True))
        found.append(entity)
    return found


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
        self._note({id: net for id, net in nets.items() if not net.is_complete})
        return list(nets.values())

    def _note(self, nets: Mapping[str, Net]) -> None:
        """Know what the stages ask that have not been read."""
        if nets:
            for workflow_id, definition in self._connection.execute(
                _DEFINITIONS, {"ids": list(nets)}
            ):
                stage = StageExecution.__new__(StageExecution)
                stage.__dict__["definition"] = definition
                nets[workflow_id].note(stage)

    def block_at(self, net: Net, position: int) -> None:
        """Make sure the block around `position` has been read."""
        if position < BEYOND and position // BLOCK not in net.blocks:
            self._read_block({net.workflow.id: net}, position // BLOCK)

    def everything(self, net: Net) -> None:
        """Make sure every stage of the workflow has been read."""
        for position in range(0, net.workflow.stage_count, BLOCK):
            self.block_at(net, position)

    def stage(self, net: Net, stage_id: str) -> StageExecution | None:
        """The run with this id, if it is one of this workflow."""
        if stage_id not in net.stages:
            self.stages({net.workflow.id: net}, [stage_id])
        return net.stages.get(stage_id)

    def stages(self, nets: Mapping[str, Net], ids: Collection[str]) -> None:
        """Make sure that these runs, those of them that are of these nets, have been read."""
        found = [run for run in self._runs(_STAGES_BY_ID, ids) if run.workflow_id in nets]
        for run in found:
            self.block_at(nets[run.workflow_id], run.position)
        self._keep(nets, [run for run in found if run.id not in nets[run.workflow_id].stages])

    def _runs(self, query: Select[Any], ids: Collection[str]) -> list[StageExecution]:
        return _read(self._connection, StageExecution, query, {"ids": list(ids)}) if ids else []

    def _keep(self, nets: Mapping[str, Net], found: Collection[StageExecution]) -> None:
        """Take in runs that no block brings, with all that they, or their instance, consist of."""
        runs = {run.id: run for run in found}
        level: Iterable[StageExecution] = found
        while above := _owners(level) - runs.keys():
            level = self._runs(_STAGES_BY_ID, above)
            runs.update((run.id, run) for run in level)
        level = list(runs.values())
        while level:
            parts = self._runs(_PARTS, [run.id for run in level])
            level = [part for part in parts if part.id not in runs]
            runs.update((run.id, run) for run in level)
        tasks: dict[str, list[TaskExecution]] = defaultdict(list)
        if runs:
            where = {"ids": list(runs)}
            for task in _read(self._connection, TaskExecution, _TASKS_BY_STAGE, where):
                tasks[task.stage_id].append(task)
        for run in runs.values():
            if run.id not in nets[run.workflow_id].stages:
                nets[run.workflow_id].keep(run, tasks[run.id])
        refs = [run.ref_id for run in runs.values() if _is_part(run)]
        if refs:
            self._connect(nets, _EDGES_FROM, {"ids": list(nets), "refs": refs})

    def _connect(self, nets: Mapping[str, Net], query: Select[Any], where: dict[str, Any]) -> None:
        for workflow_id, *edge in self._connection.execute(query, where):
            nets[workflow_id].connect(*edge)

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
        edges = net.upstream.get(ref_id, {})
        apart = net.rules.get(ref_id, PLAIN).matches_threads
        for thread, upstream, kind, count, used in rows:
            tally = tallies.setdefault(thread if apart else "", Tally(edges=len(edges)))
            if upstream in edges:
                tally.add(upstream, kind, int(count), consumed=int(used))
            else:
                tally.add_start(upstream, int(count))

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
        self._connect(nets, _BLOCK_EDGES, where)
        self._keep(nets, [stage for stage in stages if not stage.latest])
