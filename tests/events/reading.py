"""A process that reads all events in several ways: `python -m tests.events.reading URL FEW`.

For each it says how many events there were, how long it took in seconds, and by how many KiB the
process has grown beyond what reading FEW took.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stabilize.events import Event, EventQuery, EventReplayer, SqlEventStore


def query(store: SqlEventStore, limit: int | None) -> Iterator[Event]:
    return store.get_events(EventQuery(limit=limit))


def backwards_by_time(store: SqlEventStore, limit: int | None) -> Iterator[Event]:
    return store.get_events(EventQuery(limit=limit, order_by="timestamp", ascending=False))


def following(store: SqlEventStore, limit: int | None) -> Iterator[Event]:
    position, left = 0, sys.maxsize if limit is None else limit
    while left and (page := store.get_events_since(position, min(left, 1_000))):
        yield from page
        position, left = page[-1].sequence, left - len(page)


WAYS: dict[str, Callable[[SqlEventStore, int | None], Iterator[Event]]] = {
    "query": query,
    "backwards by time": backwards_by_time,
    "following": following,
}


def replay(store: SqlEventStore) -> int:
    """Call a handler with each event of the one workflow there is."""
    heard = 0

    def hear(event: Event) -> None:
        nonlocal heard
        heard += 1

    EventReplayer(store).replay_workflow_from_checkpoint("w", 0, hear)
    return heard


def size() -> int:
    """The most memory this program has had, in KiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what Linux says to getrusage begins with the size of the parent process
        (most,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(most.split()[1])
    most_ever = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most_ever // 1024 if sys.platform == "darwin" else most_ever


def main(url: str, few: str) -> None:
    store = SqlEventStore(url)
    for read in WAYS.values():
        assert sum(1 for _ in read(store, int(few))) == int(few)
    small = size()
    for name, read in WAYS.items():
        began = time.perf_counter()
        count = sum(1 for _ in read(store, None))
        print(f"{name}: {count} {time.perf_counter() - began:.2f} {size() - small}")
    began = time.perf_counter()
    count = replay(store)
    print(f"replay: {count} {time.perf_counter() - began:.2f} {size() - small}")


if __name__ == "__main__":
    main(*sys.argv[1:])
