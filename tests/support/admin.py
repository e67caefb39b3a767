"""Making and dropping databases on a server that may hold other people's too."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from typing import Final

from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

PREFIX: Final = "stabilize_test"
STALE_SECONDS: Final = 6 * 3600

_NAME = re.compile(rf"{PREFIX}_(?P<made>\d{{9,11}})_[0-9a-f]{{8}}(_\w+)?")
_NAMES = {
    "postgresql": text("SELECT datname FROM pg_database WHERE NOT datistemplate"),
    "mysql": text("SELECT schema_name FROM information_schema.schemata"),
}
_CREATE = {
    "postgresql": "CREATE DATABASE {name}",
    "mysql": "CREATE DATABASE {name} CHARACTER SET utf8mb4",
}
_DROP = {
    "postgresql": "DROP DATABASE IF EXISTS {name} WITH (FORCE)",
    "mysql": "DROP DATABASE IF EXISTS {name}",
}
_MYSQL_SESSIONS = text("SELECT id FROM information_schema.processlist WHERE db = :name")


def is_stale(name: str, now: float) -> bool:
    """Whether a database of this name is left over from a run that was killed hours ago."""
    match = _NAME.fullmatch(name)
    return match is not None and now - int(match["made"]) > STALE_SECONDS


def kind_of(url: str) -> str:
    """`postgresql`, or `mysql` for that and MariaDB."""
    name = make_url(url).get_backend_name()
    return "mysql" if name == "mariadb" else name


def url_text(url: URL) -> str:
    """The URL as text that connects: with its password, unlike `str(url)`."""
    return url.render_as_string(hide_password=False)


class Admin:
    """The right to make and drop databases on the server at `url`."""

    def __init__(self, url: str) -> None:
        self.kind = kind_of(url)
        self._url = make_url(url)
        self._engine = create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            connect_args={"connect_timeout": 10},
        )

    def check(self) -> None:
        """Ask the server for an answer; raises the driver's error if there is none."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def names(self) -> list[str]:
        """The databases of this server."""
        with self._engine.connect() as connection:
            return list(connection.scalars(_NAMES[self.kind]))

    def create(self, name: str) -> str:
        """Make an empty database and return its URL, password included."""
        with self._engine.connect() as connection:
            self._run(connection, _CREATE, name)
        return url_text(self._url.set(database=name))

    def drop(self, names: Iterable[str]) -> None:
        """Drop databases, whoever is still connected to them."""
        with self._engine.connect() as connection:
            for name in names:
                if self.kind == "mysql":
                    self._end_mysql_sessions(connection, name)
                self._run(connection, _DROP, name)

    def drop_stale(self) -> None:
        """Drop what runs that were killed hours ago left behind."""
        now = time.time()
        self.drop([name for name in self.names() if is_stale(name, now)])

    def drop_run(self, run: str) -> None:
        """Drop every database of one run."""
        self.drop([name for name in self.names() if name.startswith(f"{run}_")])

    def _run(self, connection: Connection, statements: dict[str, str], name: str) -> None:
        quoted = self._engine.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(statements[self.kind].format(name=quoted))

    @staticmethod
    def _end_mysql_sessions(connection: Connection, name: str) -> None:
        """Unlike PostgreSQL's FORCE, a drop waits here for every open transaction."""
        for session in connection.scalars(_MYSQL_SESSIONS, {"name": name}).all():
            with contextlib.suppress(DBAPIError):  # it may just have ended by itself
                connection.exec_driver_sql(f"KILL {int(session)}")
