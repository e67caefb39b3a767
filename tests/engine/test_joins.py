"""What starts a stage with several stages before it."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import JoinType, SplitType, StageExecution, TaskResult
from tests.support.builders import Engine, Gate, Recorder, fails, ok, puts, stage

STOPS = {"failPipeline": False}
PASSES = {"continuePipelineOnFailure": True}
SKIPS = {"stageEnabled": False}


def _waits(stage: StageExecution) -> TaskResult:
    """Wait for a signal; fail if it says so, else put out what it brings."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    data = stage.context["_signal_data"] or {}
    return TaskResult.terminal("boom") if "fails" in data else TaskResult.success(outputs=data)


def _fan(kinds: list[str], **join: Any) -> list[StageExecution]:
    """Branches that end in the given ways, a join over them, and a stage behind the join."""
    made = []
    for number, kind in enumerate(kinds):
        ref = f"u{number}"
        if kind == "ok":
            made.append(stage(ref))
        elif kind == "skipped":
            made.append(stage(ref, context=SKIPS))
        else:
            flags = {"stopped": STOPS, "tolerated": PASSES, "failed": {}}[kind]
            made.append(stage(ref, does=fails, context=flags))
    refs = [s.ref_id for s in made]
    return [*made, stage("join", after=refs, **join), stage("last", after="join")]


AND = [
    (["ok", "ok"], "SUCCEEDED", "SUCCEEDED"),
    (["ok", "skipped"], "SUCCEEDED", "SUCCEEDED"),
    (["skipped", "skipped"], "SUCCEEDED", "SUCCEEDED"),
    (["ok", "tolerated"], "SUCCEEDED", "SUCCEEDED"),
    (["ok", "stopped"], "NOT_STARTED", "SUCCEEDED"),
    (["ok", "failed"], "NOT_STARTED", "TERMINAL"),
]


@pytest.mark.parametrize(("kinds", "join", "status"), AND)
def test_an_and_join_starts_when_every_branch_has_brought_something(
    engine: Engine, kinds: list[str], join: str, status: str
) -> None:
    ran = engine.run(*_fan(kinds))

    assert (ran.statuses["join"], ran.statuses["last"], ran.status) == (join, join, status)


FIRST = [
    (["ok", "ok"], "SUCCEEDED", "SUCCEEDED"),
    (["tolerated", "tolerated"], "SUCCEEDED", "SUCCEEDED"),
    (["skipped", "skipped"], "SUCCEEDED", "SUCCEEDED"),
    (["stopped", "ok"], "SUCCEEDED", "SUCCEEDED"),
    (["failed", "ok"], "SUCCEEDED", "SUCCEEDED"),
    (["stopped", "stopped"], "SKIPPED", "SUCCEEDED"),
]


@pytest.mark.parametrize(("kinds", "join", "status"), FIRST)
def test_a_discriminator_starts_once_on_the_first_branch_that_brings_something(
    engine: Engine, kinds: list[str], join: str, status: str
) -> None:
    ran = engine.run(*_fan(kinds, join_type=JoinType.DISCRIMINATOR))

    assert ran.statuses["join"] == join
    assert ran.runs("join") == [join]
    assert ran.runs("last") == [join]
    assert ran.status == status


COUNTING: list[dict[str, Any]] = [
    {"join_type": JoinType.DISCRIMINATOR},
    {"join_type": JoinType.DISCRIMINATOR, "on_branch_failure": "dead"},
    {"join_type": JoinType.DISCRIMINATOR, "join_rest": "block"},
    {"join_type": JoinType.DISCRIMINATOR, "join_rest": "cancel"},
    {"join_type": JoinType.N_OF_M, "join_threshold": 1},
    {"join_type": JoinType.N_OF_M, "join_threshold": 1, "join_rest": "block"},
]


@pytest.mark.parametrize("join", COUNTING)
@pytest.mark.parametrize("kinds", [["failed", "failed"], ["stopped", "failed"]])
def test_a_counting_join_fails_when_its_branches_are_lost_and_one_of_them_failed(
    engine: Engine, kinds: list[str], join: dict[str, Any]
) -> None:
    ran = engine.run(*_fan(kinds, **join))

    assert ran.status == "TERMINAL"
    assert (ran.statuses["join"], ran.statuses["last"]) == ("TERMINAL", "NOT_STARTED")
    assert "'u1' (failed)" in ran.error("join")
    assert "0 came" in ran.error("join")


def test_why_a_branch_was_lost_is_known_to_a_process_that_did_not_see_it(engine: Engine) -> None:
    waiting = stage("b", does=_waits, context=STOPS)
    ran = engine.run(
        stage("a", does=fails),
        waiting,
        stage("join", after=["a", "b"], join_type=JoinType.DISCRIMINATOR),
    )
    assert (ran.status, ran.statuses["join"]) == ("RUNNING", "NOT_STARTED")

    with Engine(engine.target) as another:
        another.learn(waiting)
        another.orchestrator.signal(ran.workflow, ran["b"].id, "go", {"fails": True})
        ran = another.go_on(ran.workflow)

    assert (ran.status, ran.statuses["join"]) == ("TERMINAL", "TERMINAL")
    assert "lost are 'a' (failed), 'b'" in ran.error("join")


def test_the_failure_of_a_counting_join_ends_at_the_next_one(engine: Engine) -> None:
    ran = engine.run(
        *_fan(["failed", "failed"], join_type=JoinType.DISCRIMINATOR),
        stage("other"),
        stage("first", after=["last", "other"], join_type=JoinType.DISCRIMINATOR),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.statuses["join"], ran.statuses["first"]) == ("TERMINAL", "SUCCEEDED")


def test_a_counting_join_is_skipped_when_nothing_was_to_come_by_any_branch(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.OR, split_conditions={"a": "False", "b": "False"}),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("else", after="s"),
        stage("join", after=["a", "b"], join_type=JoinType.DISCRIMINATOR),
    )

    assert (ran.status, ran.statuses["join"]) == ("SUCCEEDED", "SKIPPED")


def test_a_join_that_takes_failures_for_dead_ones_is_skipped_when_nothing_else_came(
    engine: Engine,
) -> None:
    ran = engine.run(*_fan(["failed", "failed"], on_branch_failure="dead"))

    assert (ran.status, ran.statuses["join"]) == ("SUCCEEDED", "SKIPPED")


def test_branches_are_lost_in_one_thread_and_not_in_another(engine: Engine) -> None:
    def fails_in_the_second(stage: StageExecution) -> TaskResult:
        lost = stage.thread.endswith(".1/")
        return TaskResult.terminal("boom") if lost else TaskResult.success()

    ran = engine.run(
        stage("s", split_type=SplitType.THREADS, split_count=2),
        stage("a", after="s", does=fails_in_the_second),
        stage("b", after="s", does=fails_in_the_second),
        stage("join", after=["a", "b"], join_type=JoinType.DISCRIMINATOR, context=STOPS),
    )

    assert ran.status == "SUCCEEDED"
    runs = [s for s in ran.workflow.stage_runs if s.ref_id == "join"]
    ended = {s.thread[-3:]: s.status.name for s in runs}
    assert ended == {".0/": "SUCCEEDED", ".1/": "STOPPED"}


def test_a_blocking_join_that_has_failed_leaves_the_rest_of_its_round_alone(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("a", does=fails),
        stage("b", does=fails),
        stage("c", does=_waits),
        stage(
            "join",
            after=["a", "b", "c"],
            context=STOPS,
            join_type=JoinType.N_OF_M,
            join_threshold=2,
            join_rest="block",
        ),
    )
    assert (ran.status, ran.runs("join")) == ("RUNNING", ["STOPPED"])

    engine.orchestrator.signal(ran.workflow, ran["c"].id, "go", {})
    ran = engine.go_on(ran.workflow)

    assert (ran.status, ran.runs("join")) == ("SUCCEEDED", ["STOPPED"])


TWO_OF_THREE = [
    (["ok", "ok", "ok"], "SUCCEEDED"),
    (["ok", "skipped", "stopped"], "SUCCEEDED"),
    (["ok", "tolerated", "ok"], "SUCCEEDED"),
    (["ok", "ok", "stopped"], "SUCCEEDED"),
    (["ok", "failed", "ok"], "SUCCEEDED"),
    (["stopped", "stopped", "stopped"], "SKIPPED"),
]


@pytest.mark.parametrize(("kinds", "join"), TWO_OF_THREE)
def test_two_of_three_starts_once_when_the_second_branch_has_come(
    engine: Engine, kinds: list[str], join: str
) -> None:
    ran = engine.run(*_fan(kinds, join_type=JoinType.N_OF_M, join_threshold=2))

    assert ran.runs("join") == [join]
    assert ran.runs("last") == [join]


def test_two_of_three_that_can_no_longer_come_fails_at_once_and_names_the_lost(
    engine: Engine,
) -> None:
    ran = engine.run(
        *_fan(["ok", "stopped", "stopped"], join_type=JoinType.N_OF_M, join_threshold=2)
    )

    assert (ran.status, ran.statuses["join"]) == ("TERMINAL", "TERMINAL")
    assert "'u1'" in ran.error("join")
    assert "'u2'" in ran.error("join")


def test_a_threshold_of_zero_waits_for_all(engine: Engine) -> None:
    ran = engine.run(*_fan(["ok", "stopped"], join_type=JoinType.N_OF_M, join_threshold=0))

    assert ran.statuses["join"] == "NOT_STARTED"


def test_a_late_branch_runs_to_its_end_after_the_join_has_fired(engine: Engine) -> None:
    late = Gate()

    def open_late(stage: StageExecution) -> TaskResult:
        late.opened.set()
        return TaskResult.success()

    ran = engine.run(
        stage("early"),
        stage("late", does=late),
        stage("join", after=["early", "late"], does=open_late, join_type=JoinType.DISCRIMINATOR),
    )

    assert ran.statuses == {"early": "SUCCEEDED", "late": "SUCCEEDED", "join": "SUCCEEDED"}
    assert ran.runs("join") == ["SUCCEEDED"]


def test_a_multi_merge_runs_once_for_each_branch_and_so_does_what_follows(engine: Engine) -> None:
    last = Recorder()

    ran = engine.run(
        stage("a", does=puts(n=1)),
        stage("b", does=puts(n=2)),
        stage("c", does=puts(n=3)),
        stage("merge", after=["a", "b", "c"], join_type=JoinType.MULTI_MERGE),
        stage("last", after="merge", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.runs("merge") == ["SUCCEEDED"] * 3
    assert ran.runs("last") == ["SUCCEEDED"] * 3
    assert sorted(context["n"] for context in last.contexts) == [1, 2, 3]


def test_a_multi_merge_runs_for_the_branches_that_were_not_stopped(engine: Engine) -> None:
    ran = engine.run(*_fan(["ok", "stopped", "ok"], join_type=JoinType.MULTI_MERGE))

    assert ran.runs("join") == ["SUCCEEDED"] * 2


def test_an_or_join_without_a_split_waits_for_every_live_branch(engine: Engine) -> None:
    ran = engine.run(*_fan(["ok", "tolerated", "skipped"], join_type=JoinType.OR))

    assert ran.runs("join") == ["SUCCEEDED"]


def test_a_multi_choice_activates_the_branches_whose_condition_holds(engine: Engine) -> None:
    join = Recorder()

    ran = engine.run(
        stage(
            "triage",
            does=puts(kind="crime", severity=0),
            split_type=SplitType.OR,
            split_conditions={"police": "kind == 'crime'", "ambulance": "severity > 0"},
        ),
        stage("police", after="triage"),
        stage("ambulance", after="triage"),
        stage("hospital", after="ambulance"),
        stage("log", after="triage"),
        stage("report", after=["police", "hospital", "log"], does=join, join_type=JoinType.OR),
    )

    assert ran.statuses == {
        "triage": "SUCCEEDED",
        "police": "SUCCEEDED",
        "ambulance": "SKIPPED",
        "hospital": "SKIPPED",
        "log": "SUCCEEDED",
        "report": "SUCCEEDED",
    }
    assert ran.tasks("ambulance") == ["NOT_STARTED"]
    assert join.calls == 1


@pytest.mark.parametrize("kind", [JoinType.AND, JoinType.OR, JoinType.DISCRIMINATOR])
def test_a_join_behind_a_branch_that_was_not_chosen_runs_on_the_others(
    engine: Engine, kind: JoinType
) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.OR, split_conditions={"a": "False", "b": "True"}),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("join", after=["a", "b"], join_type=kind),
    )

    assert ran.statuses == {"s": "SUCCEEDED", "a": "SKIPPED", "b": "SUCCEEDED", "join": "SUCCEEDED"}


def test_two_of_three_with_two_branches_not_chosen_fails_at_once(engine: Engine) -> None:
    ran = engine.run(
        stage(
            "s", split_type=SplitType.OR, split_conditions={"a": "False", "b": "True", "c": "False"}
        ),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("c", after="s"),
        stage("join", after=["a", "b", "c"], join_type=JoinType.N_OF_M, join_threshold=2),
    )

    assert (ran.status, ran.statuses["join"]) == ("TERMINAL", "TERMINAL")


def test_a_split_that_finds_no_branch_fails_its_stage(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.OR, split_conditions={"a": "n > 1"}, context={"n": 0}),
        stage("a", after="s"),
    )

    assert (ran.status, ran.statuses["a"]) == ("TERMINAL", "NOT_STARTED")
    assert "NoBranchError" in ran.error("s")


def test_a_split_that_finds_no_branch_takes_its_default(engine: Engine) -> None:
    ran = engine.run(
        stage(
            "s",
            split_type=SplitType.OR,
            split_conditions={"a": "False", "b": "False"},
            split_default="b",
        ),
        stage("a", after="s"),
        stage("b", after="s"),
    )

    assert ran.statuses == {"s": "SUCCEEDED", "a": "SKIPPED", "b": "SUCCEEDED"}


def test_a_join_whose_branches_were_all_not_chosen_is_skipped_and_so_is_what_follows(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.OR, split_conditions={"a": "False", "b": "False"}),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("else", after="s"),
        stage("join", after=["a", "b"]),
        stage("last", after="join"),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.statuses["join"], ran.statuses["last"]) == ("SKIPPED", "SKIPPED")


def test_a_wide_fan_meets_again(engine: Engine) -> None:
    refs = [f"b{n}" for n in range(70)]

    ran = engine.run(
        stage("first"),
        *[stage(ref, after="first", does=ok) for ref in refs],
        stage("join", after=refs),
    )

    assert ran.status == "SUCCEEDED"
    assert set(ran.statuses.values()) == {"SUCCEEDED"}


def test_a_round_that_blocks_takes_what_came_first_by_each_edge_and_keeps_what_came_after(
    engine: Engine,
) -> None:
    """`a` brings nothing, then something: that is for the next round, which begins at once."""
    ran = engine.run(
        stage("s", split_type=SplitType.THREADS, split_count=2),
        stage(
            "a",
            after="s",
            does=_waits,
            split_type=SplitType.XOR,
            split_conditions={"first": "live"},
            split_default="aside",
        ),
        stage("aside", after="a"),
        stage("b", does=_waits),
        stage("c", does=_waits),
        stage(
            "first",
            after=["a", "b", "c"],
            join_type=JoinType.DISCRIMINATOR,
            join_rest="block",
        ),
    )
    for ref_id, data in (("b", {}), ("a", {}), ("a", {"live": True})):
        engine.orchestrator.signal(ran.workflow, ran[ref_id].id, "go", data)
        ran = engine.go_on(ran.workflow)
    assert ran.runs("first") == ["SUCCEEDED"]

    engine.orchestrator.signal(ran.workflow, ran["c"].id, "go", {})
    ran = engine.go_on(ran.workflow)

    assert ran.runs("first") == ["SUCCEEDED"] * 2
