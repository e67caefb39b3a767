"""States rebuilt from events: at the end, on the way, by time, and from snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stabilize import StageExecution, TaskResult
from stabilize.clock import from_ms
from stabilize.events import (
    EntityType,
    Event,
    EventReplayer,
    EventType,
    Snapshot,
    SnapshotPolicy,
    SnapshotStore,
    SqlEventStore,
    configure_event_sourcing,
    create_stage_event,
    create_workflow_event,
    get_event_bus,
    get_event_migrator,
)
from stabilize.events.snapshots import hash_of
from stabilize.models import SnapshotRecord
from tests.support.builders import Engine, stage, workflow
from tests.support.replayed import of_events, of_store


def adds(stage: StageExecution) -> TaskResult:
    return TaskResult.success(
        outputs={f"out_{stage.ref_id}": 1}, context={f"seen_{stage.ref_id}": True}
    )


def chain(length: int) -> Any:
    return workflow(
        *(stage(f"s{n}", does=adds, after=f"s{n - 1}" if n else ()) for n in range(length))
    )


def test_the_state_at_every_turn_is_the_one_the_tables_had_then(
    engine: Engine, events: SqlEventStore
) -> None:
    made = chain(3)
    captured: dict[int, tuple[int, dict[str, Any]]] = {}

    def capture(event: Event) -> None:
        stored = engine.store.retrieve(made.id)
        captured[stored.version] = (event.sequence, of_store(stored))

    get_event_bus().subscribe("capture", capture)
    engine.submit(made)
    engine.play()

    replayer = EventReplayer(events)
    assert len(captured) >= 3
    for sequence, stored in captured.values():
        assert of_events(replayer.rebuild_workflow_state(made.id, sequence)) == stored


def test_a_state_has_the_documented_shape(engine: Engine, events: SqlEventStore) -> None:
    made = chain(1)
    engine.submit(made)
    engine.play()

    state = EventReplayer(events).rebuild_workflow_state(made.id)

    assert list(state) == [
        "workflow_id",
        "status",
        "application",
        "name",
        "start_time",
        "end_time",
        "context",
        "stages",
        "tasks",
        "skipped",
    ]
    (run,) = state["stages"].values()
    (task,) = state["tasks"].values()
    assert (run["ref_id"], run["status"], run["outputs"]) == ("s0", "SUCCEEDED", {"out_s0": 1})
    assert (task["stage_id"], task["status"], task["retry_count"]) == (run["id"], "SUCCEEDED", 0)
    assert run["context"]["seen_s0"] is True


def test_an_unknown_workflow_has_an_empty_state(events: SqlEventStore) -> None:
    replayer = EventReplayer(events)

    state = replayer.rebuild_workflow_state("nobody")

    assert (state["status"], state["stages"], state["tasks"]) == (None, {}, {})
    assert replayer.get_entity_history(EntityType.WORKFLOW, "nobody") == []


def test_time_travel_goes_to_an_instant(engine: Engine, events: SqlEventStore) -> None:
    clock = engine.stop_time()
    seen: list[int] = []

    def body(stage: StageExecution) -> TaskResult:
        seen.append(clock.now_ms())
        clock.advance(10)
        return adds(stage)

    made = workflow(stage("a", does=body), stage("b", does=body, after="a"))
    engine.submit(made)
    engine.play()
    replayer = EventReplayer(events)

    def statuses(ms: int) -> dict[str, str]:
        state = replayer.time_travel_query(made.id, from_ms(ms))
        return {run["ref_id"]: run["status"] for run in state["stages"].values()}

    assert statuses(seen[0] - 1) == {}
    assert statuses(seen[0]) == {"a": "RUNNING"}
    assert statuses(seen[0] + 9_999) == {"a": "RUNNING"}
    assert statuses(seen[1])["a"] == "SUCCEEDED"
    assert statuses(seen[1] + 10_000) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
    assert replayer.time_travel_query(made.id, from_ms(seen[0] - 1))["status"] is None
    with pytest.raises(ValueError, match="no time zone"):
        replayer.time_travel_query(made.id, from_ms(0).replace(tzinfo=None))


def test_two_states_are_compared_path_by_path(engine: Engine, events: SqlEventStore) -> None:
    made = chain(2)
    engine.submit(made)
    engine.play()
    history = events.get_events_for_workflow(made.id)
    started = next(e for e in history if e.event_type is EventType.STAGE_STARTED)
    done = next(e for e in history if e.event_type is EventType.STAGE_COMPLETED)

    compared = EventReplayer(events).compare_states(made.id, done.sequence, started.sequence)

    assert compared["sequence_range"] == {"from": started.sequence, "to": done.sequence}
    run = f"stages.{started.entity_id}"
    assert compared["changes"]["changed"][f"{run}.status"] == {
        "before": "RUNNING",
        "after": "SUCCEEDED",
    }
    assert compared["changes"]["added"][f"{run}.outputs.out_s0"] == 1
    assert compared["changes"]["removed"] == {}


def test_a_handler_is_called_with_what_came_after_a_checkpoint(
    engine: Engine, events: SqlEventStore
) -> None:
    made = chain(1)
    engine.submit(made)
    engine.play()
    history = events.get_events_for_workflow(made.id)
    replayer, heard = EventReplayer(events), list[Event]()

    replayer.replay_workflow_from_checkpoint(made.id, history[2].sequence, heard.append)

    assert heard == history[3:]
    with pytest.raises(ZeroDivisionError):
        replayer.replay_workflow_from_checkpoint(made.id, 0, lambda e: 1 // 0)  # type: ignore[arg-type, return-value]
    told = replayer.get_entity_history(EntityType.WORKFLOW, made.id)
    assert [entry["version"] for entry in told] == [1, 2, 3]


# --- snapshots ----------------------------------------------------------------------------------


def test_workflows_are_snapshotted_while_they_run_and_rebuilt_from_there(engine: Engine) -> None:
    events = SqlEventStore(engine.database)
    snapshots = SnapshotStore(events, SnapshotPolicy(event_interval=10))
    configure_event_sourcing(events, snapshots=snapshots)
    made = chain(12)
    engine.submit(made)
    engine.play()

    with_snapshot = EventReplayer(events, snapshots).rebuild(made.id)
    without = EventReplayer(events).rebuild(made.id)

    assert with_snapshot.from_snapshot
    assert with_snapshot.events_replayed < without.events_replayed
    assert with_snapshot.final_state == without.final_state
    for sequence in (e.sequence for e in events.get_events_for_workflow(made.id)):
        assert EventReplayer(events, snapshots).rebuild_workflow_state(
            made.id, sequence
        ) == EventReplayer(events).rebuild_workflow_state(made.id, sequence)


def test_the_two_names_of_the_interval_mean_the_same() -> None:
    assert SnapshotPolicy(every_n_events=7).event_interval == 7
    policy = SnapshotPolicy(event_interval=7, time_interval_seconds=60)
    assert [policy.should_snapshot("w", n) for n in (0, 6, 7)] == [False, False, True]
    assert policy.should_snapshot("w", 1, seconds_since=60)
    assert not policy.should_snapshot("w", 0, seconds_since=60)
    with pytest.raises(ValueError, match="at least 1"):
        SnapshotPolicy(event_interval=0)


def test_a_damaged_snapshot_and_one_of_another_version_are_passed_over(engine: Engine) -> None:
    events = SqlEventStore(engine.database)
    snapshots = SnapshotStore(events)
    made = chain(1)
    engine.submit(made)
    engine.play()
    history = events.get_events_for_workflow(made.id)
    for event in history[:3]:
        state = EventReplayer(events).rebuild_workflow_state(made.id, event.sequence)
        snapshots.create_workflow_snapshot(state, made.id, 1, event.sequence)
    table: Any = SnapshotRecord.__table__
    with engine.database.writing() as connection:
        connection.execute(
            table.update().where(table.c.sequence == history[2].sequence).values(state_hash="x")
        )
        connection.execute(
            table.update().where(table.c.sequence == history[1].sequence).values(reducer_version=99)
        )

    found = snapshots.get_latest_snapshot(EntityType.WORKFLOW, made.id)

    assert found is not None
    assert found.sequence == history[0].sequence


def test_only_the_newest_snapshots_are_kept(engine: Engine) -> None:
    snapshots = SnapshotStore(SqlEventStore(engine.database), keep=2)
    for sequence in (1, 2, 3, 3):
        snapshots.create_workflow_snapshot({"n": sequence}, "w", sequence, sequence)

    assert snapshots.get_snapshot(EntityType.WORKFLOW, "w", 1) is None
    assert [
        found.sequence
        for at in (2, 3)
        if (found := snapshots.get_snapshot(EntityType.WORKFLOW, "w", at))
    ] == [2, 3]


def test_a_snapshot_goes_to_a_dict_and_back_and_damage_is_noticed() -> None:
    snapshot = Snapshot(EntityType.WORKFLOW, "w", "w", 3, 9, {"status": "RUNNING"})
    data = snapshot.to_dict()

    assert Snapshot.from_dict(data) == snapshot
    assert data["state_hash"] == hash_of(snapshot.state)
    with pytest.raises(ValueError, match="damaged"):
        Snapshot.from_dict({**data, "state": {"status": "SUCCEEDED"}})


# --- upcasting ----------------------------------------------------------------------------------


def test_older_events_are_brought_up_to_date_on_reading(events: SqlEventStore) -> None:
    old = create_workflow_event(EventType.WORKFLOW_CREATED, "w", {"title": "orders"})
    events.append(old)
    migrator = get_event_migrator()

    @migrator.register(1, 2)
    def _(event: Event) -> Event:
        return replace(event, data={"name": event.data["title"], "application": "shop"})

    state = EventReplayer(events).rebuild_workflow_state("w")

    assert (state["name"], state["application"]) == ("orders", "shop")
    assert migrator.migrate(old).schema_version == 2
    assert events.get_events_for_workflow("w")[0].schema_version == 1


def test_an_event_of_a_newer_program_is_shown_and_not_guessed_at(events: SqlEventStore) -> None:
    events.append(create_workflow_event(EventType.WORKFLOW_CREATED, "w", {"name": "a"}))
    newer = replace(create_stage_event(EventType.STAGE_STARTED, "s", "w"), schema_version=7)
    stored = events.append(newer)

    state = EventReplayer(events).rebuild_workflow_state("w")

    assert state["stages"] == {}
    assert state["skipped"] == [
        {
            "sequence": stored.sequence,
            "event_id": stored.event_id,
            "reason": "schema version 7 is not known here",
        }
    ]
    with pytest.raises(ValueError, match="a newer one wrote it"):
        get_event_migrator().migrate(newer)
    with pytest.raises(ValueError, match="nothing leads from there"):
        get_event_migrator().migrate(replace(newer, schema_version=1), target_version=9)
    assert stored.timestamp - newer.timestamp == timedelta(0)
