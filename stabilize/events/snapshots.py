"""Snapshots: states kept, so that a replay need not begin at the beginning."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from stabilize.clock import utc_now
from stabilize.errors import StabilizeError
from stabilize.events.base import EntityType, Event, EventType
from stabilize.events.state import REDUCER_VERSION
from stabilize.events.store import EventStore, SqlEventStore
from stabilize.models import SnapshotRecord

logger = logging.getLogger(__name__)

_ENDS = frozenset(
    {EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED, EventType.WORKFLOW_CANCELED}
)


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
        return cls(
            entity_type=EntityType(data["entity_type"]),
            entity_id=data["entity_id"],
            workflow_id=data["workflow_id"],
            version=int(data["version"]),
            sequence=int(data["sequence"]),
            state=dict(data["state"]),
            created_at=datetime.fromisoformat(data["created_at"]).astimezone(UTC),
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


@dataclass
class _Watched:
    events: int
    since: datetime


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
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    # --- keeping ----------------------------------------------------------------------------

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; the one of the same entity and sequence, if there is one, stays."""
        values = {
            "entity_type": snapshot.entity_type.value,
            "entity_id": snapshot.entity_id,
            "workflow_id": snapshot.workflow_id,
            "version": snapshot.version,
            "sequence": snapshot.sequence,
            "state": snapshot.state,
            "state_hash": hash_of(snapshot.state),
            "reducer_version": REDUCER_VERSION,
            "created_at": snapshot.created_at,
        }
        mine = (
            SnapshotRecord.entity_type == snapshot.entity_type.value,
            SnapshotRecord.entity_id == snapshot.entity_id,
        )
        with self.event_store.database.writing() as connection:
            kept = connection.scalars(
                select(SnapshotRecord.sequence).where(*mine).order_by(SnapshotRecord.sequence)
            ).all()
            if snapshot.sequence in kept:
                return
            try:
                with connection.begin_nested():
                    connection.execute(insert(SnapshotRecord).values(**values))
            except IntegrityError:  # another process was faster
                return
            old = kept[: max(0, len(kept) + 1 - self.keep)]
            if old:
                connection.execute(
                    delete(SnapshotRecord).where(*mine, SnapshotRecord.sequence.in_(old))
                )

    def create_workflow_snapshot(
        self, workflow_state: dict[str, Any], workflow_id: str, version: int, sequence: int
    ) -> Snapshot:
        """Make a snapshot of a rebuilt workflow, and keep it."""
        snapshot = Snapshot(
            entity_type=EntityType.WORKFLOW,
            entity_id=workflow_id,
            workflow_id=workflow_id,
            version=version,
            sequence=sequence,
            state=workflow_state,
        )
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
            select(SnapshotRecord.__table__)
            .where(
                SnapshotRecord.entity_type == entity_type.value,
                SnapshotRecord.entity_id == entity_id,
                SnapshotRecord.reducer_version == REDUCER_VERSION,
            )
            .order_by(SnapshotRecord.sequence.desc())
        )
        if as_of_sequence is not None:
            query = query.where(SnapshotRecord.sequence <= as_of_sequence)
        with self.event_store.database.reading() as session:
            sequences = session.scalars(query.with_only_columns(SnapshotRecord.sequence)).all()
            for sequence in sequences:
                row = session.execute(query.where(SnapshotRecord.sequence == sequence)).first()
                snapshot = None if row is None else _checked(row)
                if snapshot is not None:
                    return snapshot
        return None

    # --- by policy --------------------------------------------------------------------------

    def should_snapshot(self, workflow_id: str) -> bool:
        """Say whether a workflow is due by the policy, as far as this store was told of events."""
        watched = self._watched.get(workflow_id)
        if watched is None:
            return False
        seconds = (utc_now() - watched.since).total_seconds()
        return self.policy.should_snapshot(workflow_id, watched.events, seconds)

    def record_event(self, event: Event) -> None:
        """Count an event for the policy."""
        with self._lock:
            watched = self._watched.setdefault(event.workflow_id, _Watched(0, utc_now()))
            watched.events += 1

    def observe(self, events: Iterable[Event], take: Any) -> None:
        """Count events, and call `take(workflow_id)` for the workflows that are due now."""
        touched: dict[str, bool] = {}
        for event in events:
            self.record_event(event)
            touched[event.workflow_id] = event.event_type in _ENDS
        for workflow_id, ended in touched.items():
            if self.should_snapshot(workflow_id):
                try:
                    take(workflow_id)
                except (SQLAlchemyError, StabilizeError) as error:
                    logger.warning("workflow %s was not snapshotted: %s", workflow_id, error)
                with self._lock:
                    self._watched[workflow_id] = _Watched(0, utc_now())
            if ended:
                with self._lock:
                    self._watched.pop(workflow_id, None)


def _checked(row: Any) -> Snapshot | None:
    if hash_of(row.state) != row.state_hash:
        logger.warning(
            "the snapshot of %s %s at %s is damaged and passed over",
            row.entity_type,
            row.entity_id,
            row.sequence,
        )
        return None
    return Snapshot(
        entity_type=EntityType(row.entity_type),
        entity_id=row.entity_id,
        workflow_id=row.workflow_id,
        version=row.version,
        sequence=row.sequence,
        state=row.state,
        created_at=row.created_at,
    )
