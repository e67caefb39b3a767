"""The bus: events of this process, told to its subscribers after they were committed."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from stabilize.events.base import EntityType, Event, EventType

logger = logging.getLogger(__name__)

ErrorHandler = Callable[[str, Event, Exception], None]


class SubscriptionMode(Enum):
    """SYNC: in the thread that publishes. ASYNC: in a pool, in order for each subscriber."""

    SYNC = "sync"
    ASYNC = "async"


@dataclass
class Subscription:
    """Who wants to hear of what; None does not restrict, and the restrictions all have to hold."""

    id: str
    handler: Callable[[Event], Any]
    event_types: set[EventType] | None = None
    entity_types: set[EntityType] | None = None
    workflow_filter: str | None = None
    mode: SubscriptionMode = SubscriptionMode.SYNC
    enabled: bool = True
    _waiting: deque[Event] = field(default_factory=deque, init=False, repr=False, compare=False)
    _busy: bool = field(default=False, init=False, repr=False, compare=False)

    def matches(self, event: Event) -> bool:
        return (
            self.enabled
            and (self.event_types is None or event.event_type in self.event_types)
            and (self.entity_types is None or event.entity_type in self.entity_types)
            and (self.workflow_filter is None or event.workflow_id == self.workflow_filter)
        )


@dataclass(frozen=True)
class EventBusStats:
    """Counts since the bus was made; `events_delivered` has one for each call of a subscriber."""

    events_published: int = 0
    events_delivered: int = 0
    errors: int = 0
    subscriptions_active: int = 0
    async_fallbacks: int = 0


class EventBus:
    """Tells subscribers of events; what one of them raises is logged, counted and reported.

    `error_handler(subscription_id, event, exception)` hears of each. `max_workers` threads call
    the asynchronous subscribers. Thread-safe.
    """

    def __init__(self, max_workers: int = 4, error_handler: ErrorHandler | None = None) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._subscriptions: dict[str, Subscription] = {}
        self._max_workers = max_workers
        self._on_error = error_handler
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._pending = 0
        self._counts: Counter[str] = Counter()

    def configure(self, max_workers: int, error_handler: ErrorHandler | None) -> None:
        """Change the settings and keep the subscriptions."""
        self._close_pool(wait=True)
        self._max_workers = max_workers
        self._on_error = error_handler or self._on_error
        self._closed = False

    # --- who listens ------------------------------------------------------------------------

    @property
    def has_listeners(self) -> bool:
        return bool(self._subscriptions) and not self._closed

    def subscribe(
        self,
        subscription_id: str,
        handler: Callable[[Event], Any],
        event_types: set[EventType] | None = None,
        entity_types: set[EntityType] | None = None,
        workflow_filter: str | None = None,
        mode: SubscriptionMode = SubscriptionMode.SYNC,
    ) -> None:
        """Have `handler` called with each matching event; the same id again replaces."""
        kinds = None if event_types is None else set(event_types)
        entities = None if entity_types is None else set(entity_types)
        made = Subscription(subscription_id, handler, kinds, entities, workflow_filter, mode)
        with self._lock:
            self._drop(self._subscriptions.get(subscription_id))
            self._subscriptions[subscription_id] = made

    def unsubscribe(self, subscription_id: str) -> bool:
        """Remove a subscription and what still waits for it; say whether it was there."""
        with self._lock:
            found = self._subscriptions.pop(subscription_id, None)
            self._drop(found)
        return found is not None

    def _drop(self, subscription: Subscription | None) -> None:
        if subscription is not None:
            subscription.enabled = False
            self._pending -= len(subscription._waiting)
            subscription._waiting.clear()
            self._idle.notify_all()

    def enable_subscription(self, subscription_id: str) -> None:
        self._switch(subscription_id, True)

    def disable_subscription(self, subscription_id: str) -> None:
        """Pass events by until it is enabled again; an unknown id is left alone."""
        self._switch(subscription_id, False)

    def _switch(self, subscription_id: str, enabled: bool) -> None:
        found = self._subscriptions.get(subscription_id)
        if found is not None:
            found.enabled = enabled

    def get_subscriptions(self) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions.values())

    def on_error(self, handler: ErrorHandler | None) -> None:
        """Have `handler` told what subscribers raise."""
        self._on_error = handler

    # --- what happens -----------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Tell all matching subscribers; after `shutdown` nobody, with a warning."""
        if self._closed:
            logger.warning("event %s was published after the bus was shut down", event.event_id)
            return
        self._count("published")
        for subscription in self.get_subscriptions():
            if not subscription.matches(event):
                continue
            if subscription.mode is SubscriptionMode.ASYNC:
                self._enqueue(subscription, event)
            else:
                self._call(subscription, event)

    def publish_batch(self, events: Iterable[Event]) -> None:
        for event in events:
            self.publish(event)

    def _enqueue(self, subscription: Subscription, event: Event) -> None:
        with self._lock:
            subscription._waiting.append(event)
            self._pending += 1
            if subscription._busy:
                return
            subscription._busy = True
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._max_workers, "stabilize-bus")
            pool = self._pool
        try:
            pool.submit(self._work_off, subscription)
        except RuntimeError:  # the interpreter, or another thread, is shutting the pool down
            self._count("fallbacks")
            self._work_off(subscription)

    def _work_off(self, subscription: Subscription) -> None:
        while True:
            with self._lock:
                if not subscription._waiting:
                    subscription._busy = False
                    return
                event = subscription._waiting.popleft()
            try:
                self._call(subscription, event)
            finally:
                with self._lock:
                    self._pending -= 1
                    self._idle.notify_all()

    def _call(self, subscription: Subscription, event: Event) -> None:
        self._count("delivered")
        try:
            subscription.handler(event)
        except Exception as error:
            self._count("errors")
            name, about = event.event_type.value, {"workflow_id": event.workflow_id}
            logger.exception("subscriber %r failed on %s", subscription.id, name, extra=about)
            try:
                if self._on_error is not None:
                    self._on_error(subscription.id, event, error)
            except Exception:
                logger.exception("the error handler of the bus failed")

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    # --- around it --------------------------------------------------------------------------

    @property
    def stats(self) -> EventBusStats:
        """A copy of the counts."""
        with self._lock:
            return EventBusStats(
                events_published=self._counts["published"],
                events_delivered=self._counts["delivered"],
                errors=self._counts["errors"],
                subscriptions_active=sum(s.enabled for s in self._subscriptions.values()),
                async_fallbacks=self._counts["fallbacks"],
            )

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until the asynchronous subscribers have had everything; no after `timeout` s."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending <= 0, timeout)

    def shutdown(self, wait: bool = True) -> None:
        """Tell nobody anything any more; with `wait`, after what still waits was delivered."""
        self._closed = True
        self._close_pool(wait=wait)

    def _close_pool(self, *, wait: bool) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait)

    def reset(self) -> None:
        """Forget subscriptions and counts, and open again."""
        self.shutdown(wait=True)
        with self._lock:
            self._subscriptions.clear()
            self._counts.clear()
            self._pending = 0
            self._closed = False


_bus = EventBus()


def get_event_bus() -> EventBus:
    """The bus of this process."""
    return _bus


def configure_event_bus(
    max_workers: int = 4, error_handler: ErrorHandler | None = None
) -> EventBus:
    """Set up the bus of this process; subscriptions that are there stay."""
    _bus.configure(max_workers, error_handler)
    return _bus


def reset_event_bus() -> None:
    """Forget every subscription of the bus of this process."""
    _bus.reset()
