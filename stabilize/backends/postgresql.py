"""PostgreSQL, through psycopg 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Connection, Engine, cast, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from stabilize.backends.base import Backend, register_backend
from stabilize.models.base import schema_of

_TROUBLE_CLASSES = ("08", "40", "53", "55", "57", "58")

_LOWEST_FENCE = text(
    """SELECT min(((classid::bigint & 65535) << 32) | objid::bigint) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1
      AND (classid::bigint >> 16) = (CAST(CAST(:events AS regclass) AS oid)::bigint & 32767)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
)
"""The writers of events hold shared advisory locks whose keys tell their bounds."""


_ORDER = text(
    "SELECT pg_advisory_xact_lock("
    "(CAST(CAST(:events AS regclass) AS oid)::bigint & 2147483647)::int, 0)"
)
"""Two small keys make another lock than one large key: this is none of the fences."""
_MAINTENANCE = text("SELECT set_config('stabilize.event_maintenance', :on, true)")
_NOTIFY = text("SELECT pg_notify(:channel, :sender)")


@register_backend
class PostgresBackend(Backend):
    """Row locks with SKIP LOCKED, wake-ups by LISTEN and NOTIFY."""

    dialects: ClassVar[tuple[str, ...]] = ("postgresql",)
    can_notify: ClassVar[bool] = True
    fences_events: ClassVar[bool] = True

    @classmethod
    def url(cls, text: str | URL) -> URL:
        url = make_url(
            str(text).replace("postgres://", "postgresql://", 1) if isinstance(text, str) else text
        )
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

    def cut(self, engine: Engine, connection: Any) -> None:
        with engine.connect() as other:
            other.execute(select(func.pg_terminate_backend(connection.info.backend_pid)))

    def now(self) -> ColumnElement[int]:
        # statement_timestamp, not clock_timestamp: a volatile one would keep the index unused
        return cast(func.extract("epoch", func.statement_timestamp()) * 1000, BigInteger)

    def frontier(self, connection: Connection, known: int = 0) -> int:
        """The last number, or the lowest bound that an open writer has announced.

        In this order: a number seen by the first statement was drawn under a fence, which is
        either still held at the second, or its event is visible to whatever reads after that.
        """
        last = super().frontier(connection)
        if last == known:
            return last
        lowest = connection.execute(_LOWEST_FENCE, {"events": _events(connection)}).scalar()
        return last if lowest is None else min(last, int(lowest))

    def order_events(self, connection: Connection) -> None:
        connection.execute(_ORDER, {"events": _events(connection)})

    @contextmanager
    def maintaining_events(self, connection: Connection) -> Iterator[None]:
        connection.execute(_MAINTENANCE, {"on": "on"})
        yield
        connection.execute(_MAINTENANCE, {"on": ""})

    def notify(self, engine: Engine, channel: str, sender: str) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_NOTIFY, {"channel": channel, "sender": sender})

    def listen(
        self,
        engine: Engine,
        channel: str,
        on_wake: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _listen(connection, channel, on_wake, stopped)


def _events(connection: Connection) -> str:
    schema = schema_of(connection)
    return f'"{schema}".stabilize_events' if schema else "stabilize_events"


def _listen(
    connection: Connection,
    channel: str,
    on_wake: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    raw: Any = connection.connection.driver_connection
    if not hasattr(raw, "notifies"):  # another driver than psycopg: polling does it
        return
    connection.exec_driver_sql(f'LISTEN "{channel}"')
    while not stopped():
        for notification in raw.notifies(timeout=0.5, stop_after=1):
            on_wake(notification.payload)
    connection.exec_driver_sql(f'UNLISTEN "{channel}"')
