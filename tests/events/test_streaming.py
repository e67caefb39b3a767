"""However many events are read one after another, the memory that takes does not grow.

In full, a million events:
`STABILIZE_FULL=1 pytest -n0 --timeout 900 tests/events/test_streaming.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from string import ascii_lowercase

import pytest
from sqlalchemy import insert, literal, select

from stabilize.events import EventType, SqlEventStore, create_stage_event
from stabilize.events.rows import EVENTS
from tests.conftest import lend_or_skip
from tests.support.backends import BACKENDS, Databases

FULL = bool(os.environ.get("STABILIZE_FULL"))
EVENTS_READ = 1_000_000 if FULL else 25_000
FEW = 5_000
ROOM = 2 * 1024
"""KiB that may come and go. Held at once, 25,000 events take 20 times that."""
SHARED = [name for name, trait in BACKENDS.items() if "multi_process" in trait.capabilities]


def fill(store: SqlEventStore, goal: int) -> None:
    """Append a thousand events, then have the database double them until there are so many."""
    data = {"ref_id": "fetch", "context": {"url": "https://example.com/feed", "page": 7}}
    store.append_batch(
        [create_stage_event(EventType.CONTEXT_UPDATED, "s", "w", data) for _ in range(1_000)]
    )
    copied = [
        column for column in EVENTS.c if column.name not in ("sequence", "event_id", "version")
    ]
    for letter in ascii_lowercase:
        there = store.count_events()
        if there == goal:
            return
        new = (EVENTS.c.event_id + literal(letter), EVENTS.c.version + there)
        doubled = select(*new, *copied).where(EVENTS.c.version <= goal - there)
        with store.database.writing() as connection:
            connection.execute(
                insert(EVENTS).from_select(
                    ["event_id", "version", *(column.name for column in copied)], doubled
                )
            )


ANALYZE = {"sqlite": "ANALYZE", "postgresql": "ANALYZE", "mysql": "ANALYZE TABLE stabilize_events"}
"""What a server does by itself some time after such a load; without it plans are guesses."""


@pytest.mark.parametrize("name", SHARED)
def test_all_events_are_read_in_the_memory_of_a_few(databases: Databases, name: str) -> None:
    with lend_or_skip(databases, name, empty=True) as lent:
        store = SqlEventStore(lent.url, create_tables=True)
        fill(store, EVENTS_READ)
        with store.database.writing() as connection:
            connection.exec_driver_sql(ANALYZE[lent.kind])
        done = subprocess.run(
            [sys.executable, "-m", "tests.events.reading", lent.url, str(FEW)],
            capture_output=True,
            text=True,
            timeout=900 if FULL else 100,
            check=False,
        )
        store.close()

    assert done.returncode == 0, done.stderr
    print(done.stdout)
    ways = [line.rpartition(": ")[2].split() for line in done.stdout.splitlines()]
    assert [int(count) for count, _, _ in ways] == [EVENTS_READ] * 4
    assert all(int(grown) <= ROOM for *_, grown in ways)
