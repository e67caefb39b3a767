"""Keeps what this process holds, and says that this process is alive."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from stabilize.coordinator import Coordinator
from stabilize.errors import ConcurrencyError
from stabilize.models import Worker as WorkerRow
from stabilize.queue.queue import MESSAGES

logger = logging.getLogger(__name__)

_FORGOTTEN_MS = 3_600_000


class Heartbeat:
    """A thread with a connection of its own that renews leases, at a third of their length."""

    def __init__(self, coordinator: Coordinator, task_names: Sequence[str], slots: int) -> None:
        self._coordinator = coordinator
        self._database = coordinator.database
        self._queue = coordinator.queue
        self._worker_id = coordinator.worker.id
        self._task_names = list(task_names)
        self._slots = slots
        self._lease_ms = coordinator.worker.lease_ms
        self._interval = coordinator.worker.lease_ms / 3000
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def live_ms(self) -> int:
        """How long after its last heartbeat a worker still counts as alive."""
        return max(2 * self._lease_ms, 15_000)

    def start(self, *, announce: bool) -> None:
        """Begin; with `announce` the process is shown among the workers."""
        self._stop.clear()
        if announce:
            self._announce()
        self._thread = threading.Thread(
            target=self._beat, args=(announce,), name="stabilize-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _beat(self, announce: bool) -> None:
        wait = min(self._interval, 5.0)
        since = 0.0
        while not self._stop.wait(wait):
            since += wait
            try:
                if since >= self._interval:
                    self.renew()
                    since = 0.0
                if announce:
                    self._show()
            except (SQLAlchemyError, ConcurrencyError) as error:
                logger.warning("a heartbeat failed, trying again: %s", error)
        if announce:
            self._retire()

    def renew(self) -> None:
        """Hold for another lease exactly what the executor of this process is at work on."""
        ids = self._coordinator.flights.ids()
        if not ids:
            return
        mine = (MESSAGES.c.id.in_(ids), MESSAGES.c.holder == self._worker_id)
        with self._database.writing(brings_work=False) as connection:
            renewed = connection.execute(
                update(MESSAGES)
                .where(*mine)
                .values(visible_at=self._database.now() + self._lease_ms)
            ).rowcount
            if renewed == len(ids):
                return
            still = set(connection.execute(select(MESSAGES.c.id).where(*mine)).scalars())
        self._coordinator.flights.withdraw_missing(still, ids)

    # --- the table of workers ---------------------------------------------------------------

    def _announce(self) -> None:
        now = self._database.now()
        with self._database.writing(brings_work=False) as connection:
            connection.execute(
                delete(WorkerRow).where(WorkerRow.heartbeat_at < now - _FORGOTTEN_MS)
            )
            connection.execute(
                insert(WorkerRow).values(
                    id=self._worker_id,
                    queue=self._queue.name,
                    host=socket.gethostname()[:255],
                    pid=os.getpid(),
                    task_types=self._task_names,
                    slots=self._slots,
                    started_at=now,
                    heartbeat_at=now,
                )
            )
        self._look_for_others()

    def _show(self) -> None:
        with self._database.writing(brings_work=False) as connection:
            connection.execute(
                update(WorkerRow)
                .where(WorkerRow.id == self._worker_id)
                .values(heartbeat_at=self._database.now())
            )
        self._look_for_others()

    def _look_for_others(self) -> None:
        self._coordinator.others = self._database.others = bool(self.others())

    def others(self) -> list[list[str]]:
        """The task types of the other live workers of this queue."""
        with self._database.reading() as session:
            return list(
                session.scalars(
                    select(WorkerRow.task_types).where(
                        WorkerRow.queue == self._queue.name,
                        WorkerRow.id != self._worker_id,
                        WorkerRow.heartbeat_at > self._database.now() - self.live_ms,
                    )
                )
            )

    def _retire(self) -> None:
        try:
            with self._database.writing(brings_work=False) as connection:
                connection.execute(delete(WorkerRow).where(WorkerRow.id == self._worker_id))
        except (SQLAlchemyError, ConcurrencyError) as error:
            logger.warning("this worker could not sign off: %s", error)
