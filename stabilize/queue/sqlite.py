"""The SQLite queue, where many programs import it from."""

from stabilize.queue.queue import SqliteQueue

__all__ = ["SqliteQueue"]
