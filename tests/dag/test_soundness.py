"""What the check of a definition says, how far it looks, and what it takes."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import Fault, Finding, JoinType, Signal, SplitType, StageExecution, Workflow
from stabilize.dag.topological import CircularDependencyError
from stabilize.dag.validation import InvalidStageGraphError
from stabilize.status import SyntheticStageOwner
from tests.support.builders import sequence, stage, workflow

XOR = {"join_type": JoinType.XOR}
FIRST = {"join_type": JoinType.DISCRIMINATOR}
TWO = {"join_type": JoinType.N_OF_M, "join_threshold": 2}


def choice(ref_id: str, *branches: str, after: str = "", **fields: Any) -> StageExecution:
    """A stage that takes the first of its branches whose condition holds, else the last one."""
    conditions = {branch: f"to_{branch}" for branch in branches[:-1]}
    return stage(
        ref_id,
        after=after or (),
        split_type=SplitType.XOR,
        split_conditions=conditions,
        split_default=branches[-1],
        **fields,
    )


def diamond(name: str, after: str = "") -> list[StageExecution]:
    """A choice of two, and the merge of them."""
    one, other = f"{name}_one", f"{name}_other"
    return [
        choice(name, one, other, after=after),
        stage(one, after=name),
        stage(other, after=name),
        stage(f"{name}_end", after=[one, other], **XOR),
    ]


def found(*stages: StageExecution, **options: Any) -> set[tuple[str, str | None]]:
    return {(f.kind.name, f.stage) for f in workflow(*stages).check(**options)}


# --- what it says -----------------------------------------------------------------------------


def test_nothing_is_found_in_a_workflow_that_can_only_end() -> None:
    assert workflow(*sequence("a", "b"), stage("c", after="b")).check() == ()


def test_a_workflow_without_stages_has_nothing_wrong() -> None:
    assert Workflow.create("tests", "empty", []).check() == ()


def test_a_finding_reads_as_a_sentence() -> None:
    merge = stage("merge", after=["a", "b"], **XOR)
    (finding,) = workflow(stage("a"), stage("b"), merge).check()

    assert finding == Finding(
        kind=Fault.MERGED_TWICE,
        stage="merge",
        path=("a", "b"),
        cause="is an XOR join that both 'a' and 'b' reach",
        remedy="join with JoinType.AND or OR, or choose one of them with an XOR split",
    )
    assert str(finding) == (
        "MERGED_TWICE: stage 'merge' is an XOR join that both 'a' and 'b' reach, after a -> b; "
        "join with JoinType.AND or OR, or choose one of them with an XOR split"
    )


def test_what_is_fatal_comes_first() -> None:
    findings = workflow(
        choice("s", "a", "b"),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("loose", after=["a", "b"]),
        stage("two", after=["a", "b"], **TWO),
    ).check()

    assert [(f.kind, f.stage, f.is_fatal) for f in findings] == [
        (Fault.TOO_FEW_BRANCHES, "two", True),
        (Fault.LOOSE_JOIN, "loose", False),
    ]


def test_stages_that_have_nothing_to_do_with_it_are_not_in_the_path() -> None:
    findings = workflow(
        *sequence("x", "y"), stage("a"), stage("b"), stage("merge", after=["a", "b"], **XOR)
    ).check()

    assert findings[0].path == ("a", "b")


def test_a_graph_that_was_never_checked_is_refused() -> None:
    circle = [stage("a", after="b"), stage("b", after="a")]
    with pytest.raises(CircularDependencyError):
        Workflow.create_orchestration("tests", "unchecked", circle).check()
    with pytest.raises(InvalidStageGraphError, match="unknown_ref"):
        Workflow.create_orchestration("tests", "unchecked", [stage("a", after="b")]).check()


def test_synthetic_stages_are_no_part_of_it() -> None:
    parent = stage("a")
    made = workflow(parent)
    made.add_stage(
        StageExecution.create_synthetic("t", "n", parent, SyntheticStageOwner.STAGE_BEFORE)
    )
    assert made.check() == ()


# --- conditions and failures ------------------------------------------------------------------


def test_a_condition_that_reads_no_names_is_no_choice() -> None:
    split = stage("s", split_type=SplitType.XOR, split_conditions={"a": "x", "b": "True", "c": "x"})
    branches = [stage(ref_id, after="s") for ref_id in "abc"]

    assert found(split, *branches) == {("DEAD_STAGE", "c")}


def test_what_follows_a_stage_that_never_runs_is_not_told_again() -> None:
    split = stage("s", split_type=SplitType.OR, split_conditions={"a": "1 > 2", "b": "True"})

    assert found(
        split, stage("a", after="s"), stage("behind", after="a"), stage("b", after="s")
    ) == {("DEAD_STAGE", "a")}


def test_a_stage_that_may_fail_is_played_both_ways() -> None:
    stages = [stage("a"), stage("b"), stage("c"), stage("two", after=["a", "b", "c"], **TWO)]

    assert found(*stages) == set()
    assert found(*stages, may_fail=["a"]) == set()
    assert found(*stages, may_fail=["a", "b"]) == {("TOO_FEW_BRANCHES", "two")}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {("NO_BRANCH", "a")}),
        ({"failPipeline": False}, set()),
        ({"continuePipelineOnFailure": True}, {("LOOSE_JOIN", "join")}),
    ],
)
def test_a_split_may_fail_as_its_stage_may(flags: Any, expected: Any) -> None:
    only_b = {"split_type": SplitType.XOR, "split_conditions": {"b": "to_b"}}
    stages = [
        stage("a", context=flags, **only_b),
        stage("b", after="a"),
        stage("beside"),
        stage("join", after=["b", "beside"]),
    ]

    assert found(*stages) == expected


def test_a_discriminator_all_of_whose_branches_may_fail_may_have_too_few() -> None:
    stages = [stage("a"), stage("b"), stage("first", after=["a", "b"], **FIRST)]

    assert found(*stages, may_fail=["a"]) == set()
    assert found(*stages, may_fail=["a", "b"]) == {("TOO_FEW_BRANCHES", "first")}


def test_a_failure_that_ends_the_workflow_is_no_deadlock() -> None:
    stages = [stage("a"), stage("b"), stage("join", after=["a", "b"]), stage("end", after="join")]

    assert found(*stages, may_fail=["a", "b", "join"]) == set()


def test_a_branch_that_may_stop_keeps_its_join_from_starting_and_nothing_waits() -> None:
    stops = stage("a", context={"failPipeline": False})
    stages = [stops, stage("b"), stage("join", after=["a", "b"]), stage("end", after="join")]

    assert found(*stages, may_fail=["a"]) == set()


# --- what a stage waits for -------------------------------------------------------------------


def test_a_milestone_that_comes_is_waited_for() -> None:
    waits = stage("x", milestone_ref_id="b", milestone_status="SUCCEEDED")
    assert found(*sequence("a", "b"), waits) == set()


def test_a_milestone_of_a_branch_not_taken_lets_pass() -> None:
    waits = stage("x", milestone_ref_id="s_one", milestone_status="SUCCEEDED")
    assert found(*diamond("s"), waits) == set()


def test_a_stage_whose_milestone_is_always_past_never_runs() -> None:
    late = stage("x", after="a", milestone_ref_id="a", milestone_status="RUNNING")
    findings = workflow(stage("a"), late).check()

    assert [(f.kind, f.stage, f.path) for f in findings] == [(Fault.DEAD_STAGE, "x", ("a",))]


def test_a_stage_that_needs_what_its_milestone_holds_never_runs() -> None:
    holds = stage("b", mutex_key="k")
    needs = stage("x", mutex_key="k", milestone_ref_id="b", milestone_status="RUNNING")

    assert found(holds, needs) == {("DEAD_STAGE", "x")}


def test_a_failure_that_is_watched_for_is_one_that_may_come() -> None:
    repairs = stage("x", milestone_ref_id="b", milestone_status="FAILED_CONTINUE")
    assert found(stage("b", context={"continuePipelineOnFailure": True}), repairs) == set()


def test_a_section_held_while_its_milestone_waits_for_it_is_a_deadlock() -> None:
    findings = workflow(
        stage("s"),
        stage("a", after="s", section="m"),
        stage("b", after="a", section="m", milestone_ref_id="c", milestone_status="SUCCEEDED"),
        stage("c", after="s", section="m"),
    ).check()

    assert [(f.kind, f.stage, f.path) for f in findings] == [(Fault.DEADLOCK, "b", ("s", "a"))]
    assert "'b' waits for the milestone 'c'; 'c' waits for the section 'm'" in findings[0].cause


def test_a_wait_that_ends_at_some_time_is_no_deadlock() -> None:
    stages = [
        stage("s"),
        stage("a", after="s", section="m"),
        stage(
            "b",
            after="a",
            section="m",
            milestone_ref_id="c",
            milestone_status="SUCCEEDED",
            start_time_expiry=1,
        ),
        stage("c", after="s", section="m"),
    ]

    assert found(*stages) == set()


def test_a_stage_that_ends_the_workflow_hides_nothing() -> None:
    ends = stage("stop", end="terminate")
    assert found(stage("a"), stage("b"), ends) == set()
    assert found(stage("a"), stage("b"), stage("m", after=["a", "b"], **XOR), ends) == {
        ("MERGED_TWICE", "m")
    }


def test_nothing_begins_after_a_stage_that_ends_the_workflow() -> None:
    ends = stage("stop", end="terminate")
    join = stage("join", after=["a", "stop"], join_scope="general")
    assert found(stage("a"), ends, join) == {("DEAD_STAGE", "join")}


def test_a_stage_that_is_passed_over_does_not_end_the_workflow() -> None:
    ends = stage(
        "stop", after="mark", end="terminate", milestone_ref_id="mark", milestone_status="RUNNING"
    )
    after = stage("m", after=["a", "stop"], **XOR)

    assert found(stage("a"), stage("mark"), ends, after) == {
        ("DEAD_STAGE", "stop"),
        ("MERGED_TWICE", "m"),
    }


def test_a_stage_that_ends_the_workflow_may_be_watched_until_then() -> None:
    ends = stage("stop", end="terminate")
    watches = stage(
        "x", deferred_choice_group="g", milestone_ref_id="stop", milestone_status="RUNNING"
    )
    assert found(ends, watches, stage("y", deferred_choice_group="g")) == set()


@pytest.mark.parametrize("right", ["section", "mutex_key"])
def test_what_a_stage_that_ends_the_workflow_holds_may_have_been_free_before(right: str) -> None:
    ends = stage("stop", end="terminate", **{right: "m"})
    watches = stage("x", milestone_ref_id="stop", milestone_status="SUCCEEDED")
    behind = stage("y", after="a", **{right: "m"})
    assert found(watches, ends, stage("a"), behind) == {("DEAD_STAGE", "x")}


def test_what_a_choice_withdraws_is_withdrawn_before_the_chosen_one_ends() -> None:
    ends = stage("stop", deferred_choice_group="g", end="terminate")
    join = stage("join", after=["a", "b"])
    assert found(ends, stage("a", deferred_choice_group="g"), stage("b"), join) == {
        ("LOOSE_JOIN", "join")
    }


def test_what_has_come_to_a_join_on_a_withdrawn_branch_does_not_start_it() -> None:
    stages = [
        stage("s"),
        stage("here", after="s"),
        stage("slow", after="s"),
        stage("inner", after=["here", "slow"]),
        stage("quick", after="s"),
        stage("first", after=["quick", "inner"], join_rest="cancel", **FIRST),
    ]

    assert found(*stages) == set()


# --- which order counts -----------------------------------------------------------------------


def test_a_failed_merge_may_come_before_or_after_what_it_merged_first() -> None:
    findings = found(
        stage("s"),
        stage("a", after="s"),
        stage("merge", after=["s", "a"], **XOR),
        stage("join", after=["s", "merge"]),
        stage("choice", after="join", split_type=SplitType.OR, split_conditions={"b": "x"}),
        stage("b", after="choice"),
        stage("first", after=["join", "b"], join_type=JoinType.DISCRIMINATOR),
    )
    assert findings == {
        ("MERGED_TWICE", "merge"),
        ("NO_BRANCH", "choice"),
        ("TOO_FEW_BRANCHES", "first"),
    }


def test_threads_may_be_merged_again_before_or_after_the_other_branch() -> None:
    findings = found(
        stage("s", split_type=SplitType.THREADS, split_count=4),
        stage("pair", after="s", join_type=JoinType.THREADS, join_threshold=2),
        choice("c", "a", "b", after="pair"),
        stage("a", after="c"),
        stage("b", after="c"),
        stage("other"),
        stage("join", after=["a", "other"]),
    )
    assert findings == {("LOOSE_JOIN", "join"), ("LEFTOVER", "join")}


def test_a_stage_may_begin_before_the_one_it_watches_is_passed_over() -> None:
    split = stage("s", split_type=SplitType.OR, split_conditions={"a": "1 > 2", "b": "True"})
    early = stage("x", milestone_ref_id="a", milestone_status="NOT_STARTED")
    assert found(split, early, stage("a", after="s"), stage("b", after="s")) == {
        ("DEAD_STAGE", "a")
    }


def test_a_trigger_decides_a_choice_before_its_stage_can_begin() -> None:
    """`pay` needs the section that is held until `drop` has ended, or will never come."""
    offered: dict[str, Any] = {"deferred_choice_group": "g", "trigger": Signal("go")}
    stages = [
        stage("open", section="s"),
        stage("offer", after="open"),
        stage("pay", after="offer", section="s", **offered),
        stage("drop", after="offer", **offered),
        stage("close", after=["open", "drop"], section="s"),
    ]

    assert found(*stages) == {("LOOSE_JOIN", "close")}


def test_a_choice_may_fall_on_a_stage_whose_milestone_is_never_reached() -> None:
    offered: dict[str, Any] = {"deferred_choice_group": "g", "trigger": Signal("go")}
    stages = [
        choice("s", "mark", "other"),
        stage("mark", after="s"),
        stage("other", after="s"),
        stage("a", milestone_ref_id="mark", milestone_status="SUCCEEDED", **offered),
        stage("b", **offered),
        stage("end", after=["b", "a"], join_type=JoinType.N_OF_M, join_threshold=2),
    ]

    assert found(*stages) == {("TOO_FEW_BRANCHES", "end")}


def test_a_choice_may_fall_on_what_another_stage_allows_first() -> None:
    allowed = stage(
        "x", deferred_choice_group="g", milestone_ref_id="a", milestone_status="SUCCEEDED"
    )
    others = stage("y", deferred_choice_group="g"), stage("a", mutex_key="k")
    assert found(allowed, *others) == set()


# --- what it takes ----------------------------------------------------------------------------


def test_a_chain_takes_one_move_for_each_stage() -> None:
    made = workflow(*sequence(*(f"s{n}" for n in range(1_000))))

    assert made.check(max_steps=1_000) == ()


def test_so_does_a_fan_of_a_thousand() -> None:
    refs = [f"b{n}" for n in range(1_000)]
    branches = [stage(ref_id, after="s") for ref_id in refs]

    assert found(stage("s"), *branches, stage("join", after=refs), max_steps=1_002) == set()


@pytest.mark.parametrize("after", ["", "s"])
def test_choices_do_not_multiply(after: str) -> None:
    blocks: list[StageExecution] = [stage("s")]
    for n in range(60):
        blocks += diamond(f"d{n}", after or blocks[-1].ref_id)
    ends = [block.ref_id for block in blocks if block.ref_id.endswith("end")]

    assert found(*blocks, stage("join", after=ends), max_steps=600) == set()


def test_neither_do_the_orders_of_a_mutex_or_of_sections_that_run_through() -> None:
    stages = [stage("s")]
    for n in range(40):
        stages += [
            stage(f"a{n}", after="s", section="m"),
            stage(f"b{n}", after=f"a{n}", section="m"),
            stage(f"c{n}", after="s", mutex_key="k"),
        ]

    assert found(*stages, max_steps=121) == set()


def test_a_check_that_was_not_finished_says_so() -> None:
    made = workflow(*sequence(*(f"s{n}" for n in range(10))), stage("s"))

    (finding,) = made.check(max_steps=9)

    assert (finding.kind, finding.stage, finding.path) == (Fault.UNDECIDED, None, ())
    assert not finding.is_fatal
    assert "max_steps" in str(finding)


def test_a_split_with_too_many_conditions_is_not_said_to_be_sound() -> None:
    refs = [f"b{n}" for n in range(11)]
    split = stage(
        "s",
        split_type=SplitType.OR,
        split_conditions={ref_id: f"to_{ref_id}" for ref_id in refs},
        split_default="b0",
    )
    branches = [stage(ref_id, after="s") for ref_id in refs]

    assert found(split, *branches, stage("m", after=refs, **XOR)) == {
        ("MERGED_TWICE", "m"),
        ("UNDECIDED", None),
    }
