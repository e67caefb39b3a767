"""How far each follower of the events has come: a row for each, moved by compare-and-set."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Table, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from stabilize.clock import new_id
from stabilize.database import Database
from stabilize.events.base import EventType
from stabilize.models import SubscriptionRecord

ROWS: Table = SubscriptionRecord.__table__  # type: ignore[assignment]


def names_of(kinds: Collection[EventType] | None) -> list[str] | None:
    """Types of events as they are stored; None is all of them."""
    return None if kinds is None else [kind.value for kind in kinds]


class Positions:
    """Reads and writes the rows of followers of one `kind` in one database."""

    def __init__(self, database: Database, kind: str, lease_ms: int = 0) -> None:
        self.database = database
        self.kind = kind
        self.lease_ms = lease_ms
        self.owner = new_id()

    def create(self, id: str, at: int = 0, **settings: Any) -> None:
        """Make the row of `id` at sequence `at`; one that is there keeps its position."""
        now = self.database.now()
        row = {"id": id, "kind": self.kind, "last_sequence": at, "created_at": now}
        try:
            if not self.change(id, **settings):
                with self.database.writing(brings_work=False) as connection:
                    connection.execute(insert(ROWS).values(**row, updated_at=now, **settings))
        except IntegrityError:  # another process made it just now, with its position
            return

    def read(self, id: str) -> Any:
        """The row, None when there is none."""
        with self.database.reading() as session:
            return session.execute(select(ROWS).where(ROWS.c.id == id)).first()

    def change(self, id: str, *where: Any, **values: Any) -> bool:
        """Set columns of a row; no when it is not there, or not as it was expected."""
        with self.database.writing(brings_work=False) as connection:
            return self.change_on(connection, id, *where, **values)

    def change_on(self, connection: Connection, id: str, *where: Any, **values: Any) -> bool:
        """As `change`, in a transaction that is open."""
        row = update(ROWS).where(ROWS.c.id == id, *where)
        changed = connection.execute(row.values(updated_at=self.database.now(), **values))
        return changed.rowcount == 1

    def claim(self, id: str, *, early: bool) -> Any:
        """Get a follower to ourselves for a lease: its row; None when somebody else has it.

        `early`: also when it waits for its next attempt.
        """
        now, columns = self.database.now(), ROWS.c
        mine = columns.claim_owner == self.owner
        claimed = self.change(
            id,
            or_(columns.claim_owner.is_(None), mine, columns.claim_until < now),
            columns.enabled.is_(True),
            *(() if early else (columns.next_attempt_at <= now,)),
            claim_owner=self.owner,
            claim_epoch=columns.claim_epoch + 1,
            claim_until=now + self.lease_ms,
        )
        row = self.read(id) if claimed else None
        return row if row is not None and row.claim_owner == self.owner else None

    def renew(self, row: Any) -> bool:
        """Extend the lease; no when it is not ours any more."""
        return self.change(row.id, as_claimed(row), claim_until=self.database.now() + self.lease_ms)


def as_claimed(row: Any) -> Any:
    """The condition that a row is still claimed as it was when it was read."""
    return ROWS.c.claim_epoch == row.claim_epoch
