"""The queue and its messages."""

from stabilize.queue.queue import MySQLQueue, PostgresQueue, Queue, SqliteQueue

__all__ = ["MySQLQueue", "PostgresQueue", "Queue", "SqliteQueue"]
