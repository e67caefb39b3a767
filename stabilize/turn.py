"""The turn: one transaction that changes state, consumes messages and puts the next ones out.

It is the unit of work of the engine and the only thing that commits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.exc import IntegrityError

from stabilize.clock import from_ms
from stabilize.desk import Submission
from stabilize.errors import QueueError
from stabilize.events.account import Account
from stabilize.events.base import EntityType, EventType
from stabilize.events.by_hand import ENTITY_TYPE
from stabilize.events.recorder import EventRecorder
from stabilize.events.rows import Draft
from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.queue import PARKED
from stabilize.models.unwatched import KIND_OF, Entity
from stabilize.net import Net, Nets, net_of
from stabilize.outbox import Outbox, is_of
from stabilize.queue.messages import FailWorkflow, Message, StageLevel, TaskLevel
from stabilize.queue.queue import Queue
from stabilize.queue.rows import bury, failure_of, message_of
from stabilize.queue.taking import Taking, attempts_of, lock_messages
from stabilize.reader import STORED, NetReader
from stabilize.tasks.body import Outcome
from stabilize.work import Finished, HandlerLookup, MessageRefused, Taken, Worker, Written
from stabilize.writes import Writes

logger = logging.getLogger(__name__)

FOLLOW_UPS = 256
"""How many messages a turn plays for one message it took, before it leaves the rest to others."""
ROWS = 2_000
"""A turn that has changed so many rows begins nothing more: the rest of what it took stays due."""


class Turn:
    """One unit of work on a connection that is in a transaction."""

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        nets: Nets,
        worker: Worker,
        *,
        slots: int,
        now: int,
        recorder: EventRecorder | None = None,
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.worker = worker
        self.now = now
        self.slots = slots
        self.recorder = recorder
        self.outbox = Outbox(queue.name, worker, now)
        self.written = self.outbox.written
        self.reader = NetReader(connection)
        self.locked: dict[str, Net] = {}
        self._cache = nets
        self._taken: Taken | None = None
        self._cause: Message | None = None
        self._handle: Any = None
        self._actor = "system"
        self._budget = 0
        self._follow_ups: deque[Message] = deque()
        self._writes = Writes(connection, self.locked, recorded=recorder is not None)
        self._drafts: list[Draft] = []
        self._account = None if recorder is None else Account()
        self._at = from_ms(now)

    # --- taking -----------------------------------------------------------------------------

    def take_due(self, taking: Taking, limit: int) -> list[Taken]:
        """Lock the messages that are due and go first, each with its workflow."""
        starting = self.slots > 0
        if starting:
            limit = min(limit, self.slots)
        return self._open(taking.due(self.connection, self.now, limit, starting=starting), {})

    def take_finished(self, finished: Sequence[Finished]) -> tuple[list[Taken], list[Finished]]:
        """Lock the messages of finished work that are still ours, and say which to try later.

        Those whose message is gone, or was taken over, are dropped: their result does not count.
        """
        by_id = {done.message.row_id: done for done in finished}
        rows = lock_messages(self.connection, list(by_id))
        later: list[Finished] = []
        missing = set(by_id) - {row.id for row in rows}
        if missing:
            still = attempts_of(self.connection, missing)
            later = [by_id[id] for id, n in still.items() if n == by_id[id].message.attempts]
        ours = [row for row in rows if self._is_ours(row, by_id[row.id].message)]
        return self._open(ours, by_id), later

    def take_these(self, ids: list[str]) -> list[Taken]:
        """Lock these messages, those of them that nobody has locked."""
        return self._open(lock_messages(self.connection, ids), {})

    def take_one(self, held: Message, outcome: Outcome) -> Taken | None:
        """Wait for the lock on one held message; None when it is not ours any more."""
        rows = lock_messages(self.connection, [held.row_id], wait=True)
        ours = [row for row in rows if self._is_ours(row, held)]
        taken = self._open(ours, {held.row_id: Finished(message=held, outcome=outcome)})
        return taken[0] if taken else None

    def _is_ours(self, row: Any, held: Message) -> bool:
        """Say whether a result still counts: nobody has taken the message over or counted it."""
        return bool(row.attempts == held.attempts and row.holder == self.worker.id)

    def _open(self, rows: list[Any], finished: Mapping[str, Finished]) -> list[Taken]:
        versions = {row.workflow_id: row.workflow_version for row in rows}
        wanted = {id: v for id, v in versions.items() if id not in self.locked}
        known = self._cache.known(wanted)
        self.locked.update(known)
        unread = [id for id in wanted if id not in known]
        if unread:
            for net in self.reader.open(unread):
                self.locked[net.workflow.id] = net
                self._cache.add(net)
        nets = self.locked
        stages = [r for r in rows if r.stage_id and r.stage_id not in nets[r.workflow_id].stages]
        self.reader.stages(nets, [row.stage_id for row in stages])
        return [self._taken_from(row, finished.get(row.id)) for row in rows]

    def _taken_from(self, row: Any, done: Finished | None) -> Taken:
        if done is None:
            return Taken(message=self._read(row), row=row)
        return Taken(message=done.message, row=row, outcome=done.outcome)

    def _read(self, row: Any) -> Message:
        """The message of a row; one that cannot be read is given up at once."""
        try:
            return message_of(row)
        except (ValueError, QueueError) as error:
            bury(self.connection, row, "unreadable", str(error))
            return failure_of(row, f"message {row.type} cannot be read: {error}")

    def execute(self, message: Message) -> None:
        """Have the executor carry out the message being played; without a free slot, leave it."""
        taken = self._taken
        assert taken is not None
        assert taken.row.id == message.message_id
        self.outbox.leave(taken.row.id)
        if self.slots > 0:
            self.slots -= 1
            self.outbox.claim(taken)

    # --- playing ----------------------------------------------------------------------------

    def play(self, taken: Taken, handler_of: HandlerLookup) -> None:
        """Carry out one message and everything due now that comes of it, within bounds."""
        may_wait = taken.outcome is None and not isinstance(taken.message, FailWorkflow)
        if self._is_full and may_wait:
            self.written.left_work = True
            return
        self.outbox.consume(taken.row.id)
        self._taken = taken
        self._play(taken.message, taken.row.priority, handler_of)

    def _play(self, message: Message, priority: int, handler_of: HandlerLookup) -> None:
        self.outbox.stand_at(priority)
        self._budget = FOLLOW_UPS
        self._follow_ups.append(message)
        while self._follow_ups:
            message = self._follow_ups.popleft()
            self._cause = message
            self._handle = handle = handler_of(message)
            self.written.played += 1
            try:
                handle(message, self)
                if self._account is not None:
                    for event_type, entity, data in self._account.untold():
                        self.record(event_type, entity, **data)
            except MessageRefused as refused:
                logger.warning("%s", refused, extra={"workflow_id": message.execution_id})

    def admit(self, offered: Sequence[Submission], handler_of: HandlerLookup) -> list[bool]:
        """Store and start new workflows; say of each whether it was new."""
        ids = [submission.rows.workflow["id"] for submission in offered]
        stored = set(self.connection.execute(STORED, {"ids": ids}).scalars())
        admitted = []
        for id, submission in zip(ids, offered, strict=True):
            admitted.append(id not in stored)
            if id not in stored:
                stored.add(id)
                self.locked[id] = net = net_of(submission.rows)
                self._cache.add(net)
                self._writes.add_net(net, submission.rows.edges)
                self._play(submission.message, net.workflow.created_at, handler_of)
        return admitted

    @property
    def _is_full(self) -> bool:
        return self._writes.rows + len(self.outbox) >= ROWS

    def outcome_of(self, message: Message) -> Outcome | None:
        """What the executor made of `message`; None when it is still to be carried out."""
        taken = self._taken
        return taken.outcome if taken is not None and taken.message is message else None

    # --- reading ----------------------------------------------------------------------------

    def net(self, message: Message) -> Net:
        return self.locked[message.execution_id]

    def workflow(self, message: Message) -> Workflow:
        return self.locked[message.execution_id].workflow

    def stage(self, message: StageLevel) -> StageExecution:
        """The run a message is about; a message of another workflow's stage is refused."""
        net = self.locked[message.execution_id]
        stage = net.stages.get(message.stage_id) or self.reader.stage(net, message.stage_id)
        if stage is None:
            raise MessageRefused(
                f"stage {message.stage_id} is not one of workflow {message.execution_id}"
            )
        return stage

    def stage_and_task(self, message: TaskLevel) -> tuple[StageExecution, TaskExecution]:
        stage = self.stage(message)
        for task in self.net(message).tasks_of(stage):
            if task.id == message.task_id:
                return stage, task
        raise MessageRefused(f"task {message.task_id} is not one of stage {message.stage_id}")

    # --- changing ---------------------------------------------------------------------------

    def set(self, entity: Entity, **values: Any) -> None:
        """Change columns of an entity."""
        if self._account is not None:
            self._account.before_change(entity, values)
        self._writes.set(entity, values)

    def add(self, entity: Entity) -> None:
        """Insert an entity; later changes in this turn go into the same row."""
        self._writes.add(entity)

    def add_token(self, **values: Any) -> None:
        self._writes.add_token(values)

    def add_edge(self, **values: Any) -> None:
        self._writes.add_edge(values)

    def run_later(self, statement: Any, values: dict[str, Any]) -> None:
        """Run a bulk statement on tokens after the rows of this turn are in."""
        self._writes.run_later(statement, values)

    # --- messages ---------------------------------------------------------------------------

    def push(self, message: Message, delay_ms: int = 0) -> None:
        """Put out a message: played in this turn where that is possible, else written."""
        net = self.locked.get(message.execution_id)
        put = self.outbox.put
        if net is None:
            put(message, self.now + delay_ms)
        elif message.starts_work and net.is_paused:
            put(message, PARKED)
        elif delay_ms > 0:
            put(message, self.now + delay_ms)
        elif message.runs_user_code:
            task_type = getattr(message, "task_type", "")
            if self.slots > 0 and (not task_type or self.worker.knows(task_type)):
                self.slots -= 1
                self.outbox.hold(message)
            else:
                put(message, self.now)
        elif self._budget > 0 and not self._is_full:
            self._budget -= 1
            self._follow_ups.append(message)
        else:
            put(message, self.now)

    def push_later(self, message: Message, priority: int | None = None) -> None:
        """Put out a message for another turn, so that others move on in between."""
        self.outbox.put(message, self.now, priority)

    def again(self, message: Message, delay_ms: int) -> None:
        """Keep the message being played: it is due once more after `delay_ms`."""
        is_parked = message.starts_work and self.net(message).is_paused
        self.outbox.keep(message, PARKED if is_parked else self.now + delay_ms)

    def park(self, message: Message) -> None:
        """Keep the message being played until its workflow is resumed."""
        if self.outbox.has_consumed(message.message_id):
            self.again(message, 0)
        else:
            self.outbox.put(message, PARKED)

    def give_up(self, taken: Taken, deaths: int, handler_of: HandlerLookup) -> None:
        """Move a message that takes its workers with it to the dead letters.

        Its workflow ends where people can see why.
        """
        row = taken.row
        what = (
            f"task {row.task_id} of type {row.task_type!r}"
            if row.task_id
            else f"stage {row.stage_id}"
        )
        error = f"{row.type} took {deaths} workers with it: {what}"
        bury(self.connection, row, "deaths", error, deaths=deaths)
        self.play(replace(taken, message=failure_of(row, error), outcome=None), handler_of)

    def purge(self, workflow_id: str, stage_id: str | None = None) -> None:
        """Delete every message of a workflow, or of one stage run; what runs is told to stop."""
        self._follow_ups = deque(m for m in self._follow_ups if not is_of(m, workflow_id, stage_id))
        self.outbox.purge(workflow_id, stage_id)

    # --- events -----------------------------------------------------------------------------

    def record(self, event_type: EventType, entity: Entity, **data: Any) -> None:
        """Record that something happened to `entity`, if events are on."""
        if self.recorder is None:
            return
        assert self._account is not None
        self._account.tell(event_type, entity, data)
        state = entity.__dict__
        version = state["event_version"] + 1
        self._writes.set(entity, {"event_version": version})
        entity_type = ENTITY_TYPE[KIND_OF[type(entity)]]
        id = state["id"]
        self._drafts.append(
            Draft(
                event_type,
                entity_type,
                id,
                id if entity_type is EntityType.WORKFLOW else state["workflow_id"],
                version,
                data,
                None if self._cause is None else self._cause.message_id,
                self._actor,
                type(getattr(self._handle, "__self__", self._handle)).__name__,
            )
        )

    @contextmanager
    def actor(self, user: str) -> Iterator[None]:
        """What is recorded inside was done by `user`."""
        before, self._actor = self._actor, user or self._actor
        try:
            yield
        finally:
            self._actor = before

    # --- writing ----------------------------------------------------------------------------

    def insert_once(self, statement: Any) -> bool:
        """Insert a row that somebody else may insert at the same time; say whether it was us."""
        if not self.queue.database.backend.needs_savepoints:
            self.connection.execute(statement)
            return True
        try:
            with self.connection.begin_nested():
                self.connection.execute(statement)
        except IntegrityError:
            return False
        return True

    def read(self, query: Executable) -> CursorResult[Any]:
        """Ask the database, which then has what this turn has changed so far."""
        self.write_rows()
        return self.connection.execute(query)

    def write_rows(self) -> None:
        """Write what has changed so far, so that a query in this turn sees it."""
        self.outbox.write_purges(self.connection)
        self._writes.flush()

    def write(self) -> Written:
        """Write everything; the caller commits."""
        self.write_rows()
        self.outbox.write(self.connection)
        if self._drafts and self.recorder is not None:
            self.written.events = self.recorder.append(
                self.connection, self._drafts, self._at, self.queue.database
            )
        return self.written

    def forget(self) -> None:
        """The turn did not commit: what it did to the nets in memory never happened."""
        for workflow_id in self.locked:
            self._cache.forget(workflow_id)
