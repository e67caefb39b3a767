"""Store and queue for whatever database a URL names."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from stabilize.database import Database
from stabilize.queue.queue import MySQLQueue, PostgresQueue, Queue, SqliteQueue
from stabilize.store import (
    MySQLWorkflowStore,
    PostgresWorkflowStore,
    SqliteWorkflowStore,
    WorkflowCriteria,
    WorkflowStore,
)


def detect_backend(database: str | URL | Engine) -> str:
    """The name of the database behind a URL or an engine: `sqlite`, `postgresql` or `mysql`."""
    return Database.at(database).backend.dialects[0]


def create_repository(database: str | URL | Engine, create_tables: bool = False) -> WorkflowStore:
    """The store for a URL or an engine."""
    return WorkflowStore(database, create_tables=create_tables)


def create_queue(database: str | URL | Engine, table_name: str = "queue_messages") -> Queue:
    """The queue called `table_name` for a URL or an engine."""
    return Queue(database, table_name)


__all__ = [
    "MySQLQueue",
    "MySQLWorkflowStore",
    "PostgresQueue",
    "PostgresWorkflowStore",
    "SqliteQueue",
    "SqliteWorkflowStore",
    "WorkflowCriteria",
    "WorkflowStore",
    "create_queue",
    "create_repository",
    "detect_backend",
]
