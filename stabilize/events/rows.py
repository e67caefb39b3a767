"""From events to rows and back.

Every turn writes events and every replay reads them by the thousand, so both ways go past the
per-row work of the ORM: values are made ready for the driver here, once per distinct instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert, select, type_coerce

from stabilize.clock import new_id, utc_now
from stabilize.events.base import EntityType, Event, EventMetadata, EventType, event_type_of
from stabilize.models import EventRecord
from stabilize.types import Json


class _Readable(Json):
    """The payload, or its raw text when it is not JSON: a broken row must not hide the others."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        try:
            return super().process_result_value(value, dialect)
        except ValueError:
            return value


EVENTS: Table = EventRecord.__table__  # type: ignore[assignment]
READ = (
    EVENTS.c.sequence,
    EVENTS.c.event_id,
    EVENTS.c.event_type,
    EVENTS.c.timestamp,
    EVENTS.c.entity_type,
    EVENTS.c.entity_id,
    EVENTS.c.workflow_id,
    EVENTS.c.version,
    type_coerce(EVENTS.c.data, _Readable()).label("data"),
    EVENTS.c.schema_version,
    EVENTS.c.correlation_id,
    EVENTS.c.causation_id,
    EVENTS.c.actor,
    EVENTS.c.source_handler,
)
"""The columns `event_of` takes, in its order."""
ALL_EVENTS = select(*READ)
SCHEMA_VERSION = 1

_WRITTEN = (
    "event_id",
    "event_type",
    "timestamp",
    "recorded_at",
    "entity_type",
    "entity_id",
    "workflow_id",
    "version",
    "data",
    "schema_version",
    "correlation_id",
    "causation_id",
    "actor",
    "source_handler",
    "application",
    "entity_name",
    "ref_id",
    "stage_type",
    "implementing_class",
    "stage_id",
    "status",
    "duration_ms",
    "attempt",
    "error",
)
STATUS_OF = {
    EventType.WORKFLOW_STARTED: "RUNNING",
    EventType.WORKFLOW_PAUSED: "PAUSED",
    EventType.WORKFLOW_RESUMED: "RUNNING",
    EventType.WORKFLOW_CANCELED: "CANCELED",
    EventType.STAGE_STARTED: "RUNNING",
    EventType.STAGE_SKIPPED: "SKIPPED",
    EventType.STAGE_CANCELED: "CANCELED",
    EventType.STAGE_SUSPENDED: "SUSPENDED",
    EventType.STAGE_RESUMED: "RUNNING",
    EventType.TASK_STARTED: "RUNNING",
    EventType.TASK_SUSPENDED: "SUSPENDED",
}
_ENTITY = {member.value: member for member in EntityType}


@dataclass(slots=True)
class Draft:
    """An event of a turn that is not stored yet: cheaper than an `Event`, which few turns need."""

    event_type: EventType
    entity_type: EntityType
    entity_id: str
    workflow_id: str
    version: int
    data: dict[str, Any]
    timestamp: datetime
    causation_id: str | None
    handler: str | None
    actor: str
    event_id: str = ""

    def to_event(self, sequence: int) -> Event:
        return Event(
            event_id=self.event_id,
            event_type=self.event_type,
            timestamp=self.timestamp,
            sequence=sequence,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            workflow_id=self.workflow_id,
            version=self.version,
            data=self.data,
            metadata=EventMetadata(
                correlation_id=self.workflow_id,
                causation_id=self.causation_id,
                actor=self.actor,
                source_handler=self.handler,
            ),
        )


class Inserter:
    """Inserts events on one kind of connection, as fast as its driver does."""

    def __init__(self, dialect: Dialect, translated: Mapping[Any, Any] | None) -> None:
        options: dict[str, Any] = {}
        if translated:
            options = {"schema_translate_map": translated, "render_schema_translate": True}
        compiled: Any = insert(EVENTS).compile(
            dialect=dialect, column_keys=list(_WRITTEN), **options
        )
        self._sql = str(compiled)
        self._named: bool = not compiled.positional
        self._order = [_WRITTEN.index(name) for name in compiled.positiontup or _WRITTEN]
        self._plain_order = self._order == list(range(len(_WRITTEN)))
        self._instant = _processor("timestamp", dialect)
        self._json = _processor("data", dialect)

    def drafts(self, connection: Connection, drafts: Sequence[Draft]) -> None:
        """Insert the drafts of a turn, giving them their ids."""
        last: datetime | None = None
        at: Any = None
        recorded_at = self._instant(utc_now())
        to_json = self._json
        rows = []
        for draft in drafts:
            if draft.timestamp is not last:
                last = draft.timestamp
                at = self._instant(last)
            draft.event_id = new_id()
            data = draft.data
            rows.append(
                (
                    draft.event_id,
                    draft.event_type.value,
                    at,
                    recorded_at,
                    draft.entity_type.value,
                    draft.entity_id,
                    draft.workflow_id,
                    draft.version,
                    to_json(data),
                    SCHEMA_VERSION,
                    draft.workflow_id,
                    draft.causation_id,
                    draft.actor,
                    draft.handler,
                    *_reported(draft.event_type, draft.entity_type, data),
                )
            )
        self._insert(connection, rows)

    def events(self, connection: Connection, events: Iterable[Event]) -> None:
        """Insert whole events; those of a type unknown here keep the name they came with."""
        recorded_at = self._instant(utc_now())
        rows = []
        for event in events:
            data, metadata = event.data, event.metadata
            rows.append(
                (
                    event.event_id,
                    stored_type(event),
                    self._instant(event.timestamp),
                    recorded_at,
                    event.entity_type.value,
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
        self._insert(connection, rows)

    def _insert(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        parameters: list[Any] = rows
        if self._named:
            parameters = [dict(zip(_WRITTEN, row, strict=True)) for row in rows]
        elif not self._plain_order:
            parameters = [tuple(row[i] for i in self._order) for row in rows]
        connection.exec_driver_sql(self._sql, parameters)


def _processor(column: str, dialect: Dialect) -> Callable[[Any], Any]:
    found = EVENTS.c[column].type.dialect_impl(dialect).bind_processor(dialect)
    return found or (lambda value: value)


def _reported(
    event_type: EventType, entity_type: EntityType, data: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The columns that reports ask for, in the order in which they are written."""
    get = data.get
    status = get("status") or get("new_status") or STATUS_OF.get(event_type)
    error = get("error")
    return (
        _cut(get("application")),
        _cut(get("name")),
        get("ref_id"),
        _cut(get("type")) if entity_type is EntityType.STAGE else None,
        _cut(get("implementing_class")),
        get("stage_id"),
        status,
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
    if event.event_type is EventType.UNKNOWN:
        return str(event.data.get("_raw_event_type", EventType.UNKNOWN.value))
    return str(event.event_type.value)


def event_of(row: Any) -> Event:
    """The event of a row of `READ`; an unknown type becomes UNKNOWN and keeps its name."""
    (
        sequence,
        event_id,
        raw,
        timestamp,
        entity_type,
        entity_id,
        workflow_id,
        version,
        data,
        schema_version,
        correlation_id,
        causation_id,
        actor,
        source_handler,
    ) = row
    event_type = event_type_of(raw)
    if not isinstance(data, dict):
        data = {"_broken_payload": data}
        event_type = EventType.UNKNOWN
    if event_type is EventType.UNKNOWN:
        data = {"_raw_event_type": raw, **data}
    metadata: EventMetadata = object.__new__(EventMetadata)
    metadata.__dict__.update(
        correlation_id=correlation_id,
        causation_id=causation_id,
        actor=actor,
        source_handler=source_handler,
    )
    event: Event = object.__new__(Event)
    event.__dict__.update(
        event_id=event_id,
        event_type=event_type,
        timestamp=timestamp,
        sequence=sequence,
        entity_type=_ENTITY[entity_type],
        entity_id=entity_id,
        workflow_id=workflow_id,
        version=version,
        data=data,
        metadata=metadata,
        schema_version=schema_version,
    )
    return event
