"""One pytest run: its name, the servers it has found, and what has to go when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self

from tests.support.admin import PREFIX, Admin
from tests.support.servers import KINDS, Server, Unavailable, Unreachable, find_server

_REQUIRE: Final = "STABILIZE_REQUIRE"
_PATIENCE_SECONDS: Final = 900
_FOUND: Final = "found"
_SERVERS: Final = "SELECT body FROM servers WHERE outcome = ?"
_ERRORS: Final = {error.__name__: error for error in (Unavailable, Unreachable)}


class Run:
    """What the processes of one pytest run share; the controller of pytest-xdist owns it.

    The registry is an SQLite file: whoever holds its write lock looks for a server while the other
    workers wait for the answer, and the lock of a process that dies is free again.
    """

    def __init__(self, *, name: str, folder: Path, owner: int, worker: str) -> None:
        self.name = name
        self.worker = worker
        self._folder = folder
        self._owner = owner
        self._servers: dict[str, Server] = {}

    @classmethod
    def begin(cls) -> Self:
        """Begin a run in the process that will end it."""
        run = cls(
            name=f"{PREFIX}_{int(time.time())}_{secrets.token_hex(4)}",
            folder=Path(tempfile.mkdtemp(prefix="stabilize-run-")),
            owner=os.getpid(),
            worker="main",
        )
        with run._registry() as registry:
            registry.execute("CREATE TABLE servers (kind PRIMARY KEY, outcome, body)")
        return run

    @classmethod
    def join(cls, ticket: Mapping[str, str], worker: str) -> Self:
        """Take part in the run of another process."""
        return cls(
            name=ticket["name"],
            folder=Path(ticket["folder"]),
            owner=int(ticket["owner"]),
            worker=worker,
        )

    @property
    def ticket(self) -> dict[str, str]:
        """What another process needs to join."""
        return {"name": self.name, "folder": str(self._folder), "owner": str(self._owner)}

    def server(self, kind: str) -> Server:
        """The run's server of this kind, found or started by the first process that asks."""
        if kind not in self._servers:
            with self._registry() as registry:
                outcome, body = _look_up(registry, kind) or self._find(registry, kind)
            if outcome in _ERRORS:
                raise _ERRORS[outcome](body)
            self._servers[kind] = Server(**json.loads(body))
        return self._servers[kind]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers from starting a server meanwhile."""
        with self._registry():
            yield

    def end(self) -> None:
        """Drop the run's databases, end the servers it started. For its owner, when all is over."""
        try:
            with self._registry() as registry:
                for (body,) in registry.execute(_SERVERS, (_FOUND,)):
                    server = Server(**json.loads(body))
                    Admin(server.url).drop_run(self.name)
                    server.close()
        finally:
            self.forget()

    def forget(self) -> None:
        """Remove the registry."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _find(self, registry: sqlite3.Connection, kind: str) -> tuple[str, str]:
        try:
            outcome, body = _FOUND, json.dumps(asdict(find_server(kind, self._owner)))
        except (Unavailable, Unreachable) as error:
            outcome, body = type(error).__name__, str(error)
        registry.execute("INSERT INTO servers VALUES (?, ?, ?)", (kind, outcome, body))
        return outcome, body

    @contextlib.contextmanager
    def _registry(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(
            self._folder / "servers.db", timeout=_PATIENCE_SECONDS, isolation_level=None
        )
        with contextlib.closing(connection):
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


def required_kinds() -> frozenset[str]:
    """The servers whose absence is a failure here, not a reason to skip."""
    words = os.environ.get(_REQUIRE, "").replace(",", " ").split()
    kinds = frozenset("mysql" if word == "mariadb" else word for word in words)
    if unknown := sorted(kinds - set(KINDS)):
        raise ValueError(f"{_REQUIRE} names {', '.join(unknown)}; it knows {', '.join(KINDS)}")
    return kinds


def _look_up(registry: sqlite3.Connection, kind: str) -> tuple[str, str] | None:
    row = registry.execute("SELECT outcome, body FROM servers WHERE kind = ?", (kind,)).fetchone()
    return (row[0], row[1]) if row else None
