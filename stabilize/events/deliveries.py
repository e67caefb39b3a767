"""The queue of events on their way to webhooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Table, insert, select, update

from stabilize.events.base import Event
from stabilize.events.positions import Positions
from stabilize.events.store import SqlEventStore
from stabilize.events.webhooks import SCHEDULE_SECONDS, SendResult, WebhookSender
from stabilize.models import EventDeadLetter, EventDelivery

_ROWS: Table = EventDelivery.__table__  # type: ignore[assignment]
_PAGE = 50


class Deliveries:
    """Sends what is due, each event to each webhook until it took it or ten attempts failed."""

    def __init__(
        self, event_store: SqlEventStore, sender: WebhookSender, positions: Positions
    ) -> None:
        self.event_store = event_store
        self.database = event_store.database
        self.sender = sender
        self._positions = positions
        self._lease_ms = int(sender.timeout * 2000) + 5_000

    def send_due(self, subscribers: Collection[str], secrets: Mapping[str, str]) -> int:
        """Send one page of what is due for `subscribers`; return how many were taken."""
        if not subscribers:
            return 0
        due = (
            select(_ROWS)
            .where(
                _ROWS.c.status == "PENDING",
                _ROWS.c.next_attempt_at <= self.database.now(),
                _ROWS.c.subscription_id.in_(list(subscribers)),
            )
            .order_by(_ROWS.c.next_attempt_at, _ROWS.c.id)
            .limit(_PAGE)
        )
        with self.database.reading() as session:
            rows = session.execute(due).all()
        if not rows:
            return 0
        events = {
            event.event_id: event
            for event in self.event_store.get_events_by_ids([row.event_id for row in rows])
        }
        owners = {id: self._positions.read(id) for id in {row.subscription_id for row in rows}}
        sent = 0
        for row in rows:
            owner, event = owners[row.subscription_id], events.get(row.event_id)
            if event is None or owner is None or not owner.enabled or not owner.webhook_url:
                continue
            if self._claim(row):
                sent += self._send(row, owner, event, secrets)
        return sent

    def _claim(self, row: Any) -> bool:
        with self.database.writing() as connection:
            claimed = connection.execute(
                update(_ROWS)
                .where(
                    _ROWS.c.id == row.id,
                    _ROWS.c.attempt == row.attempt,
                    _ROWS.c.status == "PENDING",
                )
                .values(
                    attempt=row.attempt + 1,
                    next_attempt_at=self.database.now() + self._lease_ms,
                )
            )
            return claimed.rowcount == 1

    def _send(self, row: Any, subscription: Any, event: Event, secrets: Mapping[str, str]) -> bool:
        secret = secrets.get(subscription.id) or subscription.webhook_secret_ref
        result = self.sender.send(subscription.webhook_url, event, secret)
        self._note(row, result, row.attempt + 1)
        if result.gone:
            self._positions.change(
                subscription.id, enabled=False, last_error="the endpoint is gone (410)"
            )
        return result.delivered

    def _note(self, row: Any, result: SendResult, attempt: int) -> None:
        now = self.database.now()
        values: dict[str, Any] = {
            "http_status": result.status,
            "duration_ms": result.duration_ms,
            "error": result.error,
        }
        spent = attempt > len(SCHEDULE_SECONDS) or result.gone
        if result.delivered:
            values |= {"status": "DELIVERED", "delivered_at": now}
        elif spent:
            values["status"] = "FAILED"
        else:
            wait = max(SCHEDULE_SECONDS[attempt - 1], result.retry_after or 0)
            values["next_attempt_at"] = now + int(wait * 1000)
        with self.database.writing() as connection:
            noted = connection.execute(
                update(_ROWS)
                .where(_ROWS.c.id == row.id, _ROWS.c.attempt == attempt)
                .values(**values)
            )
            if spent and not result.delivered and noted.rowcount == 1:
                connection.execute(
                    insert(EventDeadLetter).values(
                        subscription_id=row.subscription_id,
                        sequence=row.sequence,
                        event_id=row.event_id,
                        error=result.error or "not delivered",
                        attempts=attempt,
                        first_failed_at=row.created_at,
                        last_failed_at=now,
                    )
                )
