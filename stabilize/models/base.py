"""The one metadata, and what every table of it has in common."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass

PREFIX = "stabilize_"
VERSION_TABLE = PREFIX + "alembic_version"
REVISION = 1
"""The number of the newest migration this code was written for."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the library; list it in your Alembic `target_metadata` beside your own."""

_MYSQL = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{key}": value for dialect in ("mysql", "mariadb") for key, value in _MYSQL.items()
}


T = TypeVar("T")


def by_dialect(*, sqlite: T, postgresql: T, mysql: T) -> dict[str, T]:
    """What differs between databases, by the name of the SQLAlchemy dialect."""
    return {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql, "mariadb": mysql}


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """The root of the entities: constructed by keyword, compared by identity."""

    metadata = metadata


class RowBase(DeclarativeBase):
    """The root of the rows behind frozen facts: messages, tokens, signals, events."""

    metadata = metadata


def schema_of(target: Connection | Engine) -> str | None:
    """The schema that the tables are in, where `schema_translate_map` names one."""
    schemas = target.get_execution_options().get("schema_translate_map") or {}
    schema: str | None = schemas.get(None)
    return schema
