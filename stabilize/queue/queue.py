"""The queue: messages put in, taken, given back and given up."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import URL

from stabilize.clock import now_ms
from stabilize.database import Database, Joinable
from stabilize.errors import ConfigurationError
from stabilize.models import Workflow
from stabilize.queue.messages import Message, create_message_from_dict
from stabilize.queue.rows import (
    LETTERS,
    MESSAGES,
    bury,
    failure_of,
    message_of,
    row_of,
)
from stabilize.tasks.backoff import Backoff

MAX_LISTED = 1_000
_RETRY = Backoff(base=0.05, cap=30)
_ORPHANS = 100


class Queue:
    """Messages in a database, under a name: `table_name` tells several queues apart.

    `lock_duration` is how long a claim holds without a heartbeat; `max_attempts` how often a
    message may fail, `max_deaths` how many workers it may take with it, before it is given up.
    """

    def __init__(
        self,
        database: str | URL | Engine | Database,
        table_name: str = "queue_messages",
        lock_duration: timedelta = timedelta(seconds=60),
        max_attempts: int = 10,
        *,
        max_deaths: int = 3,
        create_tables: bool = False,
    ) -> None:
        if not table_name or len(table_name) > 64:
            raise ConfigurationError(
                f"table_name={table_name!r}: a queue's name has 1 to 64 characters"
            )
        self.database = Database.at(database)
        self.name = table_name
        self.lock_duration = lock_duration
        self.max_attempts = max_attempts
        self.max_deaths = max_deaths
        self._push_cached: Any = None
        self._here = MESSAGES.c.queue == table_name
        self._letters_here = LETTERS.c.queue == table_name
        if create_tables:
            self.database.create_tables()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r}, table_name={self.name!r})"

    def _create_table(self) -> None:
        """Create the tables that are missing; calling it again does nothing."""
        self.database.create_tables()

    @property
    def lease_ms(self) -> int:
        return _ms(self.lock_duration)

    # --- putting in -------------------------------------------------------------------------

    def push(
        self,
        message: Message,
        delay: timedelta | None = None,
        connection: Joinable | None = None,
        *,
        session: Joinable | None = None,
    ) -> None:
        """Put `message` in the queue, due after `delay`.

        With `session` (or `connection`) it joins the caller's transaction: no worker sees it
        before the caller commits.
        """
        wait = 0 if delay is None else _ms(delay)

        def put(connected: Connection) -> None:
            self.database.require_tables(connected)
            self.push_on(connected, message, wait)

        self.database.transact(put, session or connection)

    def push_on(
        self,
        connection: Connection,
        message: Message,
        wait_ms: int = 0,
        *,
        priority: int | None = None,
    ) -> None:
        """Put `message` in the queue within the transaction of `connection`.

        `priority` is the age of its workflow; without it, it is read from there.
        """
        values = row_of(message, self.name, 0, visible_at=wait_ms, priority=priority or 0)
        if priority is None:
            age = select(Workflow.created_at).where(Workflow.id == message.execution_id)
            values["priority"] = connection.execute(age).scalar() or now_ms()
        connection.execute(self._push_statement(), values)

    def _push_statement(self) -> Any:
        """An insert whose `visible_at` counts from the database's clock."""
        if self._push_cached is not None and self.database.clock is None:
            return self._push_cached
        now = self.database.now()
        values: dict[str, Any] = {
            column.name: bindparam(column.name, type_=column.type) for column in MESSAGES.columns
        }
        values["visible_at"] = now + values["visible_at"]
        values["created_at"] = now + values["created_at"]
        self._push_cached = insert(MESSAGES).values(values)
        return self._push_cached

    # --- taking by hand (tests, tools; the processor takes within its turns) -----------------

    def poll_one(self) -> Message | None:
        """Claim the message that is due and goes first; None when nothing is due."""
        now = self.database.now()
        due = (self._here, MESSAGES.c.visible_at <= now, MESSAGES.c.attempts < self.max_attempts)
        first = select(MESSAGES).where(*due).order_by(MESSAGES.c.priority, MESSAGES.c.id).limit(1)
        with self.database.writing() as connection:
            row = connection.execute(first.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            claim = {
                "attempts": row.attempts + 1,
                "visible_at": now + self.lease_ms,
                "holder": "poll",
            }
            connection.execute(update(MESSAGES).where(MESSAGES.c.id == row.id).values(claim))
        return message_of(row).copy_with_attempts(row.attempts + 1)

    def poll(self, callback: Callable[[Message], None]) -> bool:
        """Claim one message, hand it to `callback`, acknowledge it when that returns."""
        message = self.poll_one()
        if message is None:
            return False
        callback(message)
        self.ack(message)
        return True

    def ack(self, message: Message) -> bool:
        """Delete a claimed message; False when somebody else has it by now."""
        return self._write(delete(MESSAGES).where(_mine(message))) == 1

    def reschedule(self, message: Message, delay: timedelta = timedelta()) -> bool:
        """Give a claimed message back, due after `delay`; False when it is not ours any more."""
        return self._change(message, visible_at=self.database.now() + _ms(delay), holder=None)

    def extend_lock(self, message: Message, duration: timedelta | None = None) -> bool:
        """Hold a claimed message longer; False when it is not ours any more."""
        lease = _ms(duration or self.lock_duration)
        return self._change(message, visible_at=self.database.now() + lease)

    def count_death(self, message: Message) -> bool:
        """Give a claimed message back whose process is gone: as if a worker had died of it."""
        now, deaths = self.database.now(), MESSAGES.c.deaths + 1
        return self._change(message, visible_at=now, holder=None, deaths=deaths)

    def give_back(self, ids: Collection[str], holder: str) -> int:
        """Let others take at once what `holder` has; how many messages that were."""
        held = update(MESSAGES).where(MESSAGES.c.id.in_(ids), MESSAGES.c.holder == holder)
        return self._write(held.values(visible_at=self.database.now(), holder=None))

    def _change(self, message: Message, **values: Any) -> bool:
        return self._write(update(MESSAGES).where(_mine(message)).values(values)) == 1

    def _write(self, statement: Any) -> int:
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount

    # --- counting ---------------------------------------------------------------------------

    def _count(self, *conditions: Any) -> int:
        with self.database.reading() as session:
            return session.execute(select(func.count()).where(*conditions)).scalar_one()

    def size(self) -> int:
        """All messages: due, delayed and in flight."""
        return self._count(self._here)

    def has_pending_message_for_task(self, task_id: str) -> bool:
        return self._count(self._here, MESSAGES.c.task_id == task_id) > 0

    def has_pending_message_for_stage(self, stage_id: str) -> bool:
        return self._count(self._here, MESSAGES.c.stage_id == stage_id) > 0

    def has_pending_message_for_execution(self, execution_id: str) -> bool:
        return self._count(self._here, MESSAGES.c.workflow_id == execution_id) > 0

    def purge_workflow(self, execution_id: str) -> int:
        """Delete every message of one workflow; return how many there were."""
        of_workflow = MESSAGES.c.workflow_id == execution_id
        return self._write(delete(MESSAGES).where(self._here, of_workflow))

    def clear(self) -> None:
        """Delete every message of this queue."""
        self._write(delete(MESSAGES).where(self._here))

    def close(self) -> None:
        self.database.close()

    # --- giving up --------------------------------------------------------------------------

    def charge(self, row: Any, error: str) -> None:
        """Count a failure of a message against it; after too many, give it up."""
        failures = row.failures + 1
        wait = int(_RETRY.seconds(failures) * 1000)

        def count(connection: Connection) -> None:
            if failures >= self.max_attempts:
                said = f"{row.type} failed {failures} times: {error}"
                self._give_up(connection, row, "failures", error, said)
                return
            values = {
                "failures": failures,
                "last_error": error,
                "visible_at": self.database.now() + wait,
                "holder": None,
            }
            connection.execute(update(MESSAGES).where(MESSAGES.c.id == row.id).values(values))

        self.database.transact(count)

    def _give_up(
        self, connection: Connection, row: Any, reason: str, error: str, said: str
    ) -> None:
        bury(connection, row, reason, error)
        self.push_on(connection, failure_of(row, said))

    def sweep(self) -> None:
        """Set messages aside whose workflow is not there: nobody could ever play them."""
        orphans = select(MESSAGES).where(
            self._here, MESSAGES.c.workflow_id.not_in(select(Workflow.id))
        )
        with self.database.reading() as session:
            if session.execute(orphans.limit(1)).first() is None:
                return
        with self.database.writing() as connection:
            for row in connection.execute(orphans.limit(_ORPHANS)).all():
                error = f"workflow {row.workflow_id!r} is not stored: store it before you start it"
                bury(connection, row, "unknown workflow", error)

    # --- dead letters -----------------------------------------------------------------------

    def move_to_dlq(self, message_id: str | None, error: str | None = None) -> bool:
        """Give a message up; its workflow then ends TERMINAL with `error` as the reason."""
        with self.database.writing() as connection:
            row = connection.execute(select(MESSAGES).where(MESSAGES.c.id == message_id)).first()
            if row is None:
                return False
            why = error or row.last_error or "moved by hand"
            self._give_up(connection, row, "moved by hand", why, why)
            return True

    def list_dlq(self, limit: int = 100, message_type: str | None = None) -> list[dict[str, Any]]:
        """The messages given up, the latest first; at most 1,000."""
        query = select(LETTERS).where(self._letters_here)
        if message_type is not None:
            query = query.where(LETTERS.c.type == message_type)
        query = query.order_by(LETTERS.c.moved_at.desc(), LETTERS.c.id.desc())
        query = query.limit(max(1, min(limit, MAX_LISTED)))
        with self.database.reading() as session:
            return [
                {**row, "original_id": row["message_id"], "message_type": row["type"]}
                for row in session.execute(query).mappings()
            ]

    def replay_dlq(self, dlq_id: str) -> bool:
        """Put a message that was given up back in the queue, as if it had never been tried."""
        with self.database.writing() as connection:
            letter = connection.execute(select(LETTERS).where(LETTERS.c.id == dlq_id)).first()
            if letter is None:
                return False
            known = {"execution_id": letter.workflow_id, **letter.payload}
            self.push_on(connection, create_message_from_dict(letter.type, known))
            connection.execute(delete(LETTERS).where(LETTERS.c.id == dlq_id))
            return True

    def discard_dlq(self, dlq_id: str) -> bool:
        """Forget a message that was given up."""
        return self._write(delete(LETTERS).where(LETTERS.c.id == dlq_id)) == 1

    def dlq_size(self) -> int:
        return self._count(self._letters_here)

    def clear_dlq(self) -> int:
        """Forget all messages that were given up; return how many."""
        return self._write(delete(LETTERS).where(self._letters_here))


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


def _mine(message: Message) -> Any:
    return and_(MESSAGES.c.id == message.message_id, MESSAGES.c.attempts == message.attempts)


class SqliteQueue(Queue):
    """A queue in SQLite; `create_tables` is implied by `_create_table()` of the quick start."""


class PostgresQueue(Queue):
    """A queue in PostgreSQL."""


class MySQLQueue(Queue):
    """A queue in MariaDB or MySQL."""


__all__ = ["MySQLQueue", "PostgresQueue", "Queue", "SqliteQueue"]
