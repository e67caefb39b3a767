"""Messages that come twice, too late, or to the wrong workflow: they are dropped, not played."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from stabilize import (
    MultiInstanceConfig,
    Orchestrator,
    StageExecution,
    StageNotFoundError,
    TaskResult,
    Workflow,
    WorkflowNotFoundError,
)
from stabilize.models import QueueMessage
from stabilize.queue.messages import (
    MESSAGE_TYPES,
    AddMultiInstance,
    CancelMultiInstance,
    CancelRegion,
    CancelStage,
    CompleteMultiInstance,
    Message,
    RestartStage,
    RunTask,
    SignalStage,
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


def _warnings(caplog: pytest.LogCaptureFixture, made: Workflow) -> list[str]:
    """What was warned of, each time with the id of the workflow."""
    found = [record for record in caplog.records if record.levelname == "WARNING"]
    assert {record.workflow_id for record in found} <= {made.id}  # type: ignore[attr-defined]
    return [record.getMessage() for record in found]


@pytest.mark.parametrize(
    "kind",
    [
        SignalStage,
        CancelStage,
        RestartStage,
        AddMultiInstance,
        CancelMultiInstance,
        CompleteMultiInstance,
    ],
)
def test_a_message_for_an_unknown_stage_is_warned_of(
    engine: Engine, caplog: pytest.LogCaptureFixture, kind: type[StageLevel]
) -> None:
    made = engine.run(stage("a")).workflow

    engine.queue.push(kind(execution_id=made.id, stage_id="nobody"))
    engine.play()

    assert _warnings(caplog, made) == [f"stage nobody is not one of workflow {made.id}"]
    assert nothing_is_left(engine)


def test_a_region_that_does_not_exist_is_warned_of(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    waits = stage("a", does=lambda stage: TaskResult.suspend(), cancel_region="east")
    made = engine.run(waits).workflow

    engine.queue.push(CancelRegion(execution_id=made.id, region="eats"))
    ran = engine.go_on(made)

    expected = f"workflow {made.id} has no region 'eats': did you mean 'east'?"
    assert _warnings(caplog, made) == [expected]
    assert ran.statuses == {"a": "SUSPENDED"}


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (None, "stage 'a' of workflow {} is no group: give it mi_config"),
        ({"count": 1}, "group 'a' of workflow {} takes no more instances: set allow_dynamic=True"),
    ],
)
def test_an_instance_added_to_what_takes_none_is_warned_of(
    engine: Engine, caplog: pytest.LogCaptureFixture, group: Any, told: str
) -> None:
    config = group and MultiInstanceConfig(**group)
    waits = stage("a", does=lambda stage: TaskResult.suspend(), mi_config=config)
    made = engine.run(waits).workflow

    engine.queue.push(AddMultiInstance.of(made.stages[0]))
    engine.play()

    assert _warnings(caplog, made) == [told.format(made.id)]
    assert nothing_is_left(engine)


def test_an_instance_added_to_a_group_that_is_closed_is_warned_of(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    config = MultiInstanceConfig(count=1, allow_dynamic=True)
    made = engine.run(stage("a", mi_config=config)).workflow

    engine.queue.push(AddMultiInstance.of(engine.look(made)["a"]))
    engine.play()

    expected = f"group 'a' of workflow {made.id} is closed (SUCCEEDED): nothing is added"
    assert _warnings(caplog, made) == [expected]


@pytest.mark.parametrize("kind", [CancelMultiInstance, CompleteMultiInstance])
def test_what_is_for_groups_is_warned_of_when_its_stage_is_none(
    engine: Engine, caplog: pytest.LogCaptureFixture, kind: type[StageLevel]
) -> None:
    made = engine.run(stage("a", does=lambda stage: TaskResult.suspend())).workflow

    engine.queue.push(kind.of(engine.look(made)["a"]))
    engine.play()

    assert _warnings(caplog, made) == [
        f"stage 'a' of workflow {made.id} is no group: give it mi_config"
    ]


VERBS: dict[str, Callable[[Orchestrator, str, str], None]] = {
    "signal": lambda ask, id, stage_id: ask.signal(id, stage_id, "go"),
    "restart": lambda ask, id, stage_id: ask.restart(id, stage_id),
    "cancel_stage": lambda ask, id, stage_id: ask.cancel_stage(
        StageExecution(ref_id="x", id=stage_id, workflow_id=id)
    ),
    "cancel": lambda ask, id, stage_id: ask.cancel(id),
    "pause": lambda ask, id, stage_id: ask.pause(id),
    "resume": lambda ask, id, stage_id: ask.resume(id),
    "unpause": lambda ask, id, stage_id: ask.unpause(id),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_for_an_unknown_workflow_is_refused_at_once(engine: Engine, verb: str) -> None:
    with pytest.raises(WorkflowNotFoundError, match="nowhere"):
        VERBS[verb](engine.orchestrator, "nowhere", "nobody")

    assert nothing_is_left(engine)


@pytest.mark.parametrize("verb", ["signal", "restart", "cancel_stage"])
def test_a_verb_for_an_unknown_stage_is_refused_at_once(engine: Engine, verb: str) -> None:
    made = engine.run(stage("a")).workflow

    with pytest.raises(StageNotFoundError, match="'nobody' is no stage of workflow") as caught:
        VERBS[verb](engine.orchestrator, made.id, "nobody")

    assert caught.value.execution_id == made.id
    assert nothing_is_left(engine)


def test_a_verb_that_is_given_a_ref_says_which_id_was_meant(engine: Engine) -> None:
    made = engine.run(stage("a")).workflow

    with pytest.raises(StageNotFoundError, match=f"that is a ref_id.*{made.stages[0].id}"):
        engine.orchestrator.restart(made, "a")


def test_a_verb_reaches_a_workflow_that_its_transaction_has_just_added(engine: Engine) -> None:
    made = workflow(stage("a", does=lambda stage: TaskResult.suspend()))
    engine.learn(*made.stages)
    with engine.database.writing() as connection:
        engine.orchestrator.start(made, session=connection)
        engine.orchestrator.signal(made, made.stages[0].id, "go", session=connection)
        engine.orchestrator.cancel(made, session=connection)

    assert engine.go_on(made).status == "CANCELED"
