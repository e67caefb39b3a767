"""Changes by hand: what the store changes outside of any turn, with the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from stabilize.clock import utc_now
from stabilize.database import Database, Joinable
from stabilize.events.account import Account
from stabilize.events.base import Event, EventType
from stabilize.events.by_hand import ENTITY_TYPE
from stabilize.events.context import current_actor
from stabilize.events.recorder import EventRecorder, get_event_recorder
from stabilize.events.rows import Draft
from stabilize.joining import after_commit
from stabilize.models import Workflow
from stabilize.models.unwatched import Entity


class Amendment:
    """Entities of one session, changed by hand."""

    def __init__(self, session: Session, recorder: EventRecorder | None, actor: str) -> None:
        self.session = session
        self._recorder = recorder
        self._actor = actor
        self._account = Account()
        self._drafts: list[Draft] = []

    def change(self, entity: Entity, **values: Any) -> None:
        """Change columns of an entity that the session has read."""
        self._account.before_change(entity, values)
        for name, value in values.items():
            if getattr(entity, name) != value:
                setattr(entity, name, value)

    def record(self, event_type: EventType, entity: Entity, **data: Any) -> None:
        """Record that something happened to `entity`, if events are on."""
        if self._recorder is None:
            return
        self._account.tell(event_type, entity, data)
        entity.event_version += 1
        self._drafts.append(
            Draft(
                event_type,
                ENTITY_TYPE[type(entity)],
                entity.id,
                entity.id if isinstance(entity, Workflow) else entity.workflow_id,
                entity.event_version,
                data,
                causation_id=None,
                actor=self._actor,
                source_handler="WorkflowStore",
            )
        )

    def write(self, database: Database) -> list[Event]:
        """Write rows and events; those that somebody wants to hear of come back."""
        for event_type, entity, data in self._account.untold():
            self.record(event_type, entity, **data)
        self.session.flush()
        if self._recorder is None or not self._drafts:
            return []
        connection = self.session.connection()
        return self._recorder.append(connection, self._drafts, utc_now(), database)


@contextmanager
def amending(
    database: Database, join: Joinable | None = None, *, actor: str = ""
) -> Iterator[Amendment]:
    """Change entities in the caller's transaction, or in one of its own; `actor` does it."""
    recorder = get_event_recorder()
    with database.writing(join) as connection:
        if not connection.in_transaction():
            connection.begin()  # the caller's to end: one that the session began it would roll back
        session = Session(bind=connection, autoflush=False, expire_on_commit=False)
        amendment = Amendment(session, recorder, actor or current_actor("system"))
        yield amendment
        events = amendment.write(database)
        session.close()

    def publish() -> None:
        if recorder is not None:
            recorder.publish(events, database)

    if join is None:
        publish()
    elif isinstance(join, Session):
        after_commit(join, publish)
