"""SQLite databases for one test each: a file, or a name in this process's memory."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, StaticPool, create_engine

from tests.support.admin import PREFIX


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
