"""One of several processes that append: `python -m tests.events.writers URL N EVENTS HOLD`.

Half-way it keeps a transaction open for HOLD seconds. It prints how many events with higher numbers
others have committed meanwhile.
"""

from __future__ import annotations

import random
import sys
import threading

from sqlalchemy.exc import DBAPIError

from stabilize.events import EntityType, Event, EventQuery, EventType, SqlEventStore


def write(url: str, number: int, events: int, hold: float) -> int:
    """Append `events` events in transactions of 1 to 5, and roll a tenth of them back.

    Return by how many events the transaction was overtaken that was held open.
    """
    store = SqlEventStore(url)
    rng = random.Random(number)
    left, overtaken = events, 0
    while left:
        batch = [_event(number, left - n) for n in range(min(left, rng.randint(1, 5)))]
        fails = rng.random() < 0.1
        try:
            with store.database.writing() as connection:
                last = store.append_batch(batch, connection).last_sequence
                if hold and left <= events // 2:
                    threading.Event().wait(hold)
                    overtaken = store.count_events(EventQuery(from_sequence=last))
                    hold, fails = 0, False
                if fails:
                    raise _OnPurpose
        except _OnPurpose:
            continue
        except DBAPIError as error:
            if not store.database.backend.is_trouble(error):
                raise
            continue
        left -= len(batch)
    store.close()
    return overtaken


class _OnPurpose(Exception):
    pass


def _event(number: int, left: int) -> Event:
    return Event(
        event_id=f"{number}-{left}",
        event_type=EventType.CUSTOM,
        entity_type=EntityType.WORKFLOW,
        entity_id=f"writer-{number}",
        workflow_id=f"writer-{number}",
        data={"left": left},
    )


if __name__ == "__main__":
    print(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
