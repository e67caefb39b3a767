"""Projections that are tables of your own, moved in one transaction with their position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from stabilize.events.base import Event, EventType
from stabilize.events.migrator import get_event_migrator
from stabilize.events.store import SqlEventStore
from stabilize.models import SubscriptionRecord

_KIND = "projection"


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
        with self.database.reading() as session:
            found = session.scalar(
                select(SubscriptionRecord.last_sequence).where(SubscriptionRecord.id == self._id)
            )
        return int(found or 0)

    def process_once(self) -> int:
        """Take in one page; 0 when there is nothing new or another process was faster."""
        self._ensure()
        old = self.position
        events = self.event_store.get_events_since(old, self.batch_size)
        if not events:
            return 0
        migrator = get_event_migrator()
        wanted = self.projection.event_types
        applied = 0
        with self.database.writing() as connection:
            moved = connection.execute(
                update(SubscriptionRecord)
                .where(
                    SubscriptionRecord.id == self._id,
                    SubscriptionRecord.last_sequence == old,
                    SubscriptionRecord.handler_version == self.projection.version,
                )
                .values(last_sequence=events[-1].sequence, updated_at=self.database.now())
            )
            if moved.rowcount != 1:
                return 0
            # the session's own commit flushes into the transaction around it
            session = Session(bind=connection, join_transaction_mode="rollback_only")
            with session, session.begin():
                for event in events:
                    if wanted is None or event.event_type in wanted:
                        self.projection.apply(migrator.migrate(event, strict=False), session)
                        applied += 1
        return applied

    def rebuild(self) -> int:
        """Clear the tables and fill them from the first event on; return how many it took."""
        self._ensure()
        self._begin_again()
        return self.catch_up()

    def _begin_again(self) -> None:
        with self.database.writing() as connection:
            connection.execute(
                update(SubscriptionRecord)
                .where(SubscriptionRecord.id == self._id)
                .values(
                    last_sequence=0,
                    handler_version=self.projection.version,
                    updated_at=self.database.now(),
                )
            )
            session = Session(bind=connection, join_transaction_mode="rollback_only")
            with session, session.begin():
                self.projection.clear(session)

    def _ensure(self) -> None:
        query = select(SubscriptionRecord.handler_version).where(SubscriptionRecord.id == self._id)
        with self.database.reading() as session:
            version = session.scalar(query)
        if version is None:
            self._insert()
        elif version < self.projection.version:
            self._begin_again()

    def _insert(self) -> None:
        kinds = self.projection.event_types
        try:
            with self.database.writing() as connection:
                connection.execute(
                    insert(SubscriptionRecord).values(
                        id=self._id,
                        kind=_KIND,
                        event_types=None if kinds is None else [k.value for k in kinds],
                        last_sequence=0,
                        enabled=True,
                        error_count=0,
                        max_errors=0,
                        on_max_errors="disable",
                        next_attempt_at=0,
                        claim_epoch=0,
                        claim_until=0,
                        handler_version=self.projection.version,
                        delivered_count=0,
                        created_at=self.database.now(),
                        updated_at=self.database.now(),
                    )
                )
        except IntegrityError:  # another process was faster
            return
