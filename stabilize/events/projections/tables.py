"""Projections that are tables of your own, moved in one transaction with their position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from sqlalchemy.orm import Session

from stabilize.events.base import Event, EventType
from stabilize.events.migrator import get_event_migrator
from stabilize.events.positions import ROWS, Positions, names_of
from stabilize.events.sql_store import SqlEventStore


class TableProjection(ABC):
    """A projection into ORM tables of yours, in the database of the event store.

    Raise `version` when the same events are to add up to something else: the tables are then
    cleared and filled again.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    event_types: ClassVar[Collection[EventType] | None] = None
    """Which events it wants; None for all."""

    @abstractmethod
    def apply(self, event: Event, session: Session) -> None:
        """Take in an event; what the session writes commits together with the position."""

    @abstractmethod
    def clear(self, session: Session) -> None:
        """Delete everything it has written."""


class TableProjectionRunner:
    """Keeps a `TableProjection` up to date: every event counts exactly once, crashes included.

    Any number of processes may run the same one; they take turns by its position.
    """

    def __init__(
        self, event_store: SqlEventStore, projection: TableProjection, batch_size: int = 500
    ) -> None:
        self.event_store = event_store
        self.database = event_store.database
        self.projection = projection
        self.batch_size = batch_size
        self._id = f"projection:{projection.name}"
        self._positions = Positions(self.database, "projection")

    def catch_up(self) -> int:
        """Take in everything there is; return how many events were applied."""
        total = 0
        while True:
            before = self.position
            total += self.process_once()
            if self.position == before:
                return total

    @property
    def position(self) -> int:
        """The sequence of the last event taken in."""
        row = self._positions.read(self._id)
        return 0 if row is None else int(row.last_sequence)

    def process_once(self) -> int:
        """Take in one page; 0 when there is nothing new or another process was faster."""
        row = self._row()
        events = self.event_store.get_events_since(row.last_sequence, self.batch_size)
        if not events:
            return 0
        migrator = get_event_migrator()
        kinds = self.projection.event_types
        wanted = [event for event in events if kinds is None or event.event_type in kinds]

        def take(session: Session) -> None:
            for event in wanted:
                self.projection.apply(migrator.migrate(event, strict=False), session)

        moved = self._move(
            take,
            ROWS.c.last_sequence == row.last_sequence,
            ROWS.c.handler_version == self.projection.version,
            last_sequence=events[-1].sequence,
        )
        return len(wanted) if moved else 0

    def rebuild(self) -> int:
        """Clear the tables and fill them from the first event on; return how many it took."""
        self._row()
        self._begin_again()
        return self.catch_up()

    def _begin_again(self) -> None:
        version = self.projection.version
        self._move(self.projection.clear, last_sequence=0, handler_version=version)

    def _move(self, work: Callable[[Session], None], *where: Any, **values: Any) -> bool:
        """Move the position, if it is where it should be, and do `work` in that transaction."""
        with self.database.writing(brings_work=False) as connection:
            if not self._positions.change_on(connection, self._id, *where, **values):
                return False
            # the session's own commit flushes into the transaction around it
            session = Session(bind=connection, join_transaction_mode="rollback_only")
            with session, session.begin():
                work(session)
        return True

    def _row(self) -> Any:
        """The position, at the version of the projection."""
        row = self._positions.read(self._id)
        if row is None:
            kinds, version = names_of(self.projection.event_types), self.projection.version
            self._positions.create(self._id, event_types=kinds, handler_version=version)
        elif row.handler_version < self.projection.version:
            self._begin_again()
        else:
            return row
        return self._positions.read(self._id)
