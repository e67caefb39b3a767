"""SQLite, in a file or in memory."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    QueuePool,
    create_engine,
    delete,
    event,
    insert,
    literal_column,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.sql import ColumnElement

from stabilize.backends.base import Backend, pause_within, register_backend
from stabilize.errors import ConfigurationError
from stabilize.models import EventFence

_TROUBLE = ("locked", "busy", "disk i/o", "disk is full", "unable to open", "interrupted")
_BUSY_TIMEOUT_MS = 5_000
_CUT_SECONDS = 1.0
_MEMORY = "file:/stabilize-shared?vfs=memdb"
_MEMORY_IDENTITY = "sqlite-memory:"


@register_backend
class SqliteBackend(Backend):
    """One writer at a time: a turn is BEGIN IMMEDIATE, on a file in WAL mode with full sync."""

    dialects: ClassVar[tuple[str, ...]] = ("sqlite",)
    needs_savepoints: ClassVar[bool] = False
    turn_options: ClassVar[dict[str, Any]] = {"stabilize_begin": None}
    poll_options: ClassVar[dict[str, Any]] = {"stabilize_begin": None}

    def __init__(self, in_memory: bool = False) -> None:
        self.in_memory = in_memory

    @classmethod
    def url(cls, text: str | URL) -> URL:
        """`sqlite:///:memory:` becomes one database that all threads of this process see."""
        url = make_url(text)
        if url.database in (None, "", ":memory:"):
            return url.set(database=_MEMORY, query={"uri": "true"})
        return url

    @classmethod
    def create_engine(cls, url: URL) -> Engine:
        memory = _is_memory(url)
        if not memory and url.database:
            _create_private(url.database)
        engine = create_engine(url, poolclass=QueuePool, pool_size=8, max_overflow=64)
        event.listen(engine, "connect", _own_connection if not memory else _memory_connection)
        event.listen(engine, "begin", _begin_deferred)
        return engine

    @classmethod
    def of(cls, identity: str) -> Self:
        return cls(in_memory=identity.startswith(_MEMORY_IDENTITY))

    @classmethod
    def check_engine(cls, engine: Engine) -> None:
        if isinstance(engine.pool, (SingletonThreadPool, StaticPool)):
            raise ConfigurationError(
                f"the engine {engine.url!r} keeps an in-memory SQLite database on one connection "
                "per thread (or one for all), which turns and tasks cannot share: give the URL "
                '"sqlite:///:memory:" instead of the engine, or use a file'
            )

    @classmethod
    def identity(cls, engine: Engine) -> str:
        database = engine.url.database or ""
        if _is_memory(engine.url):
            return f"{_MEMORY_IDENTITY}{database}"
        return f"sqlite:{os.path.realpath(database)}"

    def open_turns(self, connection: Connection) -> None:
        raw = _raw(connection)
        raw.execute("PRAGMA foreign_keys=ON")
        if not self.in_memory:
            raw.execute("PRAGMA synchronous=FULL")

    def begin(self, connection: Connection, deadline: float | None = None) -> None:
        """BEGIN IMMEDIATE, tried again at random within 2 ms: a plain busy timeout starves."""
        raw = _raw(connection)
        raw.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    raw.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError as error:
                    late = deadline is not None and time.monotonic() >= deadline
                    if late or not any(word in str(error) for word in _TROUBLE[:2]):
                        raise DBAPIError.instance(
                            "BEGIN IMMEDIATE", (), error, sqlite3.Error
                        ) from error
                    pause_within(0.002)
        finally:
            raw.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        if not connection.in_transaction():
            connection.begin()

    def after_commit(self, others: bool) -> None:
        if others and not self.in_memory:
            time.sleep(0.0005)

    @contextmanager
    def altering(self, connection: Connection) -> Iterator[None]:
        """A table is altered by copying and dropping it, and a drop deletes what refers to it."""
        raw = _raw(connection)
        on = raw.execute("PRAGMA foreign_keys").fetchone()[0]
        raw.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            raw.execute(f"PRAGMA foreign_keys = {int(on)}")

    def cut(self, engine: Engine, connection: Any) -> None:
        """Whoever holds the write lock keeps all others out, also while it runs no statement."""
        try:
            connection.interrupt()
            connection.set_authorizer(_only_rollback)
            _undo(connection, time.monotonic() + _CUT_SECONDS)
        except sqlite3.Error as error:  # a user's engine whose connections stay in their threads
            raise DBAPIError.instance("ROLLBACK", (), error, sqlite3.Error) from error

    def is_trouble(self, error: BaseException) -> bool:
        if super().is_trouble(error):
            return True
        text = str(getattr(error, "orig", None) or "").lower()
        return isinstance(error, DBAPIError) and any(word in text for word in _TROUBLE)

    def now(self) -> ColumnElement[int]:
        return literal_column(
            "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)", Integer
        )

    @contextmanager
    def maintaining_events(self, connection: Connection) -> Iterator[None]:
        connection.execute(insert(EventFence).values(id=3, value=0, updated_at=0))
        yield
        connection.execute(delete(EventFence).where(EventFence.id == 3))


def _is_memory(url: URL) -> bool:
    database = url.database or ""
    return (
        database in ("", ":memory:")
        or "vfs=memdb" in database
        or (url.query.get("vfs") == "memdb" or url.query.get("mode") == "memory")
    )


def _only_rollback(action: int, name: str | None, *_: str | None) -> int:
    is_rollback = (action, name) == (sqlite3.SQLITE_TRANSACTION, "ROLLBACK")
    return sqlite3.SQLITE_OK if is_rollback else sqlite3.SQLITE_DENY


def _undo(connection: sqlite3.Connection, deadline: float) -> None:
    while connection.in_transaction:
        try:
            connection.rollback()
        except (sqlite3.OperationalError, MemoryError):  # the other's statement is still ending
            if time.monotonic() >= deadline:
                raise
            connection.interrupt()
            pause_within(0.002)


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def _own_connection(raw: sqlite3.Connection, record: object) -> None:
    raw.isolation_level = None  # the begin event says BEGIN, not the driver
    raw.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    _write_ahead(raw)
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute("PRAGMA foreign_keys=ON")


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Have the file in WAL mode: who comes first changes it, and the busy timeout does not cover
    those who come meanwhile."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if _TROUBLE[0] not in str(error) or time.monotonic() >= deadline:
                raise
            pause_within(0.005)


def _memory_connection(raw: sqlite3.Connection, record: object) -> None:
    raw.isolation_level = None
    raw.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    raw.execute("PRAGMA foreign_keys=ON")


def _begin_deferred(connection: Connection) -> None:
    how = connection.get_execution_options().get("stabilize_begin", "BEGIN")
    if how:
        connection.exec_driver_sql(how)


def _create_private(path: str) -> None:
    """Make a missing database file readable by its owner alone."""
    if path.startswith("file:") or os.path.exists(path):
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ConfigurationError(
            f"the folder {folder} of the SQLite database {path} does not exist: create it first"
        )
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
