"""What is recorded of a workflow, in which order, by whom and why."""

from __future__ import annotations

import pytest

from stabilize import StageExecution, TaskResult, TransientError, WorkflowStatus
from stabilize.events import (
    EntityType,
    Event,
    EventType,
    SqlEventStore,
    get_event_bus,
    get_event_recorder,
    set_event_context,
)
from tests.support.builders import Engine, ok, stage, workflow


def kinds(events: SqlEventStore, id: str) -> list[str]:
    return [event.event_type.value for event in events.get_events_for_workflow(id)]


def of(events: SqlEventStore, id: str, kind: EventType) -> Event:
    (found,) = [e for e in events.get_events_for_workflow(id) if e.event_type is kind]
    return found


def test_one_stage_with_one_task_is_seven_events(engine: Engine, events: SqlEventStore) -> None:
    made = workflow(stage("a", does=lambda s: TaskResult.success(outputs={"n": 1})))
    engine.submit(made)
    engine.play()

    assert kinds(events, made.id) == [
        "workflow.created",
        "workflow.started",
        "stage.started",
        "task.started",
        "task.completed",
        "stage.completed",
        "workflow.completed",
    ]
    created = of(events, made.id, EventType.WORKFLOW_CREATED)
    assert created.version == 1
    assert created.metadata.correlation_id == made.id
    assert created.metadata.actor == "system"
    assert created.metadata.source_handler == "StartWorkflowHandler"
    assert created.metadata.causation_id is not None
    assert set(created.data) >= {
        "application",
        "name",
        "type",
        "trigger_type",
        "stage_count",
        "initial_stage_count",
    }
    completed = of(events, made.id, EventType.TASK_COMPLETED)
    assert completed.data["outputs"] == {"n": 1}
    assert completed.data["status"] == "SUCCEEDED"
    assert completed.data["duration_ms"] >= 0
    assert of(events, made.id, EventType.STAGE_COMPLETED).data["outputs"] == {"n": 1}
    assert of(events, made.id, EventType.WORKFLOW_COMPLETED).data["status"] == "SUCCEEDED"


def test_failures_carry_the_real_message(engine: Engine, events: SqlEventStore) -> None:
    def fails(stage: StageExecution) -> TaskResult:
        raise ValueError("the pump is dry")

    made = workflow(stage("a", does=fails))
    engine.submit(made)
    engine.play()

    for kind in (EventType.TASK_FAILED, EventType.STAGE_FAILED, EventType.WORKFLOW_FAILED):
        assert "the pump is dry" in of(events, made.id, kind).data["error"], kind


def test_a_retry_is_an_event_with_its_number_and_reason(
    engine: Engine, events: SqlEventStore
) -> None:
    def body(stage: StageExecution) -> TaskResult:
        if stage.context.get("tries", 0) < 2:
            tries = stage.context.get("tries", 0) + 1
            raise TransientError("busy", retry_after=0, context_update={"tries": tries})
        return TaskResult.success()

    made = workflow(stage("a", does=body))
    engine.submit(made)
    engine.play()

    found = events.get_events_for_workflow(made.id)
    retried = [e.data for e in found if e.event_type is EventType.TASK_RETRIED]
    assert [data["attempt"] for data in retried] == [1, 2]
    assert "busy" in retried[0]["error"]
    assert retried[1]["context"] == {"tries": 2}


def test_a_task_that_is_passed_over_is_told_of(engine: Engine, events: SqlEventStore) -> None:
    def stops(stage: StageExecution) -> TaskResult:
        return TaskResult.terminal("enough")

    made = workflow(stage("a", does=[stops, ok]))
    engine.submit(made)
    engine.play()

    changed = of(events, made.id, EventType.STATUS_CHANGED)
    assert changed.entity_type is EntityType.TASK
    assert changed.data["new_status"] == "SKIPPED"


def test_who_asked_stands_in_the_event(engine: Engine, events: SqlEventStore) -> None:
    made = workflow(stage("a", does=lambda s: TaskResult.suspend()))
    set_event_context(correlation_id="request-1", actor="alice")
    engine.submit(made)
    set_event_context(correlation_id="request-2", actor="bob")
    engine.play()
    engine.orchestrator.cancel(made, reason="not needed")
    engine.play()
    set_event_context(correlation_id="request-3")

    assert of(events, made.id, EventType.WORKFLOW_CREATED).metadata.actor == "alice"
    assert of(events, made.id, EventType.TASK_STARTED).metadata.actor == "system"
    canceled = of(events, made.id, EventType.WORKFLOW_CANCELED)
    assert canceled.metadata.actor == "bob"
    assert canceled.data["canceled_by"] == "bob"
    assert canceled.data["reason"] == "not needed"


def test_subscribers_hear_after_the_commit_with_sequences(
    engine: Engine, events: SqlEventStore
) -> None:
    heard: list[tuple[int, bool]] = []

    def hear(event: Event) -> None:
        heard.append((event.sequence, events.get_event_by_id(event.event_id) is not None))

    get_event_bus().subscribe("x", hear)
    made = workflow(stage("a", does=ok))
    engine.submit(made)
    engine.play()

    stored = [event.sequence for event in events.get_events_for_workflow(made.id)]
    assert [sequence for sequence, _ in heard] == stored
    assert all(there for _, there in heard)


def test_events_recorded_by_hand_go_on_with_the_versions(
    engine: Engine, events: SqlEventStore
) -> None:
    ran = engine.run(stage("a", does=ok))
    recorder = get_event_recorder()
    assert recorder is not None
    set_event_context("order-7", causation_id="click", actor="carol")

    stored = recorder.record_status_change(ran["a"], "SUCCEEDED", "SUCCEEDED")

    assert stored.version == events.get_events_for_entity(EntityType.STAGE, ran["a"].id)[-1].version
    assert (stored.metadata.correlation_id, stored.metadata.actor) == ("order-7", "carol")
    assert stored.metadata.causation_id == "click"


@pytest.mark.parametrize("status", [WorkflowStatus.SUCCEEDED])
def test_every_record_method_stores_its_event(
    engine: Engine, events: SqlEventStore, status: WorkflowStatus
) -> None:
    ran = engine.run(stage("a", does=ok))
    recorder = get_event_recorder()
    assert recorder is not None
    flow, run = ran.workflow, ran["a"]
    task = run.tasks[0]
    assert flow.status is status
    before = events.get_current_sequence()
    told = [
        recorder.record_workflow_created(flow),
        recorder.record_workflow_started(flow),
        recorder.record_workflow_paused(flow),
        recorder.record_workflow_resumed(flow),
        recorder.record_workflow_canceled(flow),
        recorder.record_workflow_failed(flow, "no"),
        recorder.record_stage_started(run),
        recorder.record_stage_suspended(run),
        recorder.record_stage_resumed(run),
        recorder.record_stage_failed(run, "no"),
        recorder.record_stage_skipped(run),
        recorder.record_stage_canceled(run),
        recorder.record_task_started(task, flow.id),
        recorder.record_task_retried(task, flow.id, 1),
        recorder.record_task_failed(task, flow.id, "no"),
        recorder.record_context_updated(run, dict(run.context)),
        recorder.record_outputs_updated(run, dict(run.outputs)),
        recorder.record_jump_executed(flow, run.id, run.id, "self_loop"),
        recorder.record_task_completed(task, flow.id, {}),
        recorder.record_stage_completed(run),
        recorder.record_workflow_completed(flow),
    ]

    assert events.get_events_since(before) == told
    assert {event.workflow_id for event in told} == {flow.id}
