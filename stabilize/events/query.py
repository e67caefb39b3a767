"""What is asked of an event store, and what appending to one returns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_

from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.rows import EVENTS

ORDERS = ("sequence", "timestamp")


@dataclass(frozen=True)
class EventQuery:
    """Which events, in which order; None does not restrict, an empty `event_types` finds nothing.

    `from_sequence` is exclusive, `to_sequence` inclusive, timestamps (aware) inclusive. `limit`
    None means all of them. Raises `ValueError` for another `order_by` than sequence or timestamp.
    """

    entity_type: EntityType | None = None
    entity_id: str | None = None
    workflow_id: str | None = None
    event_types: Collection[EventType] | None = None
    from_sequence: int | None = None
    to_sequence: int | None = None
    from_timestamp: datetime | None = None
    to_timestamp: datetime | None = None
    limit: int | None = 1000
    offset: int = 0
    order_by: str = "sequence"
    ascending: bool = True

    def __post_init__(self) -> None:
        if self.order_by not in ORDERS:
            raise ValueError(
                f"order_by={self.order_by!r}: events are ordered by {' or '.join(ORDERS)}"
            )
        if self.offset < 0 or (self.limit is not None and self.limit < 0):
            raise ValueError(f"limit={self.limit}, offset={self.offset}: neither can be negative")
        for name in ("from_timestamp", "to_timestamp"):
            instant = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                raise ValueError(f"{name}={instant!r} has no time zone: use datetime.now(UTC)")

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """`query` with the conditions of this one, unordered and unlimited."""
        columns = EVENTS.c
        conditions: list[ColumnElement[bool]] = []
        if self.entity_type is not None:
            conditions.append(columns.entity_type == self.entity_type.value)
        for name in ("entity_id", "workflow_id"):
            if (value := getattr(self, name)) is not None:
                conditions.append(columns[name] == value)
        if self.event_types is not None:
            conditions.append(columns.event_type.in_([kind.value for kind in self.event_types]))
        if self.from_sequence is not None:
            conditions.append(columns.sequence > self.from_sequence)
        if self.to_sequence is not None:
            conditions.append(columns.sequence <= self.to_sequence)
        if self.from_timestamp is not None:
            conditions.append(columns.timestamp >= self.from_timestamp)
        if self.to_timestamp is not None:
            conditions.append(columns.timestamp <= self.to_timestamp)
        return query.where(*conditions)

    def ordered(self, query: Select[Any]) -> Select[Any]:
        """`query` in the order of this one; equal timestamps by sequence."""
        columns = [EVENTS.c.sequence]
        if self.order_by == "timestamp":
            columns.insert(0, EVENTS.c.timestamp)
        return query.order_by(*(c if self.ascending else c.desc() for c in columns))

    def after(self, event: Event) -> ColumnElement[bool]:
        """The condition that what comes after `event`, in the order of this query, meets."""
        sequence, timestamp = EVENTS.c.sequence, EVENTS.c.timestamp
        if self.order_by == "sequence":
            return sequence > event.sequence if self.ascending else sequence < event.sequence
        if self.ascending:
            return or_(
                timestamp > event.timestamp,
                and_(timestamp == event.timestamp, sequence > event.sequence),
            )
        return or_(
            timestamp < event.timestamp,
            and_(timestamp == event.timestamp, sequence < event.sequence),
        )


@dataclass(frozen=True)
class AppendResult:
    """Events as they were stored, and their sequences."""

    events: list[Event] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)

    @property
    def first_sequence(self) -> int:
        """The first sequence assigned, 0 when nothing was appended."""
        return self.sequences[0] if self.sequences else 0

    @property
    def last_sequence(self) -> int:
        """The last sequence assigned, 0 when nothing was appended."""
        return self.sequences[-1] if self.sequences else 0


class Appended(list[Event]):
    """The events of a batch as they were stored, in the order in which they were given."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__(events)

    @property
    def sequences(self) -> Sequence[int]:
        return [event.sequence for event in self]

    @property
    def first_sequence(self) -> int:
        return self[0].sequence if self else 0

    @property
    def last_sequence(self) -> int:
        return self[-1].sequence if self else 0

    @property
    def result(self) -> AppendResult:
        return AppendResult(events=list(self), sequences=list(self.sequences))
