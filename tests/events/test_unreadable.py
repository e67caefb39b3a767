"""What this version cannot read is shown, named and passed over; nothing else stops for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from stabilize.events import (
    EntityType,
    Event,
    EventReplayer,
    EventType,
    SnapshotStore,
    SqlEventStore,
    SqliteEventStore,
    StageMetricsProjection,
    SubscriptionManager,
    WorkflowTimelineProjection,
    create_stage_event,
    create_workflow_event,
)
from stabilize.events.relay import Relay
from stabilize.models import SnapshotRecord
from tests.support.backends import BackendUnderTest

STRANGE = ("stage.teleported", "stage.completed", "stage.started")


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    """Six events of a workflow, among them one of an unknown type, one whose payload is a list,
    and one about a kind of thing that is not known here."""
    store = SqlEventStore(backend.url)
    store.append_batch(
        [
            create_workflow_event(EventType.WORKFLOW_CREATED, "w", {"name": "orders"}),
            create_stage_event(EventType.STAGE_STARTED, "s", "w", {"ref_id": "a", "type": "t"}),
        ]
    )
    insert(store, "one", STRANGE[0], "stage", '{"to": "mars"}')
    insert(store, "two", STRANGE[1], "stage", "[1]")
    insert(store, "three", STRANGE[2], "rocket", '{"type": "t"}')
    store.append(create_workflow_event(EventType.WORKFLOW_COMPLETED, "w", {"status": "SUCCEEDED"}))
    yield store
    store.close()


def insert(store: SqlEventStore, id: str, kind: str, entity: str, payload: str) -> None:
    """A row that another program has written."""
    with store.database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO stabilize_events (event_id, event_type, timestamp, recorded_at,"
                " entity_type, entity_id, workflow_id, version, data, schema_version,"
                " correlation_id, actor) SELECT :id, :kind, timestamp, recorded_at, :entity,"
                " :id, workflow_id, 1, :payload, 1, correlation_id, actor"
                " FROM stabilize_events WHERE entity_id = 's'"
            ),
            {"id": id, "kind": kind, "entity": entity, "payload": payload},
        )


def test_events_that_mean_nothing_here_are_read_with_all_that_is_known_of_them(
    store: SqlEventStore,
) -> None:
    events = store.get_events_since(0)

    assert [e.event_type is EventType.UNKNOWN for e in events] == [False] * 2 + [True] * 3 + [False]
    assert [event.data for event in events[2:5]] == [
        {"_raw_event_type": "stage.teleported", "to": "mars"},
        {"_raw_event_type": "stage.completed", "_broken_payload": [1]},
        {"_raw_event_type": "stage.started", "_raw_entity_type": "rocket", "type": "t"},
    ]
    assert list(store.get_events_for_workflow("w")) == events
    assert store.get_event_by_id("two") == events[3]
    (told,) = EventReplayer(store).get_entity_history(EntityType.STAGE, "one")
    assert json.loads(json.dumps(told))["event_type"] == "unknown.event"


def test_a_payload_that_is_not_json_is_refused_or_shown_as_it_is(store: SqlEventStore) -> None:
    refused = ""
    try:
        insert(store, "text", "stage.completed", "stage", '{"half')
    except DBAPIError as error:  # by the database itself
        refused = str(error)

    event = store.get_event_by_id("text")

    assert (event is None) == ("invalid input syntax for type json" in refused)
    if event is not None:
        assert event.data == {"_raw_event_type": "stage.completed", "_broken_payload": '{"half'}
        assert len(store.get_events_since(0)) == 7


def test_a_state_is_rebuilt_around_them_and_names_them(store: SqlEventStore) -> None:
    snapshots = SnapshotStore(store)
    replayer = EventReplayer(store, snapshots)

    state = replayer.rebuild_workflow_state("w")

    assert (state["status"], state["name"]) == ("SUCCEEDED", "orders")
    assert [stage["status"] for stage in state["stages"].values()] == ["RUNNING"]
    assert [(part["event_id"], part["reason"]) for part in state["skipped"]] == [
        ("one", "unknown type 'stage.teleported'"),
        ("two", "stage.completed with a broken payload"),
        ("three", "stage.started of an unknown 'rocket'"),
    ]
    assert replayer.take_snapshot("w") is not None
    assert replayer.rebuild("w").from_snapshot
    assert replayer.rebuild_workflow_state("w") == state


def test_projections_and_subscriptions_go_on_behind_them(store: SqlEventStore) -> None:
    timeline, metrics = WorkflowTimelineProjection("w"), StageMetricsProjection()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        timeline.apply(event)
        metrics.apply(event)

    manager = SubscriptionManager(store)
    manager.create_subscription("all", hear, start_from="beginning")
    manager.create_subscription(
        "unknown", heard.append, [EventType.UNKNOWN], start_from=str(store.get_current_sequence())
    )
    manager.process_once()

    assert heard == store.get_events_since(0)
    assert timeline.get_state().status == "SUCCEEDED"
    assert len(timeline.get_state().entries) == 6
    (found,) = metrics.get_state().values()
    assert (found.stage_type, found.execution_count, found.success_count) == ("t", 1, 0)


def test_they_are_copied_to_another_store_as_they_are(store: SqlEventStore, tmp_path: Path) -> None:
    target = SqliteEventStore(f"sqlite:///{tmp_path}/events.db")
    relay = Relay(store.database, target)

    assert relay.drain(20)
    copied = target.append_batch([replace(e, sequence=0) for e in store.get_events_since(0)])

    assert len(target.get_events_since(0)) == 6  # the second time they were known
    for here, there in zip(store.get_events_since(0), copied, strict=True):
        assert replace(there, sequence=here.sequence) == here
    relay.close()
    target.close()


def test_of_a_workflow_that_nobody_knows_there_is_nothing(store: SqlEventStore) -> None:
    replayer = EventReplayer(store)
    heard: list[Event] = []
    replayer.replay_workflow_from_checkpoint("nobody", 0, heard.append)
    timeline = WorkflowTimelineProjection("nobody")
    for event in store.get_events_since(0):
        timeline.apply(event)
    empty = replayer.rebuild_workflow_state("nobody")

    assert heard == store.get_events_for_workflow("nobody") == []
    assert store.get_events_for_entity(EntityType.WORKFLOW, "nobody") == []
    assert store.get_event_by_id("nobody") is None
    assert (empty["status"], empty["stages"], empty["skipped"]) == (None, {}, [])
    assert replayer.time_travel_query("nobody", datetime.now(UTC)) == empty
    assert replayer.compare_states("nobody", 0, 6)["changes"] == {
        "added": {},
        "removed": {},
        "changed": {},
    }
    assert (timeline.get_state().status, timeline.get_state().entries) == (None, [])
    assert SnapshotStore(store).get_latest_snapshot(EntityType.WORKFLOW, "nobody") is None
    assert EventReplayer(store, SnapshotStore(store)).take_snapshot("nobody") is None


def test_a_snapshot_of_a_newer_version_is_not_begun_from(store: SqlEventStore) -> None:
    snapshots = SnapshotStore(store)
    replayer = EventReplayer(store, snapshots)
    state = replayer.rebuild_workflow_state("w")
    wrong = {**state, "status": "WHAT A NEWER ONE SAYS"}
    snapshots.create_workflow_snapshot(wrong, "w", 2, store.get_current_sequence())
    assert replayer.rebuild_workflow_state("w") == wrong  # it would be used
    with store.database.writing() as connection:
        connection.execute(
            SnapshotRecord.__table__.update().values(  # type: ignore[attr-defined]
                reducer_version=SnapshotRecord.reducer_version + 1
            )
        )

    result = replayer.rebuild("w")

    assert (result.from_snapshot, result.events_replayed) == (False, 6)
    assert result.final_state == state
