"""Replay: the state of a workflow, now or at any time, from its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from stabilize.events.base import EntityType, Event
from stabilize.events.migrator import get_event_migrator
from stabilize.events.query import EventQuery
from stabilize.events.snapshots import Snapshot, SnapshotStore
from stabilize.events.state import WorkflowState
from stabilize.events.store import EventStore

_TICK = timedelta(microseconds=1)


@dataclass
class ReplayResult:
    """What a replay came to, and what it took; sequences and versions are 0 when there are none."""

    entity_type: EntityType
    entity_id: str
    final_state: dict[str, Any] = field(default_factory=dict)
    events_replayed: int = 0
    from_snapshot: bool = False
    snapshot_sequence: int = 0
    last_sequence: int = 0
    last_version: int = 0


class EventReplayer:
    """Rebuilds states from the events of a store, from snapshots on where there are some."""

    def __init__(
        self, event_store: EventStore, snapshot_store: SnapshotStore | None = None
    ) -> None:
        self.event_store = event_store
        self.snapshot_store = snapshot_store

    def rebuild_workflow_state(
        self, workflow_id: str, as_of_sequence: int | None = None
    ) -> dict[str, Any]:
        """The state of a workflow, after the event of `as_of_sequence` if that is given.

        Keys: `workflow_id status application name start_time end_time context stages tasks`, and
        `skipped` for events that could not be taken in. Of an unknown workflow, status is None.
        """
        return self.rebuild(workflow_id, as_of_sequence).final_state

    def rebuild(self, workflow_id: str, as_of_sequence: int | None = None) -> ReplayResult:
        """As `rebuild_workflow_state`, with what it took."""
        result = ReplayResult(EntityType.WORKFLOW, workflow_id)
        state = WorkflowState(workflow_id)
        snapshot = None
        if self.snapshot_store is not None:
            workflow = EntityType.WORKFLOW, workflow_id
            snapshot = self.snapshot_store.get_snapshot(*workflow, as_of_sequence)
        if snapshot is not None:
            state = WorkflowState.from_dict(snapshot.state)
            result.from_snapshot, result.snapshot_sequence = True, snapshot.sequence
            result.last_sequence, result.last_version = snapshot.sequence, snapshot.version
        migrator = get_event_migrator()
        wanted = EventQuery(
            workflow_id=workflow_id,
            from_sequence=result.last_sequence,
            to_sequence=as_of_sequence,
            limit=None,
            metadata=bool(migrator.steps),  # what a state is made of does not lie in it
        )
        for event in self.event_store.get_events(wanted):
            state.apply(event, migrator)
            result.events_replayed += 1
            result.last_sequence = event.sequence
            if event.entity_type is EntityType.WORKFLOW:
                result.last_version = event.version
        result.final_state = state.to_dict()
        return result

    def time_travel_query(self, workflow_id: str, as_of_time: datetime) -> dict[str, Any]:
        """The state of a workflow after everything that had happened by `as_of_time`.

        A naive time is refused with `ValueError`. Before the workflow was created, status is None.
        """
        if as_of_time.tzinfo is None:
            raise ValueError(f"{as_of_time!r} has no time zone: use datetime.now(UTC) or the like")
        later = EventQuery(
            workflow_id=workflow_id, from_timestamp=as_of_time.astimezone(UTC) + _TICK, limit=1
        )
        first = next(iter(self.event_store.get_events(later)), None)
        return self.rebuild_workflow_state(
            workflow_id, None if first is None else first.sequence - 1
        )

    def replay_workflow_from_checkpoint(
        self,
        workflow_id: str,
        checkpoint_sequence: int,
        event_handler: Callable[[Event], None],
    ) -> None:
        """Call `event_handler` with each event of a workflow after `checkpoint_sequence`.

        In order and upcast; what the handler raises ends it.
        """
        migrator = get_event_migrator()
        wanted = EventQuery(workflow_id=workflow_id, from_sequence=checkpoint_sequence, limit=None)
        for event in self.event_store.get_events(wanted):
            event_handler(migrator.migrate(event, strict=False))

    def get_entity_history(self, entity_type: EntityType, entity_id: str) -> list[dict[str, Any]]:
        """Every event of an entity as a dict of plain values, by version."""
        events = self.event_store.get_events_for_entity(entity_type, entity_id)
        return [event.to_dict() for event in events]

    def compare_states(self, workflow_id: str, sequence1: int, sequence2: int) -> dict[str, Any]:
        """How the state changed between two sequences, whichever is the earlier.

        Keys: `before`, `after`, `sequence_range` (`from`, `to`), and `changes` with `added`,
        `removed` (path -> value) and `changed` (path -> `before`, `after`).
        """
        low, high = sorted((sequence1, sequence2))
        before = self.rebuild_workflow_state(workflow_id, low)
        after = self.rebuild_workflow_state(workflow_id, high)
        return {
            "before": before,
            "after": after,
            "sequence_range": {"from": low, "to": high},
            "changes": changes_between(before, after),
        }

    def take_snapshot(self, workflow_id: str) -> Snapshot | None:
        """Keep the state of a workflow up to where nothing can still come; None if none."""
        if self.snapshot_store is None:
            raise ValueError("give EventReplayer a snapshot_store to keep snapshots in")
        result = self.rebuild(workflow_id, self.event_store.safe_sequence())
        if result.last_sequence == result.snapshot_sequence:
            return None
        return self.snapshot_store.create_workflow_snapshot(
            result.final_state, workflow_id, result.last_version, result.last_sequence
        )


_MISSING = object()


def changes_between(before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """`added` and `removed` (path -> value), `changed` (path -> before, after); dotted paths."""
    parts: dict[str, dict[str, Any]] = {"added": {}, "removed": {}, "changed": {}}
    for path, old, new in _differences(before, after, ""):
        if old is _MISSING or new is _MISSING:
            kind, what = ("added", new) if old is _MISSING else ("removed", old)
        else:
            kind, what = "changed", {"before": old, "after": new}
        parts[kind][path] = what
    return parts


def _differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key, _MISSING), after.get(key, _MISSING), below)
    elif before != after:
        yield path, before, after
