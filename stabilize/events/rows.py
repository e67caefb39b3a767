"""From events to rows and back.

Every turn writes events and every replay reads them by the thousand, so both ways go past the
per-row work of the ORM: values are made ready for the driver here, once per distinct instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Select, Table, insert, select, type_coerce
from sqlalchemy.types import NullType

from stabilize.clock import new_id, utc_now
from stabilize.events.base import (
    EntityType,
    Event,
    EventMetadata,
    EventType,
    Payload,
    built,
    status_after,
)
from stabilize.models import ArchivedEvent, EventRecord
from stabilize.types import encode

EVENTS: Table = EventRecord.__table__  # type: ignore[assignment]
ARCHIVE: Table = ArchivedEvent.__table__  # type: ignore[assignment]
SCHEMA_VERSION = 1
RAW_TYPE, RAW_ENTITY, BROKEN = "_raw_event_type", "_raw_entity_type", "_broken_payload"
"""Where the data of an UNKNOWN event has what was stored: its types, and what is no object."""

_METADATA = list(EventMetadata.__dataclass_fields__)
_READ = [name for name in Event.__dataclass_fields__ if name != "metadata"]
_WRITTEN = [column.name for column in EVENTS.columns if column.name != "sequence"]
_UNKNOWN = EventType.UNKNOWN
_TYPE = {member.value: member for member in EventType}
_STAGE = EntityType.STAGE
_ENTITY = {member.value: member for member in EntityType}


# --- reading ----------------------------------------------------------------------------------


def _reading(table: Table, names: Sequence[str]) -> Select[Any]:
    raw = {"data": type_coerce(table.c.data, NullType()).label("data")}
    return select(*(raw.get(name, table.c[name]) for name in names))


READING = {table: _reading(table, (*_READ, *_METADATA)) for table in (EVENTS, ARCHIVE)}
"""What `event_of` takes, from each table that has events."""
READING_BARE = {table: _reading(table, _READ) for table in (EVENTS, ARCHIVE)}
"""The same without the metadata: what reading costs is above all the number of columns."""


def event_of(row: Any) -> Event:
    """The event of a row; what cannot be read becomes UNKNOWN, and shows what it was."""
    values = dict(zip(_READ, row))  # noqa: B905 (the metadata comes after)
    raw, kind, data = values["event_type"], values["entity_type"], values["data"]
    event_type, entity_type = _TYPE.get(raw), _ENTITY.get(kind)
    if type(data) is str:  # from a database that has JSON as text
        data = _decoded(data)
    if event_type is None or entity_type is None or type(data) is not dict or BROKEN in data:
        data = _shown(raw, kind, data)
        event_type, entity_type = EventType.UNKNOWN, entity_type or EntityType.WORKFLOW
    values["event_type"], values["entity_type"] = event_type, entity_type
    values["data"] = Payload(data)
    about = row[len(_READ) :]
    values["metadata"] = built(EventMetadata, dict(zip(_METADATA, about))) if about else _NOBODY  # noqa: B905
    return built(Event, values)


def _decoded(text: str) -> Any:
    """The JSON of a text, or the text when it is none: a broken row must not hide the others."""
    try:
        data, end = _DECODER.raw_decode(text)
    except ValueError:
        return text
    return data if end == len(text) else text


def _shown(raw: str, kind: str, data: Any) -> dict[str, Any]:
    shown = {RAW_TYPE: raw}
    if kind not in _ENTITY:
        shown[RAW_ENTITY] = kind
    return shown | (data if isinstance(data, dict) else {BROKEN: data})


_DECODER = json.JSONDecoder()
_NOBODY = EventMetadata(correlation_id="")


# --- writing ----------------------------------------------------------------------------------


class Draft(NamedTuple):
    """An event of a turn before it is stored: no `Event` yet, for most are never looked at."""

    event_type: EventType
    entity_type: EntityType
    entity_id: str
    workflow_id: str
    version: int
    data: dict[str, Any]
    causation_id: str | None
    actor: str
    source_handler: str | None

    def stored(self, event_id: str, sequence: int, timestamp: datetime) -> Event:
        """The event of its own: what a subscriber does to its data is not done to the turn's."""
        return Event(
            event_id=event_id,
            event_type=self.event_type,
            timestamp=timestamp,
            sequence=sequence,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            workflow_id=self.workflow_id,
            version=self.version,
            data=json.loads(encode(self.data)),
            metadata=EventMetadata(
                self.workflow_id, self.causation_id, self.actor, self.source_handler
            ),
            schema_version=SCHEMA_VERSION,
        )


class Inserter:
    """Inserts events on one kind of connection, as fast as its driver does."""

    def __init__(self, dialect: Dialect, translated: Mapping[Any, Any] | None) -> None:
        options: dict[str, Any] = {}
        if translated:
            options = {"schema_translate_map": translated, "render_schema_translate": True}
        compiled: Any = insert(EVENTS).compile(dialect=dialect, column_keys=_WRITTEN, **options)
        assert (compiled.positiontup or _WRITTEN) == _WRITTEN
        self._sql = str(compiled)
        self._named: bool = not compiled.positional
        self._instant = _processor("timestamp", dialect)
        self._json = _processor("data", dialect)

    def insert(self, connection: Connection, events: Iterable[Event]) -> None:
        """Insert events; those of a type unknown here keep the name they came with."""
        recorded_at = self._instant(utc_now())
        last: datetime | None = None
        at: Any = None
        rows = []
        for event in events:
            if event.timestamp is not last:
                last = event.timestamp
                at = self._instant(last)
            data, metadata = event.data, event.metadata
            rows.append(
                (
                    event.event_id,
                    stored_type(event),
                    at,
                    recorded_at,
                    _stored(event, RAW_ENTITY, event.entity_type),
                    event.entity_id,
                    event.workflow_id,
                    event.version,
                    self._json(data),
                    event.schema_version,
                    metadata.correlation_id,
                    metadata.causation_id,
                    metadata.actor,
                    metadata.source_handler,
                    *_reported(event.event_type, event.entity_type, data),
                )
            )
        self._execute(connection, rows)

    def insert_drafts(
        self, connection: Connection, drafts: Iterable[Draft], timestamp: datetime
    ) -> list[str]:
        """Insert what happened in one turn, at `timestamp`; returns the ids it gave the events."""
        at, recorded_at = self._instant(timestamp), self._instant(utc_now())
        rows = [
            (
                new_id(),
                event_type._value_,
                at,
                recorded_at,
                entity_type._value_,
                entity_id,
                workflow_id,
                version,
                self._json(data),
                SCHEMA_VERSION,
                workflow_id,
                causation_id,
                actor,
                handler,
                *_reported(event_type, entity_type, data),
            )
            for (
                event_type,
                entity_type,
                entity_id,
                workflow_id,
                version,
                data,
                causation_id,
                actor,
                handler,
            ) in drafts
        ]
        self._execute(connection, rows)
        return [row[0] for row in rows]

    def _execute(self, connection: Connection, rows: list[Any]) -> None:
        if self._named:
            rows = [dict(zip(_WRITTEN, row, strict=True)) for row in rows]
        connection.exec_driver_sql(self._sql, rows)


def _processor(column: str, dialect: Dialect) -> Callable[[Any], Any]:
    found = EVENTS.c[column].type.dialect_impl(dialect).bind_processor(dialect)
    return found or (lambda value: value)


def _reported(
    event_type: EventType, entity_type: EntityType, data: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The columns that reports ask for, the last ones of the table."""
    get = data.get
    error = get("error")
    return (
        _cut(get("application")),
        _cut(get("name")),
        get("ref_id"),
        _cut(get("type")) if entity_type is _STAGE else None,
        _cut(get("implementing_class")),
        get("stage_id"),
        status_after(event_type, data),
        get("duration_ms"),
        get("attempt"),
        None if error is None else str(error),
    )


def _cut(value: Any) -> str | None:
    return None if value is None else str(value)[:255]


_inserters: dict[tuple[Any, ...], Inserter] = {}


def inserter_for(connection: Connection) -> Inserter:
    """The inserter for the dialect and schema of `connection`."""
    dialect = connection.dialect
    translated = connection.get_execution_options().get("schema_translate_map")
    schema = tuple(sorted(translated.items(), key=str)) if translated else None
    key = (dialect.name, dialect.driver, schema)
    inserter = _inserters.get(key)
    if inserter is None:
        inserter = _inserters[key] = Inserter(dialect, translated)
    return inserter


def stored_type(event: Event) -> str:
    """The name under which the type of `event` is stored."""
    return _stored(event, RAW_TYPE, event.event_type)


def _stored(event: Event, raw: str, kind: EventType | EntityType) -> str:
    if event.event_type is _UNKNOWN:
        return str(event.data.get(raw, kind.value))
    return str(kind._value_)  # `value` is a descriptor, and events are many
