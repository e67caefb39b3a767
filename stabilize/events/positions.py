"""The rows of durable subscribers: made, claimed, moved and given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from stabilize.clock import new_id
from stabilize.database import Database
from stabilize.events.base import EntityType, Event, EventType, event_type_of
from stabilize.models import EventDeadLetter, EventDelivery, SubscriptionRecord

_ROWS: Table = SubscriptionRecord.__table__  # type: ignore[assignment]
_FILTERS = frozenset({"entity_type", "entity_id", "workflow_id"})


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events a subscriber wants."""

    event_types: frozenset[str] | None = None
    entity: Mapping[str, str] | None = None

    def matches(self, event: Event) -> bool:
        if self.event_types is not None and event.event_type.value not in self.event_types:
            return False
        if not self.entity:
            return True
        actual = {
            "entity_type": event.entity_type.value,
            "entity_id": event.entity_id,
            "workflow_id": event.workflow_id,
        }
        return all(actual[key] == value for key, value in self.entity.items())


def checked_filter(given: Mapping[str, Any] | None) -> dict[str, str] | None:
    """An entity filter as it is stored; `ValueError` for a key that means nothing."""
    if given is None:
        return None
    unknown = sorted(set(given) - _FILTERS)
    if unknown:
        raise ValueError(
            f"entity_filter has {', '.join(unknown)}: known are {', '.join(sorted(_FILTERS))}"
        )
    return {k: v.value if isinstance(v, EntityType) else str(v) for k, v in given.items()}


def filter_of(row: Any) -> Filter:
    kinds = row.event_types
    return Filter(
        event_types=None if kinds is None else frozenset(kinds), entity=row.entity_filter or None
    )


def types_of(row: Any) -> list[EventType] | None:
    return None if row.event_types is None else [event_type_of(k) for k in row.event_types]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An event a subscriber raised on, and how often it has by now."""

    event: Event
    error: str
    count: int
    wait_ms: int


class Positions:
    """Reads and writes the rows of subscribers in one database, on behalf of one process."""

    def __init__(self, database: Database, lease_ms: int) -> None:
        self.database = database
        self.lease_ms = lease_ms
        self.owner = new_id()

    # --- the row ----------------------------------------------------------------------------

    def create(self, id: str, at: int, changes: dict[str, Any]) -> None:
        """Make the row of `id` at sequence `at`; one that is there keeps its position."""
        values = {
            "kind": "subscription",
            "last_sequence": at,
            "enabled": True,
            "error_count": 0,
            "next_attempt_at": 0,
            "claim_epoch": 0,
            "claim_until": 0,
            "handler_version": 1,
            "delivered_count": 0,
            "created_at": self.database.now(),
            "updated_at": self.database.now(),
            **changes,
        }
        try:
            with self.database.writing() as connection:
                changed = connection.execute(
                    update(_ROWS).where(_ROWS.c.id == id).values(**changes)
                )
                if not changed.rowcount and self.read(id, connection) is None:
                    connection.execute(insert(_ROWS).values(id=id, **values))
        except IntegrityError:  # another process made it just now, with its position
            return

    def read(self, id: str, connection: Connection | None = None) -> Any:
        """The row, None when there is none."""
        query = select(_ROWS).where(_ROWS.c.id == id)
        if connection is not None:
            return connection.execute(query).first()
        with self.database.reading() as session:
            return session.execute(query).first()

    def delete(self, id: str) -> bool:
        with self.database.writing() as connection:
            gone = connection.execute(_ROWS.delete().where(_ROWS.c.id == id))
            for kind in (EventDelivery, EventDeadLetter):
                table: Table = kind.__table__  # type: ignore[assignment]
                connection.execute(table.delete().where(table.c.subscription_id == id))
            return gone.rowcount == 1

    def change(self, id: str, **values: Any) -> bool:
        """Set columns of a row; say whether it is there."""
        with self.database.writing() as connection:
            changed = connection.execute(
                update(_ROWS)
                .where(_ROWS.c.id == id)
                .values(updated_at=self.database.now(), **values)
            )
            return changed.rowcount == 1

    # --- the claim --------------------------------------------------------------------------

    def claim(self, id: str, *, early: bool) -> Any:
        """Get a subscriber to ourselves for a lease: its row; None when somebody else has it.

        `early`: also when it waits for its next attempt.
        """
        now, columns = self.database.now(), _ROWS.c
        free = or_(
            columns.claim_owner.is_(None),
            columns.claim_owner == self.owner,
            columns.claim_until < now,
        )
        here = [columns.id == id, columns.enabled.is_(True), free]
        if not early:
            here.append(columns.next_attempt_at <= now)
        with self.database.reading() as session:  # most polls find nothing: without a write
            if session.execute(select(columns.id).where(and_(*here))).first() is None:
                return None
        with self.database.writing() as connection:
            claimed = connection.execute(
                update(_ROWS)
                .where(and_(*here))
                .values(
                    claim_owner=self.owner,
                    claim_epoch=columns.claim_epoch + 1,
                    claim_until=now + self.lease_ms,
                )
            )
            return self.read(id, connection) if claimed.rowcount == 1 else None

    def renew(self, row: Any) -> bool:
        """Extend the lease; no when it is not ours any more."""
        with self.database.writing() as connection:
            kept = connection.execute(
                update(_ROWS)
                .where(_ROWS.c.id == row.id, _ROWS.c.claim_epoch == row.claim_epoch)
                .values(claim_until=self.database.now() + self.lease_ms)
            )
            return kept.rowcount == 1

    def move(
        self,
        row: Any,
        sequence: int,
        delivered: int,
        *,
        failure: Failure | None = None,
        post: Sequence[Event] = (),
    ) -> bool:
        """Write the new position and give the claim back; no when somebody else has claimed.

        `post`: what is to be sent to the webhook, in the same transaction.
        """
        parks = failure is not None and 0 < row.max_errors <= failure.count
        disables = parks and row.on_max_errors == "disable"
        values: dict[str, Any] = {
            "last_sequence": sequence,
            "delivered_count": _ROWS.c.delivered_count + delivered,
            "claim_owner": None,
            "claim_until": 0,
            "updated_at": self.database.now(),
            "error_count": 0,
            "failing_sequence": None,
            "first_failed_at": None,
            "next_attempt_at": 0,
        }
        if failure is not None:
            again = row.failing_sequence == failure.event.sequence
            values |= {
                "last_error": failure.error,
                "error_count": failure.count,
                "failing_sequence": failure.event.sequence,
                "first_failed_at": row.first_failed_at if again else self.database.now(),
                "next_attempt_at": self.database.now() + failure.wait_ms,
                "enabled": not disables,
            }
        if parks and not disables and failure is not None:
            values |= {
                "last_sequence": failure.event.sequence,
                "error_count": 0,
                "failing_sequence": None,
                "next_attempt_at": 0,
            }
        with self.database.writing() as connection:
            moved = connection.execute(
                update(_ROWS)
                .where(_ROWS.c.id == row.id, _ROWS.c.claim_epoch == row.claim_epoch)
                .values(**values)
            )
            if moved.rowcount != 1:
                return False
            if parks and not disables and failure is not None:
                self._park(connection, row, failure)
            self._post(connection, row, post)
        return True

    def _park(self, connection: Connection, row: Any, failure: Failure) -> None:
        now = self.database.now()
        table: Table = EventDeadLetter.__table__  # type: ignore[assignment]
        here = (
            table.c.subscription_id == row.id,
            table.c.sequence == failure.event.sequence,
        )
        connection.execute(table.delete().where(*here))
        connection.execute(
            insert(table).values(
                subscription_id=row.id,
                sequence=failure.event.sequence,
                event_id=failure.event.event_id,
                error=failure.error,
                attempts=failure.count,
                first_failed_at=now if row.first_failed_at is None else row.first_failed_at,
                last_failed_at=now,
            )
        )

    def _post(self, connection: Connection, row: Any, events: Sequence[Event]) -> None:
        table: Table = EventDelivery.__table__  # type: ignore[assignment]
        if not events:
            return
        there = set(
            connection.scalars(
                select(table.c.sequence).where(
                    table.c.subscription_id == row.id,
                    table.c.sequence.in_([event.sequence for event in events]),
                )
            )
        )
        now = connection.execute(select(self.database.now())).scalar_one()
        rows = [
            {
                "subscription_id": row.id,
                "sequence": event.sequence,
                "event_id": event.event_id,
                "status": "PENDING",
                "attempt": 0,
                "next_attempt_at": now,
                "created_at": now,
            }
            for event in events
            if event.sequence not in there
        ]
        if rows:
            connection.execute(insert(table), rows)
