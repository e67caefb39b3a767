"""The queue of events on their way to webhooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, exists, insert, or_, select, update

from stabilize.clock import chance
from stabilize.events.base import Event
from stabilize.events.dead_letters import DeadLetters
from stabilize.events.migrator import get_event_migrator
from stabilize.events.positions import ROWS as SUBSCRIPTIONS
from stabilize.events.sql_store import SqlEventStore
from stabilize.events.webhooks import SCHEDULE_SECONDS, SendResult, WebhookSender
from stabilize.models import EventDelivery

_ROWS: Table = EventDelivery.__table__  # type: ignore[assignment]
_PAGE = 50
_DAY = 86_400
LINES: dict[str | None, Callable[[Event], str | None]] = {
    None: lambda event: None,
    "workflow": lambda event: event.workflow_id,
    "subscription": lambda event: "",
}
"""The line an event stands in, by the order in which a subscriber wants its events."""


class Deliveries:
    """Sends what is due, each event to each webhook until it took it or all attempts failed."""

    def __init__(self, event_store: SqlEventStore, sender: WebhookSender) -> None:
        self.event_store = event_store
        self.database = event_store.database
        self.sender = sender
        self.letters = DeadLetters(self.database)
        self._lease_ms = int(sender.timeout * 2000) + 5_000

    # --- what is to be sent -----------------------------------------------------------------

    def post(self, connection: Connection, subscription: Any, events: Sequence[Event]) -> None:
        """Have events sent to the webhook of a subscription, unless they were before."""
        mine = _ROWS.c.subscription_id == subscription.id
        sequences = [event.sequence for event in events]
        posted = select(_ROWS.c.sequence).where(mine, _ROWS.c.sequence.in_(sequences))
        known = set(connection.scalars(posted))
        now = connection.execute(select(self.database.now())).scalar_one()
        rows = [
            {
                "subscription_id": subscription.id,
                "sequence": event.sequence,
                "event_id": event.event_id,
                "line": LINES[subscription.webhook_order](event),
                "next_attempt_at": now,
                "created_at": now,
            }
            for event in events
            if event.sequence not in known
        ]
        if rows:
            connection.execute(insert(_ROWS), rows)

    def post_again(
        self, subscription_id: str, after: int, upto: int | None, status: str | None = None
    ) -> int:
        """Have events sent once more, those of one status or all; return how many."""
        where = [_ROWS.c.subscription_id == subscription_id, _ROWS.c.sequence > after]
        where.append(_ROWS.c.status != "PENDING" if status is None else _ROWS.c.status == status)
        if upto is not None:
            where.append(_ROWS.c.sequence <= upto)
        values = {"status": "PENDING", "attempt": 0, "next_attempt_at": self.database.now()}
        with self.database.writing(brings_work=False) as connection:
            return connection.execute(update(_ROWS).where(*where).values(values)).rowcount

    # --- sending ----------------------------------------------------------------------------

    def send_due(self, subscribers: Collection[str], secrets: Mapping[str, str]) -> int:
        """Send one page of what is due for `subscribers`; return how many were taken."""
        if not subscribers:
            return 0
        with self.database.reading() as session:
            rows = session.execute(self._due(subscribers)).all()
        found = self.event_store.get_events_by_ids([row.event_id for row in rows]) if rows else []
        events = {event.event_id: event for event in found}
        late: set[str] = set()
        sent = 0
        for row in rows:
            if row.subscription_id in late or not self._claim(row):
                continue
            result = self._send(row, events.get(row.event_id), secrets)
            self._note(row, result)
            sent += result.delivered
            if result.unwell:  # the others wait with it
                late.add(row.subscription_id)
        return sent

    def _due(self, subscribers: Collection[str]) -> Any:
        earlier, owner = _ROWS.alias(), SUBSCRIPTIONS.c
        before = (
            earlier.c.subscription_id == _ROWS.c.subscription_id,
            earlier.c.line == _ROWS.c.line,
            earlier.c.status == "PENDING",
            earlier.c.sequence < _ROWS.c.sequence,
        )
        settings = owner.webhook_url, owner.webhook_secret_ref, owner.max_errors
        return (
            select(_ROWS, *settings, owner.on_max_errors)
            .join(SUBSCRIPTIONS, owner.id == _ROWS.c.subscription_id)
            .where(
                _ROWS.c.status == "PENDING",
                _ROWS.c.next_attempt_at <= self.database.now(),
                _ROWS.c.subscription_id.in_(list(subscribers)),
                owner.enabled.is_(True),
                owner.webhook_url.is_not(None),
                or_(_ROWS.c.line.is_(None), ~exists(select(earlier.c.id).where(*before))),
            )
            .order_by(_ROWS.c.next_attempt_at, _ROWS.c.sequence)
            .limit(_PAGE)
        )

    def _claim(self, row: Any) -> bool:
        values = {"attempt": row.attempt + 1}
        with self.database.writing(brings_work=False) as connection:
            return self._change(connection, row, row.attempt, values, self._lease_ms)

    def _send(self, row: Any, event: Event | None, secrets: Mapping[str, str]) -> SendResult:
        if event is None:
            return SendResult(delivered=False, error="the event is not there any more", lost=True)
        secret = secrets.get(row.subscription_id) or row.webhook_secret_ref
        current = get_event_migrator().migrate(event, strict=False)
        return self.sender.send(row.webhook_url, current, secret)

    def _note(self, row: Any, result: SendResult) -> None:
        attempt = row.attempt + 1
        spent = result.gone or result.lost or 0 < row.max_errors <= attempt
        values: dict[str, Any] = {
            "http_status": result.status,
            "duration_ms": result.duration_ms,
            "error": result.error,
        }
        if result.delivered:
            values |= {"status": "DELIVERED", "delivered_at": self.database.now()}
        elif spent:
            values["status"] = "FAILED"
        wait = int(1000 * _wait(attempt, result))
        with self.database.writing(brings_work=False) as connection:
            if not self._change(connection, row, attempt, values, wait) or result.delivered:
                return
            if spent:
                self._give_up(connection, row, result)
            elif result.unwell:
                later = self.database.now() + wait
                waiting = (
                    _ROWS.c.subscription_id == row.subscription_id,
                    _ROWS.c.status == "PENDING",
                )
                others = update(_ROWS).where(*waiting, _ROWS.c.next_attempt_at < later)
                connection.execute(others.values(next_attempt_at=later))

    def _change(
        self, connection: Connection, row: Any, attempt: int, values: dict[str, Any], wait_ms: int
    ) -> bool:
        """Change a row that is still at `attempt`; if it stays pending, it is due after that."""
        due = self.database.now() + wait_ms
        pending = _ROWS.c.id == row.id, _ROWS.c.attempt == attempt, _ROWS.c.status == "PENDING"
        change = update(_ROWS).where(*pending).values(next_attempt_at=due, **values)
        return connection.execute(change).rowcount == 1

    def _give_up(self, connection: Connection, row: Any, result: SendResult) -> None:
        """Set the event aside, and the subscription if its endpoint is gone or never well."""
        id, attempts, error = row.subscription_id, row.attempt + 1, result.error or ""
        self.letters.add(connection, id, row, error, attempts, row.created_at)
        disables = result.gone or row.on_max_errors == "disable"
        if not disables and attempts > len(SCHEDULE_SECONDS):
            since = _ROWS.c.subscription_id == id, _ROWS.c.delivered_at >= row.created_at
            disables = connection.execute(select(_ROWS.c.id).where(*since)).first() is None
        if disables:
            mine = update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.id == id)
            connection.execute(mine.values(enabled=False, last_error=error))


def _wait(attempt: int, result: SendResult) -> float:
    """Seconds until the next attempt: as scheduled and up to a tenth more, or as it was asked."""
    planned = SCHEDULE_SECONDS[min(attempt, len(SCHEDULE_SECONDS)) - 1]
    return max(planned * (1 + chance() / 10), min(result.retry_after or 0, _DAY))
