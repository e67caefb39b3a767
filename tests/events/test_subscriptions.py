"""Durable subscriptions: from where they had come to, in order, with errors and crashes."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from stabilize.clock import ManualClock
from stabilize.events import (
    EntityType,
    Event,
    EventType,
    SqlEventStore,
    SubscriptionManager,
    create_stage_event,
    create_task_event,
    create_workflow_event,
    get_event_migrator,
)
from stabilize.tasks.backoff import Backoff
from tests.events.killing import BATCH, MOST, killed_at_random
from tests.support.backends import BackendUnderTest

KILLS = 30 if os.environ.get("STABILIZE_FULL") else 8


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    store = SqlEventStore(backend.url)
    yield store
    store.database.clock = None
    store.close()


@pytest.fixture
def manager(store: SqlEventStore) -> SubscriptionManager:
    return SubscriptionManager(store, poll_interval=0.01)


def append(store: SqlEventStore, count: int = 1, workflow_id: str = "w") -> list[int]:
    events = [create_workflow_event(EventType.CUSTOM, workflow_id, {"n": n}) for n in range(count)]
    return list(store.append_batch(events).sequences)


class Heard(list[int]):
    """Remembers the sequences of what it was called with."""

    def __call__(self, event: Event) -> None:
        self.append(event.sequence)


class Fails:
    """Raises on one event, or on all."""

    def __init__(self, on: int | None = None) -> None:
        self.on = on
        self.heard: list[int] = []
        self.tried: list[int] = []

    def __call__(self, event: Event) -> None:
        self.tried.append(event.sequence)
        if self.on in (None, event.sequence):
            raise ValueError(f"cannot take {event.sequence}")
        self.heard.append(event.sequence)


def test_a_subscription_starts_where_it_was_told_to(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    old = append(store, 3)
    latest, beginning, third = Heard(), Heard(), Heard()
    manager.create_subscription("latest", latest)
    manager.create_subscription("beginning", beginning, start_from="beginning")
    manager.create_subscription("third", third, start_from=str(old[1]))
    new = append(store, 2)

    assert manager.process_once() == 2 + 5 + 3
    assert (latest, beginning, third) == (new, old + new, old[2:] + new)
    assert manager.process_once() == 0
    with pytest.raises(ValueError, match="beginning"):
        manager.create_subscription("x", latest, start_from="yesterday")


def test_filters_narrow_and_the_position_moves_over_the_rest(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    stage = create_stage_event(EventType.STAGE_STARTED, "s", "w1")
    task = create_task_event(EventType.TASK_FAILED, "t", "w2")
    stages, failures, second = Heard(), Heard(), Heard()
    manager.create_subscription(
        "stages", stages, entity_filter={"entity_type": EntityType.STAGE}, start_from="beginning"
    )
    manager.create_subscription(
        "failures", failures, event_types=[EventType.TASK_FAILED], start_from="beginning"
    )
    manager.create_subscription(
        "second", second, entity_filter={"workflow_id": "w2"}, start_from="beginning"
    )
    one, two = store.append_batch([stage, task]).sequences

    manager.process_once()

    assert (stages, failures, second) == ([one], [two], [two])
    for id in ("stages", "failures", "second"):
        status = manager.get_subscription_status(id)
        assert status is not None
        assert (status["last_sequence"], status["lag"]) == (two, 0)
    with pytest.raises(ValueError, match="known are"):
        manager.create_subscription("x", stages, entity_filter={"stage": "s"})


def test_the_position_outlives_the_process(store: SqlEventStore) -> None:
    before, after = Heard(), Heard()
    first = SubscriptionManager(store)
    first.create_subscription("x", before, event_types=[EventType.CUSTOM], start_from="beginning")
    old = append(store, 3)
    first.process_once()

    second = SubscriptionManager(store)
    assert second.load_subscription("x", after)
    assert not second.load_subscription("unknown", after)
    new = append(store, 2)
    store.append(create_stage_event(EventType.STAGE_STARTED, "s", "w"))
    second.process_once()
    second.create_subscription("x", after, start_from="beginning")
    last = store.append(create_stage_event(EventType.STAGE_STARTED, "s", "w")).sequence
    second.process_once()

    assert before == old
    assert after == [*new, last]  # the filter was replaced, the position was not


def test_a_poison_event_is_set_aside_after_its_tries_and_the_rest_goes_on(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    sequences = append(store, 3)
    fails = Fails(on=sequences[1])
    manager.create_subscription("x", fails, start_from="beginning", max_errors=3)

    counts = []
    for _ in range(4):
        manager.process_once()
        found = manager.get_subscription("x")
        assert found is not None
        counts.append(found.error_count)

    assert counts == [1, 2, 0, 0]
    assert fails.tried.count(sequences[1]) == 3
    assert fails.heard == [sequences[0], sequences[2]]
    ((event, error),) = manager.dead_letters("x")
    assert event.sequence == sequences[1]
    assert "cannot take" in error

    fails.on = -1
    assert manager.replay_dead_letters("x") == 1
    assert manager.dead_letters("x") == []


def test_a_subscription_may_be_disabled_instead_of_passing_over(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    sequences = append(store, 2)
    fails = Fails(on=sequences[0])
    manager.create_subscription(
        "x", fails, start_from="beginning", max_errors=2, on_max_errors="disable"
    )
    for _ in range(4):
        manager.process_once()
    status = manager.get_subscription_status("x")
    assert status is not None
    behind = store.get_current_sequence()  # in numbers, not in events: it has heard of none
    assert (status["enabled"], status["error_count"], status["lag"]) == (False, 2, behind)
    assert fails.tried == [sequences[0]] * 2

    fails.on = -1
    manager.enable_subscription("x")
    manager.process_once()
    assert fails.heard == sequences


def test_one_bad_subscription_does_not_stop_the_others(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    heard = Heard()
    manager.create_subscription("bad", Fails(), start_from="beginning")
    manager.create_subscription("good", heard, start_from="beginning")
    sequences = append(store, 2)

    assert manager.process_once() == 2
    assert heard == sequences


def test_in_the_background_errors_are_followed_by_growing_pauses(store: SqlEventStore) -> None:
    clock = store.database.clock = ManualClock()
    fails = Fails()
    backoff = Backoff(base=10, factor=2, cap=1_000, jitter=0)
    manager = SubscriptionManager(store, poll_interval=0.005, backoff=backoff)
    manager.create_subscription("x", fails, start_from="beginning", max_errors=3)
    append(store)
    tries = []
    manager.start()
    try:
        for seconds in (9, 1, 19, 1):
            _until(lambda: manager.get_subscription("x").error_count == len(tries) // 2 + 1)  # type: ignore[union-attr]
            tries.append(len(fails.tried))
            clock.advance(seconds)
        _until(lambda: manager.dead_letters("x") != [])
    finally:
        manager.stop()

    assert tries == [1, 1, 2, 2]
    assert len(fails.tried) == 3


def test_deleting_says_whether_there_was_one(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    heard = Heard()
    manager.create_subscription("x", heard)

    assert (manager.delete_subscription("x"), manager.delete_subscription("x")) == (True, False)
    append(store)
    assert manager.process_once() == 0
    assert manager.get_subscription_status("x") is None


def test_one_process_at_a_time_works_for_a_subscription(store: SqlEventStore) -> None:
    inside, go_on = threading.Event(), threading.Event()
    other_heard = Heard()
    heard = Heard()

    def waits(event: Event) -> None:
        heard(event)
        inside.set()
        assert go_on.wait(10)

    one, other = SubscriptionManager(store), SubscriptionManager(store)
    one.create_subscription("x", waits, start_from="beginning")
    other.load_subscription("x", other_heard)
    sequences = append(store, 3)
    thread = threading.Thread(target=one.process_once)
    thread.start()
    assert inside.wait(10)

    assert other.process_once() == 0
    go_on.set()
    thread.join(10)

    assert (heard, other_heard) == (sequences, [])


def test_whoever_was_overtaken_does_not_move_the_position(store: SqlEventStore) -> None:
    clock = store.database.clock = ManualClock()
    second_heard = Heard()
    first = SubscriptionManager(store, lease_seconds=10)
    second = SubscriptionManager(store, lease_seconds=10)
    sequences = append(store, 2)

    def slow(event: Event) -> None:
        clock.advance(11)
        second.process_once()

    first.create_subscription("x", slow, start_from="beginning")
    second.load_subscription("x", second_heard)
    first.process_once()

    status = first.get_subscription_status("x")
    assert status is not None
    assert second_heard == sequences
    assert (status["last_sequence"], status["delivered_count"]) == (sequences[1], 2)


def test_killed_again_and_again_every_event_comes_at_least_once_and_in_order(
    backend: BackendUnderTest, store: SqlEventStore
) -> None:
    if "multi_process" not in backend.capabilities:
        pytest.skip("another process cannot see this database")
    sequences = append(store, (KILLS + 2) * MOST)
    SubscriptionManager(store).create_subscription("x", None, start_from="beginning")

    heard = killed_at_random("subscription", backend.url, KILLS)

    first_time = list(dict.fromkeys(heard))
    print(f"{KILLS} kills, {len(heard) - len(first_time)} of {len(sequences)} events came again")
    assert first_time == sequences
    places = [sequences.index(sequence) for sequence in heard]
    highest = itertools.accumulate(places, max)
    assert all(place > top - BATCH for place, top in zip(places, highest, strict=True))


def test_a_handler_that_takes_longer_than_the_lease_stays_alone(store: SqlEventStore) -> None:
    inside, go_on = threading.Event(), threading.Event()
    heard, other_heard = Heard(), Heard()

    def takes_long(event: Event) -> None:
        heard(event)
        inside.set()
        assert go_on.wait(20)

    one = SubscriptionManager(store, lease_seconds=0.3)
    other = SubscriptionManager(store, lease_seconds=0.3)
    one.create_subscription("x", takes_long, start_from="beginning")
    other.load_subscription("x", other_heard)
    sequences = append(store, 1)
    thread = threading.Thread(target=one.process_once)
    thread.start()
    assert inside.wait(20)
    until = _database_time(store) + 900
    _until(lambda: _database_time(store) > until)

    assert other.process_once() == 0
    go_on.set()
    thread.join(20)

    assert (heard, other_heard) == (sequences, [])


def _database_time(store: SqlEventStore) -> int:
    with store.database.reading() as session:
        return int(session.execute(select(store.database.now())).scalar_one())


def test_who_is_reset_while_it_is_at_work_begins_anew(store: SqlEventStore) -> None:
    manager = SubscriptionManager(store)
    heard = Heard()

    def hears(event: Event) -> None:
        heard(event)
        if len(heard) == 1:
            manager.reset_subscription("x")

    manager.create_subscription("x", hears, start_from="beginning")
    sequences = append(store, 2)
    while manager.process_once():
        pass

    assert heard == [*sequences, *sequences]


def test_an_event_that_cannot_be_brought_up_to_date_is_set_aside(store: SqlEventStore) -> None:
    heard = Heard()
    manager = SubscriptionManager(store)
    manager.create_subscription("x", heard, start_from="beginning", max_errors=1)
    old, new = append(store, 2)

    @get_event_migrator().register(1, 2)
    def upcast(event: Event) -> Event:
        if event.sequence == old:
            raise KeyError("n")
        return event

    while manager.process_once() or not heard:
        pass

    assert heard == [new]
    assert [event.sequence for event, _ in manager.dead_letters("x")] == [old]


def _until(condition: object, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
