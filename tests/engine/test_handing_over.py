"""A new workflow goes to the idle coordinator of the same process, which stores and starts it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from stabilize import (
    ConflictError,
    PayloadError,
    QueueProcessor,
    QueueProcessorConfig,
    StageExecution,
    TaskResult,
)
from stabilize.desk import Desk
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, Gate, Recorder, eventually, sequence, stage, workflow

UNHURRIED = QueueProcessorConfig(poll_frequency_ms=60_000)


def desk_of(engine: Engine) -> Desk:
    desk: Desk = engine.database.desks[engine.queue.name]
    return desk


def until_idle(engine: Engine) -> None:
    eventually(lambda: desk_of(engine).is_open)


def test_an_idle_processor_stores_starts_and_runs_a_workflow_in_two_commits(
    backend: BackendUnderTest,
) -> None:
    own = backend.engine()
    commits: list[str] = []
    with Engine(own) as engine, engine.started(config=UNHURRIED):
        made = workflow(stage("a"))
        engine.learn(*made.stages)
        until_idle(engine)
        event.listen(own, "commit", lambda connection: commits.append("commit"))
        engine.orchestrator.start(made)
        assert len(commits) >= 1, "start returns when the workflow is stored"
        eventually(lambda: engine.status(made) == "SUCCEEDED")
        assert len(commits) == 2


def test_what_the_caller_changes_afterwards_is_not_what_runs(engine: Engine) -> None:
    gate = Gate()
    seen: list[Any] = []

    def body(stage: StageExecution) -> TaskResult:
        seen.append((stage.context["order"], stage.execution.context["shop"]))
        return TaskResult.success()

    made = workflow(
        stage("a", does=gate), stage("b", after="a", does=body, context={"order": {"n": 1}})
    )
    made.context["shop"] = {"name": "corner"}
    engine.learn(*made.stages)
    with engine.started(config=UNHURRIED):
        until_idle(engine)
        engine.orchestrator.start(made)
        made.stages[1].context["order"]["n"] = 2
        made.context["shop"]["name"] = "mall"
        gate.opened.set()
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert seen == [({"n": 1}, {"name": "corner"})]


def test_the_same_workflow_from_many_threads_at_once_runs_once(engine: Engine) -> None:
    body = Recorder()
    engine.registry.register("counted", body)
    made = [workflow(stage("a", does="counted"), id="order-1") for _ in range(8)]
    with engine.started(), ThreadPoolExecutor(8) as pool:
        until_idle(engine)
        list(pool.map(engine.orchestrator.start, made))
        eventually(lambda: engine.status(made[0]) == "SUCCEEDED")
        eventually(lambda: engine.queue.size() == 0)

    assert body.calls == 1


def test_another_definition_under_a_taken_id_is_refused(engine: Engine) -> None:
    with engine.started(config=UNHURRIED):
        engine.learn(*(first := workflow(stage("a"), id="order-1")).stages)
        until_idle(engine)
        engine.orchestrator.start(first)
        eventually(lambda: engine.status(first) == "SUCCEEDED")
        until_idle(engine)
        with pytest.raises(ConflictError, match="order-1"):
            engine.orchestrator.start(workflow(stage("b"), id="order-1"))


def test_what_json_does_not_have_is_refused_where_it_was_submitted(engine: Engine) -> None:
    with engine.started(config=UNHURRIED):
        until_idle(engine)
        with pytest.raises(PayloadError, match="stage 'a'"):
            engine.orchestrator.start(workflow(stage("a", context={"at": object()})))


@pytest.mark.parametrize("statement", range(6))
def test_a_workflow_the_coordinator_cannot_store_is_stored_by_its_caller(
    backend: BackendUnderTest, statement: int
) -> None:
    """The first statements of the coordinator fail, one in each test."""
    own = backend.engine()
    body = Recorder()
    left = [statement]

    def fail(connection: Any, cursor: Any, text: str, *rest: Any) -> None:
        if threading.current_thread().name != "stabilize-coordinator":
            return
        left[0] -= 1
        if left[0] == -1:
            raise OperationalError(text, {}, Exception("injected"))

    with Engine(own) as engine, engine.started():
        made = workflow(*sequence("a", "b", does=body))
        engine.learn(*made.stages)
        until_idle(engine)
        event.listen(own, "before_cursor_execute", fail)
        engine.orchestrator.start(made)
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert left[0] < 0
    assert body.calls == 2


def test_a_coordinator_that_is_about_to_stop_leaves_the_workflow_to_its_caller(
    engine: Engine,
) -> None:
    with engine.started(config=UNHURRIED) as processor:
        until_idle(engine)
        desk = desk_of(engine)
        made = workflow(stage("a"))
        engine.learn(*made.stages)
    assert not processor.is_running
    engine.database.desks[engine.queue.name] = desk
    desk._open = True  # as it looks to somebody who asked just before the end
    engine.orchestrator.start(made)

    assert engine.go_on(made).status == "SUCCEEDED"


def test_a_task_may_start_a_workflow(engine: Engine) -> None:
    following = workflow(stage("z"))
    engine.learn(*following.stages)

    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.start(following)
        return TaskResult.success()

    made = workflow(stage("a", does=body))
    engine.learn(*made.stages)
    with engine.started():
        until_idle(engine)
        engine.orchestrator.start(made)
        eventually(lambda: engine.status(made) == "SUCCEEDED")
        eventually(lambda: engine.status(following) == "SUCCEEDED")


def test_two_processors_on_one_queue_can_end_in_any_order(engine: Engine) -> None:
    first, second = engine.processor(), engine.processor()
    first.start()
    second.start()
    first.stop()
    made = workflow(stage("a"))
    engine.learn(*made.stages)
    until_idle(engine)
    engine.orchestrator.start(made)
    second.stop()
    assert engine.database.desks == {}

    assert engine.go_on(made).status == "SUCCEEDED"
    assert isinstance(second, QueueProcessor)
