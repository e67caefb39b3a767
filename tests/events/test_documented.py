"""What the documentation of event sourcing shows, block by block, as one types it in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import stabilize.events as api
from stabilize import (
    Orchestrator,
    QueueProcessor,
    SqliteQueue,
    SqliteWorkflowStore,
    StageExecution,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
)
from stabilize.events import (
    AppendResult,
    EntityType,
    Event,
    EventReplayer,
    EventType,
    PostgresEventStore,
    SnapshotPolicy,
    SnapshotStore,
    SqliteEventStore,
    StageMetricsProjection,
    SubscriptionMode,
    WorkflowTimelineProjection,
    configure_event_sourcing,
    get_event_bus,
    get_event_recorder,
)
from tests.conftest import lend_or_skip
from tests.support.admin import url_text
from tests.support.backends import Databases


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Hello(Task):
    def execute(self, stage: StageExecution) -> TaskResult:
        if stage.context.get("mute"):
            return TaskResult.terminal("nothing to say")
        return TaskResult.success(outputs={"greeting": "hello"})


def make(**context: Any) -> Workflow:
    return Workflow.create(
        application="shop",
        name="greets",
        stages=[
            StageExecution(
                ref_id="1",
                type="greet",
                name="Greet",
                context=context,
                tasks=[TaskExecution.create("Say hello", "hello")],
            )
        ],
    )


def run(*made: Workflow) -> Workflow:
    """The part that is the same with and without events."""
    store = SqliteWorkflowStore("sqlite:///app.db", create_tables=True)
    queue = SqliteQueue("sqlite:///app.db")
    registry = TaskRegistry()
    registry.register("hello", Hello)
    for workflow in made:
        Orchestrator(queue, store).start(workflow)
    QueueProcessor(queue, store=store, task_registry=registry).process_all(20)
    return made[0]


def test_quick_setup() -> None:
    event_store = SqliteEventStore("sqlite:///events.db", create_tables=True)
    configure_event_sourcing(event_store)

    workflow = run(make())

    told = [event.event_type for event in event_store.get_events_for_workflow(workflow.id)]
    assert told == [
        EventType.WORKFLOW_CREATED,
        EventType.WORKFLOW_STARTED,
        EventType.STAGE_STARTED,
        EventType.TASK_STARTED,
        EventType.TASK_COMPLETED,
        EventType.STAGE_COMPLETED,
        EventType.WORKFLOW_COMPLETED,
    ]
    assert Path("events.db").exists()


def test_setup_in_the_database_of_the_workflows() -> None:
    event_store = SqliteEventStore("sqlite:///app.db", create_tables=True)
    recorder = configure_event_sourcing(event_store)

    workflow = run(make())

    assert get_event_recorder() is recorder
    assert len(event_store.get_events_for_workflow(workflow.id)) == 7


def test_event_types() -> None:
    """workflow: 7, stage: 5, task: 4, changes of state: 4."""
    documented = {
        "workflow": "created started completed failed canceled paused resumed",
        "stage": "started completed failed skipped canceled",
        "task": "started completed failed retried",
        "status": "changed",
        "context": "updated",
        "outputs": "updated",
        "jump": "executed",
    }
    for about, verbs in documented.items():
        for verb in verbs.split():
            assert EventType(f"{about}.{verb}") is EventType[f"{about}_{verb}".upper()]
    assert [EntityType[name].value for name in ("WORKFLOW", "STAGE", "TASK")] == [
        "workflow",
        "stage",
        "task",
    ]
    assert (SubscriptionMode.SYNC.value, SubscriptionMode.ASYNC.value) == ("sync", "async")


def test_subscribing_to_events(capsys: pytest.CaptureFixture[str]) -> None:
    configure_event_sourcing(SqliteEventStore("sqlite:///events.db", create_tables=True))
    good, bad = make(), make(mute=True)
    broken, followed = list[Event](), list[Event]()
    bus = get_event_bus()

    bus.subscribe("screen", lambda e: print(f"{e.entity_id} {e.event_type.value}"))
    bus.subscribe(
        "on call",
        broken.append,
        event_types={EventType.WORKFLOW_FAILED, EventType.TASK_FAILED},
    )
    bus.subscribe("one order", followed.append, workflow_filter=good.id)
    run(good, bad)

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert f"{good.id} workflow.completed" in lines
    assert [(e.event_type.value, e.workflow_id) for e in broken] == [
        ("task.failed", bad.id),
        ("workflow.failed", bad.id),
    ]
    assert [e.workflow_id for e in followed] == [good.id] * 7


def test_a_timeline() -> None:
    event_store = SqliteEventStore("sqlite:///events.db", create_tables=True)
    configure_event_sourcing(event_store)
    workflow = run(make())

    projection = WorkflowTimelineProjection(workflow.id)
    for event in event_store.get_events_for_workflow(workflow.id):
        projection.apply(event)
    timeline, (began, ended) = projection.get_state(), projection.get_stages()

    assert timeline.status == "SUCCEEDED"
    assert (began.event_type, began.entity_name) == ("stage.started", "Greet")
    assert (ended.event_type, ended.entity_name) == ("stage.completed", "Greet")
    assert (began.duration_ms, type(ended.duration_ms)) == (None, int)
    assert type(timeline.total_duration_ms) is int


def test_metrics() -> None:
    configure_event_sourcing(SqliteEventStore("sqlite:///events.db", create_tables=True))
    metrics = StageMetricsProjection()
    get_event_bus().subscribe("figures", metrics.apply)

    run(make(), make(), make(), make(mute=True))

    found = [
        (t, m.execution_count, f"{m.success_rate:.0f}") for t, m in metrics.get_state().items()
    ]
    assert found == [("greet", 4, "75")]


def test_replay() -> None:
    event_store = SqliteEventStore("sqlite:///events.db", create_tables=True)
    configure_event_sourcing(event_store)
    before = datetime.now(UTC) - timedelta(hours=1)
    workflow = run(make())

    replayer = EventReplayer(event_store)
    state = replayer.rebuild_workflow_state(workflow.id)
    partial = replayer.rebuild_workflow_state(workflow.id, as_of_sequence=3)
    all_of_it = replayer.rebuild_workflow_state(workflow.id, as_of_sequence=50)
    historical = replayer.time_travel_query(workflow.id, as_of_time=datetime.now(UTC))

    assert state["status"] == "SUCCEEDED"
    (stage,) = state["stages"].values()
    assert (stage["name"], stage["status"]) == ("Greet", "SUCCEEDED")
    assert partial["status"] == "RUNNING"
    assert all_of_it == historical == state
    assert replayer.time_travel_query(workflow.id, as_of_time=before)["status"] is None


def test_snapshots() -> None:
    event_store = SqliteEventStore("sqlite:///events.db", create_tables=True)
    policy = SnapshotPolicy(every_n_events=3)
    snapshot_store = SnapshotStore(event_store, policy)
    configure_event_sourcing(event_store, snapshots=snapshot_store)
    workflow = run(make())

    replayer = EventReplayer(event_store, snapshot_store=snapshot_store)
    state = replayer.rebuild_workflow_state(workflow.id)

    assert state == EventReplayer(event_store).rebuild_workflow_state(workflow.id)
    assert replayer.rebuild(workflow.id).from_snapshot
    assert SnapshotPolicy(every_n_events=100) == SnapshotPolicy(100, 3600, 100)


def test_a_postgresql_store(databases: Databases) -> None:
    with lend_or_skip(databases, "postgresql") as lent:
        url = make_url(lent.url)
        plain = url.set(drivername="postgresql", password=url.password or "any")
        store = PostgresEventStore(url_text(plain))
        result = store.append_batch([Event(workflow_id="w"), Event(workflow_id="w")]).result

        assert isinstance(result, AppendResult)
        assert result.last_sequence > result.first_sequence > 0
        store.close()


def test_configuring_twice_replaces_the_recorder_and_keeps_subscriptions() -> None:
    heard: list[Event] = []
    first = configure_event_sourcing(SqliteEventStore("sqlite:///one.db"))
    get_event_bus().subscribe("x", heard.append)
    second_store = SqliteEventStore("sqlite:///two.db")
    second = configure_event_sourcing(second_store, publish_to_bus=True, bus_max_workers=2)

    workflow = run(make())

    assert first is not second
    assert len(heard) == 7
    assert len(second_store.get_events_for_workflow(workflow.id)) == 7
    assert SqliteEventStore("sqlite:///one.db").count_events() == 0


def test_an_event_goes_to_a_dict_and_back() -> None:
    event = Event(event_type=EventType.STAGE_STARTED, data={"a": [1]}, workflow_id="w")

    assert Event.from_dict(event.to_dict()) == event
    assert Event.from_dict({**event.to_dict(), "timestamp": "2026-01-01T00:00:00Z"}).timestamp == (
        datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert event.with_sequence(9).sequence == 9
    with pytest.raises(AttributeError):
        event.version = 3  # type: ignore[misc]


# --- the reference --------------------------------------------------------------------------------

SUBSCRIBER = "handler, event_types=None"
DOCUMENTED = {
    "configure_event_sourcing": "event_store, publish_to_bus=True, bus_max_workers=4",
    "configure_event_bus": "max_workers=4, error_handler=None",
    "configure_event_recorder": "event_store, publish_to_bus=True",
    "get_event_recorder": "",
    "get_event_bus": "",
    "set_event_context": "correlation_id, causation_id=None, actor='system'",
    "Event": "event_id=<factory>, event_type=<EventType.STATUS_CHANGED: 'status.changed'>,"
    " timestamp=<factory>, sequence=0, entity_type=<EntityType.WORKFLOW: 'workflow'>,"
    " entity_id='', workflow_id='', version=0, data=<factory>, metadata=<factory>,"
    " schema_version=1",
    "EventMetadata": "correlation_id, causation_id=None, actor='system', source_handler=None",
    "EventBus": "max_workers=4, error_handler=None",
    "EventBus.subscribe": f"self, subscription_id, {SUBSCRIBER}, entity_types=None,"
    " workflow_filter=None, mode=<SubscriptionMode.SYNC: 'sync'>",
    "EventBus.unsubscribe": "self, subscription_id",
    "EventBus.enable_subscription": "self, subscription_id",
    "EventBus.disable_subscription": "self, subscription_id",
    "EventBus.publish": "self, event",
    "EventBus.publish_batch": "self, events",
    "Subscription": f"id, {SUBSCRIBER}, entity_types=None, workflow_filter=None,"
    " mode=<SubscriptionMode.SYNC: 'sync'>, enabled=True",
    "EventRecorder": "event_store, publish_to_bus=True",
    "EventStore.append": "self, event, connection=None",
    "EventStore.append_batch": "self, events, connection=None",
    "EventStore.get_events": "self, query",
    "EventStore.get_events_for_entity": "self, entity_type, entity_id, from_version=0",
    "EventStore.get_events_for_workflow": "self, workflow_id, from_sequence=0",
    "EventStore.get_current_sequence": "self",
    "EventStore.get_events_since": "self, sequence, limit=1000",
    "EventStore.get_event_by_id": "self, event_id",
    "EventStore.count_events": "self, query=None",
    "EventQuery": "entity_type=None, entity_id=None, workflow_id=None, event_types=None,"
    " from_sequence=None, to_sequence=None, from_timestamp=None, to_timestamp=None, limit=1000,"
    " offset=0, order_by='sequence', ascending=True",
    "AppendResult": "events=<factory>, sequences=<factory>",
    "SqliteEventStore": "connection_string, create_tables=True",
    "Projection.apply": "self, event",
    "Projection.get_state": "self",
    "StageMetricsProjection": "",
    "StageMetricsProjection.get_metrics_for_type": "self, stage_type",
    "StageMetricsProjection.get_task_metrics_for_name": "self, task_name",
    "StageMetricsProjection.get_top_slowest_stages": "self, n=10",
    "StageMetrics": "stage_type, execution_count=0, success_count=0, failure_count=0,"
    " skip_count=0, durations=<factory>",
    "WorkflowTimelineProjection": "workflow_id",
    "WorkflowTimelineProjection.get_stages": "self",
    "WorkflowTimelineProjection.get_tasks": "self",
    "WorkflowTimelineProjection.get_failures": "self",
    "WorkflowTimeline": "workflow_id, entries=<factory>, total_duration_ms=None, status=None,"
    " start_time=None, end_time=None",
    "TimelineEntry": "timestamp, event_type, entity_type, entity_id, entity_name=None,"
    " status=None, duration_ms=None, details=<factory>",
    "EventReplayer": "event_store, snapshot_store=None",
    "EventReplayer.rebuild_workflow_state": "self, workflow_id, as_of_sequence=None",
    "EventReplayer.time_travel_query": "self, workflow_id, as_of_time",
    "EventReplayer.replay_workflow_from_checkpoint": "self, workflow_id, checkpoint_sequence,"
    " event_handler",
    "EventReplayer.get_entity_history": "self, entity_type, entity_id",
    "EventReplayer.compare_states": "self, workflow_id, sequence1, sequence2",
    "ReplayResult": "entity_type, entity_id, final_state=<factory>, events_replayed=0,"
    " from_snapshot=False, snapshot_sequence=0",
    "WorkflowState": "workflow_id, status=None, application=None, name=None, start_time=None,"
    " end_time=None, context=<factory>, stages=<factory>, tasks=<factory>",
    "Snapshot": "entity_type, entity_id, workflow_id, version, sequence, state=<factory>,"
    " created_at=<factory>",
    "SnapshotStore": "event_store, policy=None",
    "SnapshotStore.save_snapshot": "self, snapshot",
    "SnapshotStore.get_latest_snapshot": "self, entity_type, entity_id",
    "SnapshotStore.create_workflow_snapshot": "self, workflow_state, workflow_id, version,"
    " sequence",
    "SnapshotPolicy": "event_interval=100, time_interval_seconds=3600",
    "SnapshotPolicy.should_snapshot": "self, entity_id, events_since",
    "DurableSubscription": f"id, {SUBSCRIBER}, entity_filter=None, last_sequence=0,"
    " webhook_url=None, enabled=True, error_count=0, max_errors=10",
    "SubscriptionManager": "event_store, poll_interval=1.0, batch_size=100",
    "SubscriptionManager.create_subscription": f"self, subscription_id, {SUBSCRIBER},"
    " entity_filter=None, webhook_url=None, start_from='latest'",
    "SubscriptionManager.delete_subscription": "self, subscription_id",
    "SubscriptionManager.load_subscription": "self, subscription_id, handler",
    "SubscriptionManager.process_once": "self",
}
PROPERTIES = {
    "AppendResult": "first_sequence last_sequence",
    "EventBus": "stats",
    "Projection": "name",
    "StageMetrics": "success_rate failure_rate avg_duration_ms median_duration_ms p95_duration_ms"
    " min_duration_ms max_duration_ms",
    "StageMetricsProjection": "name",
    "WorkflowTimelineProjection": "name",
}


def written(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_parameters_come_in_the_order_and_with_the_defaults_of_the_reference(name: str) -> None:
    """Those of ours follow behind, and none of them has to be given."""
    found: Callable[..., Any] = api  # type: ignore[assignment]
    for part in name.split("."):
        found = getattr(found, part)
    parameters = list(inspect.signature(found).parameters.values())
    documented = DOCUMENTED[name].count(", ") + 1 if DOCUMENTED[name] else 0

    assert ", ".join(map(written, parameters[:documented])) == DOCUMENTED[name]
    assert all(p.default is not p.empty for p in parameters[documented:])


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_of_the_reference_are_properties(name: str) -> None:
    for attribute in PROPERTIES[name].split():
        assert isinstance(inspect.getattr_static(getattr(api, name), attribute), property)
