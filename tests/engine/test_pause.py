"""Pausing: what is being executed ends, nothing new begins until it is resumed."""

from __future__ import annotations

from stabilize import StageExecution, TaskResult
from tests.crash.shapes import AtOnce
from tests.support.builders import Engine, Gate, Recorder, Script, eventually, ok, stage, workflow


def test_a_workflow_paused_in_the_middle_of_a_body_goes_on_when_resumed(engine: Engine) -> None:
    follows = Recorder()

    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.pause(stage.workflow_id, "alice")
        eventually(lambda: engine.status(made) == "PAUSED")
        return TaskResult.success(outputs={"n": 1})

    made = workflow(stage("a", does=[body, follows]), stage("b", after="a"))
    engine.submit(made)
    paused = engine.go_on(made)

    engine.orchestrator.resume(made)
    ran = engine.go_on(made)

    assert paused.status == "PAUSED"
    assert paused.tasks("a") == ["SUCCEEDED", "PAUSED"]
    assert paused["a"].outputs == {"n": 1}
    assert paused.statuses == {"a": "PAUSED", "b": "NOT_STARTED"}
    assert paused.workflow.paused is not None
    assert paused.workflow.paused.paused_by == "alice"
    assert paused.workflow.paused.is_paused
    assert ran.status == "SUCCEEDED"
    assert follows.calls == 1
    assert ran.workflow.paused is not None
    assert not ran.workflow.paused.is_paused
    assert ran.workflow.paused.resume_time is not None


def test_what_is_parked_in_the_very_turn_that_resumes_goes_on(engine: Engine) -> None:
    def body(stage: StageExecution) -> TaskResult:
        engine.store.pause(stage.workflow_id, "alice")
        engine.orchestrator.resume(stage.workflow_id)  # waits for the turn that records this body
        return TaskResult.success()

    made = workflow(stage("a", does=[body, body]), stage("b", after="a"))
    engine.submit(made)
    engine.executor = AtOnce()

    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert ran.tasks("a") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_workflow_paused_in_its_last_body_ends_when_resumed(engine: Engine) -> None:
    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.pause(stage.workflow_id)
        eventually(lambda: engine.status(made) == "PAUSED")
        return TaskResult.success()

    made = workflow(stage("a", does=body))
    engine.submit(made)
    paused = engine.go_on(made)
    engine.orchestrator.resume(made)

    assert (paused.status, paused.statuses) == ("PAUSED", {"a": "SUCCEEDED"})
    assert engine.go_on(made).status == "SUCCEEDED"


def test_the_stage_after_the_one_in_which_it_was_paused_waits(engine: Engine) -> None:
    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.pause(stage.workflow_id)
        eventually(lambda: engine.status(made) == "PAUSED")
        return TaskResult.success()

    last = Recorder()
    made = workflow(stage("a", does=body), stage("b", after="a", does=last))
    engine.submit(made)
    paused = engine.go_on(made)
    engine.play()
    assert (paused.statuses["a"], paused.statuses["b"]) == ("SUCCEEDED", "NOT_STARTED")
    assert last.calls == 0

    engine.orchestrator.unpause(made)

    assert engine.go_on(made).status == "SUCCEEDED"
    assert last.calls == 1


def test_a_workflow_paused_before_it_was_started_starts_when_resumed(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    assert engine.store.pause(made.id, "bob")
    engine.submit(made)
    assert engine.go_on(made).statuses == {"a": "NOT_STARTED"}

    engine.orchestrator.resume(made)

    assert engine.go_on(made).status == "SUCCEEDED"


def test_a_workflow_paused_after_it_was_asked_to_start_starts_when_resumed(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.submit(made)
    assert engine.store.pause(made.id, "bob")
    assert engine.go_on(made).status == "PAUSED"

    engine.orchestrator.resume(made)

    assert engine.go_on(made).status == "SUCCEEDED"


def test_the_store_pauses_at_once(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)

    assert engine.store.pause(made.id, "bob")
    assert not engine.store.pause(made.id, "bob")

    details = engine.look(made).workflow.paused
    assert details is not None
    assert details.paused_by == "bob"


def test_a_task_that_waits_for_its_next_try_is_not_executed_while_paused(engine: Engine) -> None:
    engine.stop_time()
    poll = Script(TaskResult.running(), TaskResult.success())

    def body(stage: StageExecution) -> TaskResult:
        if poll.calls == 0:
            engine.orchestrator.pause(stage.workflow_id)
            eventually(lambda: engine.status(made) == "PAUSED")
        return poll(stage)

    made = workflow(stage("a", does=body))
    engine.submit(made)
    engine.go_on(made)
    assert poll.calls == 1

    engine.orchestrator.resume(made)

    assert engine.go_on(made).status == "SUCCEEDED"
    assert poll.calls == 2


def test_a_signal_to_a_paused_workflow_counts_when_it_is_resumed(engine: Engine) -> None:
    body = Script(TaskResult.suspend(), TaskResult.success())
    made = workflow(stage("a", does=body))
    engine.submit(made)
    engine.play()
    engine.orchestrator.pause(made)
    engine.play()

    engine.orchestrator.signal(made, made.stages[0].id, "go on")
    engine.play()
    assert body.calls == 1
    engine.orchestrator.resume(made)

    assert engine.go_on(made).status == "SUCCEEDED"
    assert body.contexts[-1]["_signal_name"] == "go on"


def test_a_paused_workflow_can_be_canceled(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    engine.store.pause(made.id, "bob")
    engine.submit(made)
    engine.play()

    engine.orchestrator.cancel(made)

    assert engine.go_on(made).status == "CANCELED"
    engine.orchestrator.resume(made)
    assert engine.go_on(made).status == "CANCELED"


def test_pausing_a_workflow_that_is_over_changes_nothing(engine: Engine) -> None:
    ran = engine.run(stage("a"))

    engine.orchestrator.pause(ran.workflow)
    engine.orchestrator.resume(ran.workflow)

    assert engine.go_on(ran.workflow).status == "SUCCEEDED"
    assert not engine.store.pause(ran.workflow.id, "bob")


def test_parallel_bodies_end_while_paused_and_their_join_waits(engine: Engine) -> None:
    slow = Gate()

    def body(stage: StageExecution) -> TaskResult:
        assert slow.entered.wait(10)
        engine.orchestrator.pause(stage.workflow_id)
        eventually(lambda: engine.status(made) == "PAUSED")
        slow.opened.set()
        return TaskResult.success()

    made = workflow(
        stage("a", does=body), stage("b", does=slow), stage("c", after=["a", "b"], does=ok)
    )
    engine.submit(made)
    paused = engine.go_on(made)
    engine.orchestrator.resume(made)

    assert paused.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "NOT_STARTED"}
    assert engine.go_on(made).status == "SUCCEEDED"
