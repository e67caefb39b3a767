"""What is recorded of a workflow, in which order, by whom and why."""

from __future__ import annotations

import threading

import pytest

from stabilize import StageExecution, Task, TaskResult, TransientError, WorkflowStatus
from stabilize.events import (
    EntityType,
    Event,
    EventType,
    SqlEventStore,
    configure_event_sourcing,
    get_event_bus,
    get_event_recorder,
    set_event_context,
)
from tests.support.builders import (
    PATIENCE,
    Engine,
    Script,
    eventually,
    fails,
    ok,
    puts,
    stage,
    workflow,
)


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


class Refunds(Task):
    """Cancels its own workflow, and has something to say when that comes to pass."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.refunded = threading.Event()

    def execute(self, stage: StageExecution) -> TaskResult:
        self.engine.orchestrator.cancel(stage.workflow_id)
        assert self.refunded.wait(PATIENCE)
        return TaskResult.success()

    def on_cancel(self, stage: StageExecution) -> TaskResult:
        self.refunded.set()
        return TaskResult.success(outputs={"refunded": True})


OURS = {
    EventType.WORKFLOW_DEADLOCKED,
    EventType.STAGE_SUSPENDED,
    EventType.STAGE_RESUMED,
    EventType.TASK_SUSPENDED,
    EventType.SIGNAL_DROPPED,
    EventType.SIGNAL_BUFFERED,
    EventType.CUSTOM,
    EventType.UNKNOWN,
}
"""The types beyond the documented twenty."""


def test_the_engine_by_itself_records_every_documented_type(
    engine: Engine, events: SqlEventStore
) -> None:
    def pauses(stage: StageExecution) -> TaskResult:
        engine.orchestrator.pause(stage.workflow_id)
        eventually(lambda: engine.status(paused) == "PAUSED")
        return TaskResult.success()

    busy = TransientError("busy", retry_after=0)
    again = Script(TaskResult.jump_to("a"), TaskResult.success())
    slow = Script(TaskResult.running({"seen": 1}), TaskResult.success())
    paused = workflow(stage("a", does=pauses))
    engine.submit(
        paused,
        workflow(stage("a", does=Refunds(engine))),
        workflow(stage("a", does=Script(busy, TaskResult.success()))),
        workflow(stage("a", context={"stageEnabled": False})),
        workflow(stage("a", does=[fails, ok])),
        workflow(stage("a"), stage("b", after="a", does=again)),
        workflow(stage("a", does=slow)),
    )
    engine.play()
    engine.orchestrator.resume(paused)
    engine.play()

    recorded = {event.event_type for event in events.get_events_since(0)}
    assert recorded == set(EventType) - OURS
    assert len(recorded) == 20


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


def test_recording_by_hand_while_a_workflow_runs_disturbs_no_version(
    engine: Engine, events: SqlEventStore
) -> None:
    def records(run: StageExecution) -> TaskResult:
        recorder = get_event_recorder()
        assert recorder is not None
        for _ in range(3):
            recorder.record_status_change(run, "RUNNING", "RUNNING")
        recorder.record_status_change(run.workflow, "RUNNING", "RUNNING")
        return TaskResult.success()

    ran = engine.run(stage("a", does=records), stage("b", does=ok, after="a"))

    assert ran.status == "SUCCEEDED"
    assert kinds(events, ran.workflow.id).count("status.changed") == 4


def test_of_a_payload_of_keys_no_value_is_stored(engine: Engine, events: SqlEventStore) -> None:
    configure_event_sourcing(events, payload="keys")
    ran = engine.run(stage("a", does=puts(name="Alice", age=7)))

    told = events.get_events_for_workflow(ran.workflow.id)
    assert "Alice" not in str(told)
    assert of(events, ran.workflow.id, EventType.TASK_COMPLETED).data["outputs_keys"] == [
        "age",
        "name",
    ]
    configure_event_sourcing(events)
    engine.store.delete(ran.workflow.id)  # what it was is not known to its events
    with pytest.raises(ValueError, match="full or keys"):
        configure_event_sourcing(events, payload="some")


def test_what_a_subscriber_does_to_an_event_changes_nothing(engine: Engine) -> None:
    refused: list[str] = []

    def meddles(event: Event) -> None:
        for part in ("context", "outputs"):
            event.data.get(part, {}).clear()
        try:
            event.data["outputs"] = {"n": 2}
        except TypeError as error:
            refused.append(str(error))

    get_event_bus().subscribe("x", meddles)
    ran = engine.run(stage("a", does=puts(n=1)), stage("b", does=ok, after="a"))

    assert ran["a"].outputs == {"n": 1}
    assert "read-only" in refused[0]
