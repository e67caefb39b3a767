"""Canceling a workflow or one stage of it."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from stabilize import (
    QueueProcessorConfig,
    StageExecution,
    Task,
    TaskResult,
    is_cancellation_requested,
)
from stabilize.models import QueueMessage
from stabilize.tasks.body import current_token
from tests.support.backends import BackendUnderTest
from tests.support.builders import (
    Engine,
    Gate,
    Recorder,
    eventually,
    ok,
    returns,
    stage,
    workflow,
)


def test_the_late_result_of_a_canceled_body_changes_nothing(engine: Engine) -> None:
    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.cancel(stage.workflow_id, "alice", "no longer needed")
        eventually(lambda: engine.status(made) == "CANCELED")
        return TaskResult.success(outputs={"late": True})

    made = workflow(stage("a", does=[body, ok]), stage("b", after="a"), stage("c", after="b"))
    engine.submit(made)
    ran = engine.go_on(made)
    engine.play()

    assert engine.look(made).status == ran.status == "CANCELED"
    assert ran.statuses == {"a": "CANCELED", "b": "CANCELED", "c": "CANCELED"}
    assert ran.tasks("a") == ["CANCELED", "CANCELED"]
    assert engine.look(made)["a"].outputs == {}
    assert ran.workflow.is_canceled
    assert ran.workflow.canceled_by == "alice"
    assert ran.workflow.cancellation_reason == "no longer needed"


def test_a_canceled_body_is_told_to_stop(engine: Engine) -> None:
    asked = Recorder()

    def body(stage: StageExecution) -> TaskResult:
        assert not is_cancellation_requested()
        engine.orchestrator.cancel(stage.workflow_id)
        token = current_token()
        assert token is not None
        assert token.wait(10)
        assert is_cancellation_requested()
        return asked(stage)

    made = workflow(stage("a", does=body))
    engine.submit(made)
    engine.go_on(made)

    eventually(lambda: asked.calls == 1)


class Careful(Task):
    """Cancels its own workflow, and has something to say when that comes to pass."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.canceled = 0

    def execute(self, stage: StageExecution) -> TaskResult:
        self.engine.orchestrator.cancel(stage.workflow_id)
        eventually(lambda: self.canceled)
        return TaskResult.success(outputs={"late": True})

    def on_cancel(self, stage: StageExecution) -> TaskResult:
        self.canceled += 1
        return TaskResult.success(outputs={"undone": True}, context={"note": "rolled back"})


def test_what_on_cancel_returns_is_kept(engine: Engine) -> None:
    task = Careful(engine)

    ran = engine.run(stage("a", does=task))

    assert ran.status == "CANCELED"
    assert ran["a"].outputs == {"undone": True}
    assert ran["a"].context["note"] == "rolled back"
    assert task.canceled == 1


class Tidy(Task):
    """Counts how often it is asked to clean up."""

    def __init__(self, result: TaskResult) -> None:
        self.result = result
        self.cleaned: list[str] = []

    def execute(self, stage: StageExecution) -> TaskResult:
        return self.result

    def on_cleanup(self, stage: StageExecution) -> None:
        self.cleaned.append(stage.status.name)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (TaskResult.success(), "SUCCEEDED"),
        (TaskResult.terminal("x"), "TERMINAL"),
        (TaskResult.canceled(), "CANCELED"),
        (TaskResult.stopped(), "STOPPED"),
    ],
)
def test_on_cleanup_is_called_once_however_the_stage_ended(
    engine: Engine, result: TaskResult, status: str
) -> None:
    task = Tidy(result)

    engine.run(stage("a", does=task))

    assert task.cleaned == [status]


def test_a_cleanup_that_raises_changes_nothing(engine: Engine) -> None:
    class Clumsy(Tidy):
        def on_cleanup(self, stage: StageExecution) -> None:
            super().on_cleanup(stage)
            raise RuntimeError("x")

    task = Clumsy(TaskResult.success())

    assert engine.run(stage("a", does=task), stage("b", after="a")).status == "SUCCEEDED"
    assert len(task.cleaned) == 1


def test_a_workflow_that_waits_for_a_signal_can_be_canceled(engine: Engine) -> None:
    made = workflow(stage("a", does=lambda stage: TaskResult.suspend()), stage("b", after="a"))
    engine.submit(made)
    engine.play()

    engine.orchestrator.cancel(made)
    ran = engine.go_on(made)

    assert ran.status == "CANCELED"
    assert ran.statuses == {"a": "CANCELED", "b": "CANCELED"}


def test_a_workflow_canceled_before_it_starts_never_starts(engine: Engine) -> None:
    never = Recorder()
    made = workflow(stage("a", does=never))
    engine.submit(made)
    engine.orchestrator.cancel(made)

    assert engine.go_on(made).status == "CANCELED"
    assert never.calls == 0


def test_the_store_marks_a_workflow_that_has_not_started(engine: Engine) -> None:
    never = Recorder()
    made = workflow(stage("a", does=never))
    engine.store.store(made)
    engine.store.cancel(made.id, "bob", "too late")

    engine.submit(made)
    ran = engine.go_on(made)

    assert ran.status == "CANCELED"
    assert (ran.workflow.canceled_by, ran.workflow.cancellation_reason) == ("bob", "too late")
    assert never.calls == 0


def test_a_running_workflow_marked_by_the_store_ends_before_its_next_task(engine: Engine) -> None:
    def marks(stage: StageExecution) -> TaskResult:
        engine.store.cancel(stage.workflow_id, "bob", "enough")
        return TaskResult.success()

    never = Recorder()
    ran = engine.run(stage("a", does=marks), stage("b", after="a", does=never))

    assert ran.status == "CANCELED"
    assert ran.statuses == {"a": "SUCCEEDED", "b": "CANCELED"}
    assert (ran.workflow.canceled_by, ran.workflow.cancellation_reason) == ("bob", "enough")
    assert never.calls == 0


def test_a_task_that_polls_ends_when_the_store_has_marked_its_workflow(engine: Engine) -> None:
    def polls(stage: StageExecution) -> TaskResult:
        engine.store.cancel(stage.workflow_id, "bob", "enough")
        return TaskResult.running()

    engine.stop_time()
    ran = engine.run(stage("a", does=polls))

    assert (ran.status, ran.tasks("a")) == ("CANCELED", ["CANCELED"])


def test_the_tasks_of_a_canceled_workflow_are_canceled_too(engine: Engine) -> None:
    made = workflow(
        stage("a", does=[returns(TaskResult.suspend()), ok]), stage("b", after="a", does=[ok, ok])
    )
    engine.submit(made)
    engine.play()
    engine.orchestrator.cancel(made)

    ran = engine.go_on(made)

    assert ran.statuses == {"a": "CANCELED", "b": "CANCELED"}
    assert (ran.tasks("a"), ran.tasks("b")) == (["CANCELED"] * 2, ["CANCELED"] * 2)


def test_canceling_a_workflow_that_is_over_changes_nothing(engine: Engine) -> None:
    ran = engine.run(stage("a"))

    engine.orchestrator.cancel(ran.workflow)

    after = engine.go_on(ran.workflow)
    assert (after.status, after.workflow.is_canceled) == ("SUCCEEDED", False)


def test_a_canceled_retry_is_never_made(engine: Engine) -> None:
    engine.stop_time()
    made = workflow(stage("a", does=lambda stage: TaskResult.running()))

    def cancel(stage: StageExecution) -> TaskResult:
        engine.orchestrator.cancel(stage.workflow_id)
        return TaskResult.success()

    made.stages.append(stage("b", does=cancel))
    engine.submit(made)

    assert engine.go_on(made).status == "CANCELED"
    with engine.database.reading() as session:
        assert session.execute(select(QueueMessage.id)).all() == []


def test_one_stage_is_withdrawn_and_the_rest_goes_on(engine: Engine) -> None:
    hangs = Gate()

    def cancel(stage: StageExecution) -> TaskResult:
        assert hangs.entered.wait(10)
        engine.orchestrator.cancel_stage(made.stages[0], "alice")
        return TaskResult.success()

    made = workflow(
        stage("a", does=hangs),
        stage("b", does=cancel),
        stage("c", after="a"),
        stage("d", after=["a", "b"]),
    )
    engine.submit(made)
    try:
        ran = engine.go_on(made)
    finally:
        hangs.opened.set()

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "CANCELED", "b": "SUCCEEDED", "c": "SKIPPED", "d": "SUCCEEDED"}


@pytest.mark.parametrize("canceled", ["workflow", "stage"])
def test_a_canceled_body_that_does_not_listen_gives_its_slot_back(
    backend: BackendUnderTest, canceled: str
) -> None:
    deaf = Gate()
    with Engine(backend.url, config=QueueProcessorConfig(max_workers=1)) as engine:
        made = workflow(stage("a", does=deaf))
        others = [workflow(stage("a")) for _ in range(3)]
        engine.submit(made)
        with engine.started():
            assert deaf.entered.wait(10)
            if canceled == "workflow":
                engine.orchestrator.cancel(made)
            else:
                engine.orchestrator.cancel_stage(made.stages[0])
            engine.submit(*others)
            eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in others))
            assert not deaf.opened.is_set()
            deaf.opened.set()
        assert engine.look(made)["a"].outputs == {}


def test_a_body_canceled_before_it_began_never_runs(backend: BackendUnderTest) -> None:
    """A worker holds more messages than it has threads while bodies are short."""
    busy, waiting = Gate(), Recorder()
    short = workflow(*[stage(f"s{n}") for n in range(40)])
    first, second = workflow(stage("a", does=busy)), workflow(stage("a", does=waiting))
    config = QueueProcessorConfig(max_workers=1)
    with Engine(backend.url, config=config) as engine, engine.started() as processor:
        engine.submit(short)
        eventually(lambda: engine.status(short) == "SUCCEEDED")
        engine.submit(first)
        assert busy.entered.wait(10)
        engine.submit(second)
        eventually(lambda: processor.active_count == 2)
        engine.orchestrator.cancel(second)
        eventually(lambda: engine.status(second) == "CANCELED")
        eventually(lambda: processor.active_count == 1)  # its message is not held any more
        busy.opened.set()
        eventually(lambda: engine.status(first) == "SUCCEEDED")
        eventually(lambda: processor.active_count == 0)

    assert waiting.calls == 0


def test_a_stage_withdrawn_before_it_began_is_skipped(engine: Engine) -> None:
    never = Recorder()
    made = workflow(stage("a"), stage("b", after="a", does=never), stage("c", after="a"))
    engine.store.store(made)
    engine.submit(made)
    engine.orchestrator.cancel_stage(made.stages[1])

    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "SUCCEEDED", "b": "SKIPPED", "c": "SUCCEEDED"}
    assert never.calls == 0


def test_a_workflow_that_comes_too_late_is_canceled(engine: Engine) -> None:
    never = Recorder()

    ran = engine.run(stage("a", does=never), start_time_expiry=1)

    assert ran.status == "CANCELED"
    assert ran.statuses == {"a": "CANCELED"}
    assert ran.workflow.canceled_by == "system"
    assert never.calls == 0


def test_a_stage_that_comes_too_late_is_skipped_and_what_follows_runs(engine: Engine) -> None:
    never = Recorder()

    ran = engine.run(stage("a", does=never, start_time_expiry=1), stage("b", after="a"))

    assert ran.statuses == {"a": "SKIPPED", "b": "SUCCEEDED"}
    assert never.calls == 0


def test_a_stage_that_comes_in_time_runs(engine: Engine) -> None:
    clock = engine.stop_time()
    soon = clock.now_ms() + 60_000

    ran = engine.run(stage("a", start_time_expiry=soon), start_time_expiry=soon)

    assert ran.status == "SUCCEEDED"
