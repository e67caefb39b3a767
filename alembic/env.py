"""How our migrations reach a database.

The database is, in this order: the connection in `config.attributes["connection"]`, the URL of
`-x url=...`, the URL in `STABILIZE_DATABASE_URL`. `-x schema=...` or `config.attributes["schema"]`
puts everything into that schema. The version table is ours alone, so a user's own Alembic history
goes on beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import DropTableOp, MigrationScript, ModifyTableOps
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema
from sqlalchemy.util import generic_repr

from stabilize.models import metadata

PREFIX = "stabilize_"
VERSION_TABLE = "stabilize_alembic_version"
_MYSQL_SWITCH = ("SELECT concat('`', database(), '`')", "USE {}")
SCHEMA_SWITCHES = {
    "postgresql": ("SHOW search_path", "SET LOCAL search_path TO {}"),
    "mysql": _MYSQL_SWITCH,
    "mariadb": _MYSQL_SWITCH,
}
"""How to learn and how to set where a name without a schema is looked for."""

config = context.config
arguments = context.get_x_argument(as_dictionary=True)
schema: str | None = config.attributes.get("schema") or arguments.get("schema")


def is_ours(name: str | None) -> bool:
    """Whether a table belongs to the library, not to the application beside it."""
    return bool(name) and name.startswith(PREFIX) and name != VERSION_TABLE


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Leave other people's tables unread."""
    return kind != "table" or is_ours(name)


def include_object(
    item: object, name: str | None, kind: str, reflected: bool, compare_to: object
) -> bool:
    """Leave other people's tables alone."""
    return kind != "table" or is_ours(name)


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write our column types as `stabilize.types.X(...)`; the rest as Alembic does."""
    if kind != "type" or type(item).__module__ != "stabilize.types":
        return False
    autogen.imports.add("import stabilize.types")
    written = repr(item) if "__repr__" in vars(type(item)) else generic_repr(item)
    return f"stabilize.types.{written}"


def leave_indexes_to_their_tables(
    migration: object, revision: object, directives: list[MigrationScript]
) -> None:
    """Drop no index just before its table: MariaDB refuses where a foreign key needs the index."""
    for script in directives:
        for operations in script.downgrade_ops_list:
            dropped = {op.table_name for op in operations.ops if isinstance(op, DropTableOp)}
            operations.ops = [
                op
                for op in operations.ops
                if not (isinstance(op, ModifyTableOps) and op.table_name in dropped)
            ]


OPTIONS: dict[str, Any] = {
    "target_metadata": metadata,
    "version_table": VERSION_TABLE,
    "version_table_schema": schema,
    "include_name": include_name,
    "include_object": include_object,
    "render_item": render_item,
    "process_revision_directives": leave_indexes_to_their_tables,
    "compare_type": True,
    "compare_server_default": True,
}


def database_url() -> str:
    """The URL of the database to migrate."""
    url = arguments.get("url") or os.environ.get("STABILIZE_DATABASE_URL")
    if not url:
        raise CommandError(
            "no database to migrate: pass -x url=... before the command, or set"
            " STABILIZE_DATABASE_URL"
        )
    # An older spelling of PostgreSQL's URLs that SQLAlchemy refuses.
    return url.replace("postgres://", "postgresql://", 1)


def new_engine() -> Engine:
    """An engine whose transactions hold DDL too, on SQLite as well."""
    engine = create_engine(database_url(), poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", leave_transactions_to_us)
        event.listen(engine, "begin", begin_immediately)
    return engine


def leave_transactions_to_us(driver_connection: Any, _record: object) -> None:
    driver_connection.isolation_level = None


def begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def connected() -> Iterator[Connection]:
    """The caller's connection, or one of our own."""
    given: Connection | None = config.attributes.get("connection")
    if given is not None:
        yield given
        return
    engine = new_engine()
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def foreign_keys_off(connection: Connection) -> Iterator[None]:
    """SQLite alters a table by copying and dropping it, and a drop deletes what refers to it.

    Inside a transaction of the caller's the switch has no effect: then it is the caller's to set.
    """
    on = False
    if connection.dialect.name == "sqlite" and not connection.in_transaction():
        driver: Any = connection.connection.driver_connection
        on = bool(driver.execute("PRAGMA foreign_keys").fetchone()[0])
        driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        if on:
            driver.execute("PRAGMA foreign_keys = ON")


@contextlib.contextmanager
def inside_schema(connection: Connection) -> Iterator[None]:
    """Put what names no schema into the chosen one, for reading and for writing."""
    if schema is None:
        yield
        return
    dialect = connection.dialect
    default = dialect.default_schema_name
    if schema not in inspect(connection).get_schema_names():
        connection.execute(CreateSchema(schema))
    look, turn = SCHEMA_SWITCHES.get(dialect.name, ("SELECT NULL", "SELECT {}"))
    before = connection.exec_driver_sql(look).scalar_one()
    connection.exec_driver_sql(turn.format(dialect.identifier_preparer.quote_schema(schema)))
    dialect.default_schema_name = schema
    connection.execution_options(schema_translate_map={None: schema})
    try:
        yield
        if before is not None:  # the caller may go on with work of its own
            connection.exec_driver_sql(turn.format(before))
    finally:
        dialect.default_schema_name = default
        connection.execution_options(schema_translate_map=None)


def run_online() -> None:
    with connected() as connection, foreign_keys_off(connection), contextlib.ExitStack() as stack:
        if not connection.in_transaction():
            stack.enter_context(connection.begin())
        stack.enter_context(inside_schema(connection))
        context.configure(
            connection=connection,
            render_as_batch=connection.dialect.name == "sqlite",
            **OPTIONS,
        )
        with context.begin_transaction():
            context.run_migrations()


def run_offline() -> None:
    if schema is not None:
        raise CommandError("--sql cannot write for another schema: set the search path yourself")
    context.configure(
        url=database_url(), literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()


if config.cmd_opts is not None:  # the `alembic` command: say what is done
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-5s %(message)s")
    logging.getLogger("alembic").setLevel(logging.INFO)

if context.is_offline_mode():
    run_offline()
else:
    run_online()
