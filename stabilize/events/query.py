"""What is asked of an event store, and what appending to one returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, or_

from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.rows import READING, READING_BARE

ORDERS = {"sequence": ("sequence",), "timestamp": ("timestamp", "sequence")}
_KNOWN = [kind.value for kind in EventType if kind is not EventType.UNKNOWN]


@dataclass(frozen=True)
class EventQuery:
    """Which events, in which order; None does not restrict, an empty `event_types` finds nothing.

    `from_sequence` is exclusive, `to_sequence` inclusive, timestamps (aware) inclusive. `limit`
    None means all of them. `metadata=False` leaves out who and why, which is faster. Raises
    `ValueError` for another `order_by` than sequence or timestamp.
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
    metadata: bool = True

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

    def merged(self, events: Iterable[Event], ends: Iterable[Event]) -> list[Event]:
        """`events` in order, up to the first of `ends`: beyond, more may come in between."""

        def place(event: Event) -> list[Any]:
            return [getattr(event, name) for name in ORDERS[self.order_by]]

        ordered = sorted(events, key=place, reverse=not self.ascending)
        stop = min((ordered.index(end) for end in ends), default=len(ordered))
        return ordered[: stop + 1]

    def page(self, table: Table, after: Event | None) -> Select[Any]:
        """What this finds in a table, in its order, behind `after` if given; unlimited."""
        columns = [table.c[name] for name in ORDERS[self.order_by]]
        rows = (READING if self.metadata else READING_BARE)[table]
        found = self.narrow(rows, table) if after is None else self._behind(after, rows, table)
        return found.order_by(*(c if self.ascending else c.desc() for c in columns))

    def _behind(self, event: Event, rows: Select[Any], table: Table) -> Select[Any]:
        # bounds are moved, not added: an index is entered by one, and SQLite may take the old one
        at, sequence = event.timestamp, event.sequence
        bounds: dict[tuple[str, bool], dict[str, Any]] = {
            ("sequence", True): {"from_sequence": sequence},
            ("sequence", False): {"to_sequence": sequence - 1},
            ("timestamp", True): {"from_timestamp": at},
            ("timestamp", False): {"to_timestamp": at},
        }
        moved = replace(self, **bounds[self.order_by, self.ascending]).narrow(rows, table)
        if self.order_by == "sequence":
            return moved
        c = table.c
        if self.ascending:
            return moved.where(or_(c.timestamp > at, c.sequence > sequence))
        return moved.where(or_(c.timestamp < at, c.sequence < sequence))

    def narrow(self, query: Select[Any], table: Table) -> Select[Any]:
        """`query` with the conditions of this one."""
        c = table.c

        def of_type(kinds: Collection[EventType]) -> ColumnElement[bool]:
            named = c.event_type.in_([kind.value for kind in kinds])
            return or_(named, c.event_type.not_in(_KNOWN)) if EventType.UNKNOWN in kinds else named

        conditions: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            (self.entity_type, lambda kind: c.entity_type == kind.value),
            (self.entity_id, lambda id: c.entity_id == id),
            (self.workflow_id, lambda id: c.workflow_id == id),
            (self.event_types, of_type),
            (self.from_sequence, lambda sequence: c.sequence > sequence),
            (self.to_sequence, lambda sequence: c.sequence <= sequence),
            (self.from_timestamp, lambda instant: c.timestamp >= instant),
            (self.to_timestamp, lambda instant: c.timestamp <= instant),
        )
        return query.where(*(holds(value) for value, holds in conditions if value is not None))


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
    """The events of a batch as they were stored; `result` has their sequences."""

    @property
    def result(self) -> AppendResult:
        return AppendResult(events=list(self), sequences=[event.sequence for event in self])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.result, name)
