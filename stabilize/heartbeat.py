"""Keeps what this process holds, and says that this process is alive."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from stabilize.coordinator import Coordinator
from stabilize.errors import ConcurrencyError, in_short
from stabilize.models import Worker as WorkerRow
from stabilize.models.queue import PARKED
from stabilize.queue.rows import MESSAGES
from stabilize.queue.taking import TAKE_BACK

logger = logging.getLogger(__name__)

_FORGOTTEN_MS = 3_600_000
_LONGEST_LEASE_MS = 86_400_000
_SHOWN_SECONDS = 5.0


class Heartbeat:
    """A thread with a connection of its own that renews leases, at a third of their length.

    With `announce` the process is shown among the workers.
    """

    def __init__(self, coordinator: Coordinator, slots: int, *, announce: bool) -> None:
        self._coordinator = coordinator
        self._database = coordinator.database
        self._worker = coordinator.worker
        self._slots = slots
        self._announces = announce
        self._interval = coordinator.worker.lease_ms / 3000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="stabilize-heartbeat", daemon=True)

    def start(self) -> None:
        if self._announces:
            self._announce()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _beat(self) -> None:
        wait = min(self._interval, _SHOWN_SECONDS)
        since = 0.0
        while not self._stop.wait(wait):
            since += wait
            try:
                if since >= self._interval:
                    self.renew()
                    self.end_far_leases()
                    since = 0.0
                if self._announces:
                    self._show()
            except (SQLAlchemyError, ConcurrencyError) as error:
                logger.warning("a heartbeat failed, trying again: %s", in_short(error))
        if self._announces:
            self._retire()

    def renew(self) -> None:
        """Hold for another lease exactly what the executor of this process is at work on."""
        held = {message.row_id: message for message in self._coordinator.flights.held()}
        if not held:
            return
        mine = (MESSAGES.c.id.in_(held), MESSAGES.c.holder == self._worker.id)
        lease_end = self._database.now() + self._worker.lease_ms
        with self._database.writing(brings_work=False) as connection:
            renew = update(MESSAGES).where(*mine).values(visible_at=lease_end)
            if connection.execute(renew).rowcount == len(held):
                return
            still = set(connection.execute(select(MESSAGES.c.id).where(*mine)).scalars())
            lost = [message for id, message in held.items() if id not in still]
            if lost:
                living = [{"b_id": one.row_id, "b_attempts": one.attempts} for one in lost]
                connection.execute(TAKE_BACK, living)
        self._coordinator.flights.withdraw_these(lost)

    def end_far_leases(self) -> None:
        """End leases further ahead than any can be: the clock was wrong when they were taken."""
        now = self._database.now()
        first = now + max(_LONGEST_LEASE_MS, 2 * self._worker.lease_ms)
        far = (
            MESSAGES.c.queue == self._coordinator.queue.name,
            MESSAGES.c.visible_at.between(first, PARKED - 1),
            MESSAGES.c.holder.is_not(None),
        )
        with self._database.reading() as session:
            if session.scalar(select(MESSAGES.c.id).where(*far).limit(1)) is None:
                return
        with self._database.writing() as connection:
            connection.execute(update(MESSAGES).where(*far).values(visible_at=now))

    # --- the table of workers ---------------------------------------------------------------

    def _announce(self) -> None:
        now = self._database.now()
        this = {
            "id": self._worker.id,
            "queue": self._coordinator.queue.name,
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "task_types": list(self._worker.routes),
            "slots": self._slots,
            "started_at": now,
            "heartbeat_at": now,
        }
        forgotten = WorkerRow.heartbeat_at < now - _FORGOTTEN_MS
        self._write(delete(WorkerRow).where(forgotten), insert(WorkerRow).values(this))
        self._look_for_others()

    def _show(self) -> None:
        mine = update(WorkerRow).where(WorkerRow.id == self._worker.id)
        self._write(mine.values(heartbeat_at=self._database.now()))
        self._look_for_others()

    def _retire(self) -> None:
        try:
            self._write(delete(WorkerRow).where(WorkerRow.id == self._worker.id))
        except (SQLAlchemyError, ConcurrencyError) as error:
            logger.warning("this worker could not sign off: %s", error)

    def _write(self, *statements: Any) -> None:
        with self._database.writing(brings_work=False) as connection:
            for statement in statements:
                connection.execute(statement)

    def _look_for_others(self) -> None:
        self._worker.elsewhere = frozenset(self.known_elsewhere())
        self._coordinator.others = self._database.others = bool(self._worker.elsewhere)

    def known_elsewhere(self) -> set[str]:
        """What the other live workers of this queue take messages for."""
        live_ms = max(2 * self._worker.lease_ms, 15_000)
        query = select(WorkerRow.task_types).where(
            WorkerRow.queue == self._coordinator.queue.name,
            WorkerRow.id != self._worker.id,
            WorkerRow.heartbeat_at > self._database.now() - live_ms,
        )
        with self._database.reading() as session:
            return {name for names in session.scalars(query) for name in names}
