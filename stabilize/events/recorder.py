"""Turns what a turn did into events, and appends them in that very transaction."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, select

from stabilize.database import Database, Joinable
from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.bus import EventBus, get_event_bus
from stabilize.events.by_hand import ENTITY_TYPE, Entity, Recording
from stabilize.events.context import get_event_metadata
from stabilize.events.relay import Relay
from stabilize.events.replay import EventReplayer
from stabilize.events.rows import EVENTS, Draft, inserter_for
from stabilize.events.snapshots import SnapshotStore
from stabilize.events.store import EventStore, SqlEventStore
from stabilize.types import plain

if TYPE_CHECKING:
    from stabilize.queue.messages import Message


class EventRecorder(Recording):
    """Records what happens: in the turn's own transaction, and by hand with `record_...`.

    Events of a turn always go into the database of the engine. When `event_store` is on another
    one, they are copied there after the commit, in order and once each. With `snapshots`,
    workflows are snapshotted by its policy while they run.
    """

    def __init__(
        self,
        event_store: EventStore,
        publish_to_bus: bool = True,
        *,
        bus: EventBus | None = None,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        self.event_store = event_store
        self.publish_to_bus = publish_to_bus
        self.snapshots = snapshots
        self._bus = bus
        self._replayer = None if snapshots is None else EventReplayer(event_store, snapshots)
        self._relays: dict[str, Relay] = {}
        self._lock = threading.Lock()

    @property
    def bus(self) -> EventBus:
        return self._bus or get_event_bus()

    # --- for the turn -----------------------------------------------------------------------

    def draft(
        self,
        event_type: EventType,
        entity: Entity,
        data: dict[str, Any],
        *,
        workflow_id: str,
        timestamp: datetime,
        cause: Message | None,
        handler: str | None,
        actor: str = "system",
    ) -> Draft:
        """An event of this turn, not stored yet."""
        state = entity.__dict__
        return Draft(
            event_type,
            ENTITY_TYPE[type(entity)],
            state["id"],
            workflow_id,
            state["event_version"],
            data,
            timestamp,
            None if cause is None else cause.message_id,
            handler,
            actor,
        )

    def append(self, connection: Connection, drafts: list[Draft]) -> list[Event]:
        """Store the events of a turn, within its transaction.

        Returns them with their sequences if anybody wants to hear of them, else nothing.
        """
        inserter_for(connection).drafts(connection, drafts)
        wanted = self.publish_to_bus and self.bus.has_listeners
        if not wanted and self.snapshots is None and not self._is_elsewhere(connection):
            return []
        return [
            draft.to_event(sequence)
            for draft, sequence in zip(drafts, _sequences(connection, drafts), strict=True)
        ]

    def _is_elsewhere(self, connection: Connection) -> bool:
        return (
            not isinstance(self.event_store, SqlEventStore)
            or self.event_store.database.engine.pool is not connection.engine.pool
        )

    def publish(self, events: list[Event], database: Database | None = None) -> None:
        """Tell the subscribers of this process, after the commit; wake relay and snapshots."""
        if self.publish_to_bus:
            self.bus.publish_batch(events)
        if database is None:
            return
        relay = self._relay_of(database)
        if relay is None:
            self._observe(events)
        else:
            relay.wake()

    def _observe(self, events: list[Event]) -> None:
        if self.snapshots is not None and self._replayer is not None:
            self.snapshots.observe(events, self._replayer.take_snapshot)

    def attach(self, database: Database) -> None:
        """Go on, in the background, with what another process has left to be copied."""
        relay = self._relay_of(database)
        if relay is not None:
            relay.wake()

    def drain(self, database: Database, timeout: float) -> bool:
        """Wait until the event store has all that `database` has now; no after `timeout` seconds.

        Nothing is to be done when it is that very database.
        """
        relay = self._relay_of(database)
        return relay is None or relay.drain(timeout)

    def close(self) -> None:
        """Stop the relays; what they have not copied is copied by the next process."""
        with self._lock:
            relays, self._relays = list(self._relays.values()), {}
        for relay in relays:
            relay.close()

    def _relay_of(self, database: Database) -> Relay | None:
        store = self.event_store
        if isinstance(store, SqlEventStore) and store.database.identity == database.identity:
            return None
        relay = self._relays.get(database.identity)
        if relay is None:
            with self._lock:
                relay = self._relays.get(database.identity)
                if relay is None:
                    relay = self._relays[database.identity] = Relay(database, store, self._observe)
        return relay

    # --- by hand ----------------------------------------------------------------------------

    def record(
        self,
        event_type: EventType,
        entity_type: EntityType,
        entity_id: str,
        workflow_id: str,
        data: dict[str, Any] | None = None,
        *,
        connection: Joinable | None = None,
    ) -> Event:
        """Store one event of your own, in your transaction or one of its own, and publish it.

        In your transaction (`connection`, on the event store's database) it is not published: it
        may yet be rolled back.
        """
        event = Event(
            event_type=event_type,
            entity_type=entity_type,
            entity_id=entity_id,
            workflow_id=workflow_id,
            data=plain(data or {}, event_type.value),
            metadata=get_event_metadata(workflow_id, type(self).__name__),
        )
        stored = self.event_store.append(event, connection)
        if connection is None and self.publish_to_bus:
            self.bus.publish(stored)
        return stored


def _sequences(connection: Connection, drafts: list[Draft]) -> list[int]:
    found: dict[str, int] = {}
    for start in range(0, len(drafts), 500):
        ids = [draft.event_id for draft in drafts[start : start + 500]]
        rows = connection.execute(_SEQUENCES, {"ids": ids})
        found.update((event_id, sequence) for event_id, sequence in rows)
    return [found[draft.event_id] for draft in drafts]


_SEQUENCES = select(EVENTS.c.event_id, EVENTS.c.sequence).where(
    EVENTS.c.event_id.in_(bindparam("ids", expanding=True))
)
_recorder: EventRecorder | None = None


def get_event_recorder() -> EventRecorder | None:
    """The recorder in force, None while event sourcing is off."""
    return _recorder


def set_event_recorder(recorder: EventRecorder | None) -> None:
    """Put `recorder` in force in place of the one before, which is closed."""
    global _recorder
    before, _recorder = _recorder, recorder
    if before is not None and before is not recorder:
        before.close()


def reset_event_recorder() -> None:
    """Turn event sourcing off."""
    set_event_recorder(None)
