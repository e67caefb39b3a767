"""Appending events that are not a turn's: versions assigned, the same event never twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, bindparam, func, select, union_all, update
from sqlalchemy.exc import IntegrityError

from stabilize.errors import ConcurrencyError, ConflictError
from stabilize.events.base import EntityType, Event
from stabilize.events.rows import RAW_TYPE, READING, event_of, inserter_for, stored_type
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.types import plain

T = TypeVar("T")
_CHUNK = 500
PURGED = "_purged"
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_BY_ID = [reading.where(table.c.event_id.in_(_IDS)) for table, reading in READING.items()]
_LIVE, _ANYWHERE = _BY_ID[0], union_all(*_BY_ID)
_VERSIONS = union_all(
    *(
        select(table.c.entity_id, func.max(table.c.version))
        .where(table.c.entity_type == bindparam("kind"), table.c.entity_id.in_(_IDS))
        .group_by(table.c.entity_id)
        for table in READING
    )
)
_TOUCH = update(Workflow).where(Workflow.id.in_(_IDS)).values(version=Workflow.version + 1)
_COUNTS = {
    kind: update(model.__table__)  # type: ignore[arg-type]
    .where(model.__table__.c.id == bindparam("b_id"))
    .values(event_version=bindparam("b_version"))
    for kind, model in (
        (EntityType.WORKFLOW, Workflow),
        (EntityType.STAGE, StageExecution),
        (EntityType.TASK, TaskExecution),
    )
}


def append_once(connection: Connection, events: Sequence[Event], *, savepoint: bool) -> list[Event]:
    """Insert those events that are not stored, and return all of them as they are stored."""
    stored = find_stored(connection, events)
    given = {event.event_id: event for event in events if event.event_id not in stored}
    new = _with_versions(connection, list(given.values()))
    if new:
        _insert(connection, new, savepoint=savepoint)
        stored |= {event.event_id: event for event in events_with(connection, given, _LIVE)}
    return [stored[event.event_id] for event in events]


def _insert(connection: Connection, events: list[Event], *, savepoint: bool) -> None:
    inserter = inserter_for(connection)
    try:
        with connection.begin_nested() if savepoint else nullcontext():
            inserter.insert(connection, events)
    except IntegrityError as error:
        first = events[0]
        raise ConcurrencyError(
            f"{first.entity_type.value} {first.entity_id} (or another entity of this batch) has an "
            f"event of version {first.version} already: read its events again, or append with "
            "version=0 to get the next",
            cause=error.orig,
        ) from error


def find_stored(connection: Connection, events: Sequence[Event]) -> dict[str, Event]:
    """Those of `events` that are stored, by id; `ConflictError` if one was stored otherwise."""
    given = {event.event_id: event for event in events}
    found = {event.event_id: event for event in events_with(connection, given)}
    for id, event in found.items():
        if PURGED not in event.data and _content(event) != _content(given[id]):
            raise ConflictError(
                f"event {id!r} is stored with other content: an event is never changed, append a "
                "new one"
            )
    return found


def events_with(connection: Connection, ids: Iterable[str], query: Any = None) -> Iterator[Event]:
    """Those of the events with these ids that are stored, archived or not."""
    for chunk in chunks(list(ids)):
        found = connection.execute(_ANYWHERE if query is None else query, {"ids": chunk})
        yield from map(event_of, found)


def _content(event: Event) -> tuple[object, ...]:
    data = {key: value for key, value in event.data.items() if key != RAW_TYPE}
    return (
        stored_type(event),
        event.entity_type,
        event.entity_id,
        event.workflow_id,
        plain(data, "data"),
    )


def _with_versions(connection: Connection, events: list[Event]) -> list[Event]:
    """The events with the next version of their entity where they have none.

    Versions of what the engine moves are counted in its own rows as well. So its workflow is
    locked first, as by a turn, and changed, so that no turn goes on from an older count.
    """
    unnumbered = [event for event in events if event.version == 0]
    last: dict[tuple[EntityType, str], int] = {}
    moved = 0
    for chunk in chunks(sorted({event.workflow_id for event in unnumbered})):
        moved += connection.execute(_TOUCH, {"ids": chunk}).rowcount
    wanted = defaultdict(set)
    for event in unnumbered:
        wanted[event.entity_type].add(event.entity_id)
    for kind, ids in wanted.items():
        last |= {(kind, id): version for id, version in _last_versions(connection, kind, ids)}
    numbered = []
    for event in events:
        key = (event.entity_type, event.entity_id)
        version = event.version or last.get(key, 0) + 1
        last[key] = max(version, last.get(key, 0))
        numbered.append(event if event.version else replace(event, version=version))
    for kind, ids in wanted.items() if moved else ():
        counts = [{"b_id": id, "b_version": last[kind, id]} for id in sorted(ids)]
        connection.execute(_COUNTS[kind], counts)
    return numbered


def _last_versions(
    connection: Connection, kind: EntityType, ids: Iterable[str]
) -> Iterator[tuple[str, int]]:
    """The highest version of each entity in each table: that of the live one comes last."""
    for chunk in chunks(sorted(ids)):
        found = connection.execute(_VERSIONS, {"kind": kind.value, "ids": chunk})
        yield from sorted(((id, top) for id, top in found), key=lambda pair: pair[1])


def chunks(items: list[T]) -> Iterator[list[T]]:
    """`items` in lists short enough for one statement."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
