"""Which worker takes which task, and what becomes of those nobody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stabilize import QueueProcessorConfig, StageExecution, TaskResult, Workflow
from tests.support.backends import BackendUnderTest
from tests.support.builders import (
    Body,
    Engine,
    Gate,
    eventually,
    fails,
    ok,
    stage,
    workflow,
)


def test_an_unknown_task_type_fails_its_stage_with_the_known_names(engine: Engine) -> None:
    ran = engine.run(stage("a", does=["ship", ok]), stage("b", after="a"))

    assert (ran.status, ran.statuses) == ("TERMINAL", {"a": "TERMINAL", "b": "NOT_STARTED"})
    assert ran.tasks("a") == ["TERMINAL", "SKIPPED"]
    error = ran.error("a")
    assert "No task found for type: ship" in error
    assert "fails, noop, ok" in error
    assert 'registry.register("ship"' in error


def test_an_unknown_task_type_obeys_the_flags_of_its_stage(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does="ship", context={"continuePipelineOnFailure": True}), stage("b", after="a")
    )

    assert ran.statuses == {"a": "FAILED_CONTINUE", "b": "SUCCEEDED"}


def _worker(backend: BackendUnderTest, *names: str, grace: float = 60.0) -> Engine:
    """An engine that knows some task types and says who has executed them."""
    config = replace(QueueProcessorConfig(), unknown_task_grace=grace)
    engine = Engine(backend.url, config=config)
    for name in names:
        engine.registry.register(name, _tells(engine, name))
    return engine


def _tells(engine: Engine, name: str) -> Body:
    def body(stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={name: id(engine)})

    return body


def test_each_worker_takes_the_tasks_it_knows(backend: BackendUnderTest) -> None:
    with _worker(backend, "pack") as packer, _worker(backend, "ship") as shipper:
        made = [
            workflow(stage("a", does="pack"), stage("b", after="a", does="ship")) for _ in range(5)
        ]
        with packer.started(), shipper.started():
            packer.submit(*made)
            eventually(lambda: all(packer.status(one) == "SUCCEEDED" for one in made))

        for one in made:
            outputs = packer.look(one).context
            assert outputs == {"pack": id(packer), "ship": id(shipper)}


def test_process_all_leaves_a_task_to_the_live_worker_that_knows_it(
    backend: BackendUnderTest,
) -> None:
    with _worker(backend, "pack") as packer, _worker(backend, "ship") as shipper:
        made = workflow(stage("a", does="pack"), stage("b", after="a", does="ship"))
        packer.submit(made)
        with shipper.started():
            packer.play()
            eventually(lambda: packer.status(made) == "SUCCEEDED")


def test_a_started_worker_waits_before_it_fails_what_nobody_knows(
    backend: BackendUnderTest,
) -> None:
    with _worker(backend, grace=0.3) as engine:
        made = workflow(stage("a", does="ship"))
        engine.submit(made)
        with engine.started():
            eventually(lambda: engine.look(made).statuses["a"] == "RUNNING")
            eventually(lambda: engine.status(made) == "TERMINAL")

        assert "No task found for type: ship" in engine.look(made).error("a")


def test_a_rolling_deploy_strands_nothing(backend: BackendUnderTest) -> None:
    with _worker(backend) as old, _worker(backend, "ship") as new:
        made = workflow(stage("a", does="ship"))
        old.submit(made)
        with old.started():
            eventually(lambda: old.look(made).statuses["a"] == "RUNNING")
            with new.started():
                eventually(lambda: old.status(made) == "SUCCEEDED")


# --- builders -------------------------------------------------------------------------------------


def _crates(engine: Engine) -> None:
    engine.build("crate", before=[stage("pre")], on_failure=[stage("tidy")])


def _busy(gate: Gate) -> Workflow:
    return workflow(stage("busy", does=gate))


@pytest.mark.parametrize("does", [ok, fails], ids=["before", "on failure"])
def test_a_stage_is_planned_by_the_live_worker_that_has_its_builder(
    backend: BackendUnderTest, does: Body
) -> None:
    gate = Gate()
    config = QueueProcessorConfig(max_workers=1)
    with Engine(backend.url, config=config) as planner, Engine(backend.url) as other:
        _crates(planner)
        with planner.started():
            planner.submit(_busy(gate))
            assert gate.entered.wait(10)
            made = workflow(stage("a", type="crate", does=does))
            other.submit(made)
            other.play()
            waiting = other.look(made)
            gate.opened.set()
            eventually(lambda: other.status(made) in ("SUCCEEDED", "TERMINAL"))

        refs = {run.ref_id for run in other.look(made).workflow.stages}
        assert waiting.statuses == {"a": "RUNNING"}
        assert refs == ({"a", "pre"} if does is ok else {"a", "pre", "tidy"})


def test_a_stage_whose_builder_no_live_worker_has_any_more_fails_and_says_so(
    backend: BackendUnderTest,
) -> None:
    gate = Gate()
    config = QueueProcessorConfig(max_workers=1)
    with Engine(backend.url, config=config) as planner, Engine(backend.url) as other:
        _crates(planner)
        with planner.started() as processor:
            planner.submit(_busy(gate))
            assert gate.entered.wait(10)
            made = workflow(stage("a", type="crate"))
            other.submit(made)
            other.play()
            processor.request_stop()
            gate.opened.set()
        ran = other.go_on(made)

        assert ran.status == "TERMINAL"
        assert "no builder for stage type 'crate'" in ran.error("a")


def test_a_type_that_nobody_has_a_builder_for_needs_no_plan(engine: Engine) -> None:
    assert engine.run(stage("a", type="crate")).status == "SUCCEEDED"
