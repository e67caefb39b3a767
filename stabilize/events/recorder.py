"""Turns what a turn did into events, and appends them in that very transaction."""

from __future__ import annotations

import threading
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from stabilize.database import Database
from stabilize.events.appending import chunks
from stabilize.events.base import Event
from stabilize.events.bus import EventBus, configure_event_bus
from stabilize.events.by_hand import RecorderByHand
from stabilize.events.relay import Relay
from stabilize.events.replay import EventReplayer
from stabilize.events.rows import EVENTS, Draft, inserter_for
from stabilize.events.snapshots import SnapshotStore
from stabilize.events.sql_store import SqlEventStore
from stabilize.events.store import EventStore


class EventRecorder(RecorderByHand):
    """Records what happens: in the turn's own transaction, and by hand with `record_...`.

    Events of a turn always go into the database of the engine. When `event_store` is on another
    one, they are copied there after the commit, in order and once each. With `snapshots`,
    workflows are snapshotted by its policy while they run. `payload="keys"` keeps the values of
    contexts and outputs out of the events: they have `context_keys` and `outputs_keys` instead, and
    a replay does not know them.
    """

    def __init__(
        self,
        event_store: EventStore,
        publish_to_bus: bool = True,
        *,
        bus: EventBus | None = None,
        snapshots: SnapshotStore | None = None,
        payload: str = "full",
    ) -> None:
        super().__init__(event_store, publish_to_bus, bus, payload)
        self.snapshots = snapshots
        self._replayer = EventReplayer(event_store, snapshots)
        self._relays: dict[str, Relay] = {}
        self._lock = threading.Lock()

    def append(
        self, connection: Connection, drafts: list[Draft], timestamp: datetime, database: Database
    ) -> list[Event]:
        """Store what happened in a turn, within its transaction.

        Returns the events as they were stored if anybody wants to hear of them, else nothing.
        """
        relay = self._relay_of(database)
        if relay is None and isinstance(self.event_store, SqlEventStore):
            self.event_store.keep_order(connection)
        if self.payload != "full":
            drafts = [draft._replace(data=self._told(draft.data)) for draft in drafts]
        ids = inserter_for(connection).insert_drafts(connection, drafts, timestamp)
        heard = self.publish_to_bus and self.bus.has_listeners
        if not heard and self.snapshots is None and relay is None:
            return []
        sequences = _sequences(connection, ids)
        return [
            draft.stored(id, sequences[id], timestamp)
            for id, draft in zip(ids, drafts, strict=True)
        ]

    def publish(self, events: list[Event], database: Database) -> None:
        """Tell the subscribers of this process, after the commit; wake relay and snapshots."""
        if self.publish_to_bus:
            self.bus.publish_batch(events)
        relay = self._relay_of(database)
        if relay is None:
            self._observe(events)
        else:
            relay.wake()

    def _observe(self, events: list[Event]) -> None:
        if self.snapshots is not None:
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
        with self._lock:
            if database.identity not in self._relays:
                self._relays[database.identity] = Relay(database, store, self._observe)
            return self._relays[database.identity]


def _sequences(connection: Connection, event_ids: list[str]) -> dict[str, int]:
    return {
        row.event_id: row.sequence
        for ids in chunks(event_ids)
        for row in connection.execute(_SEQUENCES, {"ids": ids})
    }


_SEQUENCES = select(EVENTS.c.event_id, EVENTS.c.sequence).where(
    EVENTS.c.event_id.in_(bindparam("ids", expanding=True))
)
_recorder: EventRecorder | None = None


def configure_event_sourcing(
    event_store: EventStore,
    publish_to_bus: bool = True,
    bus_max_workers: int = 4,
    *,
    bus: EventBus | None = None,
    snapshots: SnapshotStore | None = None,
    payload: str = "full",
) -> EventRecorder:
    """Record every transition from now on, and tell the bus of this process.

    Calling it again replaces the recorder; subscriptions on the bus stay. For `snapshots`
    and `payload` see `EventRecorder`.
    """
    configure_event_bus(max_workers=bus_max_workers)
    return configure_event_recorder(
        event_store, publish_to_bus, bus=bus, snapshots=snapshots, payload=payload
    )


def configure_event_recorder(
    event_store: EventStore,
    publish_to_bus: bool = True,
    *,
    bus: EventBus | None = None,
    snapshots: SnapshotStore | None = None,
    payload: str = "full",
) -> EventRecorder:
    """Put an `EventRecorder` in force, in place of the one before."""
    recorder = EventRecorder(
        event_store, publish_to_bus, bus=bus, snapshots=snapshots, payload=payload
    )
    set_event_recorder(recorder)
    return recorder


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
