"""What the documentation of event sourcing shows, in order, as one reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

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
    Event,
    EventReplayer,
    EventType,
    PostgresEventStore,
    SnapshotPolicy,
    SnapshotStore,
    SqliteEventStore,
    StageMetricsProjection,
    WorkflowTimelineProjection,
    configure_event_sourcing,
    get_event_bus,
    get_event_recorder,
)
from tests.conftest import lend_or_skip
from tests.support.backends import Databases


class Hello(Task):
    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"greeting": "hello"})


def run(folder: Path) -> Workflow:
    url = f"sqlite:///{folder}/app.db"
    store, queue = SqliteWorkflowStore(url, create_tables=True), SqliteQueue(url)
    registry = TaskRegistry()
    registry.register("hello", Hello)
    made = Workflow.create(
        application="shop",
        name="greets",
        stages=[
            StageExecution(
                ref_id="1",
                type="greet",
                name="Greet",
                tasks=[TaskExecution.create("Say hello", "hello")],
            )
        ],
    )
    Orchestrator(queue, store).start(made)
    QueueProcessor(queue, store=store, task_registry=registry).process_all(20)
    return made


def test_the_quick_setup_and_everything_built_on_it(tmp_path: Path) -> None:
    event_store = SqliteEventStore(f"sqlite:///{tmp_path}/events.db", create_tables=True)
    recorder = configure_event_sourcing(event_store)
    assert get_event_recorder() is recorder

    bus, told, alerts = get_event_bus(), list[str](), list[Event]()
    metrics = StageMetricsProjection()
    bus.subscribe("logger", lambda e: told.append(f"{e.event_type.value}: {e.entity_id}"))
    bus.subscribe(
        "failure-alert",
        alerts.append,
        event_types={EventType.WORKFLOW_FAILED, EventType.TASK_FAILED},
    )
    bus.subscribe("metrics", metrics.apply)

    workflow = run(tmp_path)

    assert told[0] == f"workflow.created: {workflow.id}"
    assert alerts == []
    for stage_type, m in metrics.get_state().items():
        assert (stage_type, m.execution_count, f"{m.success_rate:.0f}%") == ("greet", 1, "100%")
    timeline_proj = WorkflowTimelineProjection(workflow.id)
    for event in event_store.get_events_for_workflow(workflow.id):
        timeline_proj.apply(event)
    timeline = timeline_proj.get_state()
    assert timeline.total_duration_ms is not None
    assert timeline.status == "SUCCEEDED"
    assert [e.entity_name for e in timeline_proj.get_stages()] == ["Greet", "Greet"]

    replayer = EventReplayer(event_store)
    state = replayer.rebuild_workflow_state(workflow.id)
    assert state["status"] == "SUCCEEDED"
    assert [s["name"] for s in state["stages"].values()] == ["Greet"]
    partial = replayer.rebuild_workflow_state(workflow.id, as_of_sequence=3)
    assert partial["status"] == "RUNNING"
    historical = replayer.time_travel_query(workflow.id, as_of_time=datetime.now(UTC))
    assert historical == state

    policy = SnapshotPolicy(every_n_events=100)
    snapshot_store = SnapshotStore(event_store, policy)
    snapshot_store.create_workflow_snapshot(state, workflow.id, 3, 7)
    replayer = EventReplayer(event_store, snapshot_store=snapshot_store)
    assert replayer.rebuild_workflow_state(workflow.id) == state


def test_configuring_twice_replaces_the_recorder_and_keeps_subscriptions(tmp_path: Path) -> None:
    heard: list[Event] = []
    first = configure_event_sourcing(SqliteEventStore(f"sqlite:///{tmp_path}/one.db"))
    get_event_bus().subscribe("x", heard.append)
    second_store = SqliteEventStore(f"sqlite:///{tmp_path}/two.db")
    second = configure_event_sourcing(second_store, publish_to_bus=True, bus_max_workers=2)

    workflow = run(tmp_path)

    assert first is not second
    assert len(heard) == 7
    assert len(second_store.get_events_for_workflow(workflow.id)) == 7
    assert SqliteEventStore(f"sqlite:///{tmp_path}/one.db").count_events() == 0


def test_a_postgresql_store_from_a_url(databases: Databases) -> None:
    with lend_or_skip(databases, "postgresql") as lent:
        store = PostgresEventStore(lent.url)
        result = store.append_batch([Event(workflow_id="w"), Event(workflow_id="w")]).result

        assert isinstance(result, AppendResult)
        assert result.last_sequence > result.first_sequence > 0
        store.close()


def test_an_event_goes_to_a_dict_and_back() -> None:
    event = Event(event_type=EventType.STAGE_STARTED, data={"a": [1]}, workflow_id="w")

    assert Event.from_dict(event.to_dict()) == event
    assert Event.from_dict({**event.to_dict(), "timestamp": "2026-01-01T00:00:00Z"}).timestamp == (
        datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert event.with_sequence(9).sequence == 9
    with pytest.raises(AttributeError):
        event.version = 3  # type: ignore[misc]
