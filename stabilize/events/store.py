"""What an event store is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stabilize.database import Joinable
from stabilize.events.base import EntityType, Event
from stabilize.events.query import EventQuery

PAGE = 1_000


class EventStore(ABC):
    """An append-only sequence of events.

    An implementation appends atomically and durably, and numbers in rising order. Appending the
    same event (by `event_id`) again returns the stored one.
    """

    @property
    def identity(self) -> str | None:
        """Names what is behind it: another object of the same name goes on with the same events.

        None: its events are gone with the process.
        """
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def append(self, event: Event, connection: Joinable | None = None) -> Event:
        """Store one event; see `append_batch`."""
        return self.append_batch([event], connection)[0]

    @abstractmethod
    def append_batch(
        self, events: Sequence[Event], connection: Joinable | None = None
    ) -> list[Event]:
        """Store events atomically, in order, and return them as stored.

        `version=0` gets the next version of its entity. With `connection` (a `Session` or
        `Connection` on the store's database) they become visible with the caller's commit. Raises
        `ConflictError` when an id is taken by an event with other content, `ConcurrencyError`
        when an entity's version is.
        """

    @abstractmethod
    def get_events(self, query: EventQuery) -> Iterator[Event]:
        """The events a query finds, read page by page."""

    @abstractmethod
    def get_events_for_entity(
        self, entity_type: EntityType, entity_id: str, from_version: int = 0
    ) -> list[Event]:
        """All events of an entity after `from_version`, by version."""

    @abstractmethod
    def get_events_for_workflow(self, workflow_id: str, from_sequence: int = 0) -> list[Event]:
        """All events of a workflow after `from_sequence`, by sequence."""

    @abstractmethod
    def get_current_sequence(self) -> int:
        """The highest sequence stored, 0 when there is none."""

    @abstractmethod
    def get_events_since(self, sequence: int, limit: int = PAGE) -> list[Event]:
        """The events after `sequence`, for those who follow.

        Whoever goes on from the last sequence returned misses none: those are left out before
        which one could still come.
        """

    def get_event_by_id(self, event_id: str) -> Event | None:
        """The event with this id, None when there is none."""
        everything = self.get_events(EventQuery(limit=None))
        return next((event for event in everything if event.event_id == event_id), None)

    def count_events(self, query: EventQuery | None = None) -> int:
        """How many events a query finds, whatever its limit and offset."""
        unlimited = replace(query or EventQuery(), limit=None, offset=0)
        return sum(1 for _ in self.get_events(unlimited))

    def safe_sequence(self) -> int:
        """The sequence up to which nothing can still come."""
        return self.get_current_sequence()

    def close(self) -> None:
        """Give connections back."""
