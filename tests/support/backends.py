"""A database for one test: lent with our tables and no rows, or brand-new and empty."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    StaticPool,
    create_engine,
    event,
    exists,
    literal,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from tests.support.admin import PREFIX, Admin
from tests.support.run import Run


@dataclass(frozen=True, kw_only=True)
class Trait:
    """What a test may know of a backend without asking for its name."""

    kind: str
    capabilities: frozenset[str]


BACKENDS: Final = {
    "sqlite-file": Trait(kind="sqlite", capabilities=frozenset({"multi_process"})),
    "sqlite-memory": Trait(kind="sqlite", capabilities=frozenset()),
    "postgresql": Trait(
        kind="postgresql",
        capabilities=frozenset({"server", "multi_process", "notify", "skip_locked", "schemas"}),
    ),
    "mariadb": Trait(
        kind="mysql", capabilities=frozenset({"server", "multi_process", "skip_locked"})
    ),
}


@dataclass(kw_only=True)
class BackendUnderTest:
    """A database a test has to itself."""

    name: str
    kind: str
    url: str = field(repr=False)  # with its password
    capabilities: frozenset[str]
    _engines: list[Engine] = field(default_factory=list, init=False, repr=False)

    def engine(self, **options: Any) -> Engine:
        """A new engine, as an application would make it; disposed of after the test."""
        engine = create_engine(self.url, **options)
        self._engines.append(engine)
        return engine

    def dispose(self) -> None:
        """Close what `engine` has opened."""
        for engine in self._engines:
            engine.dispose()


class Source(Protocol):
    """Makes databases of one backend; yields their URLs."""

    def with_tables(self) -> AbstractContextManager[str]: ...
    def empty(self) -> AbstractContextManager[str]: ...
    def close(self) -> None: ...


class Databases:
    """Lends databases to the tests of one process; a backend costs nothing until it is used."""

    def __init__(self, run: Run, metadata: MetaData, folder: Path) -> None:
        self._run = run
        self._metadata = metadata
        self._folder = folder
        self._sources: dict[str, Source] = {}

    @contextlib.contextmanager
    def lend(self, name: str, *, empty: bool = False) -> Iterator[BackendUnderTest]:
        """Lend a database of the backend `name`; what was done to it is undone afterwards."""
        trait = BACKENDS[name]
        source = self._source(name, trait.kind)
        with source.empty() if empty else source.with_tables() as url:
            backend = BackendUnderTest(
                name=name, kind=trait.kind, url=url, capabilities=trait.capabilities
            )
            try:
                yield backend
            finally:
                backend.dispose()

    def close(self) -> None:
        """Drop what is left."""
        for source in self._sources.values():
            source.close()

    def _source(self, name: str, kind: str) -> Source:
        if name not in self._sources:
            self._sources[name] = self._make_source(name, kind)
        return self._sources[name]

    def _make_source(self, name: str, kind: str) -> Source:
        if name == "sqlite-file":
            return SqliteFiles(self._metadata, self._folder)
        if name == "sqlite-memory":
            return SqliteMemories(self._metadata)
        return ServerDatabases(self._run, kind, self._metadata)


class SqliteFiles:
    """Copies of one file that has the tables."""

    def __init__(self, metadata: MetaData, folder: Path) -> None:
        self._template = SqliteTemplate(metadata)
        self._folder = folder
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def with_tables(self) -> Iterator[str]:
        with self._path() as path:
            with contextlib.closing(sqlite3.connect(path)) as copy:
                self._template.copy_to(copy)
            yield f"sqlite:///{path}"

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        with self._path() as path:
            yield f"sqlite:///{path}"

    def close(self) -> None:
        self._template.close()

    @contextlib.contextmanager
    def _path(self) -> Iterator[Path]:
        path = self._folder / f"{next(self._numbers)}.db"
        try:
            yield path
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


class SqliteMemories:
    """Named databases in memory, each alive as long as its anchor connection."""

    def __init__(self, metadata: MetaData) -> None:
        self._template = SqliteTemplate(metadata)

    @contextlib.contextmanager
    def with_tables(self) -> Iterator[str]:
        with self._anchored() as (anchor, url):
            self._template.copy_to(anchor)
            yield url

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        with self._anchored() as (_, url):
            yield url

    def close(self) -> None:
        self._template.close()

    @contextlib.contextmanager
    def _anchored(self) -> Iterator[tuple[sqlite3.Connection, str]]:
        # The slash makes the name one for all connections of the process. It is never used again,
        # or a connection that a test forgot to close would be another test's.
        name = f"file:/{PREFIX}_{secrets.token_hex(8)}?vfs=memdb"
        with contextlib.closing(sqlite3.connect(name, uri=True)) as anchor:
            yield anchor, f"sqlite:///{name}&uri=true"


class SqliteTemplate:
    """The tables, made once, to be copied page by page."""

    def __init__(self, metadata: MetaData) -> None:
        self._engine = create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self._engine)

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Make `target` a copy."""
        pooled = self._engine.raw_connection()
        try:
            template: Any = pooled.driver_connection
            template.backup(target, progress=_refuse_to_wait)
        finally:
            pooled.close()

    def close(self) -> None:
        self._engine.dispose()


def _refuse_to_wait(status: int, remaining: int, total: int) -> None:
    """A copy onto a locked database would be tried again for ever, deaf to signals."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise RuntimeError("the copy of a test database is locked before the test has begun")


_TABLES: Final = {
    "postgresql": text(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_catalog.pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ),
    "mysql": text(
        "SELECT concat('`', table_name, '`') FROM information_schema.tables"
        " WHERE table_schema = database() AND table_type = 'BASE TABLE'"
    ),
}
_HOME: Final = {"postgresql": "public.", "mysql": "`"}
# Sessions of this database that a test left in the middle of a transaction.
_OPEN_TRANSACTIONS: Final = {
    "postgresql": text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    ),
    "mysql": text(
        "SELECT session.id FROM information_schema.innodb_trx AS open"
        " JOIN information_schema.processlist AS session ON session.id = open.trx_mysql_thread_id"
        " WHERE session.db = database() AND session.id <> connection_id()"
    ),
}
_END_SESSION: Final = {"postgresql": "SELECT pg_terminate_backend({id})", "mysql": "KILL {id}"}
# A lock that a test left must not hold the next one up, and a deletion need not reach the disk.
_SESSION: Final = {
    "postgresql": "SET lock_timeout = '2s'; SET synchronous_commit = off",
    "mysql": "SET SESSION lock_wait_timeout = 2, innodb_lock_wait_timeout = 2,"
    " foreign_key_checks = 0",
}


class ServerDatabases:
    """One database with the tables for the tests of this process, emptied after each."""

    def __init__(self, run: Run, kind: str, metadata: MetaData) -> None:
        self._admin = Admin(run.server(kind).url)
        self._kind = kind
        self._prefix = f"{run.name}_{run.worker}"
        self._numbers = itertools.count(1)
        self._metadata = metadata
        self._tables = metadata.sorted_tables
        self._filled = select(
            *(
                exists(select(literal(1)).select_from(table)).label(table.name)
                for table in self._tables
            )
        )
        self._name = f"{self._prefix}_0"
        self._engine: Engine | None = None
        self._url = ""
        self._names: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def with_tables(self) -> Iterator[str]:
        if self._engine is None:
            self._engine = self._make()
        try:
            yield self._url
        finally:
            if not self._is_clean_again(self._engine):
                self._drop()

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        name = f"{self._prefix}_{next(self._numbers)}"
        try:
            yield self._admin.create(name)
        finally:
            self._admin.drop([name])

    def close(self) -> None:
        self._drop()

    def _make(self) -> Engine:
        self._url = self._admin.create(self._name)
        engine = create_engine(self._url, pool_size=1, max_overflow=0, pool_pre_ping=True)
        event.listen(engine, "connect", self._prepare_session)
        self._metadata.create_all(engine)
        with engine.connect() as connection:
            self._names = self._table_names(connection)
        return engine

    def _drop(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._admin.drop([self._name])
            self._engine = None

    def _is_clean_again(self, engine: Engine) -> bool:
        """Delete the rows and the test's own tables; no if that failed or if it took some of ours.

        Whoever is still in a transaction is cut off: a lock or a late commit of one test would be
        another one's riddle.
        """
        try:
            with engine.begin() as connection:
                for session in connection.scalars(_OPEN_TRANSACTIONS[self._kind]).all():
                    connection.exec_driver_sql(_END_SESSION[self._kind].format(id=session))
                names = self._table_names(connection)
                foreign = sorted(names - self._names)
                if not names >= self._names or not _are_at_home(foreign, self._kind):
                    return False
                if foreign:
                    connection.exec_driver_sql(f"DROP TABLE {', '.join(foreign)} CASCADE")
                filled = connection.execute(self._filled).one()._mapping
                for table in reversed(self._tables):
                    if filled[table.name]:
                        connection.execute(table.delete())
        except DBAPIError:
            return False
        return True

    def _table_names(self, connection: Connection) -> frozenset[str]:
        return frozenset(connection.scalars(_TABLES[self._kind]))

    def _prepare_session(self, driver_connection: Any, _record: object) -> None:
        with contextlib.closing(driver_connection.cursor()) as cursor:
            cursor.execute(_SESSION[self._kind])
        driver_connection.commit()


def _are_at_home(tables: list[str], kind: str) -> bool:
    """Whether tables are all where ours are, and not in a schema that would be left behind."""
    return all(table.startswith(_HOME[kind]) for table in tables)
