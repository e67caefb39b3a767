"""A reader that follows the sequence misses nothing, whoever writes and however long it takes.

The race in full, 20,000 events and a transaction that stays open for 2 s:
`STABILIZE_FULL=1 pytest -n0 --timeout 900 tests/events/test_frontier.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from subprocess import PIPE

import pytest
import sqlalchemy.event
from sqlalchemy.exc import DBAPIError

from stabilize.clock import new_id
from stabilize.events import EntityType, Event, EventType, SqlEventStore
from tests.conftest import lend_or_skip
from tests.support.backends import BACKENDS, BackendUnderTest, Databases

FULL = bool(os.environ.get("STABILIZE_FULL"))
EVENTS, HOLD, PATIENCE = (20_000, 2.0, 600.0) if FULL else (1_200, 0.3, 60.0)
SHARED = [name for name, trait in BACKENDS.items() if "multi_process" in trait.capabilities]
SERVERS = [name for name, trait in BACKENDS.items() if "server" in trait.capabilities]


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, databases: Databases) -> Iterator[BackendUnderTest]:
    with lend_or_skip(databases, request.param) as lent:
        yield lent


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, databases: Databases) -> Iterator[BackendUnderTest]:
    with lend_or_skip(databases, request.param) as lent:
        yield lent


def event(name: str) -> Event:
    """An event with ids of its own: a deleted one of an earlier test may still hold a lock."""
    id = f"{name}.{new_id()}"
    return Event(
        event_id=id,
        event_type=EventType.CUSTOM,
        entity_type=EntityType.STAGE,
        entity_id=id,
        workflow_id="workflow",
    )


def names(events: list[Event]) -> list[str]:
    return [event.event_id.partition(".")[0] for event in events]


class Tail(threading.Thread):
    """Follows the events of a store until it has seen so many."""

    def __init__(self, url: str, goal: int) -> None:
        super().__init__(daemon=True)
        self.store = SqlEventStore(url)
        self.goal = goal
        self.seen: list[Event] = []
        self.looked = threading.Event()
        self.gives_up = threading.Event()

    def run(self) -> None:
        position = 0
        while len(self.seen) < self.goal and not self.gives_up.is_set():
            page = self.store.get_events_since(position, limit=100)
            self.seen += page
            position = page[-1].sequence if page else position
            self.looked.set()

    def finish(self) -> list[Event]:
        self.join(PATIENCE)
        self.gives_up.set()
        return self.seen


def test_writers_in_several_processes_race_and_the_reader_sees_every_event_in_order(
    shared: BackendUnderTest,
) -> None:
    writers = 4 if "server" in shared.capabilities else 2
    tail = Tail(shared.url, EVENTS)
    tail.start()
    program, share = [sys.executable, "-m", "tests.events.writers", shared.url], EVENTS // writers
    processes = [
        subprocess.Popen([*program, str(n), str(share), str(hold)], stdout=PIPE, text=True)
        for n, hold in enumerate([HOLD, 0, 0, 0][:writers])
    ]
    overtaken = [int(process.communicate(timeout=PATIENCE)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * writers

    seen = tail.finish()

    sequences = [event.sequence for event in seen]
    print(f"{len(set(sequences))} of {EVENTS} events, {overtaken[0]} overtook an open transaction")
    assert sequences == sorted(set(sequences))
    assert len(seen) == EVENTS


def test_an_event_of_a_writer_that_takes_long_is_not_missed(shared: BackendUnderTest) -> None:
    store = SqlEventStore(shared.url)
    tail = Tail(shared.url, 6)
    others = threading.Thread(
        target=lambda: [store.append(event(f"fast-{n}")) for n in range(5)], daemon=True
    )
    with store.database.writing() as connection:
        store.append(event("slow"), connection)
        others.start()
        tail.start()
        others.join(1.0)  # where one writer at a time is let in, they have to wait
    others.join(PATIENCE)

    seen = tail.finish()

    assert set(names(seen)) == {"slow", *(f"fast-{n}" for n in range(5))}
    assert [e.sequence for e in seen] == sorted(e.sequence for e in seen)


def test_no_writer_waits_for_another(server: BackendUnderTest) -> None:
    store = SqlEventStore(server.url)
    store.append(event("before"))
    with store.database.writing() as connection:
        store.append(event("slow"), connection)
        for n in range(5):
            store.append(event(f"fast-{n}"))
        assert store.count_events() == 6

    assert store.count_events() == 7


def test_a_writer_that_is_open_holds_the_frontier_and_no_other_one(
    databases: Databases,
) -> None:
    with lend_or_skip(databases, "postgresql") as lent:
        store = SqlEventStore(lent.url)
        before = store.append(event("before")).sequence
        with store.database.writing() as connection:
            store.append(event("slow"), connection)
            store.append(event("fast"))
            held = store.safe_sequence()
            with connection.begin_nested() as savepoint:
                store.append(event("undone"), connection)
                savepoint.rollback()

            assert held == before
            assert store.get_events_since(before) == []
            assert store.get_current_sequence() > held
        assert names(store.get_events_since(before)) == ["slow", "fast"]


@pytest.mark.parametrize("after", [1, 2])
def test_the_frontier_is_safe_whatever_comes_between_its_reads(
    databases: Databases, after: int
) -> None:
    with lend_or_skip(databases, "postgresql") as lent, contextlib.ExitStack() as stack:
        store, writers = SqlEventStore(lent.url), SqlEventStore(lent.engine())
        store.append(event("before"))
        opened: list[int] = []
        statements = itertools.count(1)

        def intervene(*_: object) -> None:
            if next(statements) == after:
                connection = stack.enter_context(writers.database.writing())
                opened.append(writers.append(event("slow"), connection).sequence)
                writers.append(event("fast"))

        sqlalchemy.event.listen(store.database.engine, "after_cursor_execute", intervene)
        frontier = store.safe_sequence()
        sqlalchemy.event.remove(store.database.engine, "after_cursor_execute", intervene)

        assert frontier < opened[0]


@pytest.mark.parametrize(("after", "expected"), [(1, ["slow", "fast"]), (2, [])])
def test_a_writer_that_ends_between_the_reads_is_not_passed_over(
    databases: Databases, after: int, expected: list[str]
) -> None:
    with lend_or_skip(databases, "postgresql") as lent, contextlib.ExitStack() as stack:
        store, writers = SqlEventStore(lent.url), SqlEventStore(lent.engine())
        before = store.append(event("before")).sequence
        writers.append(event("slow"), stack.enter_context(writers.database.writing()))
        writers.append(event("fast"))
        statements = itertools.count(1)

        def commit(*_: object) -> None:
            if next(statements) == after:
                stack.close()

        sqlalchemy.event.listen(store.database.engine, "after_cursor_execute", commit)
        seen = store.get_events_since(before)
        sqlalchemy.event.remove(store.database.engine, "after_cursor_execute", commit)

        assert names(seen) == expected
        assert names(store.get_events_since(before)) == ["slow", "fast"]


def test_without_the_row_that_is_the_fence_nothing_is_written(databases: Databases) -> None:
    with lend_or_skip(databases, "mariadb") as lent:
        store = SqlEventStore(lent.url)
        with store.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM stabilize_event_fence")
            with pytest.raises(DBAPIError, match="insert \\(1, 0, 0\\) again"):
                store.append(event("first"), connection)
            connection.rollback()

        assert store.append(event("first")).sequence == store.safe_sequence()


def test_in_strict_order_numbers_rise_with_the_commits(server: BackendUnderTest) -> None:
    one, other = (SqlEventStore(server.engine(), ordering="strict") for _ in range(2))
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(other.append(event("late")).sequence))
    with one.database.writing() as connection:
        first = one.append(event("early"), connection).sequence
        thread.start()
        thread.join(0.2)
        assert numbers == []  # it waits, so that no higher number is committed before this one
    thread.join(PATIENCE)

    assert numbers[0] > first
    with pytest.raises(ValueError, match="fenced or strict"):
        SqlEventStore(server.url, ordering="loose")
