"""What a run inherits: the outputs of the runs its tokens came from, and theirs in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.orm import aliased

from stabilize.dag.reducers import apply_output_reducers
from stabilize.models import StageExecution, Token
from stabilize.models.workflow import merge_in_order, merge_outputs
from stabilize.status import SyntheticStageOwner, TokenKind
from stabilize.tasks.context import InheritingContext
from stabilize.turn import Turn

_STAGES: Table = StageExecution.__table__  # type: ignore[assignment]
_ORDER = (StageExecution.position, StageExecution.ref_id, StageExecution.run)


def inherited(connection: Connection, stage: StageExecution) -> dict[str, Any]:
    """What a run inherits, its `output_reducers` applied; an instance inherits as its group does.

    Raises `ValueError` for a reducer nobody registered, and what a reducer itself raises.
    """
    is_instance = stage.synthetic_stage_owner is SyntheticStageOwner.INSTANCE
    run_id = (is_instance and stage.parent_stage_id) or stage.id
    merged = _lineage_outputs(connection, run_id)
    if is_instance:  # its own context has what its group's has, but for the collection
        group = select(_STAGES.c.context).where(_STAGES.c.id == run_id)
        merged = merge_outputs([merged, connection.execute(group).scalar() or {}])
    if stage.output_reducers:
        branches = connection.execute(
            select(_STAGES.c.outputs)
            .join(Token, Token.source_id == _STAGES.c.id)
            .where(Token.consumer_id == run_id, Token.kind == TokenKind.LIVE)
            .order_by(*_ORDER)
        )
        reduced = apply_output_reducers(stage.output_reducers, [row.outputs for row in branches])
        merged.update(reduced)
    return merged


def _lineage_outputs(connection: Connection, run_id: str) -> dict[str, Any]:
    """Merge the outputs of everything the run `run_id` came from."""
    start = (
        select(Token.source_id.label("id"))
        .where(Token.consumer_id == run_id, Token.kind == TokenKind.LIVE)
        .cte("lineage", recursive=True)
    )
    further = aliased(Token)
    lineage = start.union(
        select(further.source_id).where(
            further.consumer_id == start.c.id, further.kind == TokenKind.LIVE
        )
    )
    rows = connection.execute(
        select(_STAGES.c.ref_id, _STAGES.c.requisite_stage_ref_ids, _STAGES.c.outputs)
        .where(_STAGES.c.id.in_(select(lineage.c.id)))
        .order_by(_STAGES.c.run)
    )
    return merge_in_order(rows)


class Names(Mapping[str, Any]):
    """The names a condition can use.

    The run's own context and outputs, then what it inherits, then the ref of any stage of the
    workflow, which stands for that stage's outputs.
    """

    def __init__(self, turn: Turn, stage: StageExecution) -> None:
        self._turn = turn
        self._stage = stage
        self._context = InheritingContext(
            {**stage.context, **stage.delivered, **stage.outputs},
            lambda: _read(turn, stage),
            stage.ref_id,
        )

    def __getitem__(self, name: str) -> Any:
        if name in self._context:
            return self._context[name]
        other = self._turn.reader.newest(self._turn.locked[self._stage.workflow_id], name)
        if other is None or not other.outputs:
            raise KeyError(name)
        return other.outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)


def _read(turn: Turn, stage: StageExecution) -> dict[str, Any]:
    turn.write_rows()
    return inherited(turn.connection, stage)


def names_for(turn: Turn, stage: StageExecution) -> Mapping[str, Any]:
    """What the conditions of `stage` are evaluated over."""
    return Names(turn, stage)
