"""What a turn does to the rows of messages: one statement of each kind, at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from stabilize.database import insert_into
from stabilize.models.queue import PARKED
from stabilize.queue.messages import Message
from stabilize.queue.rows import MESSAGES, row_of
from stabilize.queue.taking import AGAIN, CLAIM, CONSUME, PURGE, PURGE_STAGES, UNPARK
from stabilize.work import Taken, Worker, Written

SPREAD_MS = 10
"""How much later in the line each further message stands that one message put out: a wide workflow
does not fill the line before those that came a moment later."""


class Outbox:
    """The messages that a turn puts out, holds, keeps and consumes; `written` says it in short."""

    def __init__(self, queue_name: str, worker: Worker, now: int) -> None:
        self.written = Written()
        self._queue = queue_name
        self._worker = worker
        self._now = now
        self._priority = 0
        self._spread = 0
        self._pushes: list[tuple[Message, dict[str, Any]]] = []
        self._consumed: list[str] = []
        self._claimed: list[str] = []
        self._again: dict[str, tuple[Message, int]] = {}
        self._purges: dict[str, set[str | None]] = {}

    def __len__(self) -> int:
        """How many messages it puts out."""
        return len(self._pushes)

    def stand_at(self, priority: int) -> None:
        """What is put out from now on stands in the line at `priority` and behind."""
        self._priority = priority
        self._spread = 0

    # --- the message being played -----------------------------------------------------------

    def consume(self, row_id: str) -> None:
        self._consumed.append(row_id)

    def has_consumed(self, row_id: str | None) -> bool:
        return row_id in self._consumed

    def leave(self, row_id: str) -> None:
        """Leave a message as it was, for a later turn."""
        self._consumed.remove(row_id)

    def claim(self, taken: Taken) -> None:
        """Hold a message for the executor."""
        self._claimed.append(taken.row.id)
        attempts = taken.row.attempts + 1
        self.written.dispatched.append(taken.message.copy_with_attempts(attempts))

    def keep(self, message: Message, due: int) -> None:
        """Keep a message: it is due once more at `due`."""
        self.leave(message.row_id)
        self._expect(due)
        self._again[message.row_id] = message, due

    # --- new ones ---------------------------------------------------------------------------

    def put(self, message: Message, due: int, priority: int | None = None) -> None:
        """Put out a message that is due at `due`."""
        if priority is None:
            priority = self._priority + SPREAD_MS * self._spread
            self._spread += 1
        self._expect(due)
        row = row_of(message, self._queue, self._now, visible_at=due, priority=priority)
        self._pushes.append((message, row))

    def hold(self, message: Message) -> None:
        """Put out a message that this worker's executor carries out at once."""
        row = row_of(
            message,
            self._queue,
            self._now,
            visible_at=self._lease_end,
            priority=self._priority,
            holder=self._worker.id,
        )
        self._pushes.append((message, row))
        self.written.dispatched.append(message.delivered(row["id"], row["attempts"]))

    def _expect(self, due: int) -> None:
        if due <= self._now:
            self.written.left_work = True
        elif self.written.next_at is None or due < self.written.next_at:
            self.written.next_at = due

    @property
    def _lease_end(self) -> int:
        return self._now + self._worker.lease_ms

    def unpark(self, connection: Connection, workflow_id: str) -> None:
        """What waits for this workflow to be resumed is due now: rows, and what is to be one."""
        connection.execute(UNPARK, {"at": self._now, "workflow": workflow_id})
        for message, row in self._pushes:
            if row["visible_at"] >= PARKED and message.execution_id == workflow_id:
                row["visible_at"] = self._now
        for row_id, (message, due) in self._again.items():
            if due >= PARKED and message.execution_id == workflow_id:
                self._again[row_id] = message, self._now
        self.written.left_work = True

    # --- taking back ------------------------------------------------------------------------

    def drop(self, is_stale: Callable[[Message], bool]) -> None:
        """Do not put out after all what this turn was to put out."""
        self._pushes = [push for push in self._pushes if not is_stale(push[0])]

    def purge(self, workflow_id: str, stage_id: str | None) -> None:
        """Delete every message of a workflow, or of one stage run."""

        def stays(message: Message) -> bool:
            return not is_of(message, workflow_id, stage_id)

        self._pushes = [push for push in self._pushes if stays(push[0])]
        self.written.dispatched = [m for m in self.written.dispatched if stays(m)]
        self._purges.setdefault(workflow_id, set()).add(stage_id)
        self.written.purged.append((workflow_id, stage_id))

    # --- writing ----------------------------------------------------------------------------

    def write_purges(self, connection: Connection) -> None:
        for workflow_id, stage_ids in self._purges.items():
            where: dict[str, Any] = {"workflow": workflow_id, "queue": self._queue}
            if None in stage_ids:
                connection.execute(PURGE, where)
            else:
                connection.execute(PURGE_STAGES, {**where, "ids": list(stage_ids)})
        self._purges.clear()

    def write(self, connection: Connection) -> None:
        execute = connection.execute
        if self._claimed:
            where = {"at": self._lease_end, "by": self._worker.id, "ids": self._claimed}
            execute(CLAIM, where)
        if self._again:
            rows = [{"b_id": id, "b_at": due} for id, (_, due) in self._again.items()]
            execute(AGAIN, rows)
        if self._pushes:
            execute(insert_into(MESSAGES), [row for _, row in self._pushes])
        if self._consumed:
            execute(CONSUME, {"ids": self._consumed})


def is_of(message: Message, workflow_id: str, stage_id: str | None) -> bool:
    """Say whether a message goes when a workflow, or one stage run of it, is withdrawn."""
    if message.execution_id != workflow_id or message.tidies_up:
        return False
    if stage_id is None:
        return True
    return getattr(message, "stage_id", None) == stage_id and not message.is_for_any_run
