"""Event sourcing: every transition recorded with it, replayed, projected, subscribed to."""

from stabilize.events.archive import EventArchive
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
from stabilize.events.context import clear_event_context, get_event_metadata, set_event_context
from stabilize.events.factories import (
    create_stage_event,
    create_task_event,
    create_workflow_event,
)
from stabilize.events.migrator import EventMigrator, get_event_migrator, reset_event_migrator
from stabilize.events.projections import (
    Projection,
    StageMetrics,
    StageMetricsProjection,
    TableProjection,
    TableProjectionRunner,
    TaskMetrics,
    TimelineEntry,
    WorkflowTimeline,
    WorkflowTimelineProjection,
)
from stabilize.events.query import AppendResult, EventQuery
from stabilize.events.recorder import (
    EventRecorder,
    configure_event_recorder,
    configure_event_sourcing,
    get_event_recorder,
    reset_event_recorder,
)
from stabilize.events.replay import EventReplayer, ReplayResult
from stabilize.events.snapshots import Snapshot, SnapshotPolicy, SnapshotStore
from stabilize.events.sql_store import (
    InMemoryEventStore,
    MySQLEventStore,
    PostgresEventStore,
    SqlEventStore,
    SqliteEventStore,
)
from stabilize.events.state import WorkflowState
from stabilize.events.store import EventStore
from stabilize.events.subscriptions import DurableSubscription, SubscriptionManager
from stabilize.events.webhooks import WebhookSender

__all__ = [
    "AppendResult",
    "DurableSubscription",
    "EntityType",
    "Event",
    "EventArchive",
    "EventBus",
    "EventBusStats",
    "EventMetadata",
    "EventMigrator",
    "EventQuery",
    "EventRecorder",
    "EventReplayer",
    "EventStore",
    "EventType",
    "InMemoryEventStore",
    "MySQLEventStore",
    "PostgresEventStore",
    "Projection",
    "ReplayResult",
    "Snapshot",
    "SnapshotPolicy",
    "SnapshotStore",
    "SqlEventStore",
    "SqliteEventStore",
    "StageMetrics",
    "StageMetricsProjection",
    "Subscription",
    "SubscriptionManager",
    "SubscriptionMode",
    "TableProjection",
    "TableProjectionRunner",
    "TaskMetrics",
    "TimelineEntry",
    "WebhookSender",
    "WorkflowState",
    "WorkflowTimeline",
    "WorkflowTimelineProjection",
    "clear_event_context",
    "configure_event_bus",
    "configure_event_recorder",
    "configure_event_sourcing",
    "create_stage_event",
    "create_task_event",
    "create_workflow_event",
    "get_event_bus",
    "get_event_metadata",
    "get_event_migrator",
    "get_event_recorder",
    "reset_event_bus",
    "reset_event_migrator",
    "reset_event_recorder",
    "set_event_context",
]
