"""The queue: messages put in, taken, given back and given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL

from stabilize.clock import new_id, now_ms
from stabilize.database import Database, Joinable
from stabilize.errors import ConfigurationError
from stabilize.models import DeadLetter, QueueMessage, Workflow
from stabilize.queue.messages import (
    PAYLOAD_VERSION,
    FailWorkflow,
    Message,
    create_message_from_dict,
    payload_of,
)
from stabilize.tasks.backoff import Backoff

logger = logging.getLogger(__name__)

MESSAGES: Table = QueueMessage.__table__  # type: ignore[assignment]
LETTERS: Table = DeadLetter.__table__  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Push:
    """A message about to be written: when it is due, in which place in the line, held by whom."""

    message: Message
    id: str
    visible_at: int
    priority: int
    holder: str | None = None


def row_of(push: Push, queue: str, now: int) -> dict[str, Any]:
    """The row of a message to be inserted."""
    message = push.message
    return {
        "id": push.id,
        "queue": queue,
        "type": type(message).__name__,
        "task_type": getattr(message, "task_type", None),
        "workflow_id": message.execution_id,
        "stage_id": getattr(message, "stage_id", None),
        "task_id": getattr(message, "task_id", None),
        "payload": payload_of(message),
        "payload_version": PAYLOAD_VERSION,
        "priority": push.priority,
        "visible_at": push.visible_at,
        "created_at": now,
        "attempts": 0 if push.holder is None else 1,
        "failures": 0,
        "deaths": 0,
        "holder": push.holder,
        "last_error": None,
    }


def message_of(row: Any) -> Message:
    """The message a row holds, with the number of this delivery."""
    values = dict(row.payload)
    values["execution_id"] = row.workflow_id
    for name in ("stage_id", "task_id", "task_type"):
        value = getattr(row, name)
        if value is not None:
            values[name] = value
    values["message_id"] = row.id
    values["attempts"] = row.attempts
    values["last_error"] = row.last_error
    return create_message_from_dict(row.type, values)


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
        if create_tables:
            self.database.create_tables()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r}, table_name={self.name!r})"

    def _create_table(self) -> None:
        """Create the tables that are missing; calling it again does nothing."""
        self.database.create_tables()

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
        wait = 0 if delay is None else int(delay.total_seconds() * 1000)
        self.database.transact(
            lambda connected: self.push_on(connected, message, wait), session or connection
        )

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
        push = Push(message=message, id=new_id(), visible_at=wait_ms, priority=priority or 0)
        values = row_of(push, self.name, 0)
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
        with self.database.writing() as connection:
            row = connection.execute(
                select(MESSAGES)
                .where(
                    MESSAGES.c.queue == self.name,
                    MESSAGES.c.visible_at <= now,
                    MESSAGES.c.attempts < self.max_attempts,
                )
                .order_by(MESSAGES.c.priority, MESSAGES.c.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if row is None:
                return None
            connection.execute(
                update(MESSAGES)
                .where(MESSAGES.c.id == row.id)
                .values(
                    attempts=row.attempts + 1,
                    visible_at=now + int(self.lock_duration.total_seconds() * 1000),
                    holder="poll",
                )
            )
        return message_of(row).copy_with_attempts(row.attempts + 1)

    def poll(self, callback: Callable[[Message], None]) -> bool:
        """Claim one message, hand it to `callback`, acknowledge it when that returns."""
        message = self.poll_one()
        if message is None:
            return False
        callback(message)
        self.ack(message)
        return True

    def _mine(self, message: Message) -> Any:
        return and_(MESSAGES.c.id == message.message_id, MESSAGES.c.attempts == message.attempts)

    def ack(self, message: Message) -> bool:
        """Delete a claimed message; False when somebody else has it by now."""
        with self.database.writing() as connection:
            return connection.execute(delete(MESSAGES).where(self._mine(message))).rowcount == 1

    def reschedule(self, message: Message, delay: timedelta = timedelta()) -> bool:
        """Give a claimed message back, due after `delay`; False when it is not ours any more."""
        wait = int(delay.total_seconds() * 1000)
        with self.database.writing() as connection:
            given = connection.execute(
                update(MESSAGES)
                .where(self._mine(message))
                .values(visible_at=self.database.now() + wait, holder=None)
            )
            return given.rowcount == 1

    def extend_lock(self, message: Message, duration: timedelta | None = None) -> bool:
        """Hold a claimed message longer; False when it is not ours any more."""
        lease = int((duration or self.lock_duration).total_seconds() * 1000)
        with self.database.writing() as connection:
            held = connection.execute(
                update(MESSAGES)
                .where(self._mine(message))
                .values(visible_at=self.database.now() + lease)
            )
            return held.rowcount == 1

    # --- counting ---------------------------------------------------------------------------

    def _count(self, *conditions: Any) -> int:
        with self.database.reading() as session:
            query = (
                select(func.count())
                .select_from(MESSAGES)
                .where(MESSAGES.c.queue == self.name, *conditions)
            )
            return session.execute(query).scalar_one()

    def size(self) -> int:
        """All messages: due, delayed and in flight."""
        return self._count()

    def has_pending_message_for_task(self, task_id: str) -> bool:
        return self._count(MESSAGES.c.task_id == task_id) > 0

    def has_pending_message_for_stage(self, stage_id: str) -> bool:
        return self._count(MESSAGES.c.stage_id == stage_id) > 0

    def has_pending_message_for_execution(self, execution_id: str) -> bool:
        return self._count(MESSAGES.c.workflow_id == execution_id) > 0

    def purge_workflow(self, execution_id: str) -> int:
        """Delete every message of one workflow; return how many there were."""
        with self.database.writing() as connection:
            return connection.execute(
                delete(MESSAGES).where(
                    MESSAGES.c.queue == self.name, MESSAGES.c.workflow_id == execution_id
                )
            ).rowcount

    def clear(self) -> None:
        """Delete every message of this queue."""
        with self.database.writing() as connection:
            connection.execute(delete(MESSAGES).where(MESSAGES.c.queue == self.name))

    def close(self) -> None:
        self.database.close()

    def charge(self, row: Any, error: str) -> None:
        """Count a failure of a message against it; after too many, give it up."""
        failures = row.failures + 1
        wait = int(Backoff(base=0.05, cap=30).seconds(failures) * 1000)

        def count(connection: Connection) -> None:
            if failures < self.max_attempts:
                connection.execute(
                    update(MESSAGES)
                    .where(MESSAGES.c.id == row.id)
                    .values(
                        failures=failures,
                        last_error=error,
                        visible_at=self.database.now() + wait,
                        holder=None,
                    )
                )
                return
            bury(connection, row, "failures", error)
            message = failure_of(row, f"{row.type} failed {failures} times: {error}")
            self.push_on(connection, message)

        self.database.transact(count)

    # --- dead letters -----------------------------------------------------------------------

    def move_to_dlq(self, message_id: str | None, error: str | None = None) -> bool:
        """Give a message up; its workflow then ends TERMINAL with `error` as the reason."""
        with self.database.writing() as connection:
            row = connection.execute(select(MESSAGES).where(MESSAGES.c.id == message_id)).first()
            if row is None:
                return False
            bury(connection, row, "moved by hand", error or row.last_error or "no error recorded")
            self.push_on(
                connection,
                FailWorkflow(execution_id=row.workflow_id, error=error or "message given up"),
            )
            return True

    def list_dlq(self, limit: int = 100, message_type: str | None = None) -> list[dict[str, Any]]:
        """The messages given up, the latest first."""
        query = select(LETTERS).where(LETTERS.c.queue == self.name)
        if message_type is not None:
            query = query.where(LETTERS.c.type == message_type)
        query = query.order_by(LETTERS.c.moved_at.desc(), LETTERS.c.id.desc()).limit(limit)
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
        with self.database.writing() as connection:
            return connection.execute(delete(LETTERS).where(LETTERS.c.id == dlq_id)).rowcount == 1

    def dlq_size(self) -> int:
        with self.database.reading() as session:
            query = select(func.count()).select_from(LETTERS).where(LETTERS.c.queue == self.name)
            return session.execute(query).scalar_one()

    def clear_dlq(self) -> int:
        """Forget all messages that were given up; return how many."""
        with self.database.writing() as connection:
            return connection.execute(delete(LETTERS).where(LETTERS.c.queue == self.name)).rowcount


def failure_of(row: Any, error: str) -> FailWorkflow:
    """What a message that was given up means for its workflow."""
    return FailWorkflow(
        execution_id=row.workflow_id,
        stage_id=row.stage_id or "",
        task_id=row.task_id or "",
        error=error,
        message_id=row.id,
    )


def bury(connection: Connection, row: Any, reason: str, error: str) -> None:
    """Move one message to the dead letters, within the transaction of `connection`."""
    routing = {"stage_id": row.stage_id, "task_id": row.task_id, "task_type": row.task_type}
    payload = {**row.payload, **{key: value for key, value in routing.items() if value is not None}}
    connection.execute(delete(MESSAGES).where(MESSAGES.c.id == row.id))
    connection.execute(
        insert(LETTERS).values(
            id=new_id(),
            message_id=row.id,
            queue=row.queue,
            type=row.type,
            task_type=row.task_type,
            workflow_id=row.workflow_id,
            payload=payload,
            payload_version=row.payload_version,
            attempts=row.attempts,
            deaths=row.deaths,
            reason=reason,
            error=error,
            created_at=row.created_at,
            moved_at=now_ms(),
        )
    )
    logger.error(
        "message %s (%s) was given up: %s",
        row.id,
        row.type,
        reason,
        extra={"workflow_id": row.workflow_id},
    )


class SqliteQueue(Queue):
    """A queue in SQLite; `create_tables` is implied by `_create_table()` of the quick start."""


class PostgresQueue(Queue):
    """A queue in PostgreSQL."""


class MySQLQueue(Queue):
    """A queue in MariaDB or MySQL."""


__all__: Sequence[str] = ("MySQLQueue", "PostgresQueue", "Queue", "SqliteQueue")
