"""A database for one test: lent with our tables and no rows, or brand-new and empty."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Engine, MetaData, create_engine

from tests.support.run import Run
from tests.support.server_databases import ServerDatabases
from tests.support.sqlite_databases import SqliteFiles, SqliteMemories


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
