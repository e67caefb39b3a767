"""What every event store does, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from stabilize.errors import ConcurrencyError, ConflictError, SchemaError
from stabilize.events import (
    EntityType,
    Event,
    EventMetadata,
    EventQuery,
    EventType,
    InMemoryEventStore,
    SqlEventStore,
)
from tests.support.backends import BackendUnderTest

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    store = SqlEventStore(backend.url)
    yield store
    store.close()


def make(number: int = 1, **fields: object) -> Event:
    values: dict[str, object] = {
        "event_type": EventType.STAGE_STARTED,
        "entity_type": EntityType.STAGE,
        "entity_id": "stage-1",
        "workflow_id": "workflow-1",
        "timestamp": NOON + timedelta(seconds=number),
        "data": {"number": number, "name": "ä", "deep": [{"x": None, "y": 1.5}]},
        "metadata": EventMetadata("workflow-1", "cause", "alice", "Handler"),
        **fields,
    }
    return Event(**values)  # type: ignore[arg-type]


def test_what_is_appended_is_read_as_it_was(store: SqlEventStore) -> None:
    stored = store.append(make())

    assert stored.sequence > 0
    assert stored.version == 1
    assert store.get_event_by_id(stored.event_id) == stored
    assert replace(stored, sequence=0, version=0) == replace(make(), event_id=stored.event_id)


def test_a_batch_keeps_its_order_and_says_its_sequences(store: SqlEventStore) -> None:
    batch = store.append_batch([make(n) for n in range(10)])

    assert [event.data["number"] for event in batch] == list(range(10))
    assert list(batch.sequences) == sorted(batch.sequences)
    assert (batch.first_sequence, batch.last_sequence) == (batch[0].sequence, batch[9].sequence)
    assert store.get_current_sequence() == batch.last_sequence
    assert [event.version for event in batch] == list(range(1, 11))


def test_nothing_appended_is_nothing(store: SqlEventStore) -> None:
    batch = store.append_batch([])

    assert (batch, batch.first_sequence, batch.result.last_sequence) == ([], 0, 0)
    assert (store.get_current_sequence(), store.get_events_since(0)) == (0, [])


def test_the_same_event_again_is_the_stored_one(store: SqlEventStore) -> None:
    event = make()
    first = store.append(event)

    again = store.append_batch([event, event, make(2)])

    assert [e.sequence for e in again[:2]] == [first.sequence] * 2
    assert store.count_events() == 2


def test_the_same_id_with_other_content_is_refused(store: SqlEventStore) -> None:
    event = make()
    store.append(event)

    with pytest.raises(ConflictError, match="other content"):
        store.append(replace(event, data={"number": 2}))


def test_a_version_that_is_taken_is_refused_and_the_batch_with_it(store: SqlEventStore) -> None:
    store.append(make())

    with pytest.raises((ConcurrencyError, IntegrityError), match="version"):
        store.append_batch([make(2, entity_id="stage-2"), make(3, version=1)])

    assert store.count_events() == 1


def test_events_join_the_transaction_of_the_caller(
    store: SqlEventStore, backend: BackendUnderTest
) -> None:
    with Session(store.database.engine) as session:
        store.append(make(), session)
        session.rollback()
    assert store.count_events() == 0

    with Session(store.database.engine) as session:
        appended = store.append(make(), session)
        session.commit()
    assert store.get_events_since(0) == [appended]


def test_a_query_narrows_by_everything(store: SqlEventStore) -> None:
    store.append_batch(
        [
            make(1),
            make(2, entity_id="stage-2"),
            make(3, entity_type=EntityType.TASK, event_type=EventType.TASK_STARTED),
            make(4, workflow_id="workflow-2", entity_id="stage-3"),
        ]
    )
    first = store.get_events_since(0)[0].sequence

    def numbers(**fields: object) -> list[int]:
        query = EventQuery(**fields)  # type: ignore[arg-type]
        found = [event.data["number"] for event in store.get_events(query)]
        assert store.count_events(query) >= len(found)
        return found

    at = [NOON + timedelta(seconds=n) for n in range(6)]
    east = timezone(timedelta(hours=5))
    assert numbers() == [1, 2, 3, 4]
    assert numbers(entity_type=EntityType.TASK) == [3]
    assert numbers(entity_id="stage-2") == [2]
    assert numbers(workflow_id="workflow-2") == [4]
    assert numbers(event_types={EventType.TASK_STARTED}) == [3]
    assert numbers(event_types=[]) == []
    assert numbers(from_sequence=first) == [2, 3, 4]
    assert numbers(to_sequence=first) == [1]
    assert numbers(from_timestamp=at[2], to_timestamp=at[3].astimezone(east)) == [2, 3]
    assert numbers(limit=2) == [1, 2]
    assert numbers(limit=2, offset=1) == [2, 3]
    assert numbers(ascending=False) == [4, 3, 2, 1]
    assert numbers(order_by="timestamp", ascending=False, limit=1) == [4]
    assert store.count_events(EventQuery(limit=1, offset=3, from_timestamp=at[2])) == 3


def test_equal_timestamps_are_ordered_by_sequence_across_pages(store: SqlEventStore) -> None:
    events = [make(n, timestamp=NOON, entity_id=f"stage-{n}") for n in range(2_100)]
    store.append_batch(events)

    for ascending in (True, False):
        query = EventQuery(order_by="timestamp", ascending=ascending, limit=None)
        found = [event.data["number"] for event in store.get_events(query)]
        assert found == sorted(range(2_100), reverse=not ascending)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("order_by", ["sequence", "timestamp"])
def test_bounds_hold_on_every_page(store: SqlEventStore, order_by: str, ascending: bool) -> None:
    stored = store.append_batch(
        [make(n * 7 % 500, entity_id=f"stage-{n}") for n in range(1_300)]  # several of each time
    )
    query = EventQuery(
        from_sequence=stored[20].sequence,
        to_sequence=stored[1_270].sequence,
        from_timestamp=NOON + timedelta(seconds=3),
        to_timestamp=NOON + timedelta(seconds=490),
        limit=1_200,
        offset=10,
        order_by=order_by,
        ascending=ascending,
    )

    expected = [e for e in stored[21:1_271] if 3 <= e.data["number"] <= 490]
    expected.sort(key=lambda e: (getattr(e, order_by), e.sequence), reverse=not ascending)
    assert list(store.get_events(query)) == expected[10:1_210]
    assert store.count_events(query) == len(expected)


def test_a_query_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence or timestamp"):
        EventQuery(order_by="name")
    with pytest.raises(ValueError, match="no time zone"):
        EventQuery(from_timestamp=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="negative"):
        EventQuery(limit=-1)


def test_histories_are_whole_and_in_order(store: SqlEventStore) -> None:
    store.append_batch([make(n) for n in range(1_500)])
    middle = store.get_events_for_workflow("workflow-1")[749].sequence

    assert len(store.get_events_for_workflow("workflow-1")) == 1_500
    assert len(store.get_events_for_workflow("workflow-1", middle)) == 750
    entity = store.get_events_for_entity(EntityType.STAGE, "stage-1", from_version=1_490)
    assert [event.version for event in entity] == list(range(1_491, 1_501))


def test_events_are_neither_changed_nor_deleted(store: SqlEventStore) -> None:
    store.append(make())

    for statement in (
        "UPDATE stabilize_events SET actor = 'mallory'",
        "DELETE FROM stabilize_events",
    ):
        with (
            pytest.raises(DBAPIError, match="append-only"),
            store.database.engine.begin() as connection,
        ):
            connection.execute(text(statement))

    assert store.get_events_since(0)[0].metadata.actor == "alice"


def test_an_unknown_type_and_a_broken_payload_are_shown(store: SqlEventStore) -> None:
    stored = store.append_batch([make(1), make(2)])
    with store.database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO stabilize_events (event_id, event_type, timestamp, recorded_at,"
                " entity_type, entity_id, workflow_id, version, data, schema_version,"
                " correlation_id, actor) SELECT 'e-x', 'stage.teleported', timestamp, recorded_at,"
                " entity_type, entity_id, workflow_id, 99, '[1]', schema_version,"
                " correlation_id, actor FROM stabilize_events WHERE event_id = :id"
            ),
            {"id": stored[0].event_id},
        )

    strange = store.get_event_by_id("e-x")

    assert strange is not None
    assert strange.event_type is EventType.UNKNOWN
    assert strange.data == {"_raw_event_type": "stage.teleported", "_broken_payload": [1]}
    assert len(store.get_events_since(0)) == 3


def test_a_store_without_tables_says_how_to_get_them(empty_backend: BackendUnderTest) -> None:
    store = SqlEventStore(empty_backend.url)

    with pytest.raises(SchemaError, match="alembic upgrade head"):
        store.append(make())


def test_an_unknown_type_keeps_its_name_when_it_is_copied(store: SqlEventStore) -> None:
    event = Event.from_dict({**make().to_dict(), "event_type": "stage.teleported"})
    copied = store.append(event)

    assert copied.event_type is EventType.UNKNOWN
    with store.database.reading() as session:
        raw = session.execute(text("SELECT event_type FROM stabilize_events")).scalar_one()
    assert raw == "stage.teleported"


def test_stores_in_memory_are_apart() -> None:
    one, other = InMemoryEventStore(), InMemoryEventStore()
    one.append(make())

    assert (one.count_events(), other.count_events()) == (1, 0)
