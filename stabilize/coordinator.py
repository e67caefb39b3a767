"""Plays turns: the one thread of a process that moves workflows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from stabilize.backends import rolled_back_on_error
from stabilize.backends.base import pause_within
from stabilize.database_clock import DatabaseClock
from stabilize.desk import Desk, Submission
from stabilize.errors import ConcurrencyError, in_short
from stabilize.events.recorder import get_event_recorder
from stabilize.flights import Flights
from stabilize.lookout import Lookout
from stabilize.net import Nets
from stabilize.queue.queue import Queue
from stabilize.queue.rows import MESSAGES
from stabilize.queue.taking import Taking
from stabilize.turn import Turn
from stabilize.work import Finished, HandlerLookup, Taken, Worker, Written

logger = logging.getLogger(__name__)


class Coordinator:
    """Takes what is due and what has finished, plays it, commits, and sends work out."""

    def __init__(
        self,
        queue: Queue,
        worker: Worker,
        handler_of: HandlerLookup,
        make_flights: Callable[[Coordinator], Flights],
        poll_seconds: float = 0.05,
    ) -> None:
        self.queue = queue
        self.database = queue.database
        self.worker = worker
        self.handler_of = handler_of
        self.nets = Nets()
        self.taking = Taking(queue, None if worker.fails_unknown else worker.routes)
        self.flights = make_flights(self)
        self.others = False
        """Other processes are at work on this database."""
        self.closing = False
        """Nothing new is taken any more: only what has finished is recorded."""
        self.turns = 0
        self._clock = DatabaseClock(self.database)
        self._connection: Connection | None = None
        self._one_by_one = 0
        self._alone = False
        self.trouble = 0
        self.missed = 0
        """How many turns in a row got nothing although something was due."""
        self.desk = Desk(self.landed)
        self._wake = threading.Event()
        self._lookout = Lookout(poll_seconds)
        self.next_at: int | None = None
        """When the next message is due, in ms, as of the last look; None when there was none."""

    def now(self) -> int:
        """The database's clock, in ms since the epoch."""
        return (self.database.clock or self._clock).now_ms()

    # --- waiting ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have become due in the database."""
        self._lookout.tell()
        self._wake.set()

    def landed(self) -> None:
        """The executor has finished something."""
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Wait until something may have come, at most `seconds`."""
        seconds = min(seconds, self._lookout.seconds)
        deadline = self.flights.next_deadline()
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
        if seconds > 0:
            with nullcontext() if self.closing else self.desk.open():
                self._wake.wait(seconds)
        self._wake.clear()

    @property
    def may_have_work(self) -> bool:
        """It is time for another look."""
        return self._lookout.is_due(slots_freed=self._slots() > 0) or bool(self.flights.finished)

    def look(self) -> int | None:
        """When the next message is due, in ms, as the database has it now."""
        self._look()
        return self.next_at

    def _look(self) -> bool:
        """Look, without a lock, whether a message for this worker is due."""
        starting = self._slots() > 0
        self._lookout.looking()
        with self.database.polls.connect() as connection:
            self.next_at = self.taking.next_due(connection, starting=starting)
        seconds = None if self.next_at is None else (self.next_at - self.now()) / 1000
        self.trouble = 0
        self._lookout.looked(saw_all=starting, seconds=seconds)
        return seconds is not None and seconds <= 0

    def fail_unknown(self, elsewhere: set[str], grace_ms: int) -> None:
        """Play the tasks whose type nobody alive knows and that have waited for `grace_ms`."""
        known = {*self.worker.routes, *elsewhere}
        messages = MESSAGES.c
        query = select(messages.id).where(
            messages.queue == self.queue.name,
            messages.task_type.is_not(None),
            messages.task_type.not_in(known),
            messages.visible_at <= self.now() - grace_ms,
        )
        with self.database.reading() as session:
            ids = list(session.execute(query.limit(self.worker.limit)).scalars())
        if ids:
            self._play([], only=ids)

    # --- one step ---------------------------------------------------------------------------

    def step(self) -> int:
        """Play one turn if there is anything to play; return how many messages it handled."""
        offered = self.desk.take()
        if offered:
            return self._admit(offered)
        self.flights.give_up_late()
        finished = self.flights.drain()
        if self._one_by_one > 0:
            self.flights.finished.extendleft(reversed(finished[1:]))
            finished = finished[:1]
        try:
            look = self._lookout.is_due(slots_freed=self._slots() > 0) and not self.closing
            if not finished and not (look and (self._lookout.was_told or self._look())):
                return 0
            return self._play(finished, look=look)
        except (DBAPIError, ConcurrencyError) as error:
            self.flights.finished.extendleft(reversed(finished))
            self._drop_connection()
            self._lookout.tell()
            if isinstance(error, DBAPIError) and not self.database.backend.is_trouble(error):
                raise
            self.trouble += 1
            logger.log(
                logging.WARNING if self.trouble in (1, 10, 100) else logging.DEBUG,
                "%r is in trouble, trying again: %s",
                self.database,
                in_short(error),
            )
            pause_within(min(2.0, 0.01 * 2 ** min(self.trouble, 8)))
            return 0

    def _play(
        self, finished: Sequence[Finished], *, look: bool = False, only: list[str] | None = None
    ) -> int:
        limit = self.worker.limit
        some = list(finished)
        if self._one_by_one > 0:
            self._one_by_one -= 1
            limit = 1
        roots: list[Taken] = []
        later: list[Finished] = []
        try:
            with self._turn() as turn:
                if some:
                    taken, later = turn.take_finished(some)
                    roots += taken
                if only is not None:
                    roots += turn.take_these(only)
                if look and not (limit == 1 and some):
                    roots += self._take(turn, limit, {root.row.id for root in roots})
                for root in roots:
                    self._play_root(turn, root)
        except Exception as error:  # a handler's is charged to its message
            if self.database.backend.is_trouble(error):
                raise
            self._failed(roots, some, error)
            return 0
        self.flights.finished.extend(later)
        self._committed(turn)
        if not roots and only is None and self._look():  # it is locked by others just now
            self.missed += 1
            pause_within(0.002)
            self._lookout.tell()
        else:
            self.missed = 0
        return turn.written.played

    @contextmanager
    def _turn(self) -> Iterator[Turn]:
        """A turn in a transaction, written and committed at the end."""
        connection = self._open()
        turn: Turn | None = None
        try:
            with rolled_back_on_error(connection):
                self.database.backend.begin(connection, self.flights.next_deadline())
                turn = self._new_turn(connection, self._slots())
                yield turn
                turn.write()
                connection.commit()
        except BaseException:
            if turn is not None:
                turn.forget()
            raise

    def _committed(self, turn: Turn) -> None:
        self.trouble = 0
        self.turns += 1
        self.after_commit(turn, turn.written)

    def _admit(self, offered: list[Submission]) -> int:
        """Store and start new workflows in one turn; if it cannot, each caller does it alone."""
        try:
            with self._turn() as turn:
                admitted = turn.admit(offered, self.handler_of)
        except Exception as error:  # noqa: BLE001  # the callers try again, and raise what it is
            logger.debug("%d workflows are not admitted: %s", len(offered), error)
            self._drop_connection()
            admitted = [False] * len(offered)
        for submission, is_new in zip(offered, admitted, strict=True):
            submission.done.set_result(is_new)
        if not any(admitted):
            return 0
        self._committed(turn)
        return turn.written.played

    def _take(self, turn: Turn, limit: int, present: set[str]) -> list[Taken]:
        self._lookout.looking()
        starting = turn.slots > 0
        taken = turn.take_due(self.taking, limit)
        wanted = min(limit, turn.slots) if starting else limit
        self._lookout.looked(saw_all=starting, more=len(taken) >= wanted)
        # Whether it may have killed its worker: those first, for they run alone.
        return sorted(
            (
                one
                for one in taken
                if one.row.id not in present and not self._is_under_way(turn, one)
            ),
            key=lambda one: not self._is_suspect(one),
        )

    def _is_under_way(self, turn: Turn, one: Taken) -> bool:
        """Renew a message whose body runs in this very process although its lease ran out."""
        if one.row.holder != self.worker.id or one.row.id not in self.flights:
            return False
        turn.connection.execute(
            update(MESSAGES)
            .where(MESSAGES.c.id == one.row.id)
            .values(visible_at=turn.now + self.worker.lease_ms)
        )
        return True

    def _deaths(self, one: Taken) -> int:
        """How many workers a message has cost.

        What this process holds without knowing it is what a lost commit reply left behind.
        """
        return int(one.row.deaths) + (one.row.holder not in (None, self.worker.id))

    def _is_suspect(self, one: Taken) -> bool:
        return self._deaths(one) > 0

    def _new_turn(self, connection: Connection, slots: int) -> Turn:
        return Turn(
            connection,
            self.queue,
            self.nets,
            self.worker,
            slots=slots,
            now=self.now(),
            recorder=get_event_recorder(),
        )

    def _slots(self) -> int:
        if self.closing:
            return 0
        if self._alone:
            if len(self.flights):
                return 0
            self._alone = False
        return max(0, self.flights.free)

    def _play_root(self, turn: Turn, root: Taken) -> None:
        if root.outcome is not None or not self._is_suspect(root):
            turn.play(root, self.handler_of)
        elif self._deaths(root) >= self.queue.max_deaths:
            turn.give_up(root, self._deaths(root), self.handler_of)
        elif len(self.flights) or turn.written.dispatched or turn.slots <= 0:
            self._alone = True
        else:
            turn.play(root, self.handler_of)
            turn.slots = 0
            self._alone = True

    def after_commit(self, turn: Turn, written: Written) -> None:
        """What a committed turn leaves to be done outside of it."""
        for held in written.dispatched:
            self.flights.launch(held, turn.locked[held.execution_id])
        if written.purged:
            self.flights.withdraw(written.purged)
        self.publish(written)
        self.nets.trim()
        backend = self.database.backend
        backend.after_commit(self.others)
        if written.next_at is not None:
            self._lookout.expect((written.next_at - turn.now) / 1000)
        if written.left_work:
            self.wake()
            if self.others:
                self.database.wake_all()

    def publish(self, written: Written) -> None:
        """Tell the subscribers of this process what has been committed."""
        recorder = get_event_recorder()
        if written.events and recorder is not None:
            recorder.publish(written.events, self.database)

    # --- what goes wrong --------------------------------------------------------------------

    def _failed(self, roots: list[Taken], finished: list[Finished], error: Exception) -> None:
        """A handler raised: play the messages one by one; charge the one that is alone."""
        if len(roots) > 1:
            self._one_by_one = len(roots)
            self.flights.finished.extendleft(reversed(finished))
            return
        if not roots:
            raise error
        root = roots[0]
        others = [done for done in finished if done.message.row_id != root.row.id]
        self.flights.finished.extendleft(reversed(others))
        logger.error(
            "message %s (%s) failed",
            root.row.id,
            root.row.type,
            exc_info=error,
            extra={"workflow_id": root.row.workflow_id},
        )
        self.queue.charge(root.row, f"{type(error).__name__}: {error}")

    # --- the connection ---------------------------------------------------------------------

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self.database.turns.connect()
            self.database.backend.open_turns(self._connection)
        return self._connection

    def _drop_connection(self) -> None:
        self.nets.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except DBAPIError:
                connection.invalidate()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
