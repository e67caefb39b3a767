"""Copies the events of the engine's database to an event store elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stabilize.database import Database
from stabilize.errors import ConcurrencyError, StabilizeError
from stabilize.events.background import Background
from stabilize.events.base import Event
from stabilize.events.positions import ROWS, Positions
from stabilize.events.sql_store import SqlEventStore
from stabilize.events.store import EventStore

logger = logging.getLogger(__name__)

_BATCH = 1_000


class Relay:
    """Follows the events of `source` and appends them to `target`, in order and once each.

    Its position is a row beside the events, so that the next process goes on where this one was
    ended; what was copied but not noted is recognised by its id. A target that is down holds up
    nothing: the events wait in their table. One that is empty gets everything. `on_copied` is told
    the events as the target has them.
    """

    def __init__(
        self,
        source: Database,
        target: EventStore,
        on_copied: Callable[[list[Event]], None] | None = None,
    ) -> None:
        self.source = SqlEventStore(source)
        self.target = target
        self._on_copied = on_copied
        self._positions = Positions(source, "relay")
        self._id = None if target.identity is None else f"relay:{target.identity}"[:255]
        self._position = 0
        self._known = self._closed = False
        self._copying = threading.Lock()
        self._background = Background("relay", self.copy)

    def wake(self) -> None:
        """Have the rest copied soon, in the background."""
        if not self._closed:
            self._background.wake()

    def close(self) -> None:
        """End the background copying after the batch at hand."""
        self._closed = True
        self._background.stop(timeout=5)

    def drain(self, timeout: float) -> bool:
        """Copy, in this thread, what is stored by now; say whether that was done in `timeout` s."""
        deadline = time.monotonic() + timeout
        goal = self.source.get_current_sequence()
        while not self._has(goal):
            if time.monotonic() >= deadline:
                logger.warning("%r does not have all events yet", self.target)
                return False
            threading.Event().wait(0.01)
        with self._copying:  # the thread that copied the last batch has told of it
            return True

    def _has(self, goal: int) -> bool:
        try:
            while self.copy():
                pass
            return self.position() >= goal
        except (SQLAlchemyError, StabilizeError) as error:
            logger.warning("copying events to %r failed: %s", self.target, error)
            return False

    def copy(self) -> int:
        """Copy one batch; return how many events it had."""
        with self._copying:
            position = self.position()
            events = self.source.get_events_since(position, _BATCH)
            if not events:
                return 0
            stored = self._append([replace(event, sequence=0) for event in events])
            self._move(position, events[-1].sequence)
            if self._on_copied is not None:
                self._on_copied(list(stored))
        return len(events)

    def _append(self, events: list[Event]) -> list[Event]:
        try:
            return self.target.append_batch(events)
        except ConcurrencyError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            # somebody has recorded there by hand, and given out versions that these have
            return self.target.append_batch([replace(event, version=0) for event in events])

    def position(self) -> int:
        """The sequence, in the source, of the last event that is known to be in the target."""
        if self._id is None:
            return self._position
        if not self._known:
            self._positions.create(self._id)
            if not self.target.get_current_sequence():  # a new one gets everything
                self._positions.change(self._id, last_sequence=0)
            self._known = True
        return int(self._positions.read(self._id).last_sequence)

    def _move(self, old: int, new: int) -> None:
        self._position = new
        if self._id is not None:  # or another process that copied the same was ahead of us
            self._positions.change(self._id, ROWS.c.last_sequence == old, last_sequence=new)
