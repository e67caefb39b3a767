"""Processes that append events at the same time: `python -m tests.events.writers URL N EVENTS`."""

from __future__ import annotations

import random
import sys

from sqlalchemy.exc import DBAPIError

from stabilize.events import EntityType, Event, EventType, SqlEventStore


def write(url: str, number: int, events: int) -> None:
    """Append `events` events in transactions of 1 to 5, and roll a tenth of them back."""
    store = SqlEventStore(url)
    rng = random.Random(number)
    left = events
    while left:
        batch = [_event(number, left - n) for n in range(min(left, rng.randint(1, 5)))]
        fails = rng.random() < 0.1
        try:
            with store.database.writing() as connection:
                store.append_batch(batch, connection)
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
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
