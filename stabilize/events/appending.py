"""Appending events that are not a turn's: versions assigned, the same event never twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, and_, bindparam, func, or_, select
from sqlalchemy.exc import IntegrityError

from stabilize.database import Database
from stabilize.errors import ConcurrencyError, ConflictError
from stabilize.events.base import Event
from stabilize.events.rows import ALL_EVENTS, EVENTS, event_of, inserter_for, stored_type
from stabilize.types import plain

_CHUNK = 500
_BY_ID = ALL_EVENTS.where(EVENTS.c.event_id.in_(bindparam("ids", expanding=True)))


def append_once(connection: Connection, database: Database, events: Sequence[Event]) -> list[Event]:
    """Insert those events that are not stored, and return all of them as they are stored."""
    stored = _stored(connection, events)
    new = _with_versions(connection, [e for e in _distinct(events) if e.event_id not in stored])
    if new:
        _insert(connection, database, new)
        stored |= _stored(connection, new)
    return [stored[event.event_id] for event in events]


def _distinct(events: Sequence[Event]) -> list[Event]:
    return list({event.event_id: event for event in events}.values())


def _insert(connection: Connection, database: Database, events: list[Event]) -> None:
    inserter = inserter_for(connection)
    try:
        if database.backend.needs_savepoints:
            with connection.begin_nested():
                inserter.events(connection, events)
        else:
            inserter.events(connection, events)
    except IntegrityError as error:
        _stored(connection, events)  # the same id with other content is told as such
        first = events[0]
        raise ConcurrencyError(
            f"{first.entity_type.value} {first.entity_id} (or another entity of this batch) has an "
            f"event of version {first.version} already: read its events again, or append with "
            "version=0 to get the next",
            cause=error.orig,
        ) from error


def _stored(connection: Connection, events: Sequence[Event]) -> dict[str, Event]:
    """Those of `events` that are stored, by id; `ConflictError` if one was stored otherwise."""
    given = {event.event_id: event for event in events}
    ids = list(given)
    found: dict[str, Event] = {}
    for start in range(0, len(ids), _CHUNK):
        for row in connection.execute(_BY_ID, {"ids": ids[start : start + _CHUNK]}):
            event = event_of(row)
            if _content(event) != _content(given[event.event_id]):
                raise ConflictError(
                    f"event {event.event_id!r} is stored with other content: an event is never "
                    "changed, append a new one"
                )
            found[event.event_id] = event
    return found


def _content(event: Event) -> tuple[object, ...]:
    data = {key: value for key, value in event.data.items() if key != "_raw_event_type"}
    return (
        stored_type(event),
        event.entity_type,
        event.entity_id,
        event.workflow_id,
        plain(data, "data"),
    )


def _with_versions(connection: Connection, events: list[Event]) -> list[Event]:
    """The events with the next version of their entity where they have none."""
    wanted = {(e.entity_type.value, e.entity_id) for e in events if e.version == 0}
    if not wanted:
        return events
    last = _last_versions(connection, sorted(wanted))
    numbered = []
    for event in events:
        key = (event.entity_type.value, event.entity_id)
        version = event.version or last.get(key, 0) + 1
        last[key] = max(version, last.get(key, 0))
        numbered.append(event if event.version else replace(event, version=version))
    return numbered


def _last_versions(
    connection: Connection, entities: list[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    kind, id, version = EVENTS.c.entity_type, EVENTS.c.entity_id, EVENTS.c.version
    for start in range(0, len(entities), _CHUNK // 2):
        chunk = entities[start : start + _CHUNK // 2]
        by_kind: dict[str, list[str]] = {}
        for name, entity_id in chunk:
            by_kind.setdefault(name, []).append(entity_id)
        conditions = [and_(kind == name, id.in_(ids)) for name, ids in by_kind.items()]
        rows = connection.execute(
            select(kind, id, func.max(version)).where(or_(*conditions)).group_by(kind, id)
        )
        found.update(((name, entity_id), top) for name, entity_id, top in rows)
    return found
