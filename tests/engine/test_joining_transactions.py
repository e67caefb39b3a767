"""Verbs within a transaction of the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.orm import Session

from stabilize import ConfigurationError, StageExecution, TaskResult, Workflow
from stabilize.errors import WorkflowNotFoundError
from tests.support.backends import BackendUnderTest, Databases
from tests.support.builders import Engine, Script, stage, workflow

Opens = Callable[[SqlEngine], Any]


@pytest.fixture
def own(backend: BackendUnderTest) -> SqlEngine:
    """An engine as an application has it."""
    return backend.engine()


@pytest.fixture
def engine(own: SqlEngine) -> Iterator[Engine]:
    """The library on the application's engine."""
    with Engine(own) as engine:
        yield engine


def _session(own: SqlEngine) -> Any:
    return Session(own)


def _connection(own: SqlEngine) -> Any:
    return own.connect()


BOTH = pytest.mark.parametrize("opens", [_session, _connection], ids=["Session", "Connection"])


@BOTH
def test_a_started_workflow_is_invisible_until_the_caller_commits(
    engine: Engine, own: SqlEngine, opens: Opens
) -> None:
    made = workflow(stage("a"))
    with opens(own) as joined:
        engine.orchestrator.start(made, session=joined)
        assert engine.store.retrieve(made.id, session=joined).status.name == "NOT_STARTED"
        joined.commit()

    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"


@BOTH
def test_a_rollback_leaves_no_trace(engine: Engine, own: SqlEngine, opens: Opens) -> None:
    made = workflow(stage("a"))
    with opens(own) as joined:
        engine.orchestrator.start(made, session=joined)
        joined.rollback()

    engine.play()

    assert not engine.store.exists(made.id)
    assert engine.queue.size() == 0


def test_nobody_else_sees_an_open_transaction(
    engine: Engine, own: SqlEngine, backend: BackendUnderTest
) -> None:
    if "multi_process" not in backend.capabilities:
        return  # SQLite in memory has no readers beside a writer
    made = workflow(stage("a"))
    with own.connect() as joined:
        engine.orchestrator.start(made, session=joined)
        with pytest.raises(WorkflowNotFoundError):
            engine.store.retrieve(made.id)
        assert engine.queue.size() == 0
        joined.rollback()


@BOTH
def test_an_exception_takes_the_callers_rows_and_ours_back_together(
    engine: Engine, own: SqlEngine, opens: Opens
) -> None:
    mine, made = workflow(stage("mine")), workflow(stage("a"))

    def business() -> None:
        with opens(own) as joined:
            engine.store.store(mine, session=joined)  # stands for a row of the caller's
            engine.orchestrator.start(made, session=joined)
            raise LookupError("out of stock")

    with pytest.raises(LookupError):
        business()

    assert not engine.store.exists(mine.id)
    assert not engine.store.exists(made.id)


Verb = Callable[[Engine, Workflow, Any], None]


def _store_pause(engine: Engine, made: Workflow, session: Any) -> None:
    assert engine.store.pause(made.id, "me", session=session)


VERBS: dict[str, tuple[Verb, str]] = {
    "cancel": (lambda e, w, s: e.orchestrator.cancel(w, session=s), "CANCELED"),
    "pause": (lambda e, w, s: e.orchestrator.pause(w, session=s), "PAUSED"),
    "signal": (
        lambda e, w, s: e.orchestrator.signal(w, w.stages[0].id, "go on", session=s),
        "SUCCEEDED",
    ),
    "cancel_stage": (
        lambda e, w, s: e.orchestrator.cancel_stage(w.stages[0], session=s),
        "SUCCEEDED",
    ),
    "store.pause": (_store_pause, "PAUSED"),
}


@pytest.mark.parametrize("name", VERBS)
@BOTH
def test_a_verb_counts_with_the_callers_commit_and_not_without(
    engine: Engine, own: SqlEngine, opens: Opens, name: str
) -> None:
    verb, status = VERBS[name]
    made = workflow(stage("a", does=Script(TaskResult.suspend(), TaskResult.success())))
    engine.submit(made)
    engine.play()

    with opens(own) as joined:
        verb(engine, made, joined)
        joined.rollback()
    assert engine.go_on(made).status == "RUNNING"

    with opens(own) as joined:
        verb(engine, made, joined)
        joined.commit()
    assert engine.go_on(made).status == status


@BOTH
def test_restart_and_resume_join_too(engine: Engine, own: SqlEngine, opens: Opens) -> None:
    body = Script(TaskResult.terminal("x"), TaskResult.success())
    ran = engine.run(stage("a", does=body))
    with opens(own) as joined:
        engine.orchestrator.restart(ran.workflow, ran["a"].id, session=joined)
        engine.orchestrator.pause(ran.workflow, session=joined)
        engine.orchestrator.resume(ran.workflow, session=joined)
        joined.commit()

    assert engine.go_on(ran.workflow).status == "SUCCEEDED"


def test_a_joined_verb_wakes_a_running_processor_after_the_commit(
    engine: Engine, own: SqlEngine
) -> None:
    from tests.support.builders import eventually

    made = workflow(stage("a"))
    engine.learn(*made.stages)
    with engine.started():
        with Session(own) as joined:
            engine.orchestrator.start(made, session=joined)
            joined.commit()
        eventually(lambda: engine.status(made) == "SUCCEEDED")


def test_the_engine_of_the_caller_is_left_as_it_was(engine: Engine, own: SqlEngine) -> None:
    before = dict(own.get_execution_options())
    engine.run(stage("a"))

    assert dict(own.get_execution_options()) == before
    engine.store.close()
    with own.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_objects_added_in_the_callers_session_are_not_the_callers(
    engine: Engine, own: SqlEngine
) -> None:
    made = workflow(stage("a"))
    with Session(own) as joined:
        engine.store.store(made, session=joined)
        assert list(joined.new) == []
        assert list(joined) == []
        joined.commit()
    assert engine.look(made).statuses == {"a": "NOT_STARTED"}


def test_a_session_on_another_database_is_refused(
    engine: Engine, databases: Databases, backend: BackendUnderTest
) -> None:
    other = "sqlite-file" if backend.name != "sqlite-file" else "sqlite-memory"
    with (
        databases.lend(other) as elsewhere,
        Session(elsewhere.engine()) as joined,
        pytest.raises(ConfigurationError, match="give both the same engine"),
    ):
        engine.orchestrator.start(workflow(stage("a")), session=joined)


def test_a_body_may_submit_another_workflow(engine: Engine) -> None:
    child = workflow(stage("c"))

    def body(stage: StageExecution) -> TaskResult:
        engine.orchestrator.start(child)
        return TaskResult.success()

    assert engine.run(stage("a", does=body)).status == "SUCCEEDED"
    assert engine.status(child) == "SUCCEEDED"
