"""What the store changes by hand is recorded with it, as what the engine does is."""

from __future__ import annotations

import pytest

from stabilize import ConcurrencyError, TaskResult, WorkflowStatus
from stabilize.events import EventBus, EventReplayer, SqlEventStore
from stabilize.events.bus import get_event_bus
from stabilize.models import Workflow
from tests.support.builders import Engine, stage, workflow


def suspended(engine: Engine) -> Workflow:
    made = workflow(stage("a", does=lambda s: TaskResult.suspend()))
    engine.submit(made)
    engine.play()
    return engine.store.retrieve(made.id)


def types(events: SqlEventStore, made: Workflow, since: int = 0) -> list[str]:
    return [e.event_type.value for e in events.get_events_for_workflow(made.id)][since:]


def test_a_pause_by_the_store_is_recorded_and_published_once(
    engine: Engine, events: SqlEventStore
) -> None:
    heard: list[tuple[str, str]] = []
    bus: EventBus = get_event_bus()
    bus.subscribe("pauses", lambda e: heard.append((e.event_type.value, e.metadata.actor)))
    made = workflow(stage("a"))
    engine.store.store(made)

    assert engine.store.pause(made.id, "bob")
    assert not engine.store.pause(made.id, "bob")

    assert types(events, made) == ["workflow.paused"]
    assert heard == [("workflow.paused", "bob")]
    assert EventReplayer(events).rebuild_workflow_state(made.id)["status"] == "PAUSED"
    engine.orchestrator.resume(made)
    engine.submit(made)
    assert engine.go_on(made).status == "SUCCEEDED"


def test_a_pause_rolled_back_leaves_neither_status_nor_event(
    engine: Engine, events: SqlEventStore
) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    with engine.database.engine.connect() as connection:
        assert engine.store.pause(made.id, "bob", session=connection)
        connection.rollback()
    assert engine.status(made) == "NOT_STARTED"
    assert types(events, made) == []
    with engine.database.engine.connect() as connection:
        assert engine.store.pause(made.id, "bob", session=connection)
        connection.commit()
    assert engine.status(made) == "PAUSED"
    assert types(events, made) == ["workflow.paused"]


def test_what_is_written_into_a_stage_by_hand_is_in_its_events(
    engine: Engine, events: SqlEventStore
) -> None:
    made = suspended(engine)
    before = len(types(events, made))
    (stale,), (run,) = engine.store.retrieve(made.id).stages, made.stages
    run.context["by hand"] = 1
    run.outputs["found"] = [2]

    engine.store.store_stage(run)

    assert types(events, made, before) == ["context.updated", "outputs.updated"]
    state = EventReplayer(events).rebuild_workflow_state(made.id)["stages"][run.id]
    assert (state["context"]["by hand"], state["outputs"]) == (1, {"found": [2]})
    with pytest.raises(ConcurrencyError, match=r"is at version \d+, not \d+: retrieve it again"):
        engine.store.store_stage(stale)
    with pytest.raises(ConcurrencyError, match="is SUSPENDED, not RUNNING"):
        engine.store.store_stage(run, expected_phase="RUNNING")
    assert len(types(events, made)) == before + 2


def test_a_status_written_by_hand_is_in_the_events(engine: Engine, events: SqlEventStore) -> None:
    made = suspended(engine)
    before = len(types(events, made))
    made.status = WorkflowStatus.PAUSED

    engine.store.update_status(made)

    assert types(events, made, before) == ["status.changed"]
    assert EventReplayer(events).rebuild_workflow_state(made.id)["status"] == "PAUSED"
