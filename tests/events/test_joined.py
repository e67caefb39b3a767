"""Events recorded in a transaction of the user's: heard of once it is committed, and not else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from stabilize.events import (
    EntityType,
    Event,
    EventRecorder,
    EventType,
    SqlEventStore,
    configure_event_sourcing,
    get_event_bus,
)
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage, workflow


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    store = SqlEventStore(backend.url)
    yield store
    store.close()


@pytest.fixture
def heard(store: SqlEventStore) -> list[str]:
    names: list[str] = []

    def hear(event: Event) -> None:
        assert store.get_event_by_id(event.event_id) is not None
        names.append(event.data["name"])

    get_event_bus().subscribe("x", hear)
    return names


@pytest.fixture
def recorder(store: SqlEventStore) -> EventRecorder:
    return configure_event_sourcing(store)


def record(recorder: EventRecorder, session: Session, name: str) -> None:
    recorder.record(
        EventType.CUSTOM, EntityType.WORKFLOW, "w", "w", {"name": name}, connection=session
    )


def test_they_are_heard_after_the_commit_and_not_before(
    store: SqlEventStore, recorder: EventRecorder, heard: list[str]
) -> None:
    with Session(store.database.engine) as session:
        record(recorder, session, "a")
        record(recorder, session, "b")
        assert heard == []
        session.commit()
        assert heard == ["a", "b"]
        record(recorder, session, "c")
        session.rollback()
        record(recorder, session, "d")
        session.commit()

    assert heard == ["a", "b", "d"]
    assert [event.data["name"] for event in store.get_events_since(0)] == heard


def test_a_savepoint_is_no_commit(
    store: SqlEventStore, recorder: EventRecorder, heard: list[str]
) -> None:
    with Session(store.database.engine) as session:
        with session.begin_nested():
            record(recorder, session, "kept")
            inner = session.begin_nested()
            record(recorder, session, "undone")
            inner.rollback()
        outer = session.begin_nested()
        with session.begin_nested():
            record(recorder, session, "undone with the one around it")
        outer.rollback()
        assert heard == []
        session.commit()

    assert heard == ["kept"]


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only", "control_fully"])
def test_a_session_in_a_transaction_of_somebody_else_tells_nothing_it_does_not_know(
    store: SqlEventStore, recorder: EventRecorder, heard: list[str], mode: str
) -> None:
    with store.database.engine.connect() as connection:
        transaction = connection.begin()
        with Session(bind=connection, join_transaction_mode=mode) as session:  # type: ignore[arg-type]
            record(recorder, session, "a")
            session.commit()
        if transaction.is_active:
            transaction.rollback()

    assert heard == [event.data["name"] for event in store.get_events_since(0)]


def test_workers_wake_when_the_transaction_is_committed_not_at_a_savepoint(engine: Engine) -> None:
    woken: list[str] = []
    engine.database.on_wake(lambda: woken.append("once"))
    with Session(engine.database.engine) as session:
        with session.begin_nested():
            engine.orchestrator.start(workflow(stage("a", does=ok)), session=session)
        assert woken == []
        session.commit()
        assert woken == ["once"]
    engine.play()
