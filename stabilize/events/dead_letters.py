"""Events that a subscriber could not take, set aside so that the rest goes on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from stabilize.database import Database
from stabilize.models import EventDeadLetter

_ROWS: Table = EventDeadLetter.__table__  # type: ignore[assignment]


class DeadLetters:
    """The events set aside in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self,
        connection: Connection,
        subscription_id: str,
        event: Any,
        error: str,
        attempts: int,
        since: int | None,
    ) -> None:
        """Set an event aside that has failed `since` then; None is just now."""
        now = self.database.now()
        connection.execute(delete(_ROWS).where(*_at(subscription_id, event.sequence)))
        connection.execute(
            insert(_ROWS).values(
                subscription_id=subscription_id,
                sequence=event.sequence,
                event_id=event.event_id,
                error=error,
                attempts=attempts,
                first_failed_at=now if since is None else since,
                last_failed_at=now,
            )
        )

    def of(self, subscription_id: str) -> list[Any]:
        """The rows of a subscription that are not resolved, in order."""
        mine = _ROWS.c.subscription_id == subscription_id, _ROWS.c.resolved_at.is_(None)
        with self.database.reading() as session:
            return list(session.execute(select(_ROWS).where(*mine).order_by(_ROWS.c.sequence)))

    def resolve(self, subscription_id: str, sequence: int) -> None:
        """The event was taken after all."""
        letter = update(_ROWS).where(*_at(subscription_id, sequence))
        with self.database.writing(brings_work=False) as connection:
            connection.execute(letter.values(resolved_at=self.database.now()))


def _at(subscription_id: str, sequence: int) -> tuple[Any, ...]:
    return _ROWS.c.subscription_id == subscription_id, _ROWS.c.sequence == sequence
