"""Durable subscriptions: every event at least once and in order, however often a process ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from stabilize.errors import StabilizeError
from stabilize.events.base import Event, EventType
from stabilize.events.deliveries import Deliveries
from stabilize.events.migrator import get_event_migrator
from stabilize.events.positions import Failure, Positions, checked_filter, filter_of, types_of
from stabilize.events.store import EventStore, SqlEventStore
from stabilize.events.webhooks import WebhookSender
from stabilize.models import EventDeadLetter
from stabilize.tasks.backoff import Backoff

logger = logging.getLogger(__name__)

Handler = Callable[[Event], Any]


@dataclass
class DurableSubscription:
    """A subscriber as its row has it, with the function that is called for it here."""

    id: str
    handler: Handler | None
    event_types: list[EventType] | None = None
    entity_filter: dict[str, Any] | None = None
    last_sequence: int = 0
    webhook_url: str | None = None
    enabled: bool = True
    error_count: int = 0
    max_errors: int = 10


class SubscriptionManager:
    """Calls subscribers with the events they want, from where each has come to.

    Positions are rows beside the events. A subscription is worked for by one process at a time,
    one event after another: a handler has to be done within `lease_seconds`. An event it raises on
    is tried again with growing pauses, `max_errors` times; then it is set aside
    (`on_max_errors="park"`: see `dead_letters`) or the subscription is disabled (`"disable"`).
    `poll_interval` in seconds.
    """

    def __init__(
        self,
        event_store: EventStore,
        poll_interval: float = 1.0,
        batch_size: int = 100,
        *,
        lease_seconds: float = 60.0,
        backoff: Backoff | None = None,
        sender: WebhookSender | None = None,
    ) -> None:
        if not isinstance(event_store, SqlEventStore):
            raise TypeError(
                f"subscriptions need the tables of a SqlEventStore, not {event_store!r}"
            )
        self.event_store = event_store
        self.database = event_store.database
        self.poll_interval = poll_interval
        self.batch_size = batch_size
        self.backoff = backoff or Backoff(base=0.5, cap=300)
        self._positions = Positions(self.database, int(lease_seconds * 1000))
        self._deliveries = Deliveries(event_store, sender or WebhookSender(), self._positions)
        self._handlers: dict[str, Handler | None] = {}
        self._secrets: dict[str, str] = {}
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # --- who subscribes ---------------------------------------------------------------------

    def create_subscription(
        self,
        subscription_id: str,
        handler: Handler | None,
        event_types: Sequence[EventType] | None = None,
        entity_filter: dict[str, Any] | None = None,
        webhook_url: str | None = None,
        start_from: str = "latest",
        *,
        max_errors: int = 10,
        on_max_errors: str = "park",
        webhook_secret: str | None = None,
    ) -> None:
        """Subscribe; under an id that is there, the position stays and the rest is replaced.

        `start_from`: "latest", "beginning" or a sequence as text. `entity_filter` may have
        entity_type, entity_id, workflow_id. `webhook_secret` signs what is sent to `webhook_url`:
        `whsec_...`, which is kept in memory only, or `env:NAME`, which is stored. `ValueError` for
        what means nothing.
        """
        if on_max_errors not in ("park", "disable"):
            raise ValueError(f"on_max_errors={on_max_errors!r}: it is 'park' or 'disable'")
        by_reference = webhook_secret is not None and webhook_secret.startswith("env:")
        self._positions.create(
            subscription_id,
            self._sequence_of(start_from),
            {
                "event_types": None if event_types is None else [k.value for k in event_types],
                "entity_filter": checked_filter(entity_filter),
                "webhook_url": webhook_url,
                "webhook_secret_ref": webhook_secret if by_reference else None,
                "max_errors": max_errors,
                "on_max_errors": on_max_errors,
            },
        )
        self._take(subscription_id, handler, webhook_secret)

    def _take(self, id: str, handler: Handler | None, secret: str | None) -> None:
        with self._lock:
            self._handlers[id] = handler
            if secret is not None:
                self._secrets[id] = secret

    def _sequence_of(self, start_from: str) -> int:
        if start_from == "latest":
            return self.event_store.safe_sequence()
        if start_from == "beginning":
            return 0
        if start_from.isascii() and start_from.isdigit():
            return int(start_from)
        raise ValueError(
            f"start_from={start_from!r}: it is 'latest', 'beginning' or a sequence like '42'"
        )

    def load_subscription(
        self, subscription_id: str, handler: Handler | None, *, webhook_secret: str | None = None
    ) -> bool:
        """Go on with a stored subscription, its filters and position; no when it is not stored."""
        if self._positions.read(subscription_id) is None:
            return False
        self._take(subscription_id, handler, webhook_secret)
        return True

    def delete_subscription(self, subscription_id: str) -> bool:
        """Remove a subscription and all that is kept for it; say whether it was there."""
        with self._lock:
            known = self._handlers.pop(subscription_id, _NOTHING) is not _NOTHING
            self._secrets.pop(subscription_id, None)
        return self._positions.delete(subscription_id) or known

    def get_subscription(self, subscription_id: str) -> DurableSubscription | None:
        """The subscription as it is stored, None when there is none."""
        row = self._positions.read(subscription_id)
        if row is None:
            return None
        return DurableSubscription(
            id=row.id,
            handler=self._handlers.get(row.id),
            event_types=types_of(row),
            entity_filter=row.entity_filter,
            last_sequence=row.last_sequence,
            webhook_url=row.webhook_url,
            enabled=row.enabled,
            error_count=row.error_count,
            max_errors=row.max_errors,
        )

    def get_subscription_status(self, subscription_id: str) -> dict[str, Any] | None:
        """How a subscription fares, with its lag in events; None when there is none."""
        row = self._positions.read(subscription_id)
        if row is None:
            return None
        current = self.event_store.get_current_sequence()
        return {
            "id": row.id,
            "enabled": row.enabled,
            "last_sequence": row.last_sequence,
            "current_sequence": current,
            "lag": max(0, current - row.last_sequence),
            "error_count": row.error_count,
            "last_error": row.last_error,
            "failing_sequence": row.failing_sequence,
            "delivered_count": row.delivered_count,
            "event_types": row.event_types,
        }

    def enable_subscription(self, subscription_id: str) -> bool:
        """Have a disabled subscription go on; its errors are forgotten."""
        return self._positions.change(
            subscription_id, enabled=True, error_count=0, failing_sequence=None, next_attempt_at=0
        )

    def disable_subscription(self, subscription_id: str) -> bool:
        return self._positions.change(subscription_id, enabled=False)

    def reset_subscription(self, subscription_id: str, to: str = "beginning") -> bool:
        """Move a subscription to another place; see `start_from`."""
        return self._positions.change(subscription_id, last_sequence=self._sequence_of(to))

    # --- what was set aside -----------------------------------------------------------------

    def dead_letters(self, subscription_id: str) -> list[tuple[Event, str]]:
        """The events set aside for a subscription, with the error of the last try."""
        rows = self._set_aside(subscription_id)
        events = {e.event_id: e for e in self.event_store.get_events_by_ids(list(rows))}
        return [(events[id], row.error) for id, row in rows.items() if id in events]

    def replay_dead_letters(self, subscription_id: str) -> int:
        """Hand events set aside to the handler once more; return how many it took."""
        handler = self._handlers.get(subscription_id)
        taken = 0
        if handler is None:
            return taken
        for event, _ in self.dead_letters(subscription_id):
            if _call(handler, event) is None:
                with self.database.writing() as connection:
                    connection.execute(
                        update(EventDeadLetter)
                        .where(
                            EventDeadLetter.subscription_id == subscription_id,
                            EventDeadLetter.sequence == event.sequence,
                        )
                        .values(resolved_at=self.database.now())
                    )
                taken += 1
        return taken

    def _set_aside(self, subscription_id: str) -> dict[str, Any]:
        query = (
            select(EventDeadLetter.event_id, EventDeadLetter.error)
            .where(
                EventDeadLetter.subscription_id == subscription_id,
                EventDeadLetter.resolved_at.is_(None),
            )
            .order_by(EventDeadLetter.sequence)
        )
        with self.database.reading() as session:
            return {row.event_id: row for row in session.execute(query)}

    # --- at work ----------------------------------------------------------------------------

    def process_once(self) -> int:
        """Work for every subscription once, a page each; return how many calls succeeded.

        Pauses after errors are not waited for.
        """
        return self._round(early=True)

    def _round(self, *, early: bool) -> int:
        with self._working:
            frontier = self.event_store.safe_sequence()
            self.event_store.mark_stable(frontier)
            with self._lock:
                subscribers = list(self._handlers.items())
            done = 0
            for id, handler in subscribers:
                done += self._work_for(id, handler, frontier, early)
            with self._lock:
                secrets = dict(self._secrets)
            return done + self._deliveries.send_due(dict(subscribers), secrets)

    def _work_for(self, id: str, handler: Handler | None, frontier: int, early: bool) -> int:
        row = self._positions.read(id)
        if row is None or not row.enabled or row.last_sequence >= frontier:
            return 0
        row = self._positions.claim(id, early=early)
        if row is None:
            return 0
        wanted = filter_of(row)
        migrator = get_event_migrator()
        position, done = row.last_sequence, 0
        failure: Failure | None = None
        post: list[Event] = []
        lease = _Lease(self._positions, row)
        for event in self.event_store.read_stable(position, frontier, self.batch_size):
            if self._stopping.is_set() or not lease.holds():
                break
            if wanted.matches(event):
                error = None
                if handler is not None:
                    error = _call(handler, migrator.migrate(event, strict=False))
                if error is not None:
                    failure = self._failure(row, event, error)
                    break
                if row.webhook_url:
                    post.append(event)
                done += handler is not None
            position = event.sequence
        self._positions.move(row, position, done, failure=failure, post=post)
        return done

    def _failure(self, row: Any, event: Event, error: str) -> Failure:
        again = row.failing_sequence == event.sequence
        count = (row.error_count if again else 0) + 1
        logger.warning(
            "subscription %r failed on event %s, try %s: %s", row.id, event.sequence, count, error
        )
        wait = int(self.backoff.seconds(count) * 1000)
        return Failure(event=event, error=error, count=count, wait_ms=wait)

    def start(self) -> None:
        """Work in the background until `stop`."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._run, name="stabilize-subscriptions", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stop after the event at hand."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout)
        self._stopping.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                done = self._round(early=False)
            except (SQLAlchemyError, StabilizeError) as error:
                logger.warning("subscriptions on %r: %s; trying again", self.database, error)
                done = 0
            if not done:
                self._stopping.wait(self.poll_interval)


_NOTHING = object()


class _Lease:
    """Renews a claim before its time is over, about a third of it after the last time."""

    def __init__(self, positions: Positions, row: Any) -> None:
        self._positions = positions
        self._row = row
        self._since = time.monotonic()

    def holds(self) -> bool:
        now = time.monotonic()
        if (now - self._since) * 3000 < self._positions.lease_ms:
            return True
        self._since = now
        return self._positions.renew(self._row)


def _call(handler: Handler, event: Event) -> str | None:
    """Call a subscriber; what it raises, as text."""
    try:
        handler(event)
    except Exception as error:  # noqa: BLE001 (whatever a subscriber raises is counted, not fatal)
        return f"{type(error).__name__}: {error}"
    return None
