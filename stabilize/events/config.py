"""Turning event sourcing on."""

from __future__ import annotations

from stabilize.events.bus import configure_event_bus
from stabilize.events.recorder import EventRecorder, set_event_recorder
from stabilize.events.snapshots import SnapshotStore
from stabilize.events.store import EventStore


def configure_event_sourcing(
    event_store: EventStore,
    publish_to_bus: bool = True,
    bus_max_workers: int = 4,
    *,
    snapshots: SnapshotStore | None = None,
) -> EventRecorder:
    """Record every transition from now on, and tell the bus of this process.

    Calling it again replaces the recorder; subscriptions on the bus stay. With `snapshots`,
    workflows are snapshotted by its policy while they run.
    """
    configure_event_bus(max_workers=bus_max_workers)
    return configure_event_recorder(event_store, publish_to_bus, snapshots=snapshots)


def configure_event_recorder(
    event_store: EventStore,
    publish_to_bus: bool = True,
    *,
    snapshots: SnapshotStore | None = None,
) -> EventRecorder:
    """Put a recorder for `event_store` in force, in place of the one before."""
    recorder = EventRecorder(event_store, publish_to_bus, snapshots=snapshots)
    set_event_recorder(recorder)
    return recorder
