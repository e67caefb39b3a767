"""One visit to a subscriber: claim it, call it event by event, note how far it came."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from stabilize.errors import ConcurrencyError
from stabilize.events.base import EntityType, Event, event_type_of
from stabilize.events.deliveries import Deliveries
from stabilize.events.migrator import get_event_migrator
from stabilize.events.positions import ROWS, Positions, as_claimed
from stabilize.events.query import EventQuery
from stabilize.events.sql_store import SqlEventStore
from stabilize.tasks.backoff import Backoff

logger = logging.getLogger(__name__)

Handler = Callable[[Event], Any]


class Visits:
    """Works for subscribers, on behalf of one process."""

    def __init__(
        self,
        event_store: SqlEventStore,
        positions: Positions,
        deliveries: Deliveries,
        batch_size: int,
        backoff: Backoff,
    ) -> None:
        self.event_store = event_store
        self.positions = positions
        self.deliveries = deliveries
        self.batch_size = batch_size
        self.backoff = backoff

    def visit(self, id: str, handler: Handler | None, frontier: int, *, early: bool) -> int:
        """Work for one subscriber, a page at most; return how many calls succeeded."""
        row = self.positions.read(id)
        if row is None or not row.enabled or row.last_sequence >= frontier:
            return 0
        row = self.positions.claim(id, early=early)
        if row is None:
            return 0
        lease = _Lease(self.positions, row)
        page = list(self.event_store.get_events(_query(row, frontier, self.batch_size)))
        taken, error = page, None
        if handler is not None and page:
            taken, error = _call_all(handler, page, lease)
        if len(taken) == len(page) < self.batch_size:
            position = frontier
        else:
            position = taken[-1].sequence if taken else row.last_sequence
        done = 0 if handler is None else len(taken)
        values = {
            "last_sequence": position,
            "delivered_count": ROWS.c.delivered_count + done,
            "claim_owner": None,
            "claim_until": 0,
            "error_count": 0,
            "failing_sequence": None,
            "next_attempt_at": 0,
        }
        if error is None:
            self._note(row, values, taken)
        else:
            self._note_failure(row, values, taken, page[len(taken)], error)
        return done

    def _note_failure(
        self, row: Any, values: dict[str, Any], taken: list[Event], event: Event, error: str
    ) -> None:
        """Have the event tried again later, or set it aside, or disable the subscriber."""
        again = row.failing_sequence == event.sequence
        count = 1 + (row.error_count if again else 0)
        now = self.positions.database.now()
        since = row.first_failed_at if again else None
        spent = 0 < row.max_errors <= count
        logger.warning("subscription %r failed on event %s: %s", row.id, event.sequence, error)
        if spent and row.on_max_errors == "park":
            values |= {"last_sequence": event.sequence, "last_error": error}
            self._note(row, values, [*taken, event], (event, error, count, since))
            return
        values |= {
            "enabled": not spent,
            "error_count": count,
            "failing_sequence": event.sequence,
            "first_failed_at": now if since is None else since,
            "last_error": error,
            "next_attempt_at": now + int(self.backoff.seconds(count) * 1000),
        }
        self._note(row, values, taken)

    def _note(
        self, row: Any, values: dict[str, Any], passed: list[Event], aside: Any = None
    ) -> None:
        """Give the claim back, if nobody else has claimed it by now; all in one transaction."""
        with self.positions.database.writing(brings_work=False) as connection:
            if not self.positions.change_on(connection, row.id, as_claimed(row), **values):
                return
            if aside is not None:
                event, error, count, since = aside
                self.deliveries.letters.add(connection, row.id, event, error, count, since)
            if row.webhook_url:
                self.deliveries.post(connection, row, passed)


def _query(row: Any, frontier: int, limit: int) -> EventQuery:
    wanted = row.entity_filter or {}
    kinds, kind = row.event_types, wanted.get("entity_type")
    return EventQuery(
        entity_type=None if kind is None else EntityType(kind),
        entity_id=wanted.get("entity_id"),
        workflow_id=wanted.get("workflow_id"),
        event_types=None if kinds is None else [event_type_of(name) for name in kinds],
        from_sequence=row.last_sequence,
        to_sequence=frontier,
        limit=limit,
    )


class _Lease:
    """Keeps a claim for as long as its subscriber is called, however long that takes."""

    def __init__(self, positions: Positions, row: Any) -> None:
        self._positions = positions
        self._row = row
        self._third = positions.lease_ms / 3000
        self._since = time.monotonic()
        self._kept = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stabilize-lease", daemon=True)

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def holds(self) -> bool:
        """Say whether the claim is still ours; renew it when a third of its time is over."""
        now = time.monotonic()
        if self._kept and now - self._since >= self._third:
            self._kept, self._since = self._positions.renew(self._row), now
        return self._kept

    def _keep(self) -> None:
        while self._kept and not self._over.wait(self._third):
            try:
                self.holds()
            except (SQLAlchemyError, ConcurrencyError) as error:
                logger.warning("the claim of %r is not renewed: %s", self._row.id, error)


def _call_all(handler: Handler, page: list[Event], lease: _Lease) -> tuple[list[Event], str | None]:
    """Call with one event after another: those it took, and what it raised on the next."""
    with lease:
        for at, event in enumerate(page):
            if not lease.holds():
                return page[:at], None
            error = call(handler, event)
            if error is not None:
                return page[:at], error
    return page, None


def call(handler: Handler, event: Event) -> str | None:
    """Call a subscriber with an event, brought up to date; what it raises, as text."""
    try:
        handler(get_event_migrator().migrate(event, strict=False))
    except Exception as error:  # noqa: BLE001 (whatever a subscriber raises is counted, not fatal)
        return f"{type(error).__name__}: {error}"
    return None
