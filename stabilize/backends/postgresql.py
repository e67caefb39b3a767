"""PostgreSQL, through psycopg 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from sqlalchemy import BigInteger, Connection, Engine, cast, func, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from stabilize.backends.base import Backend, register_backend

_TROUBLE_CLASSES = ("08", "40", "53", "55", "57", "58")


@register_backend
class PostgresBackend(Backend):
    """Row locks with SKIP LOCKED, wake-ups by LISTEN and NOTIFY."""

    dialects: ClassVar[tuple[str, ...]] = ("postgresql",)
    can_notify: ClassVar[bool] = True

    @classmethod
    def url(cls, text: str | URL) -> URL:
        url = make_url(str(text).replace("postgres://", "postgresql://", 1) if isinstance(
            text, str) else text)
        if url.drivername == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        return url

    def is_trouble(self, error: BaseException) -> bool:
        if super().is_trouble(error):
            return True
        if not isinstance(error, DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # the connection failed before the server could say anything
            return type(error.orig).__name__ in ("OperationalError", "InterfaceError")
        return str(state)[:2] in _TROUBLE_CLASSES

    def now(self) -> ColumnElement[int]:
        # statement_timestamp, not clock_timestamp: a volatile one would keep the index unused
        return cast(func.extract("epoch", func.statement_timestamp()) * 1000, BigInteger)

    def notify(self, engine: Engine, channel: str) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})

    def listen(
        self, engine: Engine, channel: str, on_wake: Callable[[], None], stopped: Callable[[], bool]
    ) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _listen(connection, channel, on_wake, stopped)


def _listen(
    connection: Connection, channel: str, on_wake: Callable[[], None], stopped: Callable[[], bool]
) -> None:
    raw = connection.connection.driver_connection
    if not hasattr(raw, "notifies"):  # another driver than psycopg: polling does it
        return
    connection.exec_driver_sql(f'LISTEN "{channel}"')
    while not stopped():
        for _ in raw.notifies(timeout=0.5, stop_after=1):
            on_wake()
    connection.exec_driver_sql(f'UNLISTEN "{channel}"')
