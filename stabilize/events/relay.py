"""Copies the events of the engine's database to an event store elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stabilize.clock import now_ms
from stabilize.database import Database
from stabilize.errors import StabilizeError
from stabilize.events.base import Event
from stabilize.events.store import EventStore, SqlEventStore
from stabilize.models import EventRelay

logger = logging.getLogger(__name__)

_BATCH = 1_000
_PATIENCE = (0.05, 0.2, 1.0, 5.0)


class Relay:
    """Follows the events of `source` and appends them to `target`, in order and once each.

    Its position is a row beside the events, so that the next process goes on where this one was
    ended; what was copied but not noted is recognised by its id. A target that is down holds up
    nothing: the events wait in their table. `on_copied` is told the events as the target has them.
    """

    def __init__(
        self,
        source: Database,
        target: EventStore,
        on_copied: Callable[[list[Event]], None] | None = None,
    ) -> None:
        self.source = SqlEventStore(source)
        self.target = target
        self.name = _name_of(target)
        self._on_copied = on_copied
        self._remembers = not self.name.startswith("sqlite-memory:")
        self._position: int | None = None
        self._copying = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have the rest copied soon, in the background."""
        self._wake.set()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="stabilize-relay", daemon=True)
            self._thread.start()

    def _is_over(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the background copying after the batch at hand."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def drain(self, timeout: float) -> bool:
        """Copy, in this thread, what is stored by now; say whether that was done in `timeout` s."""
        deadline = time.monotonic() + timeout
        goal = self.source.get_current_sequence()
        while self.position() < goal:
            try:
                copied = self.copy()
            except (SQLAlchemyError, StabilizeError) as error:
                logger.warning("copying events to %r failed: %s", self.target, error)
                copied = 0
            if not copied:
                if time.monotonic() >= deadline:
                    logger.warning("%r does not have all events yet", self.target)
                    return False
                self._wake.wait(0.01)
        with self._copying:  # the thread that copied the last batch has told of it
            return True

    def copy(self) -> int:
        """Copy one batch; return how many events it had."""
        with self._copying:
            position = self.position()
            events = self.source.get_events_since(position, _BATCH)
            if not events:
                return 0
            stored = self.target.append_batch([replace(event, sequence=0) for event in events])
            self._move(position, events[-1].sequence)
            if self._on_copied is not None:
                self._on_copied(list(stored))
        return len(events)

    # --- the position -----------------------------------------------------------------------

    def position(self) -> int:
        """The sequence, in the source, of the last event that is known to be in the target."""
        if not self._remembers:
            return self._position or 0
        with self.source.database.reading() as session:
            row = session.execute(
                select(EventRelay.last_sequence).where(EventRelay.target == self.name)
            ).first()
        return 0 if row is None else int(row.last_sequence)

    def _move(self, old: int, new: int) -> None:
        self._position = new
        if not self._remembers:
            return
        with self.source.database.writing() as connection:
            moved = connection.execute(
                update(EventRelay)
                .where(EventRelay.target == self.name, EventRelay.last_sequence == old)
                .values(last_sequence=new, updated_at=now_ms())
            )
            if moved.rowcount or old:
                return  # nobody, or another process that copied the same, was ahead of us
            savepoint = connection.begin_nested()
            try:
                connection.execute(
                    insert(EventRelay).values(
                        target=self.name, last_sequence=new, updated_at=now_ms()
                    )
                )
                savepoint.commit()
            except IntegrityError:
                savepoint.rollback()

    # --- in the background ------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            self._wake.wait(None if failures == 0 else _PATIENCE[min(failures, 4) - 1])
            self._wake.clear()
            try:
                while self.copy():
                    failures = 0
                    if self._is_over():
                        return
                failures = 0
            except (SQLAlchemyError, StabilizeError) as error:
                failures += 1
                logger.warning("copying events to %r failed, trying again: %s", self.target, error)


def _name_of(store: EventStore) -> str:
    if isinstance(store, SqlEventStore):
        return store.database.identity[:255]
    return f"sqlite-memory:{type(store).__name__}"  # nothing is known of how it keeps them
