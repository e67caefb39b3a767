"""Jumps where a merge, or a join that begins before all its branches have come, is opened again."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import JoinType, SplitType, StageExecution, TaskResult
from tests.support.builders import Body, Engine, Ran, Recorder, puts, stage

XOR: dict[str, Any] = {"join_type": JoinType.XOR}
EACH: dict[str, Any] = {"join_type": JoinType.MULTI_MERGE}
FIRST: dict[str, Any] = {"join_type": JoinType.DISCRIMINATOR}
TWO: dict[str, Any] = {"join_type": JoinType.N_OF_M, "join_threshold": 2}


def waits(stage: StageExecution) -> TaskResult:
    """Wait for a signal; go where it says, or put out what it brings."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    data = stage.context["_signal_data"] or {}
    return TaskResult.jump_to(data["to"]) if "to" in data else TaskResult.success(outputs=data)


def once_to(target: str) -> Body:
    """Jump the first time that the stage runs at all."""
    return lambda stage: (
        TaskResult.jump_to(target) if stage.run == 1 else TaskResult.success(outputs={})
    )


def tell(engine: Engine, ran: Ran, ref_id: str, run: int = 1, **data: Any) -> Ran:
    """Send a signal to one run, and play."""
    (reached,) = [s for s in ran.workflow.stage_runs if (s.ref_id, s.run) == (ref_id, run)]
    engine.orchestrator.signal(ran.workflow, reached.id, "go", data)
    return engine.go_on(ran.workflow)


def choice(*branches: str, **conditions: str) -> StageExecution:
    return stage(
        "s", split_type=SplitType.XOR, split_conditions=conditions, split_default=branches[-1]
    )


# --- the merge lies behind the target -----------------------------------------------------------


def test_a_simple_merge_goes_with_the_branch_that_a_jump_has_taken(engine: Engine) -> None:
    last = Recorder()

    ran = engine.run(
        choice("b", "a"),
        stage("a", after="s", does=puts(way="a")),
        stage("b", after="s", does=puts(way="b")),
        stage("m", after=["a", "b"], **XOR),
        stage("z", after="m", does=once_to("b")),
        stage("end", after="z", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.runs("m") == ["SUCCEEDED"] * 2
    assert [context["way"] for context in last.contexts] == ["b"]


def test_a_simple_merge_goes_with_the_old_branch_when_the_new_one_brings_nothing(
    engine: Engine,
) -> None:
    """Those that lead nowhere come first; the old one does not begin before all have come."""
    last = Recorder()

    ran = engine.run(
        stage("a", does=puts(way="a")),
        stage("t", split_type=SplitType.OR, split_conditions={"b": "False", "c": "False"}),
        stage("b", after="t"),
        stage("c", after="t"),
        stage("d", after="t", does=once_to("t")),
        stage("m", after=["a", "b", "c"], **XOR),
        stage("end", after="m", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.runs("m")[-1] == "SUCCEEDED"
    assert {context["way"] for context in last.contexts} == {"a"}


def test_the_new_branch_may_come_after_one_that_brings_nothing(engine: Engine) -> None:
    last = Recorder()

    ran = engine.run(
        stage("s", split_type=SplitType.XOR, split_conditions={"a": "True"}, split_default="t"),
        stage("a", after="s", does=puts(way="a")),
        stage(
            "t",
            after="s",
            split_type=SplitType.XOR,
            split_conditions={"b": "False"},
            split_default="c",
        ),
        stage("b", after="t"),
        stage("c", after="t", does=puts(way="c")),
        stage("m", after=["a", "b", "c"], **XOR),
        stage("z", after="m", does=once_to("t")),
        stage("end", after="z", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert [context["way"] for context in last.contexts] == ["c"]


@pytest.mark.parametrize("join", [FIRST, {**FIRST, "join_rest": "block"}])
def test_a_discriminator_waits_for_the_branch_that_a_jump_has_taken(
    engine: Engine, join: dict[str, Any]
) -> None:
    last = Recorder()

    ran = engine.run(
        stage("a", does=puts(way="a")),
        stage("b", does=waits),
        stage("d", after=["a", "b"], **join),
        stage("z", after="d", does=once_to("b")),
        stage("end", after="z", does=last),
    )
    assert (ran.runs("d"), last.calls) == (["SUCCEEDED", "NOT_STARTED"], 0)

    ran = tell(engine, ran, "b", 2, way="b")

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("d"), last.calls) == (["SUCCEEDED"] * 2, 1)


def test_a_discriminator_takes_the_old_branch_when_the_new_one_is_lost(engine: Engine) -> None:
    def fails_later(stage: StageExecution) -> TaskResult:
        return TaskResult.terminal("boom")

    last = Recorder()
    ran = engine.run(
        stage("a", does=puts(way="a")),
        stage("b", does=fails_later),
        stage("d", after=["a", "b"], **FIRST),
        stage("z", after="d", does=once_to("b")),
        stage("end", after="z", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert [context["way"] for context in last.contexts] == ["a"]


def test_what_has_come_to_an_n_of_m_counts_with_what_comes_after_the_jump(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("b"),
        stage("c", does=waits),
        stage("d", after=["a", "b", "c"], **TWO),
        stage("z", after="d", does=waits),
    )
    ran = tell(engine, ran, "z", to="c")
    assert ran.runs("d") == ["SUCCEEDED", "NOT_STARTED"]

    ran = tell(engine, ran, "c", 2)

    assert ran.runs("d") == ["SUCCEEDED"] * 2
    assert tell(engine, ran, "z", 2).status == "SUCCEEDED"


def test_a_multi_merge_runs_again_for_the_branch_that_a_jump_has_taken_and_no_other(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.OR, split_conditions={"b": "False"}),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("m", after=["a", "b"], **EACH),
        stage("z", after="m", does=once_to("b")),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("m"), ran.runs("z")) == (["SUCCEEDED"] * 2, ["SUCCEEDED"] * 2)


def test_a_multi_merge_runs_again_for_a_branch_that_a_jump_has_withdrawn(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("b"),
        stage("m", after=["a", "b"], **EACH),
        stage("z", after="m", does=waits),
    )
    ran = tell(engine, ran, "z", 2, to="b")  # which both of them follow, so that both end

    for run in (3, 4):
        ran = tell(engine, ran, "z", run)
    assert ran.status == "SUCCEEDED"
    assert ran.runs("m") == ["SUCCEEDED"] * 4


# --- the merge is the target --------------------------------------------------------------------


@pytest.mark.parametrize("rest", [None, "block"])
def test_a_discriminator_jumped_to_does_not_start_for_the_loser(
    engine: Engine, rest: str | None
) -> None:
    ran = engine.run(
        stage("a"),
        stage("slow", does=waits),
        stage("d", after=["a", "slow"], join_rest=rest, **FIRST),
        stage("z", after="d", does=once_to("d")),
    )
    assert ran.runs("d") == ["SUCCEEDED"] * 2

    ran = tell(engine, ran, "slow")

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("d"), ran.runs("z")) == (["SUCCEEDED"] * 2, ["SUCCEEDED"] * 2)


@pytest.mark.parametrize("join", [FIRST, TWO, {**FIRST, "join_rest": "block"}])
@pytest.mark.parametrize("source", ["aside", "above"])
def test_a_jump_forward_to_a_counting_join_is_its_start_for_this_round(
    engine: Engine, source: str, join: dict[str, Any]
) -> None:
    """However the jump comes: past a stage before the join, or from beside."""
    ran = engine.run(
        stage("above", does=waits),
        stage("aside", does=waits),
        stage("a", after="above"),
        stage("b", does=waits),
        stage("c", does=waits),
        stage("d", after=["a", "b", "c"], **join),
    )
    ran = tell(engine, ran, source, to="d")
    assert ran.runs("d") == ["SUCCEEDED"]

    for ref_id in {"above", "aside", "b", "c"} - {source}:
        ran = tell(engine, ran, ref_id)

    assert (ran.status, ran.runs("d")) == ("SUCCEEDED", ["SUCCEEDED"])


def test_a_simple_merge_jumped_to_does_not_run_for_what_had_come_to_it(engine: Engine) -> None:
    last = Recorder()
    ran = engine.run(
        choice("b", "a"),
        stage("a", after="s", does=puts(way="a")),
        stage("b", after="s", does=puts(way="b")),
        stage("m", after=["a", "b"], **XOR),
        stage("z", after="m", does=once_to("m")),
        stage("end", after="z", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("m"), ran.runs("z")) == (["SUCCEEDED"] * 2, ["SUCCEEDED"] * 2)
    assert [context["way"] for context in last.contexts] == ["a"]


def test_a_jump_to_a_simple_merge_is_one_of_the_branches_that_reach_it(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=lambda stage: TaskResult.jump_to("m")),
        stage("between", after="a"),
        stage("b", does=waits),
        stage("m", after=["between", "b"], **XOR),
    )
    assert ran.runs("m") == ["SUCCEEDED"]

    ran = tell(engine, ran, "b")

    assert ran.status == "TERMINAL"
    assert "'a' and 'b'" in ran.error("m")


def test_a_jump_to_a_multi_merge_leaves_its_other_runs_alone(engine: Engine) -> None:
    last = Recorder()
    ran = engine.run(
        stage("a", does=puts(way="a")),
        stage("b", does=puts(way="b")),
        stage("m", after=["a", "b"], **EACH),
        stage("z", after="m", does=waits),
        stage("end", after="z", does=last),
    )
    first, second = (s.thread for s in ran.workflow.stage_runs if s.ref_id == "z")

    for run in (1, 2):  # each goes round once, and brings what it came with
        ran = tell(engine, ran, "z", run, to="m")
    assert ran.runs("z") == ["SUCCEEDED", "SUCCEEDED", "SUSPENDED", "SUSPENDED"]
    threads = [s.thread for s in ran.workflow.stage_runs if s.ref_id == "z"]
    assert threads == [first, second, first, second]

    for run in (3, 4):
        ran = tell(engine, ran, "z", run)
    assert (ran.status, ran.runs("m")) == ("SUCCEEDED", ["SUCCEEDED"] * 4)
    assert sorted(context["way"] for context in last.contexts) == ["a", "b"]


def test_what_follows_a_multi_merge_goes_round_in_each_of_its_branches_by_itself(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("a"),
        stage("b"),
        stage("m", after=["a", "b"], **EACH),
        stage("z", after="m", does=waits),
    )
    first, second = (s.thread for s in ran.workflow.stage_runs if s.ref_id == "z")

    for run in (1, 2):
        ran = tell(engine, ran, "z", run, to="z")

    threads = [s.thread for s in ran.workflow.stage_runs if s.ref_id == "z"]
    assert threads == [first, second, first, second]
    assert ran.runs("z") == ["SUCCEEDED", "SUCCEEDED", "SUSPENDED", "SUSPENDED"]


def test_a_branch_that_comes_to_a_multi_merge_after_a_jump_to_it_has_its_own_thread(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("a"),
        stage("b", does=waits),
        stage("m", after=["a", "b"], **EACH),
        stage("z", after="m", does=once_to("m")),
    )

    ran = tell(engine, ran, "b")

    assert (ran.status, ran.runs("m")) == ("SUCCEEDED", ["SUCCEEDED"] * 3)
    threads = [s.thread for s in ran.workflow.stage_runs if s.ref_id == "m"]
    assert threads[0] == threads[1] != threads[2]


@pytest.mark.parametrize("join", [FIRST, {**FIRST, "join_rest": "block"}])
def test_what_a_jump_has_started_is_known_to_a_process_that_did_not_see_it(
    engine: Engine, join: dict[str, Any]
) -> None:
    stages = [
        stage("aside", does=waits),
        stage("a", does=waits),
        stage("b", does=waits),
        stage("d", after=["a", "b"], **join),
    ]
    ran = tell(engine, engine.run(*stages), "aside", to="d")

    with Engine(engine.target) as another:
        another.learn(*stages)
        for ref_id in ("a", "b"):
            ran = tell(another, ran, ref_id)

    assert (ran.status, ran.runs("d")) == ("SUCCEEDED", ["SUCCEEDED"])
