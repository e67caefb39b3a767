"""Snapshots: states kept, so that a replay need not begin at the beginning."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Table, delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stabilize.clock import utc_now
from stabilize.errors import StabilizeError
from stabilize.events.base import WORKFLOW_ENDS, EntityType, Event
from stabilize.events.sql_store import SqlEventStore
from stabilize.events.state import REDUCER_VERSION
from stabilize.events.store import EventStore
from stabilize.models import SnapshotRecord

logger = logging.getLogger(__name__)

_ROWS: Table = SnapshotRecord.__table__  # type: ignore[assignment]


def hash_of(state: Mapping[str, Any]) -> str:
    """SHA-256 of the state as canonical JSON, in hex."""
    canonical = json.dumps(state, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """The state of an entity after the event of `sequence`, its `version`-th event."""

    entity_type: EntityType
    entity_id: str
    workflow_id: str
    version: int
    sequence: int
    state: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the hash of the state."""
        return {
            **self.__dict__,
            "entity_type": self.entity_type.value,
            "created_at": self.created_at.isoformat(),
            "state_hash": hash_of(self.state),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The snapshot of `to_dict`; `ValueError` when the state is not the one that was hashed."""
        expected = data.get("state_hash")
        if expected is not None and expected != hash_of(data["state"]):
            raise ValueError(
                f"the snapshot of {data['entity_type']} {data['entity_id']} at {data['sequence']} "
                "is damaged: its state does not match its hash"
            )
        at = data["created_at"]
        at = at if isinstance(at, datetime) else datetime.fromisoformat(at)
        return cls(
            entity_type=EntityType(data["entity_type"]),
            entity_id=data["entity_id"],
            workflow_id=data["workflow_id"],
            version=int(data["version"]),
            sequence=int(data["sequence"]),
            state=dict(data["state"]),
            created_at=at.astimezone(UTC),
        )


@dataclass(frozen=True)
class SnapshotPolicy:
    """When to snapshot: after so many events, or so many seconds after the last snapshot.

    `every_n_events` is another name for `event_interval` and wins over it.
    """

    event_interval: int = 100
    time_interval_seconds: int = 3600
    every_n_events: int | None = None

    def __post_init__(self) -> None:
        if self.every_n_events is not None:
            object.__setattr__(self, "event_interval", self.every_n_events)
        if self.event_interval < 1 or self.time_interval_seconds < 1:
            raise ValueError(f"{self}: intervals are at least 1")

    def should_snapshot(
        self, entity_id: str, events_since: int, seconds_since: float = 0.0
    ) -> bool:
        """Say whether `entity_id` is due, this many events and seconds after its last snapshot."""
        del entity_id  # for policies of your own that treat entities differently
        return events_since >= self.event_interval or (
            events_since > 0 and seconds_since >= self.time_interval_seconds
        )


class SnapshotStore:
    """Keeps snapshots beside the events of `event_store`.

    Handed to the recorder (`configure_event_sourcing(..., snapshots=...)`) it makes them by its
    policy while workflows run. `keep`: how many of one entity stay.
    """

    def __init__(
        self, event_store: EventStore, policy: SnapshotPolicy | None = None, keep: int = 10
    ) -> None:
        if not isinstance(event_store, SqlEventStore):
            raise TypeError(
                f"snapshots are kept in the tables of a SqlEventStore, not in {event_store!r}"
            )
        self.event_store = event_store
        self.policy = policy or SnapshotPolicy()
        self.keep = keep
        self._watched: dict[str, tuple[int, datetime]] = {}
        """By workflow: events since the last snapshot, and since when."""
        self._lock = threading.Lock()

    # --- keeping ----------------------------------------------------------------------------

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; the one of the same entity and sequence, if there is one, stays."""
        values = snapshot.to_dict() | {
            "reducer_version": REDUCER_VERSION,
            "created_at": snapshot.created_at,
        }
        mine = _of(snapshot.entity_type, snapshot.entity_id)
        with self.event_store.database.writing(brings_work=False) as connection:
            kept = connection.scalars(
                select(_ROWS.c.sequence).where(*mine).order_by(_ROWS.c.sequence)
            ).all()
            if snapshot.sequence in kept:
                return
            try:
                with connection.begin_nested():
                    connection.execute(insert(_ROWS).values(**values))
            except IntegrityError:  # another process was faster
                return
            old = kept[: max(0, len(kept) + 1 - self.keep)]
            if old:
                connection.execute(delete(_ROWS).where(*mine, _ROWS.c.sequence.in_(old)))

    def create_workflow_snapshot(
        self, workflow_state: dict[str, Any], workflow_id: str, version: int, sequence: int
    ) -> Snapshot:
        """Make a snapshot of a rebuilt workflow, and keep it."""
        workflow = EntityType.WORKFLOW, workflow_id, workflow_id
        snapshot = Snapshot(*workflow, version, sequence, workflow_state)
        self.save_snapshot(snapshot)
        return snapshot

    # --- finding ----------------------------------------------------------------------------

    def get_latest_snapshot(self, entity_type: EntityType, entity_id: str) -> Snapshot | None:
        """The usable snapshot with the highest sequence, None when there is none."""
        return self.get_snapshot(entity_type, entity_id)

    def get_snapshot(
        self, entity_type: EntityType, entity_id: str, as_of_sequence: int | None = None
    ) -> Snapshot | None:
        """The usable snapshot with the highest sequence up to `as_of_sequence`.

        One that another version of the reducer made, or whose hash is wrong, is passed over.
        """
        query = (
            select(_ROWS)
            .where(*_of(entity_type, entity_id), _ROWS.c.reducer_version == REDUCER_VERSION)
            .order_by(_ROWS.c.sequence.desc())
        )
        if as_of_sequence is not None:
            query = query.where(_ROWS.c.sequence <= as_of_sequence)
        with self.event_store.database.reading() as session:
            for sequence in session.scalars(query.with_only_columns(_ROWS.c.sequence)).all():
                row = session.execute(query.where(_ROWS.c.sequence == sequence)).first()
                try:
                    if row is not None:
                        return Snapshot.from_dict(row._asdict())
                except ValueError as error:
                    logger.warning("passed over: %s", error)
        return None

    # --- by policy --------------------------------------------------------------------------

    def should_snapshot(self, workflow_id: str) -> bool:
        """Say whether a workflow is due by the policy, as far as this store was told of events."""
        events, since = self._watched.get(workflow_id, (0, utc_now()))
        seconds = (utc_now() - since).total_seconds()
        return events > 0 and self.policy.should_snapshot(workflow_id, events, seconds)

    def record_event(self, event: Event) -> None:
        """Count an event for the policy."""
        with self._lock:
            events, since = self._watched.get(event.workflow_id, (0, utc_now()))
            self._watched[event.workflow_id] = events + 1, since

    def observe(self, events: Iterable[Event], take: Callable[[str], Any]) -> None:
        """Count events, and call `take(workflow_id)` for the workflows that are due now."""
        ended: dict[str, bool] = {}
        for event in events:
            self.record_event(event)
            ended[event.workflow_id] = event.event_type in WORKFLOW_ENDS
        for workflow_id, has_ended in ended.items():
            if self.should_snapshot(workflow_id):
                try:
                    take(workflow_id)
                except (SQLAlchemyError, StabilizeError) as error:
                    logger.warning("workflow %s was not snapshotted: %s", workflow_id, error)
                self._watched[workflow_id] = 0, utc_now()
            if has_ended:
                self._watched.pop(workflow_id, None)


def _of(entity_type: EntityType, entity_id: str) -> tuple[Any, ...]:
    return _ROWS.c.entity_type == entity_type.value, _ROWS.c.entity_id == entity_id
