"""Durable subscriptions: every event at least once and in order, however often a process ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete

from stabilize.events.background import Background
from stabilize.events.base import EntityType, Event, EventType, event_type_of
from stabilize.events.deliveries import LINES, Deliveries
from stabilize.events.following import Handler, Visits, call
from stabilize.events.positions import ROWS, Positions, names_of
from stabilize.events.sql_store import SqlEventStore
from stabilize.events.store import EventStore
from stabilize.events.webhooks import WebhookSender, secret_bytes
from stabilize.models import EventDeadLetter, EventDelivery, SubscriptionRecord
from stabilize.outbound import http_connection
from stabilize.tasks.backoff import Backoff

_FILTERS = ("entity_id", "entity_type", "workflow_id")
_SHOWN = (
    "id enabled last_sequence error_count last_error failing_sequence delivered_count event_types"
)


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
        self._positions = Positions(self.database, "subscription", int(lease_seconds * 1000))
        self._deliveries = Deliveries(event_store, sender or WebhookSender())
        pauses = backoff or Backoff(base=0.5, cap=300)
        self._visits = Visits(event_store, self._positions, self._deliveries, batch_size, pauses)
        self._handlers: dict[str, Handler | None] = {}
        self._secrets: dict[str, str] = {}
        self._working = threading.Lock()
        self._calling = Background("subscriptions", self._call_all, poll_interval)
        self._sending = Background("webhooks", self._send, poll_interval)

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
        webhook_order: str | None = None,
    ) -> None:
        """Subscribe; under an id that is there, the position stays and the rest is replaced.

        `start_from`: "latest", "beginning" or a sequence as text. `entity_filter` may have
        entity_type, entity_id, workflow_id. `webhook_secret` signs what is sent to `webhook_url`:
        `whsec_...`, which is kept in memory only, or `env:NAME`, which is stored. `webhook_order`:
        None sends each event as soon as it can be, "workflow" those of a workflow one after
        another, "subscription" all of them. `ValueError` for what means nothing.
        """
        if on_max_errors not in ("park", "disable"):
            raise ValueError(f"on_max_errors={on_max_errors!r}: it is 'park' or 'disable'")
        if webhook_order not in LINES:
            raise ValueError(f"webhook_order={webhook_order!r}: it is one of {list(LINES)}")
        if webhook_url is not None:
            http_connection(webhook_url, 1)  # refuses what is no such URL; nothing is opened
        by_reference = webhook_secret is not None and webhook_secret.startswith("env:")
        if webhook_secret is not None and not by_reference:
            for secret in webhook_secret.split():
                secret_bytes(secret)
        self._positions.create(
            subscription_id,
            self._sequence_of(start_from),
            event_types=names_of(event_types),
            entity_filter=_checked(entity_filter),
            webhook_url=webhook_url,
            webhook_secret_ref=webhook_secret if by_reference else None,
            webhook_order=webhook_order,
            max_errors=max_errors,
            on_max_errors=on_max_errors,
        )
        self._take(subscription_id, handler, webhook_secret)

    def _take(self, id: str, handler: Handler | None, secret: str | None) -> None:
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
        known = subscription_id in self._handlers
        for kept in (self._handlers, self._secrets):
            kept.pop(subscription_id, None)
        with self.database.writing(brings_work=False) as connection:
            gone = [
                connection.execute(delete(model).where(column == subscription_id)).rowcount
                for model, column in _KEPT
            ]
        return gone[0] == 1 or known

    def get_subscription(self, subscription_id: str) -> DurableSubscription | None:
        """The subscription as it is stored, None when there is none."""
        row = self._positions.read(subscription_id)
        if row is None:
            return None
        kinds = row.event_types
        return DurableSubscription(
            row.id,
            self._handlers.get(row.id),
            None if kinds is None else [event_type_of(kind) for kind in kinds],
            row.entity_filter,
            row.last_sequence,
            row.webhook_url,
            row.enabled,
            row.error_count,
            row.max_errors,
        )

    def get_subscription_status(self, subscription_id: str) -> dict[str, Any] | None:
        """How a subscription fares, with its lag in numbers; None when there is none."""
        row = self._positions.read(subscription_id)
        if row is None:
            return None
        current = self.event_store.get_current_sequence()
        status = {name: getattr(row, name) for name in _SHOWN.split()}
        lag = max(0, current - row.last_sequence)
        return {**status, "current_sequence": current, "lag": lag}

    def enable_subscription(self, subscription_id: str) -> bool:
        """Have a disabled subscription go on; its errors are forgotten."""
        return self._positions.change(
            subscription_id, enabled=True, error_count=0, failing_sequence=None, next_attempt_at=0
        )

    def disable_subscription(self, subscription_id: str) -> bool:
        return self._positions.change(subscription_id, enabled=False)

    def reset_subscription(self, subscription_id: str, to: str = "beginning") -> bool:
        """Move a subscription to another place; see `start_from`.

        What was sent to its webhook is not sent again: see `replay_deliveries`.
        """
        return self._positions.change(
            subscription_id,
            last_sequence=self._sequence_of(to),
            claim_epoch=ROWS.c.claim_epoch + 1,  # who is at it does not move it back
            claim_owner=None,
        )

    # --- once more --------------------------------------------------------------------------

    def dead_letters(self, subscription_id: str) -> list[tuple[Event, str]]:
        """The events set aside for a subscription, with the error of the last try."""
        rows = {row.event_id: row for row in self._deliveries.letters.of(subscription_id)}
        events = {event.event_id: event for event in self.event_store.get_events_by_ids(rows)}
        return [(events[id], row.error) for id, row in rows.items() if id in events]

    def replay_dead_letters(self, subscription_id: str) -> int:
        """Hand events set aside to the handler, or send them, once more; return how many.

        One that the handler raises on stays where it is.
        """
        handler = self._handlers.get(subscription_id)
        taken = 0
        for event, _ in self.dead_letters(subscription_id):
            at = event.sequence
            sent = self._deliveries.post_again(subscription_id, at - 1, at, status="FAILED")
            if sent or (handler is not None and call(handler, event) is None):
                self._deliveries.letters.resolve(subscription_id, at)
                taken += 1
        return taken

    def replay_deliveries(
        self, subscription_id: str, after: int = 0, upto: int | None = None
    ) -> int:
        """Send the webhook once more what it was sent after one sequence and up to another."""
        return self._deliveries.post_again(subscription_id, after, upto)

    # --- at work ----------------------------------------------------------------------------

    def process_once(self) -> int:
        """Work for every subscription once, a page each; return how many calls succeeded.

        Pauses after errors are not waited for.
        """
        return self._call_all(early=True) + self._send()

    def _call_all(self, *, early: bool = False) -> int:
        with self._working:
            frontier = self.event_store.safe_sequence()
            self.event_store.mark_stable(frontier)
            done = 0
            for id, handler in dict(self._handlers).items():
                if not early and self._calling.stopping:
                    break
                done += self._visits.visit(id, handler, frontier, early=early)
            return done

    def _send(self) -> int:
        return self._deliveries.send_due(list(self._handlers), dict(self._secrets))

    def start(self) -> None:
        """Work in the background until `stop`."""
        self._calling.wake()
        self._sending.wake()

    def stop(self, timeout: float = 30.0) -> None:
        """Stop after the page of events at hand."""
        self._calling.stop(timeout)
        self._sending.stop(timeout)


_KEPT = (
    (SubscriptionRecord, SubscriptionRecord.id),
    (EventDelivery, EventDelivery.subscription_id),
    (EventDeadLetter, EventDeadLetter.subscription_id),
)


def _checked(given: dict[str, Any] | None) -> dict[str, str] | None:
    """An entity filter as it is stored; `ValueError` for a key or a type that means nothing."""
    unknown = sorted(set(given or ()) - set(_FILTERS))
    if unknown:
        raise ValueError(f"entity_filter has {', '.join(unknown)}: known are {', '.join(_FILTERS)}")
    if given is None:
        return None
    if "entity_type" in given:
        given = {**given, "entity_type": EntityType(given["entity_type"]).value}
    return {key: str(value) for key, value in given.items()}
