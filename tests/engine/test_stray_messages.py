"""Messages that come twice, too late, or to the wrong workflow: they are dropped, not played."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from stabilize import StageExecution, TaskResult, Workflow
from stabilize.models import QueueMessage
from stabilize.queue.messages import (
    MESSAGE_TYPES,
    Message,
    RestartStage,
    RunTask,
    StageLevel,
    TaskLevel,
)
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, Recorder, eventually, sequence, stage, workflow


def about(made: Workflow, kind: type[Message], of: Workflow | None = None) -> Message:
    """A message of this kind to a workflow, about a stage of it or of another one."""
    first = (of or made).stages[0]
    values: dict[str, Any] = {"execution_id": made.id}
    if issubclass(kind, StageLevel):
        values["stage_id"] = first.id
    if issubclass(kind, TaskLevel):
        values["task_id"] = first.tasks[0].id
    if hasattr(kind, "task_type"):
        values["task_type"] = first.tasks[0].implementing_class
    return kind(**values)


def told(engine: Engine, made: Workflow) -> list[Any]:
    """What there is to be seen of a workflow."""
    ran = engine.look(made)
    runs = [
        (run.id, run.status, run.context, run.outputs, [task.status for task in run.tasks])
        for run in ran.workflow.stage_runs
    ]
    return [ran.status, ran.workflow.is_canceled, *runs]


def nothing_is_left(engine: Engine) -> bool:
    return engine.queue.size() == engine.queue.dlq_size() == 0


def test_a_message_about_what_is_over_dies_quietly(engine: Engine) -> None:
    ran = engine.run(*sequence("a", "b"))
    before = told(engine, ran.workflow)

    for kind in set(MESSAGE_TYPES.values()) - {RestartStage}:
        engine.queue.push(about(ran.workflow, kind))
        engine.play()
        assert nothing_is_left(engine), kind
        assert told(engine, ran.workflow) == before, kind


def test_a_message_about_a_stage_of_another_workflow_is_dropped(engine: Engine) -> None:
    waits = stage("a", does=lambda stage: TaskResult.suspend())
    mine, other = engine.run(waits).workflow, engine.run(stage("b", does="ok")).workflow
    before = told(engine, mine), told(engine, other)

    for kind in MESSAGE_TYPES.values():
        if issubclass(kind, StageLevel):
            engine.queue.push(about(other, kind, of=mine))
            engine.play()
            assert nothing_is_left(engine), kind
            assert (told(engine, mine), told(engine, other)) == before, kind


def test_a_task_that_is_delivered_twice_counts_once(engine: Engine) -> None:
    next_one = Recorder()

    def twice(stage: StageExecution) -> TaskResult:
        if not stage.context.get("tries"):
            engine.queue.push(
                RunTask.of_task(stage.tasks[0], task_type=stage.tasks[0].implementing_class)
            )
            return TaskResult.running({"tries": 1})
        return TaskResult.success({"n": 1})

    engine.stop_time()
    ran = engine.run(stage("a", does=twice), stage("b", after="a", does=next_one))

    assert ran.status == "SUCCEEDED"
    assert next_one.contexts == [{"n": 1}]
    assert nothing_is_left(engine)


def test_a_lease_from_a_clock_that_was_wrong_ends(backend: BackendUnderTest) -> None:
    with Engine(backend.url, lock_duration=timedelta(seconds=0.3)) as engine:
        made = workflow(stage("a"))
        engine.submit(made)
        year_ms = 365 * 86_400_000
        with engine.database.writing() as connection:
            connection.execute(
                update(QueueMessage).values(
                    holder="a dead worker", visible_at=QueueMessage.visible_at + year_ms
                )
            )
        with engine.started():
            eventually(lambda: engine.status(made) == "SUCCEEDED")
