"""What of our schema is neither table nor index: triggers, functions, views.

`create_all` and `drop_all` of the metadata carry it out by themselves; the migrations execute the
same statements. Run them as `text(...)`, which leaves percent signs alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, text

from stabilize.models.base import by_dialect, metadata, schema_of
from stabilize.models.guards import create_guards, drop_guards
from stabilize.models.reports import ENGINE_VIEWS, EVENT_VIEWS, create_views, drop_views

_QUOTE = by_dialect(sqlite='"', postgresql='"', mysql="`")


def create_statements(dialect: str, schema: str | None = None) -> list[str]:
    """Everything, in order, for a SQLAlchemy dialect name; `schema` qualifies the names."""
    prefix = _prefix(dialect, schema)
    return [*_events(dialect, prefix), *create_views(ENGINE_VIEWS, dialect, prefix)]


def drop_statements(dialect: str, schema: str | None = None) -> list[str]:
    """What undoes `create_statements`; what is not there is passed over."""
    prefix = _prefix(dialect, schema)
    return [
        *drop_views(EVENT_VIEWS | ENGINE_VIEWS, prefix),
        *drop_guards(dialect, prefix),
    ]


def _prefix(dialect: str, schema: str | None) -> str:
    quote = _QUOTE[dialect]
    return f"{quote}{schema}{quote}." if schema else ""


def _events(dialect: str, prefix: str) -> list[str]:
    return [*create_guards(dialect, prefix), *create_views(EVENT_VIEWS, dialect, prefix)]


@event.listens_for(metadata, "after_create")
def _after_create(_: Any, connection: Connection, tables: Any, **__: Any) -> None:
    created = {table.name for table in tables}
    dialect = connection.dialect.name
    prefix = _prefix(dialect, schema_of(connection))
    statements: list[str] = []
    if "stabilize_events" in created:
        statements += _events(dialect, prefix)
    if "stabilize_messages" in created:
        statements += create_views(ENGINE_VIEWS, dialect, prefix)
    for statement in statements:
        connection.execute(text(statement))


@event.listens_for(metadata, "before_drop")
def _before_drop(_: Any, connection: Connection, tables: Any, **__: Any) -> None:
    if not {"stabilize_events", "stabilize_messages"} & {table.name for table in tables}:
        return
    for statement in drop_statements(connection.dialect.name, schema_of(connection)):
        connection.execute(text(statement))
