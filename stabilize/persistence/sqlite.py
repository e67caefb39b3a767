"""The SQLite store, where many programs import it from."""

from stabilize.store import SqliteWorkflowStore

__all__ = ["SqliteWorkflowStore"]
