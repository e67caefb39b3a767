"""An event store on another database: fed after the commit, in order, nothing lost or doubled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stabilize import Database, StageExecution, TaskResult
from stabilize.events import (
    EntityType,
    Event,
    EventQuery,
    EventReplayer,
    EventStore,
    EventType,
    InMemoryEventStore,
    SnapshotPolicy,
    SnapshotStore,
    SqlEventStore,
    SqliteEventStore,
    configure_event_sourcing,
    create_workflow_event,
    get_event_bus,
)
from stabilize.events.relay import Relay
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage, workflow
from tests.support.replayed import check


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[SqliteEventStore]:
    store = SqliteEventStore(f"sqlite:///{tmp_path}/events.db")
    yield store
    store.close()


def ids(store: SqlEventStore) -> list[str]:
    return [event.event_id for event in store.get_events_since(0, 100_000)]


def test_when_process_all_returns_the_other_store_has_everything(
    engine: Engine, events: SqlEventStore, elsewhere: SqliteEventStore
) -> None:
    configure_event_sourcing(elsewhere)
    for _ in range(3):
        engine.submit(workflow(stage("a", does=ok), stage("b", does=ok, after="a")))
    engine.play()

    assert len(ids(elsewhere)) == 3 * 11
    assert ids(elsewhere) == ids(events)
    assert check(engine.database, elsewhere) == 3


def test_subscribers_hear_although_the_store_is_elsewhere(
    engine: Engine, elsewhere: SqliteEventStore
) -> None:
    heard: list[Event] = []
    configure_event_sourcing(elsewhere)
    get_event_bus().subscribe("x", heard.append)
    engine.run(stage("a", does=ok))

    assert [event.event_id for event in heard] == ids(elsewhere)


def test_a_store_in_memory_is_fed_like_any_other(engine: Engine) -> None:
    store = InMemoryEventStore()
    configure_event_sourcing(store)
    ran = engine.run(stage("a", does=ok))

    assert len(store.get_events_for_workflow(ran.workflow.id)) == 7


def test_what_was_copied_but_not_noted_is_not_copied_twice(
    engine: Engine, events: SqlEventStore, elsewhere: SqliteEventStore
) -> None:
    events.append_batch(
        [create_workflow_event(EventType.CUSTOM, f"w{n % 3}", {"n": n}) for n in range(30)]
    )
    elsewhere.append_batch(events.get_events_since(0, 12))

    relay = Relay(engine.database, elsewhere)

    assert relay.drain(10)
    assert ids(elsewhere) == ids(events)
    assert relay.copy() == 0


def test_two_relays_of_two_processes_do_not_mix_anything_up(
    engine: Engine, events: SqlEventStore, elsewhere: SqliteEventStore
) -> None:
    one, other = Relay(engine.database, elsewhere), Relay(engine.database, elsewhere)
    for n in range(10):
        events.append(create_workflow_event(EventType.CUSTOM, "w", {"n": n}))
        (one if n % 2 else other).copy()
        if n % 3 == 0:
            other.copy()

    assert ids(elsewhere) == ids(events)


def test_a_store_that_is_down_holds_nothing_up_and_gets_it_later(
    engine: Engine, events: SqlEventStore, elsewhere: SqliteEventStore, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden.db"
    broken = Path(str(elsewhere.database.engine.url.database))
    elsewhere.close()
    broken.rename(hidden)
    broken.mkdir()
    configure_event_sourcing(elsewhere)
    made = workflow(stage("a", does=ok))
    engine.submit(made)

    engine.play(timeout=2)
    assert engine.status(made) == "SUCCEEDED"

    broken.rmdir()
    hidden.rename(broken)
    engine.play()
    assert ids(elsewhere) == ids(events)


def test_snapshots_are_made_where_the_events_are(
    engine: Engine, elsewhere: SqliteEventStore
) -> None:
    snapshots = SnapshotStore(elsewhere, SnapshotPolicy(every_n_events=5))
    configure_event_sourcing(elsewhere, snapshots=snapshots)
    ran = engine.run(stage("a", does=ok))

    rebuilt = EventReplayer(elsewhere, snapshots).rebuild(ran.workflow.id)

    assert rebuilt.from_snapshot
    assert rebuilt.final_state == EventReplayer(elsewhere).rebuild(ran.workflow.id).final_state


def test_the_same_database_under_another_spelling_is_no_other_one(
    backend: BackendUnderTest, tmp_path: Path
) -> None:
    path = tmp_path / "same.db"
    database = Database.at(f"sqlite:///{path}")
    database.create_tables()
    spelled = f"sqlite:///{tmp_path}/../{tmp_path.name}/same.db"

    store = SqliteEventStore(spelled)

    assert store.database is database


@pytest.mark.parametrize("place", ["before", "inside", "after"])
def test_killed_around_the_commit_of_the_target_nothing_is_lost_or_doubled(
    backend: BackendUnderTest, elsewhere: SqliteEventStore, place: str
) -> None:
    if "multi_process" not in backend.capabilities:
        pytest.skip("another process cannot see this database")
    events = SqlEventStore(backend.url)
    events.append_batch(
        [create_workflow_event(EventType.CUSTOM, f"w{n % 3}", {"n": n}) for n in range(2_500)]
    )
    target = str(elsewhere.database.engine.url)
    for deadly in (1, 2):
        child = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.events.relaying",
                backend.url,
                target,
                place,
                str(deadly),
            ],
            timeout=60,
            check=False,
        )
        assert child.returncode == -9

    assert Relay(events.database, elsewhere).drain(20)
    assert ids(elsewhere) == ids(events)


class Listed(EventStore):
    """A store that is no database: it appends whatever it is given, as often as it is."""

    kept: list[Event]

    def __init__(self, kept: list[Event] | None = None) -> None:
        self.kept = [] if kept is None else kept

    def append_batch(self, events: Sequence[Event], connection: Any = None) -> list[Event]:
        start = len(self.kept) + 1
        self.kept += [event.with_sequence(start + n) for n, event in enumerate(events)]
        return self.kept[start - 1 :]

    def get_events(self, query: EventQuery) -> Iterator[Event]:
        return iter(self.kept)

    def get_events_for_entity(
        self, entity_type: EntityType, entity_id: str, from_version: int = 0
    ) -> list[Event]:
        raise NotImplementedError

    def get_events_for_workflow(self, workflow_id: str, from_sequence: int = 0) -> list[Event]:
        raise NotImplementedError

    def get_current_sequence(self) -> int:
        return len(self.kept)

    def get_events_since(self, sequence: int, limit: int = 1000) -> list[Event]:
        return self.kept[sequence : sequence + limit]


def test_a_store_of_ones_own_is_fed_from_where_the_last_process_had_come_to(
    engine: Engine, events: SqlEventStore
) -> None:
    first = Listed()
    configure_event_sourcing(first)
    engine.run(stage("a", does=ok))
    again = Listed(first.kept)
    configure_event_sourcing(again)
    engine.run(stage("a", does=ok))
    lost_everything = Listed()
    configure_event_sourcing(lost_everything)
    engine.run(stage("a", does=ok))

    everything = [event.event_id for event in events.get_events_since(0)]
    assert [event.event_id for event in again.kept] == everything[:14]
    assert [event.event_id for event in lost_everything.kept] == everything
    assert again.count_events() == 14


def test_what_is_recorded_by_hand_in_the_other_store_does_not_hold_up_the_rest(
    engine: Engine, events: SqlEventStore, elsewhere: SqliteEventStore
) -> None:
    recorder = configure_event_sourcing(elsewhere)

    def records(run: StageExecution) -> TaskResult:
        recorder.record_status_change(run, "RUNNING", "RUNNING")
        return TaskResult.success()

    engine.run(stage("a", does=records), stage("b", does=ok, after="a"))

    assert set(ids(events)) < set(ids(elsewhere))
    assert len(ids(elsewhere)) == len(ids(events)) + 1
