"""Stages before, after, and for the failure of another stage."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import (
    StageDefinitionBuilder,
    StageExecution,
    SyntheticStageOwner,
    TaskExecution,
    TaskResult,
    Workflow,
)
from tests.support.builders import (
    Engine,
    Ran,
    Recorder,
    Script,
    fails,
    ok,
    puts,
    returns,
    stage,
    workflow,
)

PASSES = {"continuePipelineOnFailure": True}


def _of(ran: Ran, ref_id: str) -> list[str]:
    """What became of the synthetic stages with this ref."""
    return [s.status.name for s in ran.workflow.stages if s.ref_id == ref_id and s.is_synthetic()]


def test_before_tasks_after_run_in_that_order_and_then_what_follows(engine: Engine) -> None:
    order: list[str] = []

    def note(stage: StageExecution) -> TaskResult:
        order.append(stage.ref_id)
        return TaskResult.success()

    engine.build(
        "deploy",
        before=[stage("b1", does=note), stage("b2", after="b1", does=note)],
        following=[stage("a1", does=note), stage("a2", after="a1", does=note)],
    )

    ran = engine.run(stage("p", does=note, type="deploy"), stage("q", after="p", does=note))

    assert ran.status == "SUCCEEDED"
    assert order == ["b1", "b2", "p", "a1", "a2", "q"]
    assert ran["b1"].synthetic_stage_owner is SyntheticStageOwner.STAGE_BEFORE
    assert ran["b1"].parent().ref_id == "p"


BEFORE = [
    ("fails", [stage("b", does=fails)], "TERMINAL", ["NOT_STARTED"], "NOT_STARTED", 1),
    (
        "is tolerated",
        [stage("b", does=fails, context=PASSES)],
        "FAILED_CONTINUE",
        ["SUCCEEDED"],
        "SUCCEEDED",
        0,
    ),
    (
        "the first of two is tolerated",
        [stage("b", does=fails, context=PASSES), stage("b2", after="b")],
        "FAILED_CONTINUE",
        ["SUCCEEDED"],
        "SUCCEEDED",
        0,
    ),
    (
        "one of two beside each other fails",
        [stage("b", does=fails), stage("b2")],
        "TERMINAL",
        ["NOT_STARTED"],
        "NOT_STARTED",
        1,
    ),
]


@pytest.mark.parametrize(
    ("before", "p", "tasks", "q", "rescued"),
    [row[1:] for row in BEFORE],
    ids=[row[0] for row in BEFORE],
)
def test_a_stage_before_decides_whether_the_tasks_run(
    engine: Engine, before: list[StageExecution], p: str, tasks: list[str], q: str, rescued: int
) -> None:
    rescue = Recorder()
    engine.build("deploy", before=before, on_failure=[stage("f", does=rescue)])

    ran = engine.run(stage("p", type="deploy"), stage("q", after="p"))

    assert ran.statuses == {"p": p, "q": q}
    assert ran.tasks("p") == tasks
    assert rescue.calls == rescued
    assert ran.status == ("TERMINAL" if p == "TERMINAL" else "SUCCEEDED")


def test_a_chain_before_goes_on_behind_a_tolerated_failure(engine: Engine) -> None:
    engine.build(
        "deploy", before=[stage("b1", does=fails, context=PASSES), stage("b2", after="b1")]
    )

    ran = engine.run(stage("p", type="deploy"))

    assert (_of(ran, "b1"), _of(ran, "b2")) == (["FAILED_CONTINUE"], ["SUCCEEDED"])


def test_a_chain_before_ends_behind_a_failure(engine: Engine) -> None:
    engine.build("deploy", before=[stage("b1", does=fails), stage("b2", after="b1")])

    ran = engine.run(stage("p", type="deploy"))

    assert (_of(ran, "b1"), _of(ran, "b2")) == (["TERMINAL"], ["NOT_STARTED"])
    assert ran.status == "TERMINAL"


def test_a_failed_stage_after_fails_its_parent(engine: Engine) -> None:
    rescue = Recorder()
    engine.build("deploy", following=[stage("a", does=fails)], on_failure=[stage("f", does=rescue)])

    ran = engine.run(stage("p", type="deploy"), stage("q", after="p"))

    assert ran.statuses == {"p": "TERMINAL", "q": "NOT_STARTED"}
    assert ran.tasks("p") == ["SUCCEEDED"]
    assert rescue.calls == 1


def test_a_tolerated_failure_after_leaves_the_parent_succeeded(engine: Engine) -> None:
    engine.build("deploy", following=[stage("a", does=fails, context=PASSES)])

    ran = engine.run(stage("p", type="deploy"), stage("q", after="p"))

    assert (ran.status, ran.statuses) == ("SUCCEEDED", {"p": "SUCCEEDED", "q": "SUCCEEDED"})


def test_a_failed_task_skips_the_stages_after_and_runs_those_for_failure_in_order(
    engine: Engine,
) -> None:
    after, order = Recorder(), list[str]()

    def note(stage: StageExecution) -> TaskResult:
        order.append(stage.ref_id)
        return TaskResult.success()

    engine.build(
        "deploy",
        following=[stage("a", does=after)],
        on_failure=[stage("f1", does=note), stage("f2", after="f1", does=note)],
    )

    ran = engine.run(stage("p", does=[fails, ok], type="deploy"), stage("q", after="p"))

    assert ran.status == "TERMINAL"
    assert ran.statuses == {"p": "TERMINAL", "q": "NOT_STARTED"}
    assert order == ["f1", "f2"]
    assert after.calls == 0


@pytest.mark.parametrize("does", [ok, fails], ids=["succeed", "fail"])
def test_the_parent_is_terminal_whatever_its_failure_stages_do(engine: Engine, does: Any) -> None:
    engine.build("deploy", on_failure=[stage("f", does=does)])

    ran = engine.run(stage("p", does=fails, type="deploy"))

    assert (ran.status, ran.statuses) == ("TERMINAL", {"p": "TERMINAL"})
    assert _of(ran, "f") == ["SUCCEEDED" if does is ok else "TERMINAL"]


def test_a_stopped_stage_runs_its_failure_stages_and_stays_stopped(engine: Engine) -> None:
    rescue = Recorder()
    engine.build("deploy", on_failure=[stage("f", does=rescue)])

    ran = engine.run(
        stage("p", does=fails, type="deploy", context={"failPipeline": False}), stage("x")
    )

    assert (ran.status, ran.statuses["p"], rescue.calls) == ("SUCCEEDED", "STOPPED", 1)


@pytest.mark.parametrize(
    ("does", "context"),
    [(fails, PASSES), (returns(TaskResult.failed_continue("x")), {})],
    ids=["continuePipelineOnFailure", "failed_continue"],
)
def test_a_tolerated_failure_runs_the_stages_after_and_not_those_for_failure(
    engine: Engine, does: Any, context: dict[str, Any]
) -> None:
    after, rescue = Recorder(), Recorder()
    engine.build("deploy", following=[stage("a", does=after)], on_failure=[stage("f", does=rescue)])

    ran = engine.run(stage("p", does=does, type="deploy", context=context), stage("q", after="p"))

    assert ran.statuses == {"p": "FAILED_CONTINUE", "q": "SUCCEEDED"}
    assert (after.calls, rescue.calls) == (1, 0)


def test_a_stage_without_tasks_runs_its_stages_before_and_after(engine: Engine) -> None:
    before, after = Recorder(), Recorder()
    engine.build("deploy", before=[stage("b", does=before)], following=[stage("a", does=after)])

    ran = engine.run(stage("p", does=[], type="deploy"))

    assert (ran.status, before.calls, after.calls) == ("SUCCEEDED", 1, 1)


def test_stages_attached_to_the_definition_run_too(engine: Engine) -> None:
    order: list[str] = []

    def note(stage: StageExecution) -> TaskResult:
        order.append(stage.name)
        return TaskResult.success()

    engine.registry.register("note", note)
    parent = stage("p", does="note")
    parts = [
        StageExecution.create_synthetic(
            "", name, parent, owner, tasks=[TaskExecution.create("t", "note")]
        )
        for name, owner in (
            ("before", SyntheticStageOwner.STAGE_BEFORE),
            ("after", SyntheticStageOwner.STAGE_AFTER),
            ("failure", SyntheticStageOwner.STAGE_FAILURE),
        )
    ]
    made = Workflow.create("tests", "attached", [parent, *parts, stage("q", after="p")])
    engine.submit(made)

    ran = engine.go_on(made)

    assert order == ["before", "p", "after"]
    assert ran.status == "SUCCEEDED"


class Builds(StageDefinitionBuilder):
    """Gives a stage its tasks and a value for its context."""

    aliases = ("also",)

    @property
    def type(self) -> str:
        return "builds"

    def build_tasks(self, stage: StageExecution) -> list[TaskExecution]:
        return [TaskExecution.create("made", "ok"), TaskExecution.create("made too", "ok")]

    def add_context_flags(self, stage: StageExecution) -> dict[str, Any]:
        return {"flag": stage.context["size"] * 2}


@pytest.mark.parametrize("type", ["builds", "also"])
def test_a_builder_gives_a_stage_without_tasks_its_tasks(engine: Engine, type: str) -> None:
    engine.builders.register(Builds)

    ran = engine.run(stage("up", does=puts(size=2)), stage("p", after="up", does=[], type=type))

    assert ran.tasks("p") == ["SUCCEEDED", "SUCCEEDED"]
    assert ran["p"].context["flag"] == 4


class Raises(StageDefinitionBuilder):
    """Cannot plan anything."""

    def before_stages(self, stage: StageExecution, graph: Any) -> None:
        raise KeyError("region")


def test_a_builder_that_raises_fails_its_stage(engine: Engine) -> None:
    engine.builders.register(Raises)

    ran = engine.run(stage("p", type="raises"), stage("q", after="p"))

    assert (ran.status, ran.statuses) == ("TERMINAL", {"p": "TERMINAL", "q": "NOT_STARTED"})
    assert ran["p"].context["beforeStagePlanningFailed"] is True
    assert "region" in ran.error("p")


def test_a_jump_back_plans_the_synthetic_stages_again(engine: Engine) -> None:
    before, after = Recorder(), Recorder()
    engine.build("deploy", before=[stage("b", does=before)], following=[stage("a", does=after)])
    rounds = iter([True, False])

    def again(stage: StageExecution) -> TaskResult:
        return TaskResult.jump_to("p") if next(rounds) else TaskResult.success()

    ran = engine.run(stage("p", type="deploy"), stage("q", after="p", does=again))

    assert ran.status == "SUCCEEDED"
    assert (before.calls, after.calls) == (2, 2)
    assert ran.runs("p") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_workflow_canceled_in_a_stage_before_withdraws_the_parent(engine: Engine) -> None:
    def cancel(stage: StageExecution) -> TaskResult:
        engine.orchestrator.cancel(stage.workflow_id)
        return TaskResult.suspend()

    engine.build("deploy", before=[stage("b", does=cancel)])

    ran = engine.run(stage("p", type="deploy"))

    assert (ran.status, ran.statuses, _of(ran, "b")) == (
        "CANCELED",
        {"p": "CANCELED"},
        ["CANCELED"],
    )


def test_every_round_has_synthetic_stages_of_its_own(engine: Engine) -> None:
    engine.build("deploy", before=[stage("b1"), stage("b2"), stage("b3", after=["b1", "b2"])])
    ran = engine.run(stage("p", type="deploy"))

    for _ in range(2):
        engine.orchestrator.restart(ran.workflow, ran["p"].id)
        engine.play()
    again = engine.look(ran.workflow)

    assert again.status == "SUCCEEDED"
    assert again.runs("b3") == ["SUCCEEDED"] * 3
    parents = {s.parent_stage_id for s in again.workflow.stage_runs if s.ref_id == "b3"}
    assert parents == {s.id for s in again.workflow.stage_runs if s.ref_id == "p"}


def test_stages_of_one_type_do_not_share_their_synthetic_stages(engine: Engine) -> None:
    before = Recorder()
    engine.build(
        "deploy",
        before=[stage("b1", does=before), stage("b2", after="b1", does=before)],
        on_failure=[stage("f", does=before)],
    )

    ran = engine.run(
        stage("p", type="deploy"),
        stage("q", type="deploy"),
        stage("r", after=["p", "q"], type="deploy", does=fails),
    )

    assert ran.statuses == {"p": "SUCCEEDED", "q": "SUCCEEDED", "r": "TERMINAL"}
    assert before.calls == 7
    for ref_id in ("p", "q"):
        assert [s.status.name for s in ran[ref_id].before_stages()] == ["SUCCEEDED", "SUCCEEDED"]


def test_tasks_made_by_a_builder_are_made_anew_for_the_next_round(engine: Engine) -> None:
    engine.builders.register(Builds)
    ran = engine.run(stage("up", does=puts(size=2)), stage("p", after="up", does=[], type="builds"))

    engine.orchestrator.restart(ran.workflow, ran["p"].id)
    again = engine.go_on(ran.workflow)

    runs = [s for s in again.workflow.stage_runs if s.ref_id == "p"]
    assert [[task.status.name for task in run.tasks] for run in runs] == [["SUCCEEDED"] * 2] * 2


def test_a_restart_in_the_middle_of_the_stages_before_forgets_what_had_come(
    engine: Engine,
) -> None:
    """b1 has ended and b2 waits when p is opened again: b3 waits for both once more."""
    waits = Script(TaskResult.suspend(), TaskResult.suspend(), TaskResult.success())
    engine.build(
        "deploy", before=[stage("b1"), stage("b2", does=waits), stage("b3", after=["b1", "b2"])]
    )

    def back(stage: StageExecution) -> TaskResult:
        return TaskResult.success() if stage.run > 1 else TaskResult.suspend()

    made = workflow(
        stage("a", does=puts(n=1)), stage("p", after="a", type="deploy"), stage("x", does=back)
    )
    engine.submit(made)
    before = engine.go_on(made)
    engine.orchestrator.restart(made, made.stages[0].id)
    again = engine.go_on(made)

    assert before.runs("b3") == ["NOT_STARTED"]
    assert again.runs("p") == ["CANCELED", "RUNNING"]
    assert again.runs("b2") == ["CANCELED", "SUSPENDED"]
    assert again["b3"].status.name == "NOT_STARTED"
