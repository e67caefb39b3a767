"""MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Connection, Engine, create_engine, func, literal_column, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from stabilize.backends.base import Backend, register_backend
from stabilize.models import EventFence

_TROUBLE_CODES = {
    1020,  # record changed since last read
    1021,  # disk full
    1040,  # too many connections
    1053,  # server shutdown in progress
    1180,  # error during commit
    1205,  # lock wait timeout
    1213,  # deadlock
    1317,  # query interrupted
    1927,  # connection was killed
    2002,
    2003,
    2006,
    2013,
    2055,
}


@register_backend
class MySQLBackend(Backend):
    """InnoDB under READ COMMITTED: its default REPEATABLE READ loses joins."""

    dialects: ClassVar[tuple[str, ...]] = ("mysql", "mariadb")
    fences_events: ClassVar[bool] = True

    @classmethod
    def url(cls, text: str | URL) -> URL:
        url = make_url(text)
        if url.drivername in ("mysql", "mariadb"):
            url = url.set(drivername=f"{url.drivername}+pymysql")
        if "charset" not in url.query:
            url = url.update_query_dict({"charset": "utf8mb4"})
        return url

    @classmethod
    def create_engine(cls, url: URL) -> Engine:
        return create_engine(
            url, pool_pre_ping=True, pool_recycle=1800, isolation_level="READ COMMITTED"
        )

    def is_trouble(self, error: BaseException) -> bool:
        if super().is_trouble(error):
            return True
        if not isinstance(error, DBAPIError) or error.orig is None:
            return False
        code = error.orig.args[0] if error.orig.args else 0
        return code in _TROUBLE_CODES or (
            code == 0 and type(error.orig).__name__ in ("InterfaceError", "OperationalError")
        )

    def cut(self, engine: Engine, connection: Any) -> None:
        with engine.connect() as other:
            other.exec_driver_sql(f"KILL {int(connection.thread_id())}")

    def now(self) -> ColumnElement[int]:
        # not unix_timestamp(now()): an hour of local time comes twice a year
        epoch: ColumnElement[str] = literal_column("'1970-01-01'")
        unit: ColumnElement[str] = literal_column("microsecond")
        micros = func.timestampdiff(unit, epoch, func.utc_timestamp(literal_column("3")))
        return func.floor(micros / 1000, type_=BigInteger)

    def frontier(self, connection: Connection, known: int = 0) -> int:
        """Get the fence to ourselves for a moment: whoever holds a number has ended by then.

        Writers wait for that, so it is not done for nothing.
        """
        if super().frontier(connection) == known:
            return known
        self.order_events(connection)
        return super().frontier(connection)

    def order_events(self, connection: Connection) -> None:
        connection.execute(select(EventFence.id).where(EventFence.id == 1).with_for_update())

    @contextmanager
    def maintaining_events(self, connection: Connection) -> Iterator[None]:
        connection.exec_driver_sql("SET @stabilize_event_maintenance = 1")
        try:
            yield
        finally:  # it belongs to the connection, not to the transaction
            connection.exec_driver_sql("SET @stabilize_event_maintenance = 0")

    def take_hint(self) -> tuple[str, str] | None:
        # a sort would lock every due message before LIMIT; the index in order locks what it takes
        return ("FORCE INDEX (ix_stabilize_messages_queue_priority_id_visible_at)", "mysql")
