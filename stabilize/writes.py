"""What a turn has changed and not written yet: rows in bulk, by primary key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table, bindparam, update

from stabilize.database import insert_into
from stabilize.models import StageEdge, StageExecution, TaskExecution, Token, Workflow
from stabilize.models.unwatched import KIND_OF, KINDS, Entity
from stabilize.net import Net

_TOKENS: Table = Token.__table__  # type: ignore[assignment]
_EDGES: Table = StageEdge.__table__  # type: ignore[assignment]
_TABLE_OF: dict[type, Table] = {kind: kind.__table__ for kind in KINDS}  # type: ignore[misc]
_USUAL: dict[type, frozenset[str]] = {
    Workflow: frozenset({"status", "start_time", "end_time", "open_runs", "version"}),
    StageExecution: frozenset({"status", "phase", "start_time", "end_time", "version"}),
    TaskExecution: frozenset({"status", "start_time", "end_time", "version"}),
}
"""Columns that nearly every change is among: written together, the changes share one statement."""
_USUAL_RECORDED = {kind: names | {"event_version"} for kind, names in _USUAL.items()}
_columns_of: dict[type, tuple[str, ...]] = {}
_cache: dict[tuple[str, ...], Any] = {}


class Writes:
    """Changes of entities, new rows and bulk statements, in the order they have to go in.

    `recorded`: nearly every change comes with an event, which the entity counts.
    """

    def __init__(self, connection: Connection, locked: dict[str, Net], *, recorded: bool) -> None:
        self._connection = connection
        self._usual = _USUAL_RECORDED if recorded else _USUAL
        self._locked = locked
        self._changes: dict[type, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self._added: dict[type, dict[str, Entity]] = {kind: {} for kind in KINDS}
        self._entities: dict[str, Entity] = {}
        self._raised: set[str] = set()
        self._tokens: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []
        self._statements: list[tuple[Any, list[dict[str, Any]]]] = []
        self._scopes: set[tuple[Any, str]] = set()
        self.rows = 0
        """How many rows have been changed or made."""

    def set(self, entity: Entity, values: dict[str, Any]) -> None:
        """Change columns of an entity; the first change in a turn raises its version."""
        state = entity.__dict__  # written by primary key: the ORM need not watch
        id = state["id"]
        if id not in self._raised:
            self._raised.add(id)
            self.rows += 1
            values = {**values, "version": state["version"] + 1}
            if not isinstance(entity, Workflow) and state["workflow_id"] not in self._raised:
                self.set(self._locked[state["workflow_id"]].workflow, {})
        state.update(values)
        kind = KIND_OF[type(entity)]
        if id in self._added[kind]:
            return
        known = self._changes[kind].get(id)
        if known is None:
            self._entities[id] = entity
            self._changes[kind][id] = dict(values)
        else:
            known.update(values)

    def add(self, entity: Entity) -> None:
        """Insert an entity; later changes in this turn go into the same row."""
        kind, state = KIND_OF[type(entity)], entity.__dict__
        for name in self._usual[kind]:  # what is new has its scalar defaults not in __dict__
            if name not in state:
                state[name] = getattr(entity, name)
        self._added[kind][entity.id] = entity
        self._raised.add(entity.id)
        self.rows += 1

    def add_net(self, net: Net, edges: list[dict[str, Any]]) -> None:
        """Insert a whole new workflow."""
        self.add(net.workflow)
        for stage in net.runs():
            self.add(stage)
            for task in net.tasks_of(stage):
                self.add(task)
        self._edges += edges

    def add_token(self, values: dict[str, Any]) -> None:
        if (values["workflow_id"], values["downstream_ref_id"]) in self._scopes:
            self.flush()  # what was decided of the tokens before it must not reach this one
        self._tokens.append(values)
        self.rows += 1

    def add_edge(self, values: dict[str, Any]) -> None:
        self._edges.append(values)

    def run_later(self, statement: Any, values: dict[str, Any]) -> None:
        """Run a bulk statement on tokens after the rows of this turn are in."""
        self._scopes.add((values["b_workflow"], values["b_ref"]))
        if self._statements and self._statements[-1][0] is statement:
            self._statements[-1][1].append(values)
        else:
            self._statements.append((statement, [values]))

    def flush(self) -> None:
        """Write what has changed so far."""
        execute = self._connection.execute
        for kind in KINDS:
            added = self._added[kind]
            if added:
                execute(insert_into(_TABLE_OF[kind]), [row_of(e) for e in added.values()])
                self._added[kind] = {}
            if self._changes[kind]:
                self._write_changes(kind)
        if self._edges:
            execute(insert_into(_EDGES), self._edges)
            self._edges = []
        if self._tokens:
            execute(insert_into(_TOKENS), self._tokens)
            self._tokens = []
        for statement, values in self._statements:
            execute(statement, values)
        self._statements = []
        self._scopes.clear()

    def _write_changes(self, kind: type) -> None:
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        usual = self._usual[kind]
        usual_names = tuple(sorted(usual))
        for id, values in self._changes[kind].items():
            if usual.issuperset(values):
                entity = self._entities[id].__dict__
                values, names = {name: entity[name] for name in usual_names}, usual_names
            else:
                names = tuple(sorted(values))
            values["b_id"] = id
            groups.setdefault(names, []).append(values)
        self._changes[kind] = {}
        for names, rows in groups.items():
            self._connection.execute(_update(_TABLE_OF[kind], names), rows)


def _update(table: Table, names: tuple[str, ...]) -> Any:
    return _cached(
        ("update", table.name, *names),
        lambda: (
            update(table)
            .where(table.c.id == bindparam("b_id"))
            .values({name: bindparam(name) for name in names})
        ),
    )


def _cached(key: tuple[str, ...], build: Callable[[], Any]) -> Any:
    statement = _cache.get(key)
    if statement is None:
        statement = _cache[key] = build()
    return statement


def row_of(entity: Entity) -> dict[str, Any]:
    """The row of a new entity."""
    kind = KIND_OF[type(entity)]
    names = _columns_of.get(kind)
    if names is None:
        names = _columns_of[kind] = tuple(a.key for a in kind.__mapper__.column_attrs)
    row = {name: getattr(entity, name) for name in names}
    entity.__dict__.update(row)  # a scalar default stands in the class until somebody writes it
    return row
