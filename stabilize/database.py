"""A database as the library sees it: one per database in a process, or on the user's engine."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Insert,
    Table,
    column,
    insert,
    inspect,
    literal,
    select,
    table,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from stabilize.backends import Backend, backend_for, rolled_back_on_error
from stabilize.backends.base import pause_within
from stabilize.clock import Clock, new_id
from stabilize.errors import ConcurrencyError, ConfigurationError, SchemaError
from stabilize.joining import after_commit
from stabilize.models import metadata
from stabilize.models.base import REVISION, VERSION_TABLE, schema_of

Joinable = Session | Connection
"""What a verb can join: the caller's own session or connection."""

T = TypeVar("T")
logger = logging.getLogger(__name__)

WAKE_CHANNEL = "stabilize"
_NOTIFY_SECONDS = 0.02
_VERB_PATIENCE = 10.0
_registry: weakref.WeakValueDictionary[str, Database] = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_left_to_the_parent: list[object] = []


def _leave_connections() -> None:
    """A forked child must not speak on its parent's connections, nor say goodbye on them."""
    global _registry_lock
    _registry_lock = threading.Lock()
    for engine in tuple(_engines):
        _left_to_the_parent.append(engine.pool)  # collected, it would close what is not ours
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_connections)


class Database:
    """Engine, backend and clock of one database, and who wants to be woken by its commits.

    Get one with `Database.at(url_or_engine)`: two on the same database share one object.
    """

    def __init__(self, engine: Engine, backend: Backend, *, owned: bool) -> None:
        self.engine = engine
        _engines.add(engine)
        self.backend = backend
        self.owned = owned
        self.clock: Clock | None = None
        self.turns = engine.execution_options(**backend.turn_options)
        self.polls = engine.execution_options(**backend.poll_options)
        self.desks: dict[str, Any] = {}
        """Where this process takes new workflows, by the name of the queue."""
        self._listeners: list[Callable[[], None]] = []
        self._anchor: Connection | None = None
        self._schema_checked = False
        self._notified = 0.0
        self.token = new_id()
        """Who sends the wake-ups of this process."""
        self.others = False
        """Other processes are known to be at work on this database."""
        if backend.in_memory and owned:
            self._anchor = engine.connect()
            weakref.finalize(self, _let_go, self._anchor, engine)

    @classmethod
    def at(cls, target: str | URL | Engine | Database) -> Database:
        """Return the database behind a URL or an engine, the same object for the same database."""
        if isinstance(target, Database):
            return target
        if isinstance(target, Engine):
            kind = backend_for(target.dialect.name)
            kind.check_engine(target)
            return cls._shared(kind, lambda: target, kind.identity(target), owned=False)
        text = str(target).replace("postgres://", "postgresql://", 1)
        try:
            kind = backend_for(make_url(text).get_backend_name())
        except ArgumentError as error:
            raise ConfigurationError(
                "that is no database URL (it is not shown here, for it may hold a password): write "
                "it as sqlite:///file.db or postgresql://user:password@host/name"
            ) from error
        url = kind.url(text if isinstance(target, str) else target)
        try:
            engine = kind.create_engine(url)  # lazy: no connection is made here
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the driver {error.name!r} of {url.drivername} is not installed: "
                "pip install 'stabilize[all]'"
            ) from error
        return cls._shared(kind, lambda: engine, kind.identity(engine), owned=True)

    @classmethod
    def _shared(
        cls, kind: type[Backend], engine: Callable[[], Engine], identity: str, *, owned: bool
    ) -> Database:
        with _registry_lock:
            found = _registry.get(identity)
            if found is None or (not owned and found.engine is not engine()):
                found = cls(engine(), kind.of(identity), owned=owned)
                found.identity = identity
                _registry[identity] = found
            return found

    identity: str = ""

    def __repr__(self) -> str:
        return f"Database({self.engine.url.render_as_string(hide_password=True)})"

    # --- time -------------------------------------------------------------------------------

    def now(self) -> ColumnElement[int]:
        """The time by which messages are due: the database's, or that of a test clock."""
        if self.clock is not None:
            return literal(self.clock.now_ms(), BigInteger)
        return self.backend.now()

    # --- schema -----------------------------------------------------------------------------

    def create_tables(self) -> None:
        """Create what is missing; for development and tests (`stabilize.migrate` elsewhere)."""
        with self.writing() as connection:
            metadata.create_all(connection)

    def has_tables(self, connection: Connection | None = None) -> bool:
        target = connection or self.engine
        return inspect(target).has_table("stabilize_workflows", schema=schema_of(target))

    def require_tables(self, connection: Connection | None = None) -> None:
        """Raise `SchemaError` with the remedy when the tables are missing.

        Whoever is in a transaction gives its connection: SQLite in memory has no readers beside a
        writer.
        """
        if self._schema_checked:
            return
        if not self.has_tables(connection):
            raise SchemaError(
                f"{self!r} has no stabilize tables: run stabilize.migrate.upgrade(url), "
                "`alembic upgrade head`, or pass create_tables=True in development"
            )
        self._refuse_newer(connection or self.engine)
        self._schema_checked = True

    def _refuse_newer(self, target: Connection | Engine) -> None:
        """Two neighbouring versions of the code run on one schema; beyond that nothing is sure."""
        schema = schema_of(target)
        if not inspect(target).has_table(VERSION_TABLE, schema=schema):
            return  # made by create_tables
        versions = table(VERSION_TABLE, column("version_num"), schema=schema)
        with nullcontext(target) if isinstance(target, Connection) else target.connect() as asked:
            found = asked.execute(select(versions.c.version_num)).scalar()
        if found is not None and str(found).isdigit() and int(found) > REVISION + 1:
            raise SchemaError(
                f"{self!r} is at migration {found}, this version of stabilize knows up to "
                f"{REVISION:04d}: install a newer stabilize"
            )

    # --- transactions -----------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A short session that only reads."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(
        self, join: Joinable | None = None, *, brings_work: bool = True
    ) -> Iterator[Connection]:
        """A connection in a transaction that writes: the caller's, or one of its own.

        One of its own is committed at the end, and if it `brings_work`, workers are woken. A joined
        one is left to the caller, and the waking to the caller's commit.
        """
        if join is not None:
            yield self._joined(join)
            return
        try:
            with self._own() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error
        if brings_work:
            self.wake_all()

    @contextmanager
    def _own(self) -> Iterator[Connection]:
        with self.turns.connect() as connection, rolled_back_on_error(connection):
            self.backend.begin(connection, time.monotonic() + _VERB_PATIENCE)
            yield connection
            connection.commit()

    def _explained(self, error: DBAPIError) -> Exception:
        if not self.backend.is_trouble(error) or error.connection_invalidated:
            return error
        return ConcurrencyError(
            f"{self!r} stayed locked for {_VERB_PATIENCE:.0f} s. If this thread has an open "
            "transaction of its own on it, pass that as session=",
            cause=error,
        )

    def transact(
        self,
        work: Callable[[Connection], T],
        join: Joinable | None = None,
        *,
        brings_work: bool = True,
    ) -> T:
        """Do `work` in a transaction: the caller's, or one of its own.

        One of its own is tried again when the database is in trouble (a deadlock, a lost
        connection), for a bounded time; and once when somebody else has inserted the same.
        """
        if join is not None:
            return work(self._joined(join))

        def attempt() -> T:
            with self._own() as connection:
                return work(connection)

        try:
            done = self.retrying(attempt)
        except IntegrityError:
            done = self.retrying(attempt)
        if brings_work:
            self.wake_all()
        return done

    def _joined(self, join: Joinable) -> Connection:
        connection = join.connection() if isinstance(join, Session) else join
        kind = backend_for(connection.dialect.name)
        if kind.identity(connection.engine) != self.identity:
            raise ConfigurationError(
                f"session= is on {connection.engine.url!r}, this object is on {self!r}: "
                "give both the same engine"
            )
        if isinstance(join, Session):
            after_commit(join, self.wake_all)
        return connection

    def retrying(self, work: Callable[[], T], *, patience: float = _VERB_PATIENCE) -> T:
        """Call `work` again while the database itself is in trouble, up to `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return work()
            except DBAPIError as error:
                if not self.backend.is_trouble(error):
                    raise
                if time.monotonic() >= deadline:
                    raise self._explained(error) from error
            pause_within(0.05)

    # --- waking -----------------------------------------------------------------------------

    def on_wake(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after each commit of this process that may bring work."""
        self._listeners.append(listener)

    def off_wake(self, listener: Callable[[], None]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def wake(self) -> None:
        """Wake the workers of this process."""
        for listener in tuple(self._listeners):
            listener()

    def wake_all(self) -> None:
        """Wake the workers of this process, and those of others where the database can do that.

        Others are told at most every 20 ms: PostgreSQL commits one notification at a time, and
        polling finds what a burst leaves untold.
        """
        self.wake()
        alone = bool(self._listeners) and not self.others
        if not self.backend.can_notify or alone:
            return
        if time.monotonic() - self._notified > _NOTIFY_SECONDS:
            self._notified = time.monotonic()
            try:
                self.backend.notify(self.engine, WAKE_CHANNEL, self.token)
            except DBAPIError as error:
                logger.debug("other workers could not be woken: %s", error)

    def is_healthy(self) -> bool:
        """Say whether the database answers."""
        try:
            with self.reading() as session:
                session.execute(select(1))
        except DBAPIError:
            return False
        return True

    def close(self) -> None:
        """Give the connections back; an engine of the user's is left alone."""
        if self.owned and self._anchor is None:
            self.engine.dispose()


@cache
def insert_into(table: Table) -> Insert:
    """The bulk insert of a table, built once."""
    return insert(table)


def _let_go(anchor: Connection, engine: Engine) -> None:
    anchor.close()
    engine.dispose()
