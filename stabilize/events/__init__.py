"""Event sourcing: every transition recorded with it, replayed, projected, subscribed to."""

from stabilize.events.base import EntityType, Event, EventMetadata, EventType
from stabilize.events.bus import (
    EventBus,
    EventBusStats,
    Subscription,
    SubscriptionMode,
    configure_event_bus,
    get_event_bus,
    reset_event_bus,
)
from stabilize.events.config import configure_event_recorder, configure_event_sourcing
from stabilize.events.context import clear_event_context, get_event_metadata, set_event_context
from stabilize.events.migrator import EventMigrator, get_event_migrator, reset_event_migrator
from stabilize.events.query import AppendResult, EventQuery
from stabilize.events.recorder import EventRecorder, get_event_recorder, reset_event_recorder
from stabilize.events.replay import EventReplayer, ReplayResult
from stabilize.events.snapshots import Snapshot, SnapshotPolicy, SnapshotStore
from stabilize.events.state import WorkflowState
from stabilize.events.store import (
    EventStore,
    InMemoryEventStore,
    MySQLEventStore,
    PostgresEventStore,
    SqlEventStore,
    SqliteEventStore,
)

