"""Old events put out of the way, and the values in them made unreadable."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, exists, insert, select, update

from stabilize.events.appending import PURGED
from stabilize.events.base import WORKFLOW_ENDS, EntityType, Event
from stabilize.events.rows import ARCHIVE, EVENTS, READING_BARE, event_of
from stabilize.events.sql_store import SqlEventStore
from stabilize.models import EventDelivery, SnapshotRecord
from stabilize.types import encode


class EventArchive:
    """Moves and purges the events of a store: the only ways in which stored events change.

    Who reads through the library finds archived events as before; views and SQL of your own find
    them in `stabilize_v_events_all`.
    """

    def __init__(self, event_store: SqlEventStore) -> None:
        self.event_store = event_store
        self.database = event_store.database

    def archive_workflows(self, older_than: datetime, limit: int | None = None) -> int:
        """Archive workflows that ended, and of which nothing was heard since `older_than`.

        Each in a transaction of its own, at most `limit` of them; returns how many. Delivered
        webhooks of theirs are forgotten.
        """
        if older_than.tzinfo is None:
            raise ValueError(f"{older_than!r} has no time zone: use datetime.now(UTC) or the like")
        with self.database.reading() as session:
            ids = session.scalars(_ended(older_than).limit(limit)).all()
        return sum(self._archive(id) for id in ids)

    def _archive(self, workflow_id: str) -> bool:
        mine = EVENTS.c.workflow_id == workflow_id
        with self.database.writing(brings_work=False) as connection:
            locked = select(EVENTS.c.sequence).where(mine).with_for_update()
            sequences = connection.scalars(locked).all()
            if not sequences:  # another process was faster
                return False
            here = mine, EVENTS.c.sequence <= max(sequences)
            names = [column.name for column in EVENTS.columns]
            moved = select(*(EVENTS.c[name] for name in names)).where(*here)
            connection.execute(insert(ARCHIVE).from_select(names, moved))
            done = delete(EventDelivery).where(
                EventDelivery.sequence.in_(select(EVENTS.c.sequence).where(*here)),
                EventDelivery.status != "PENDING",
            )
            connection.execute(done)
            with self.database.backend.maintaining_events(connection):
                connection.execute(delete(EVENTS).where(*here))
        return True

    def purge_workflow(self, workflow_id: str) -> int:
        """Take the data out of all events of a workflow, for good; return how many had some.

        What stays is what happened when, who did it, and the hash of the data. Its snapshots are
        deleted. The workflow itself is a matter of `WorkflowStore.delete`.
        """
        with self.database.writing(brings_work=False) as connection:
            snapshots = SnapshotRecord.workflow_id == workflow_id
            connection.execute(delete(SnapshotRecord).where(snapshots))
            with self.database.backend.maintaining_events(connection):
                return sum(_purge(connection, table, workflow_id) for table in (EVENTS, ARCHIVE))


def _purge(connection: Connection, table: Table, workflow_id: str) -> int:
    stored = connection.execute(READING_BARE[table].where(table.c.workflow_id == workflow_id))
    rows = [
        {"b_sequence": event.sequence, "data": _purged(event), "error": None}
        for event in map(event_of, stored)
        if PURGED not in event.data
    ]
    if rows:
        values: dict[str, Any] = {"data": bindparam("data"), "error": bindparam("error")}
        one = update(table).where(table.c.sequence == bindparam("b_sequence")).values(values)
        connection.execute(one, rows)
    return len(rows)


def _purged(event: Event) -> dict[str, Any]:
    return {PURGED: True, "sha256": hashlib.sha256(encode(event.data).encode()).hexdigest()}


def _ended(older_than: datetime) -> Any:
    """The workflows whose last word is an end, all of it before an instant."""
    later = EVENTS.alias()
    of_it = later.c.workflow_id == EVENTS.c.workflow_id
    opened = (
        later.c.entity_type == EntityType.WORKFLOW.value,
        later.c.sequence > EVENTS.c.sequence,
        later.c.status.is_not(None),
    )
    return (
        select(EVENTS.c.workflow_id)
        .where(
            EVENTS.c.event_type.in_([kind.value for kind in WORKFLOW_ENDS]),
            EVENTS.c.timestamp < older_than,
            ~exists(select(later.c.sequence).where(of_it, later.c.timestamp >= older_than)),
            ~exists(select(later.c.sequence).where(of_it, *opened)),
        )
        .order_by(EVENTS.c.sequence)
    )
