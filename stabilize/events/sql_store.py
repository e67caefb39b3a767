"""The event store that is a table in a SQL database, and another one for what was archived."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, inspect, select, update
from sqlalchemy.engine import URL

from stabilize.backends import backend_for
from stabilize.backends.base import LAST_SEQUENCE
from stabilize.clock import new_id
from stabilize.database import Database, Joinable
from stabilize.errors import ConcurrencyError, SchemaError
from stabilize.events.appending import append_once, events_with
from stabilize.events.base import EntityType, Event
from stabilize.events.query import Appended, EventQuery
from stabilize.events.rows import ARCHIVE, EVENTS, event_of
from stabilize.events.store import PAGE, EventStore
from stabilize.models import EventFence

_VERSION_TRIES = 5
ORDERINGS = ("fenced", "strict")


class SqlEventStore(EventStore):
    """Events in a table of a SQL database: from a URL, or on an engine you have.

    On the database of the engine it is the very table turns write to. `create_tables=True` is for
    development and tests. `schema` puts the tables into a schema of that name.
    `ordering="strict"`: numbers rise in the order of commits, so that SQL of your own may follow
    the table by its highest number; writers then wait for each other. It has to be said in every
    process that writes. On MariaDB and MySQL read what you follow with LOCK IN SHARE MODE.
    """

    def __init__(
        self,
        connection_string: str | URL | Engine | Database,
        create_tables: bool = False,
        *,
        schema: str | None = None,
        ordering: str = "fenced",
    ) -> None:
        if ordering not in ORDERINGS:
            raise ValueError(f"ordering={ordering!r}: it is {' or '.join(ORDERINGS)}")
        self.database = Database.at(connection_string)
        if schema is not None:
            self.database = _in_schema(self.database, schema)
        if create_tables:
            self.database.create_tables()
        self.ordering = ordering
        self._checked = create_tables
        self._schema = schema
        self._safe = self._marked = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r})"

    @property
    def identity(self) -> str | None:
        name = self.database.identity
        return None if name.startswith("sqlite-memory:") else name

    # --- writing ----------------------------------------------------------------------------

    def append_batch(self, events: Sequence[Event], connection: Joinable | None = None) -> Appended:
        if not events:
            return Appended()
        self._require_tables()

        def append(own: Connection) -> Appended:
            self.keep_order(own)
            savepoint = connection is not None and self.database.backend.needs_savepoints
            return Appended(append_once(own, events, savepoint=savepoint))

        tries = 1 if connection is not None or any(e.version for e in events) else _VERSION_TRIES
        while True:
            tries -= 1
            try:
                return self.database.transact(append, connection, brings_work=False)
            except ConcurrencyError:  # another writer took the same version
                if not tries:
                    raise

    def keep_order(self, connection: Connection) -> None:
        """See to it that no event is committed with a lower number after those of `connection`."""
        if self.ordering == "strict":
            self.database.backend.order_events(connection)

    # --- reading ----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._require_tables()
        with self.database.turns.connect() as connection:
            yield connection

    def get_events(self, query: EventQuery) -> Iterator[Event]:
        end = None if query.limit is None else query.offset + query.limit
        return islice(
            self._stream(query, PAGE if end is None else min(PAGE, end)), query.offset, end
        )

    def _stream(self, query: EventQuery, size: int) -> Iterator[Event]:
        """The events of a query, archived or not, without its limit: a page of both at a time.

        The live table is read first: what is archived in between is found twice, never missed.
        """
        last: Event | None = None
        while True:
            pages = [self._page(query, table, last, size) for table in (EVENTS, ARCHIVE)]
            full = [page for page in pages if len(page) == size]
            events: Iterable[Event] = map(event_of, pages[0])
            if pages[1]:
                whole = {event.sequence: event for event in map(event_of, chain(*pages))}
                ends = [whole[page[-1].sequence] for page in full]
                events = query.merged(whole.values(), ends)
            for last in events:
                yield last
            if not full:
                return

    def _page(self, query: EventQuery, table: Table, after: Event | None, size: int) -> Any:
        with self._reading() as connection:
            return connection.execute(query.page(table, after).limit(size)).all()

    def get_events_for_entity(
        self, entity_type: EntityType, entity_id: str, from_version: int = 0
    ) -> list[Event]:
        query = EventQuery(entity_type=entity_type, entity_id=entity_id, limit=None)
        later = (event for event in self.get_events(query) if event.version > from_version)
        return sorted(later, key=lambda event: event.version)

    def get_events_for_workflow(self, workflow_id: str, from_sequence: int = 0) -> list[Event]:
        query = EventQuery(workflow_id=workflow_id, from_sequence=from_sequence, limit=None)
        return list(self.get_events(query))

    def get_current_sequence(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(LAST_SEQUENCE).scalar_one())

    def get_events_since(self, sequence: int, limit: int = PAGE) -> list[Event]:
        frontier = self.safe_sequence()
        if frontier <= sequence:
            return []
        query = EventQuery(from_sequence=sequence, to_sequence=frontier, limit=limit)
        return list(self.get_events(query))

    def get_event_by_id(self, event_id: str) -> Event | None:
        return next(iter(self.get_events_by_ids([event_id])), None)

    def get_events_by_ids(self, event_ids: Collection[str]) -> list[Event]:
        """Those of the events with these ids that are stored, archived or not."""
        with self._reading() as connection:
            return list(events_with(connection, event_ids))

    def count_events(self, query: EventQuery | None = None) -> int:
        asked, count = query or EventQuery(), select(func.count())
        with self._reading() as connection:
            counts = (
                connection.execute(asked.narrow(count.select_from(table), table)).scalar_one()
                for table in (EVENTS, ARCHIVE)
            )
            return sum(counts)

    def safe_sequence(self) -> int:
        with self._reading() as connection:
            connection.begin()
            self._safe = self.database.backend.frontier(connection, self._safe)
        return self._safe

    def mark_stable(self, frontier: int) -> None:
        """Note a frontier for those who only have SQL (the view `stabilize_v_events_stable`)."""
        if not self.database.backend.fences_events or frontier <= self._marked:
            return
        with self.database.writing(brings_work=False) as connection:
            connection.execute(
                update(EventFence)
                .where(EventFence.id == 2, EventFence.value < frontier)
                .values(value=frontier, updated_at=self.database.now())
            )
        self._marked = frontier

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


def _in_schema(shared: Database, schema: str) -> Database:
    engine = shared.engine.execution_options(schema_translate_map={None: schema})
    own = Database(engine, backend_for(engine.dialect.name)(), owned=False)
    own.identity = f"{shared.identity}#{schema}"
    return own


class SqliteEventStore(SqlEventStore):
    """Events in SQLite, from a URL (`sqlite:///events.db`) or an engine."""

    def __init__(
        self,
        connection_string: str | URL | Engine | Database,
        create_tables: bool = True,
        *,
        ordering: str = "fenced",
    ) -> None:
        super().__init__(connection_string, create_tables, ordering=ordering)


class PostgresEventStore(SqlEventStore):
    """Events in PostgreSQL, from a URL or an engine; run the migrations first."""


class MySQLEventStore(SqlEventStore):
    """Events in MariaDB or MySQL, from a URL or an engine; run the migrations first."""


class InMemoryEventStore(SqlEventStore):
    """Events in memory, for tests: gone with the store."""

    def __init__(self) -> None:
        name = f"file:/stabilize-events-{new_id()}?vfs=memdb"
        super().__init__(f"sqlite:///{name}&uri=true", create_tables=True)
