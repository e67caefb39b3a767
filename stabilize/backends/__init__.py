"""The databases the library runs on."""

from stabilize.backends.base import Backend, backend_for, register_backend, rolled_back_on_error
from stabilize.backends.mysql import MySQLBackend
from stabilize.backends.postgresql import PostgresBackend
from stabilize.backends.sqlite import SqliteBackend

__all__ = [
    "Backend",
    "MySQLBackend",
    "PostgresBackend",
    "SqliteBackend",
    "backend_for",
    "register_backend",
    "rolled_back_on_error",
]
