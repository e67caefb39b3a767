"""Databases on a server: one with our tables for all tests of a process, and empty ones."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import (
    Connection,
    MetaData,
    Table,
    create_engine,
    event,
    exists,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from tests.support.admin import Admin
from tests.support.run import Run

_OBJECTS: Final = {
    "postgresql": text(
        "SELECT 'table', quote_ident(schemaname) || '.' || quote_ident(tablename)"
        " FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        " UNION ALL SELECT 'view', viewname"
        " FROM pg_views WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        " UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal"
    ),
    "mysql": text(
        "SELECT if(table_type = 'BASE TABLE', 'table', 'view'), concat('`', table_name, '`')"
        " FROM information_schema.tables WHERE table_schema = database()"
        " UNION ALL SELECT 'trigger', trigger_name"
        " FROM information_schema.triggers WHERE trigger_schema = database()"
    ),
}
_DROPPABLE: Final = {"postgresql": "public.", "mysql": "`"}
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
# A lock that a test left must not hold the next one up, a deletion need not reach the disk, and
# events may be deleted, which the triggers on their table allow to nobody else.
_SESSION: Final = {
    "postgresql": "SET lock_timeout = '2s'; SET synchronous_commit = off;"
    " SET stabilize.event_maintenance = 'on'",
    "mysql": "SET SESSION lock_wait_timeout = 2, innodb_lock_wait_timeout = 2,"
    " foreign_key_checks = 0, @stabilize_event_maintenance = 1",
}


class ServerDatabases:
    """Lends the databases of one server."""

    def __init__(self, run: Run, kind: str, metadata: MetaData) -> None:
        self._admin = Admin(run.server(kind).url)
        self._prefix = f"{run.name}_{run.worker}"
        self._numbers = itertools.count(1)
        self._metadata = metadata
        self._shared: SharedDatabase | None = None

    @contextlib.contextmanager
    def with_tables(self) -> Iterator[str]:
        if self._shared is None:
            self._shared = SharedDatabase(self._admin, f"{self._prefix}_0", self._metadata)
        try:
            yield self._shared.url
        finally:
            if not self._shared.is_clean_again():
                self.close()

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        name = f"{self._prefix}_{next(self._numbers)}"
        try:
            yield self._admin.create(name)
        finally:
            self._admin.drop([name])

    def close(self) -> None:
        if self._shared is not None:
            self._shared.drop()
            self._shared = None


class SharedDatabase:
    """A database that is emptied between tests, since making one takes a hundred times longer."""

    def __init__(self, admin: Admin, name: str, metadata: MetaData) -> None:
        self._admin = admin
        self._name = name
        self._kind = admin.kind
        self._tables = {table.name: table for table in metadata.sorted_tables}
        self._filled = select(
            *(
                exists(select(literal(1)).select_from(table)).label(name)
                for name, table in self._tables.items()
            )
        )
        self.url = admin.create(name)
        self._engine = create_engine(self.url, pool_size=1, max_overflow=0, pool_pre_ping=True)
        event.listen(self._engine, "connect", self._prepare_session)
        metadata.create_all(self._engine)
        with self._engine.connect() as connection:
            self._objects = self._objects_of(connection)
            self._first_rows = {
                name: self._rows_of(connection, self._tables[name])
                for name in self._filled_tables(connection)
            }

    def drop(self) -> None:
        """Drop the database."""
        self._engine.dispose()
        self._admin.drop([self._name])

    def is_clean_again(self) -> bool:
        """Make it what it was; no if that failed, or if the test changed more than it could undo.

        Whoever is still in a transaction is cut off: a lock or a late commit of one test would be
        another one's riddle. Rows that came with the tables stay.
        """
        try:
            with self._engine.begin() as connection:
                self._end_transactions(connection)
                objects = self._objects_of(connection)
                foreign = sorted(objects - self._objects)
                if not objects >= self._objects or not self._are_droppable(foreign):
                    return False
                if foreign:
                    tables = ", ".join(name for _, name in foreign)
                    connection.exec_driver_sql(f"DROP TABLE {tables} CASCADE")
                self._delete_rows(connection)
        except DBAPIError:
            return False
        return True

    def _end_transactions(self, connection: Connection) -> None:
        looks_open = set(connection.scalars(_OPEN_TRANSACTIONS[self._kind]))
        if looks_open and self._kind == "mysql":
            # InnoDB shows its transactions as they were up to 0.1 s ago: who has ended meanwhile
            # must not be killed, for its connection may be at the next test's work
            connection.exec_driver_sql("DO SLEEP(0.11)")
            looks_open &= set(connection.scalars(_OPEN_TRANSACTIONS[self._kind]))
        for session in looks_open:
            connection.exec_driver_sql(_END_SESSION[self._kind].format(id=session))

    def _are_droppable(self, objects: list[tuple[str, str]]) -> bool:
        """Whether these are tables, and none is in a schema that would be left behind."""
        home = _DROPPABLE[self._kind]
        return all(what == "table" and name.startswith(home) for what, name in objects)

    def _delete_rows(self, connection: Connection) -> None:
        filled = self._filled_tables(connection)
        spoilt = {name for name in filled if name not in self._first_rows}
        for name, first in self._first_rows.items():
            if self._rows_of(connection, self._tables[name]) != first:
                spoilt.add(name)
        for name, table in reversed(self._tables.items()):
            if name in spoilt:
                connection.execute(table.delete())
        for name, table in self._tables.items():
            if name in spoilt and name in self._first_rows:
                connection.execute(insert(table), self._first_rows[name])

    def _filled_tables(self, connection: Connection) -> list[str]:
        filled = connection.execute(self._filled).one()._mapping
        return [name for name in self._tables if filled[name]]

    def _rows_of(self, connection: Connection, table: Table) -> list[dict[str, Any]]:
        rows = connection.execute(select(table).order_by(*table.primary_key))
        return [dict(row) for row in rows.mappings()]

    def _objects_of(self, connection: Connection) -> frozenset[tuple[str, str]]:
        return frozenset((what, name) for what, name in connection.execute(_OBJECTS[self._kind]))

    def _prepare_session(self, driver_connection: Any, _record: object) -> None:
        with contextlib.closing(driver_connection.cursor()) as cursor:
            cursor.execute(_SESSION[self._kind])
        driver_connection.commit()
