"""A stage that runs more than once: its runs do not get in each other's way."""

from __future__ import annotations

import pytest

from stabilize import JoinType, StageExecution, SyntheticStageOwner, TaskResult, Workflow
from stabilize.net import Nets
from tests.support.builders import Engine, Ran, puts, stage, workflow


def counts(stage: StageExecution) -> TaskResult:
    """Put out how often this body has been before in the context it was given."""
    before = stage.settings.get("times", 0)
    return TaskResult.success(outputs={"before": before}, context={"times": before + 1})


def waits(stage: StageExecution) -> TaskResult:
    return TaskResult.success() if "_signal_name" in stage.context else TaskResult.suspend()


def runs_of(ran: Ran, ref_id: str) -> list[StageExecution]:
    return [run for run in ran.workflow.stage_runs if run.ref_id == ref_id]


# --- what a run begins with ---------------------------------------------------------------------


def test_each_run_behind_a_multi_merge_begins_with_the_context_of_the_definition(
    engine: Engine,
) -> None:
    made = workflow(
        stage("a"),
        stage("b", does=waits),
        stage("c", after="b", does=waits),
        stage(
            "m",
            after=["a", "b", "c"],
            does=[counts, counts],
            context={"own": 1},
            join_type=JoinType.MULTI_MERGE,
        ),
        stage("behind", after="m", does=counts),
    )
    engine.submit(made)
    engine.play()
    for late in ("b", "c"):
        engine.orchestrator.signal(made, engine.look(made)[late].id, "go")
        engine.play()
    ran = engine.look(made)

    assert [run.outputs for run in runs_of(ran, "m")] == [{"before": 1}] * 3
    assert [run.context for run in runs_of(ran, "m")] == [{"own": 1, "times": 2}] * 3
    assert [run.outputs for run in runs_of(ran, "behind")] == [{"before": 0}] * 3


def test_a_stage_that_is_jumped_back_to_keeps_the_context_it_had(engine: Engine) -> None:
    def again(stage: StageExecution) -> TaskResult:
        times = stage.settings.get("times", 0)
        if times < 3:
            return TaskResult.jump_to("s", context={"times": times + 1})
        return TaskResult.success()

    ran = engine.run(stage("s", does=again))

    assert [run.context.get("times") for run in runs_of(ran, "s")] == [1, 2, 3, 3]


def test_a_second_run_after_a_jump_begins_with_what_the_jump_brought(engine: Engine) -> None:
    def leaps(stage: StageExecution) -> TaskResult:
        return TaskResult.jump_to("m", context={"times": 5})

    made = workflow(
        stage("s", does=leaps),
        stage("b", does=waits),
        stage("m", after=["s", "b"], does=counts, join_type=JoinType.MULTI_MERGE),
    )
    engine.submit(made)
    engine.play()
    engine.orchestrator.signal(made, engine.look(made)["b"].id, "go")
    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert [run.outputs for run in runs_of(ran, "m")] == [{"before": 5}] * 2


# --- parts of their own -------------------------------------------------------------------------


def with_parts(first_owner: SyntheticStageOwner) -> Workflow:
    """A stage that runs twice at once, with two stages attached to it, one after the other."""
    merged = stage("m", after=["a", "b"], does=puts(m=1), join_type=JoinType.MULTI_MERGE)
    first, second = stage("first", does=waits), stage("second", after="first", does=waits)
    for part in (first, second):
        part.parent_stage_id, part.synthetic_stage_owner = merged.id, first_owner
    return workflow(stage("a"), stage("b"), merged, first, second, stage("end", after="m"))


@pytest.mark.parametrize("cold", [False, True], ids=["known", "read anew"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "owner", [SyntheticStageOwner.STAGE_BEFORE, SyntheticStageOwner.STAGE_AFTER]
)
def test_two_runs_at_once_start_their_own_parts(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    owner: SyntheticStageOwner,
    place: int,
    cold: bool,
) -> None:
    if cold:
        monkeypatch.setattr(Nets, "known", lambda nets, versions: {})
    made = with_parts(owner)
    engine.submit(made)
    engine.play()
    one, other = runs_of(engine.look(made), "first")
    firsts = [one, other] if place == 0 else [other, one]
    engine.orchestrator.signal(made, firsts[0].id, "go")
    engine.play()

    at_work = [run for run in runs_of(engine.look(made), "second") if run.start_time is not None]
    assert [run.parent_stage_id for run in at_work] == [firsts[0].parent_stage_id]
    engine.orchestrator.signal(made, at_work[0].id, "go")
    engine.play()
    ran = engine.look(made)
    by_id = {run.id: run.status.name for run in ran.workflow.stage_runs}
    assert by_id[str(firsts[0].parent_stage_id)] == "SUCCEEDED"
    assert by_id[str(firsts[1].parent_stage_id)] == "RUNNING"

    engine.orchestrator.signal(made, firsts[1].id, "go")
    engine.play()
    (last,) = (r for r in runs_of(engine.look(made), "second") if r.status.name == "SUSPENDED")
    engine.orchestrator.signal(made, last.id, "go")
    ran = engine.go_on(made)
    assert (ran.status, ran.runs("m"), ran.runs("end")) == (
        "SUCCEEDED",
        ["SUCCEEDED"] * 2,
        ["SUCCEEDED"] * 2,
    )
    assert ran.workflow.open_runs == 0


# --- what a process sees that did not start them ------------------------------------------------


@pytest.mark.parametrize("cold", [False, True], ids=["known", "read anew"])
def test_canceling_withdraws_an_earlier_run_that_is_still_at_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    if cold:
        monkeypatch.setattr(Nets, "known", lambda nets, versions: {})
    made = workflow(
        stage("a"),
        stage("b"),
        stage("m", after=["a", "b"], does=waits, join_type=JoinType.MULTI_MERGE),
    )
    engine.submit(made)
    engine.play()
    assert engine.look(made).runs("m") == ["SUSPENDED", "SUSPENDED"]
    engine.orchestrator.cancel(made, "tests", "enough")
    ran = engine.go_on(made)

    assert ran.runs("m") == ["CANCELED", "CANCELED"]
    assert ran.workflow.open_runs == 0
