"""Event stores: the interface, and the one that is a table in a SQL database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, inspect, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from stabilize.backends import backend_for
from stabilize.backends.base import LAST_SEQUENCE
from stabilize.clock import new_id
from stabilize.database import Database, Joinable
from stabilize.errors import ConcurrencyError, SchemaError
from stabilize.events.appending import append_once
from stabilize.events.base import EntityType, Event
from stabilize.events.query import Appended, EventQuery
from stabilize.events.rows import ALL_EVENTS, EVENTS, event_of
from stabilize.models import (
    EventDeadLetter,
    EventDelivery,
    EventFence,
    EventRecord,
    EventRelay,
    SnapshotRecord,
    SubscriptionRecord,
    metadata,
)

PAGE = 1_000
_VERSION_TRIES = 5
_TABLES = [
    kind.__table__
    for kind in (
        EventRecord,
        EventFence,
        EventRelay,
        SnapshotRecord,
        SubscriptionRecord,
        EventDelivery,
        EventDeadLetter,
    )
]


class EventStore(ABC):
    """An append-only sequence of events.

    An implementation appends atomically and durably, and numbers in rising order. Appending the
    same event (by `event_id`) again returns the stored one.
    """

    def append(self, event: Event, connection: Joinable | None = None) -> Event:
        """Store one event; see `append_batch`."""
        return self.append_batch([event], connection)[0]

    @abstractmethod
    def append_batch(
        self, events: Sequence[Event], connection: Joinable | None = None
    ) -> list[Event]:
        """Store events atomically, in order, and return them as stored.

        `version=0` gets the next version of its entity. With `connection` (a `Session` or
        `Connection` on the store's database) they become visible with the caller's commit. Raises
        `ConflictError` when an id is taken by an event with other content, `ConcurrencyError`
        when an entity's version is.
        """

    @abstractmethod
    def get_events(self, query: EventQuery) -> Iterator[Event]:
        """The events a query finds, read page by page."""

    @abstractmethod
    def get_events_for_entity(
        self, entity_type: EntityType, entity_id: str, from_version: int = 0
    ) -> list[Event]:
        """All events of an entity after `from_version`, by version."""

    @abstractmethod
    def get_events_for_workflow(self, workflow_id: str, from_sequence: int = 0) -> list[Event]:
        """All events of a workflow after `from_sequence`, by sequence."""

    @abstractmethod
    def get_current_sequence(self) -> int:
        """The highest sequence stored, 0 when there is none."""

    @abstractmethod
    def get_events_since(self, sequence: int, limit: int = PAGE) -> list[Event]:
        """The events after `sequence`, for those who follow.

        Whoever goes on from the last sequence returned misses none: those are left out before
        which one could still come.
        """

    def get_event_by_id(self, event_id: str) -> Event | None:
        """The event with this id, None when there is none."""
        return next(
            (e for e in self.get_events(EventQuery(limit=None)) if e.event_id == event_id), None
        )

    def count_events(self, query: EventQuery | None = None) -> int:
        """How many events a query finds, whatever its limit and offset."""
        found = query or EventQuery()
        unlimited = EventQuery(**{**found.__dict__, "limit": None, "offset": 0})
        return sum(1 for _ in self.get_events(unlimited))

    def safe_sequence(self) -> int:
        """The sequence up to which nothing can still come."""
        return self.get_current_sequence()

    def close(self) -> None:
        """Give connections back."""


class SqlEventStore(EventStore):
    """Events in a table of a SQL database: from a URL, or on an engine you have.

    On the database of the engine it is the very table turns write to. `create_tables=True` is for
    development and tests. `schema` puts the tables into a schema of that name.
    """

    def __init__(
        self,
        connection_string: str | URL | Engine | Database,
        create_tables: bool = False,
        *,
        schema: str | None = None,
    ) -> None:
        if schema is None:
            self.database = Database.at(connection_string)
        else:
            self.database = _in_schema(connection_string, schema)
        if create_tables:
            with self.database.writing() as connection:
                metadata.create_all(connection, tables=_TABLES)  # type: ignore[arg-type]
        self._checked = create_tables
        self._marked = 0
        self._schema = schema

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r})"

    # --- writing ----------------------------------------------------------------------------

    def append_batch(self, events: Sequence[Event], connection: Joinable | None = None) -> Appended:
        if not events:
            return Appended()
        self._require_tables()
        if connection is not None:
            with self.database.writing(connection) as joined:
                return Appended(append_once(joined, self.database, events))
        for attempt in range(1, _VERSION_TRIES + 1):
            try:
                with self.database.writing() as own:
                    return Appended(append_once(own, self.database, events))
            except (IntegrityError, ConcurrencyError):
                if attempt == _VERSION_TRIES or any(event.version for event in events):
                    raise
        raise AssertionError("the loop returns or raises")

    # --- reading ----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._require_tables()
        with self.database.turns.connect() as connection:
            yield connection

    def get_events(self, query: EventQuery) -> Iterator[Event]:
        left, offset = query.limit, query.offset
        selected = query.ordered(query.narrow(ALL_EVENTS))
        last: Event | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = selected if last is None else selected.where(query.after(last))
            with self._reading() as connection:
                rows = connection.execute(page.limit(size).offset(offset)).all()
            for row in rows:
                last = event_of(row)
                yield last
            if len(rows) < size:
                return
            offset = 0
            left = None if left is None else left - len(rows)

    def get_events_for_entity(
        self, entity_type: EntityType, entity_id: str, from_version: int = 0
    ) -> list[Event]:
        return self._read(
            ALL_EVENTS.where(
                EVENTS.c.entity_type == entity_type.value,
                EVENTS.c.entity_id == entity_id,
                EVENTS.c.version > from_version,
            ).order_by(EVENTS.c.version)
        )

    def get_events_for_workflow(self, workflow_id: str, from_sequence: int = 0) -> list[Event]:
        return self._read(
            ALL_EVENTS.where(
                EVENTS.c.workflow_id == workflow_id, EVENTS.c.sequence > from_sequence
            ).order_by(EVENTS.c.sequence)
        )

    def get_current_sequence(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(LAST_SEQUENCE).scalar_one())

    def get_events_since(self, sequence: int, limit: int = PAGE) -> list[Event]:
        return self.read_stable(sequence, self.safe_sequence(), limit)

    def read_stable(self, sequence: int, upto: int, limit: int = PAGE) -> list[Event]:
        """The events after `sequence` and not after `upto`, which `safe_sequence` has returned."""
        if upto <= sequence:
            return []
        return self._read(
            ALL_EVENTS.where(EVENTS.c.sequence > sequence, EVENTS.c.sequence <= upto)
            .order_by(EVENTS.c.sequence)
            .limit(limit)
        )

    def get_event_by_id(self, event_id: str) -> Event | None:
        found = self._read(ALL_EVENTS.where(EVENTS.c.event_id == event_id))
        return found[0] if found else None

    def get_events_by_ids(self, event_ids: Collection[str]) -> list[Event]:
        """Those of the events with these ids that are stored."""
        return self._read(ALL_EVENTS.where(EVENTS.c.event_id.in_(event_ids)))

    def count_events(self, query: EventQuery | None = None) -> int:
        counted = (query or EventQuery()).narrow(select(func.count()).select_from(EVENTS))
        with self._reading() as connection:
            return int(connection.execute(counted).scalar_one())

    def safe_sequence(self) -> int:
        with self._reading() as connection:
            connection.begin()
            return self.database.backend.frontier(connection)

    def mark_stable(self, frontier: int) -> None:
        """Note a frontier for those who only have SQL (the view `stabilize_v_events_stable`)."""
        if not self.database.backend.fences_events or frontier <= self._marked:
            return
        with self.database.writing() as connection:
            connection.execute(
                update(EventFence)
                .where(EventFence.id == 2, EventFence.value < frontier)
                .values(value=frontier, updated_at=self.database.now())
            )
        self._marked = frontier

    def _read(self, query: object) -> list[Event]:
        with self._reading() as connection:
            rows = connection.execute(query).all()  # type: ignore[call-overload]
        return [event_of(row) for row in rows]

    # --- around it --------------------------------------------------------------------------

    def _require_tables(self) -> None:
        if self._checked:
            return
        if not inspect(self.database.engine).has_table(EVENTS.name, schema=self._schema):
            raise SchemaError(
                f"{self.database!r} has no stabilize_events: run `alembic upgrade head` or "
                "stabilize.migrate.upgrade(url), or pass create_tables=True in development"
            )
        self._checked = True

    def close(self) -> None:
        self.database.close()


def _in_schema(target: str | URL | Engine | Database, schema: str) -> Database:
    shared = Database.at(target)
    engine = shared.engine.execution_options(schema_translate_map={None: schema})
    own = Database(engine, backend_for(engine.dialect.name)(), owned=False)
    own.identity = f"{shared.identity}#{schema}"
    return own


class SqliteEventStore(SqlEventStore):
    """Events in SQLite, from a URL (`sqlite:///events.db`) or an engine."""

    def __init__(
        self, connection_string: str | URL | Engine | Database, create_tables: bool = True
    ) -> None:
        super().__init__(connection_string, create_tables)


class PostgresEventStore(SqlEventStore):
    """Events in PostgreSQL, from a URL or an engine; run the migrations first."""


class MySQLEventStore(SqlEventStore):
    """Events in MariaDB or MySQL, from a URL or an engine; run the migrations first."""


class InMemoryEventStore(SqlEventStore):
    """Events in memory, for tests: gone with the store."""

    def __init__(self) -> None:
        name = f"file:/stabilize-events-{new_id()}?vfs=memdb"
        super().__init__(f"sqlite:///{name}&uri=true", create_tables=True)
