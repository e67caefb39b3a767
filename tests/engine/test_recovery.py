"""What `recover_on_startup` does, and what needs nobody to do it."""

from __future__ import annotations

from stabilize import TaskResult
from stabilize.recovery import recover_on_startup
from tests.support.builders import Engine, returns, stage, workflow


def recovered(engine: Engine, *options: object) -> dict[str, str]:
    found = recover_on_startup(engine.store, engine.queue, *options)  # type: ignore[arg-type]
    return {result.workflow_id: result.status for result in found}


def test_what_was_stored_and_not_started_is_started_once(engine: Engine) -> None:
    made = workflow(stage("a", does="ok"))
    engine.store.store(made)

    assert recovered(engine) == {made.id: "recovered"}
    assert recovered(engine) == {made.id: "skipped"}
    assert engine.queue.size() == 1
    assert engine.go_on(made).status == "SUCCEEDED"
    assert recovered(engine) == {}


def test_what_waits_is_left_alone(engine: Engine) -> None:
    ran = engine.run(stage("a", does=returns(TaskResult.suspend())))

    assert recovered(engine) == {ran.workflow.id: "skipped"}
    assert engine.queue.size() == 0


def test_only_the_workflows_of_an_application_and_an_age_are_looked_at(engine: Engine) -> None:
    made = workflow(stage("a", does="ok"))
    made.created_at -= 2 * 3_600_000
    engine.store.store(made)

    assert recovered(engine, "another application") == {}
    assert recovered(engine, "tests", 1.0) == {}
    assert recovered(engine, "tests", 3.0) == {made.id: "recovered"}
