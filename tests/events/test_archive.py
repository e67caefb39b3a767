"""Old events are put out of the way and found all the same; data are taken out for good."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from stabilize.clock import utc_now
from stabilize.events import (
    Event,
    EventArchive,
    EventQuery,
    EventReplayer,
    EventType,
    SnapshotStore,
    SqlEventStore,
    SubscriptionManager,
    create_task_event,
    create_workflow_event,
)
from stabilize.types import encode
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, puts, stage, workflow
from tests.support.replayed import check

FUTURE = timedelta(hours=1)


def live(store: SqlEventStore) -> int:
    with store.database.engine.connect() as connection:
        return int(connection.execute(text("SELECT COUNT(*) FROM stabilize_events")).scalar_one())


def test_what_is_archived_is_read_as_before(engine: Engine, events: SqlEventStore) -> None:
    first, second = (engine.run(stage("a", does=puts(n=n))) for n in range(2))
    everything = events.get_events_since(0)
    queries = [
        EventQuery(),
        EventQuery(ascending=False, limit=9, offset=3),
        EventQuery(order_by="timestamp", event_types={EventType.TASK_COMPLETED}),
        EventQuery(workflow_id=first.workflow.id),
    ]
    before = [list(events.get_events(query)) for query in queries]

    assert EventArchive(events).archive_workflows(utc_now() + FUTURE, limit=1) == 1

    assert live(events) == 7
    assert events.get_events_since(0) == everything
    assert [list(events.get_events(query)) for query in queries] == before
    assert [events.count_events(query) for query in queries] == [14, 14, 2, 7]
    assert events.get_event_by_id(everything[0].event_id) == everything[0]
    assert events.get_events_for_workflow(second.workflow.id) == everything[7:]
    assert check(engine.database) == 2
    with engine.database.reading() as session:
        view = "SELECT COUNT(*) FROM stabilize_v_events_all"
        assert session.execute(text(view)).scalar_one() == 14


def test_a_long_history_in_both_places_is_read_in_order(backend: BackendUnderTest) -> None:
    store = SqlEventStore(backend.url)
    for workflow_id in ("old", "new"):
        store.append(create_workflow_event(EventType.WORKFLOW_STARTED, workflow_id))
    for n in range(5):
        batch = [
            create_task_event(EventType.CUSTOM, "t", ("old", "new")[i % 2], {"n": n * 700 + i})
            for i in range(700)
        ]
        store.append_batch(batch)
    store.append(create_workflow_event(EventType.WORKFLOW_COMPLETED, "old"))
    queries = [
        EventQuery(limit=None, ascending=up, order_by=order)
        for up in (True, False)
        for order in ("sequence", "timestamp")
    ]
    before = [list(store.get_events(query)) for query in queries]

    assert EventArchive(store).archive_workflows(utc_now() + FUTURE) == 1

    assert live(store) == 1_751
    assert [list(store.get_events(query)) for query in queries] == before


def test_only_what_ended_and_was_not_heard_of_lately_is_archived(
    engine: Engine, events: SqlEventStore
) -> None:
    ran = engine.run(stage("a", does=ok))
    archive = EventArchive(events)
    assert archive.archive_workflows(utc_now() - FUTURE) == 0
    events.append(create_workflow_event(EventType.WORKFLOW_STARTED, "running"))
    assert archive.archive_workflows(utc_now() + FUTURE) == 1
    assert {event.workflow_id for event in events.get_events_since(0)} == {
        ran.workflow.id,
        "running",
    }
    assert live(events) == 1
    with pytest.raises(ValueError, match="no time zone"):
        archive.archive_workflows(datetime(2026, 1, 1))


def test_a_workflow_goes_on_after_it_was_archived(engine: Engine, events: SqlEventStore) -> None:
    ran = engine.run(stage("a", does=ok), stage("b", does=ok, after="a"))
    archive = EventArchive(events)
    archive.archive_workflows(utc_now() + FUTURE)

    engine.orchestrator.restart(ran.workflow, ran["b"].id)
    assert archive.archive_workflows(utc_now() + FUTURE) == 0
    engine.play()

    assert check(engine.database) == 1
    assert archive.archive_workflows(utc_now() + FUTURE) == 1
    assert live(events) == 0
    assert check(engine.database) == 1
    stored = events.append(create_workflow_event(EventType.CUSTOM, ran.workflow.id))
    versions = [
        event.version
        for event in events.get_events_for_workflow(ran.workflow.id)
        if event.entity_id == ran.workflow.id
    ]
    assert stored.version == versions[-1] == len(versions)


def test_archived_events_are_appended_no_second_time(backend: BackendUnderTest) -> None:
    store = SqlEventStore(backend.url)
    kinds = (EventType.WORKFLOW_STARTED, EventType.WORKFLOW_COMPLETED)
    told = store.append_batch([create_workflow_event(kind, "w") for kind in kinds])
    EventArchive(store).archive_workflows(utc_now() + FUTURE)

    assert store.append_batch(told) == told
    assert live(store) == 0
    assert store.get_current_sequence() == store.safe_sequence() == told.last_sequence


def test_who_begins_at_the_beginning_hears_what_was_archived(
    engine: Engine, events: SqlEventStore
) -> None:
    engine.run(stage("a", does=ok))
    everything = events.get_events_since(0)
    EventArchive(events).archive_workflows(utc_now() + FUTURE)
    heard: list[Event] = []
    latest: list[Event] = []
    manager = SubscriptionManager(events)

    manager.create_subscription("x", heard.append, start_from="beginning")
    manager.create_subscription("y", latest.append)
    manager.process_once()

    assert (heard, latest) == (everything, [])


def test_archived_events_are_neither_changed_nor_deleted(
    engine: Engine, events: SqlEventStore
) -> None:
    engine.run(stage("a", does=ok))
    EventArchive(events).archive_workflows(utc_now() + FUTURE)

    for statement in ("UPDATE stabilize_events_archive SET actor = 'x'", "DELETE FROM {}"):
        with (
            pytest.raises(DBAPIError, match="append-only"),
            engine.database.engine.begin() as connection,
        ):
            connection.execute(text(statement.format("stabilize_events_archive")))


def test_what_is_purged_is_gone_and_can_be_proved(engine: Engine, events: SqlEventStore) -> None:
    snapshots = SnapshotStore(events)
    replayer = EventReplayer(events, snapshots)
    secret = engine.run(stage("a", does=puts(name="Alice")))
    other = engine.run(stage("a", does=puts(name="Bob")))
    replayer.take_snapshot(secret.workflow.id)
    told = events.get_events_for_workflow(secret.workflow.id)
    kept = events.get_events_for_workflow(other.workflow.id)

    assert EventArchive(events).purge_workflow(secret.workflow.id) == len(told)
    assert EventArchive(events).purge_workflow(secret.workflow.id) == 0

    purged = events.get_events_for_workflow(secret.workflow.id)
    assert [event.event_type for event in purged] == [event.event_type for event in told]
    for event, before in zip(purged, told, strict=True):
        digest = hashlib.sha256(encode(before.data).encode()).hexdigest()
        assert event.data == {"_purged": True, "sha256": digest}
    assert events.append_batch(told) == purged  # the same event once more is no conflict
    state = replayer.rebuild(secret.workflow.id)
    assert not state.from_snapshot
    assert state.final_state["status"] == "SUCCEEDED"
    assert "Alice" not in str(state.final_state)
    assert events.get_events_for_workflow(other.workflow.id) == kept
    engine.store.delete(secret.workflow.id)


def test_a_purge_leaves_nothing_in_the_archive_either(
    engine: Engine, events: SqlEventStore
) -> None:
    ran = engine.run(stage("a", does=puts(name="Alice")), stage("b", does=ok, after="a"))
    archive = EventArchive(events)
    archive.archive_workflows(utc_now() + FUTURE)
    assert archive.purge_workflow(ran.workflow.id) == 11
    purged = events.get_events_for_workflow(ran.workflow.id)
    assert all(event.data["_purged"] for event in purged)
    engine.store.delete(ran.workflow.id)


def test_time_travel_reaches_into_the_archive(engine: Engine, events: SqlEventStore) -> None:
    made = workflow(stage("a", does=ok))
    engine.submit(made)
    engine.play()
    EventArchive(events).archive_workflows(utc_now() + FUTURE)

    began, *_, ended = [e.timestamp for e in events.get_events_for_workflow(made.id)]
    replayer = EventReplayer(events)
    assert replayer.time_travel_query(made.id, ended)["status"] == "SUCCEEDED"
    assert replayer.time_travel_query(made.id, began - FUTURE)["status"] is None
