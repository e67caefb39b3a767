"""Which definitions are refused, and whether the message helps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilize.dag.topological import CircularDependencyError
from stabilize.dag.validation import STATUS_NAMES, InvalidStageGraphError, validate_stage_graph
from stabilize.models import MultiInstanceConfig, StageExecution, Workflow
from stabilize.models.triggers import Signal, Timer
from stabilize.status import JoinType, SplitType, SyntheticStageOwner, WorkflowStatus


@dataclass(eq=False, kw_only=True)
class Stage:
    """A stage with the fields that are checked, as `StageExecution` has them."""

    ref_id: str
    name: str = ""
    requisite_stage_ref_ids: set[str] = field(default_factory=set)
    parent_stage_id: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    join_type: JoinType = JoinType.AND
    join_threshold: int = 0
    join_keep: bool = False
    join_rest: str | None = None
    join_scope: str | None = None
    on_branch_failure: str | None = None
    split_type: SplitType = SplitType.AND
    split_conditions: dict[str, str] | None = field(default_factory=dict)
    split_default: str | None = None
    split_count: int | str | None = None
    milestone_ref_id: str | None = None
    milestone_status: str | None = None
    end: str | None = None
    mi_config: object = None


def stage(ref_id: str, *after: str, **fields: Any) -> Stage:
    return Stage(ref_id=ref_id, requisite_stage_ref_ids=set(after), **fields)


def watching(
    ref_id: str, milestone: str, *after: str, status: str = "RUNNING", **more: Any
) -> Stage:
    return stage(ref_id, *after, milestone_ref_id=milestone, milestone_status=status, **more)


def fault_of(*stages: Stage) -> str:
    with pytest.raises(InvalidStageGraphError) as caught:
        validate_stage_graph(stages)
    return str(caught.value)


def assert_fault(message: str, tag: str, *parts: str) -> None:
    assert message.startswith(f"{tag}: ")
    for part in parts:
        assert part in message


# --- what may run ---------------------------------------------------------------------------------


def test_a_workflow_without_stages_is_valid() -> None:
    validate_stage_graph([])


def test_a_definition_that_uses_everything_is_valid() -> None:
    validate_stage_graph(
        [
            stage(
                "triage",
                split_type=SplitType.OR,
                split_conditions={"police": "kind == 'crime'", "ambulance": "severity > 0"},
                split_default="police",
            ),
            stage("police", "triage", context={"stageEnabled": True}),
            stage(
                "ambulance",
                "triage",
                context={"stageEnabled": {"type": "expression", "expression": "severity > 1"}},
            ),
            watching("route", "police", "triage", on_branch_failure="arrive"),
            stage(
                "first", "police", "ambulance", join_type=JoinType.DISCRIMINATOR, join_rest="block"
            ),
            stage(
                "most", "police", "ambulance", "route", join_type=JoinType.N_OF_M, join_threshold=3
            ),
            stage("merged", "police", "ambulance", join_type=JoinType.OR, join_scope="general"),
            stage("threads", "merged", split_type=SplitType.THREADS, split_count="how_many"),
            stage("each", "threads", mi_config=MultiInstanceConfig(complete_when="approved >= 3")),
            stage("last", "each", "first", "most", end="terminate"),
        ]
    )


@pytest.mark.parametrize("threshold", [0, 1, 2])
def test_a_partial_join_may_wait_for_up_to_all_of_its_branches(threshold: int) -> None:
    validate_stage_graph(
        [
            stage("a"),
            stage("b"),
            stage("c", "a", "b", join_type=JoinType.N_OF_M, join_threshold=threshold),
        ]
    )


def test_a_discriminator_may_have_a_single_branch() -> None:
    validate_stage_graph([stage("a"), stage("b", "a", join_type=JoinType.DISCRIMINATOR)])


def test_a_thread_merge_may_wait_for_more_arrivals_than_it_has_edges() -> None:
    validate_stage_graph(
        [stage("a"), stage("b", "a", join_type=JoinType.THREADS, join_threshold=5)]
    )


def test_synthetic_stages_are_not_checked() -> None:
    validate_stage_graph([stage("a"), stage("a", "nowhere", parent_stage_id="1", end="bad")])


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref_id", ["", "  "])
def test_a_stage_without_a_ref_is_refused(ref_id: str) -> None:
    assert_fault(fault_of(stage("a"), stage(ref_id, name="Load")), "empty_ref", "'Load'")


def test_two_stages_with_one_ref_are_refused_with_both_names() -> None:
    message = fault_of(stage("a", name="Extract"), stage("b"), stage("a", name="Load"))

    assert_fault(message, "duplicate_ref", "'a'", "2 stages", "'Extract', 'Load'")


def test_a_stage_that_is_given_twice_is_refused() -> None:
    twice = stage("a")

    assert_fault(fault_of(twice, twice), "duplicate_ref", "'a'")


def test_a_partial_join_that_wants_more_branches_than_there_are_is_refused() -> None:
    join = stage("c", "a", "b", join_type=JoinType.N_OF_M, join_threshold=3)

    message = fault_of(stage("a"), stage("b"), join)

    assert_fault(message, "unreachable_join", "'c'", "3 branches", "only 2", "join_threshold")


def test_a_stage_that_requires_itself_is_refused() -> None:
    assert_fault(fault_of(stage("a", "a")), "self_edge", "'a'", "jump_to")


def test_an_unknown_requisite_is_refused_with_the_ref_that_was_meant() -> None:
    message = fault_of(stage("extract"), stage("load", "extarct"))

    assert_fault(message, "unknown_ref", "'load'", "'extarct'", "did you mean 'extract'?")


def test_an_unknown_requisite_like_no_other_is_refused_with_what_to_do() -> None:
    message = fault_of(stage("extract"), stage("load", "zzz"))

    assert_fault(message, "unknown_ref", "'zzz'", "add it, or take it out")


def test_a_synthetic_stage_cannot_be_required_from_the_top_level() -> None:
    message = fault_of(stage("a"), stage("of-a", parent_stage_id="1"), stage("b", "of-a"))

    assert_fault(message, "unknown_ref", "'of-a'")


def test_a_circle_of_requisites_is_refused_with_its_stages() -> None:
    stages = [stage("a", "c"), stage("b", "a"), stage("c", "b"), stage("d")]

    with pytest.raises(CircularDependencyError, match="a -> b -> c -> a") as caught:
        validate_stage_graph(stages)

    assert caught.value.stages == stages[:3]


def test_faults_are_found_in_the_order_that_is_documented() -> None:
    faulty: list[tuple[str, list[Stage]]] = [
        ("empty_ref", [stage("")]),
        ("duplicate_ref", [stage("a"), stage("a")]),
        ("unreachable_join", [stage("n", join_type=JoinType.N_OF_M, join_threshold=1)]),
        ("self_edge", [stage("s", "s")]),
        ("unknown_ref", [stage("u", "nowhere")]),
        ("stages require", [stage("x", "y"), stage("y", "x")]),
        ("bad_condition", [stage("c", context={"stageEnabled": "yes"})]),
        ("unknown_branch", [stage("b", split_default="nowhere")]),
        ("unknown_milestone", [watching("m", "nowhere")]),
        ("bad_milestone_status", [stage("t"), watching("w", "t", status="DONE")]),
        ("bad_option", [stage("o", end="stop")]),
        ("unreachable_join", [watching("p", "q"), watching("q", "p")]),
    ]
    while faulty:
        stages = [each for _, group in reversed(faulty) for each in group]
        with pytest.raises((InvalidStageGraphError, CircularDependencyError)) as caught:
            validate_stage_graph(stages)
        assert str(caught.value).startswith(faulty.pop(0)[0])


# --- conditions and branches ----------------------------------------------------------------------


def test_a_split_condition_that_does_not_parse_is_refused_with_its_text_and_cause() -> None:
    message = fault_of(stage("a", split_conditions={"b": "kind = 'x'"}), stage("b", "a"))

    assert_fault(message, "bad_condition", "'a'", "'b'", "kind = 'x'", "write ==")


@pytest.mark.parametrize("condition", ["", "len(items) > 1", "a.__class__", None, True, 1])
def test_a_split_condition_outside_the_language_is_refused(condition: Any) -> None:
    message = fault_of(stage("a", split_conditions={"b": condition}), stage("b", "a"))

    assert_fault(message, "bad_condition", "'a'", "split condition for 'b'")


@pytest.mark.parametrize(
    "enabled",
    [
        "true",
        "severity > 1",
        1,
        0,
        [],
        {},
        {"expression": "a"},
        {"type": "expression"},
        {"type": "script", "expression": "a"},
        {"type": "expression", "expression": "a ("},
        {"type": "expression", "expression": True},
    ],
)
def test_a_stage_enabled_that_is_no_condition_is_refused(enabled: object) -> None:
    message = fault_of(stage("a", context={"stageEnabled": enabled}))

    assert_fault(message, "bad_condition", "'a'", "stageEnabled", "write ")


@pytest.mark.parametrize("enabled", [None, True, False])
def test_a_stage_enabled_may_be_a_bool_or_absent(enabled: object) -> None:
    validate_stage_graph([stage("a", context={"stageEnabled": enabled})])


def test_a_completion_condition_that_does_not_parse_is_refused() -> None:
    message = fault_of(stage("a", mi_config=MultiInstanceConfig(complete_when="approved => 3")))

    assert_fault(message, "bad_condition", "'a'", "complete_when", "approved => 3")


def test_a_completion_condition_may_be_absent() -> None:
    validate_stage_graph([stage("a", mi_config=MultiInstanceConfig(complete_when=""))])


@pytest.mark.parametrize("option", ["count", "join_threshold"])
@pytest.mark.parametrize("wrong", [-1, "3", True, None])
def test_a_group_counts_from_zero_up(option: str, wrong: Any) -> None:
    message = fault_of(stage("a", mi_config=MultiInstanceConfig(**{option: wrong})))

    assert_fault(message, "bad_option", "'a'", f"{option}={wrong!r}", "from 0 up")


def test_a_group_that_needs_more_instances_than_it_has_is_refused() -> None:
    message = fault_of(stage("a", mi_config=MultiInstanceConfig(count=2, join_threshold=3)))

    assert_fault(message, "unreachable_join", "'a'", "3", "only 2", "lower join_threshold")


@pytest.mark.parametrize(
    "grows",
    [{"allow_dynamic": True}, {"count_from_context": "n"}, {"collection_from_context": "items"}],
)
def test_a_group_that_may_grow_may_need_more_than_it_begins_with(grows: dict[str, Any]) -> None:
    config = MultiInstanceConfig(count=2, join_threshold=3, **grows)

    validate_stage_graph([stage("a", mi_config=config)])


def test_a_condition_for_an_unknown_branch_is_refused_with_the_branch_that_was_meant() -> None:
    message = fault_of(
        stage("triage", split_conditions={"polise": "true"}),
        stage("police", "triage"),
        stage("ambulance", "triage"),
    )

    assert_fault(message, "unknown_branch", "'triage'", "'polise'", "did you mean 'police'?")


def test_a_condition_for_a_stage_that_is_not_directly_downstream_is_refused_with_the_fix() -> None:
    message = fault_of(stage("a", split_conditions={"c": "true"}), stage("b", "a"), stage("c", "b"))

    assert_fault(message, "unknown_branch", "'a'", "a condition for 'c'", "requisites of 'c'")


def test_a_default_that_is_not_downstream_is_refused() -> None:
    message = fault_of(stage("a", split_default="x"), stage("b", "a"), stage("c", "a"))

    assert_fault(message, "unknown_branch", "'a'", "its split_default", "after it come b, c")


def test_a_stage_without_split_conditions_may_have_none() -> None:
    validate_stage_graph([stage("a", split_conditions=None)])


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "allowed", "wrong"),
    [
        ("on_branch_failure", ["fail", "dead", "arrive"], "arive"),
        ("join_rest", ["block", "cancel"], "cancle"),
        ("join_scope", ["general"], "General"),
        ("end", ["terminate"], "terminated"),
    ],
)
def test_an_option_has_one_of_its_values(option: str, allowed: list[str], wrong: str) -> None:
    fits = {"join_type": JoinType.DISCRIMINATOR} if option == "join_rest" else {}
    for value in [*allowed, None]:
        validate_stage_graph([stage("a", **{option: value}, **fits)])

    message = fault_of(stage("a", **{option: wrong}))

    assert_fault(message, "bad_option", "'a'", f"{option}={wrong!r}", "did you mean")


@pytest.mark.parametrize("wrong", ["", "zzz", True, 1, []])
def test_an_option_like_no_other_is_refused_with_what_can_be_written(wrong: object) -> None:
    assert_fault(fault_of(stage("a", join_rest=wrong)), "bad_option", "'block', 'cancel' or None")


@pytest.mark.parametrize(
    ("option", "value", "join"),
    [
        ("join_rest", "block", JoinType.AND),
        ("join_rest", "cancel", JoinType.THREADS),
        ("join_scope", "general", JoinType.DISCRIMINATOR),
        ("join_keep", True, JoinType.XOR),
    ],
)
def test_an_option_is_refused_at_a_join_that_it_does_not_change(
    option: str, value: object, join: JoinType
) -> None:
    message = fault_of(stage("a", **{option: value}, join_type=join))

    assert_fault(message, "bad_option", "'a'", option, f"JoinType.{join.name}", "drop it")


def test_a_join_that_waits_for_all_has_no_rest() -> None:
    message = fault_of(stage("a", join_type=JoinType.N_OF_M, join_rest="block"))

    assert_fault(message, "bad_option", "'a'", "join_threshold=0", "set join_threshold")


@pytest.mark.parametrize("count", [0, 3, "how_many"])
def test_a_thread_split_counts_by_a_number_or_a_key(count: int | str) -> None:
    validate_stage_graph([stage("a", split_type=SplitType.THREADS, split_count=count)])


@pytest.mark.parametrize("count", [-1, True, "", 1.5])
def test_a_thread_split_by_no_number_and_no_key_is_refused(count: Any) -> None:
    message = fault_of(stage("a", split_type=SplitType.THREADS, split_count=count))

    assert_fault(message, "bad_option", "'a'", f"split_count={count!r}")


def test_a_thread_split_without_a_count_is_refused() -> None:
    message = fault_of(stage("a", split_type=SplitType.THREADS))

    assert_fault(message, "bad_option", "'a'", "split_count")


# --- milestones -----------------------------------------------------------------------------------


def test_every_status_of_a_stage_can_be_a_milestone() -> None:
    assert set(STATUS_NAMES) == {status.name for status in WorkflowStatus}
    for status in STATUS_NAMES:
        validate_stage_graph([stage("a"), watching("b", "a", status=status)])


def test_an_unknown_milestone_is_refused_with_the_ref_that_was_meant() -> None:
    message = fault_of(stage("issue_ticket"), watching("change_route", "issue_tickets"))

    assert_fault(message, "unknown_milestone", "'change_route'", "did you mean 'issue_ticket'?")


def test_a_milestone_status_without_a_milestone_is_refused() -> None:
    message = fault_of(stage("a", milestone_status="RUNNING"))

    assert_fault(message, "unknown_milestone", "'a'", "milestone_ref_id")


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        ("running", "did you mean 'RUNNING'?"),
        ("SUCCEDED", "did you mean 'SUCCEEDED'?"),
        ("zzz", "write NOT_STARTED, RUNNING"),
        (None, "write NOT_STARTED, RUNNING"),
    ],
)
def test_an_unknown_milestone_status_is_refused(status: Any, fix: str) -> None:
    message = fault_of(stage("a"), watching("b", "a", status=status))

    assert_fault(message, "bad_milestone_status", "'b'", "'a'", repr(status), fix)


def test_a_stage_cannot_wait_for_a_milestone_that_comes_after_it() -> None:
    message = fault_of(watching("a", "c"), stage("b", "a"), stage("c", "b"))

    assert_fault(message, "unreachable_join", "'a' and its milestone 'c'")
    assert "'a' waits for 'c'; 'c' waits for 'b'; 'b' waits for 'a'" in message


def test_a_stage_cannot_be_its_own_milestone() -> None:
    assert_fault(fault_of(watching("a", "a")), "unreachable_join", "'a' waits for 'a'")


def test_two_stages_cannot_be_each_others_milestone() -> None:
    message = fault_of(watching("a", "b"), watching("b", "a"), stage("c"))

    assert_fault(message, "unreachable_join", "'a' waits for 'b'; 'b' waits for 'a'")


def test_two_branches_cannot_wait_for_each_others_ends() -> None:
    message = fault_of(
        watching("a1", "b2"), stage("a2", "a1"), watching("b1", "a2"), stage("b2", "b1")
    )

    assert_fault(message, "unreachable_join", "'a1' and its milestone 'b2'")


@pytest.mark.parametrize("status", ["NOT_STARTED", "SKIPPED"])
def test_a_later_stage_can_be_a_milestone_as_long_as_it_need_not_start_for_it(status: str) -> None:
    validate_stage_graph([watching("a", "b", status=status), stage("b", "a")])


@pytest.mark.parametrize(
    "join",
    [
        {"join_type": JoinType.XOR},
        {"join_type": JoinType.MULTI_MERGE},
        {"join_type": JoinType.DISCRIMINATOR},
        {"join_type": JoinType.N_OF_M, "join_threshold": 1},
    ],
)
def test_a_later_stage_can_be_a_milestone_when_another_branch_can_start_it(
    join: dict[str, Any],
) -> None:
    validate_stage_graph([watching("a", "c"), stage("b"), stage("c", "a", "b", **join)])


@pytest.mark.parametrize(
    "join",
    [
        {"join_type": JoinType.AND},
        {"join_type": JoinType.OR},
        {"join_type": JoinType.N_OF_M, "join_threshold": 2},
        {"join_type": JoinType.N_OF_M, "join_threshold": 0},
    ],
)
def test_a_later_stage_cannot_be_a_milestone_when_its_join_needs_every_branch(
    join: dict[str, Any],
) -> None:
    message = fault_of(watching("a", "c"), stage("b"), stage("c", "a", "b", **join))

    assert_fault(message, "unreachable_join", "'a' and its milestone 'c'")


def test_milestones_on_parallel_and_on_earlier_stages_are_valid() -> None:
    validate_stage_graph(
        [stage("a"), stage("b", "a"), watching("c", "b", "a"), watching("d", "a", "b")]
    )


# --- size, and everything at once -----------------------------------------------------------------


def test_ten_thousand_stages_are_checked_without_recursion() -> None:
    first = stage("s0", split_conditions={"s1": "n > 0"})
    chain = [watching(f"s{i}", "s0", f"s{i - 1}") for i in range(1, 10_000)]

    validate_stage_graph([*chain[::-1], first])


def test_a_fault_among_ten_thousand_stages_has_a_short_message() -> None:
    chain = [stage(f"s{i}", f"s{i - 1}") for i in range(1, 10_000)]

    message = fault_of(watching("s0", "s9999"), *chain)

    assert_fault(message, "unreachable_join", "'s0' and its milestone 's9999'")
    assert len(message) < 1000


KINDS = {
    *("", "empty_ref", "duplicate_ref", "unreachable_join", "self_edge", "unknown_ref"),
    *("stages require one another in a circle", "bad_condition", "unknown_branch"),
    *("unknown_milestone", "bad_milestone_status", "bad_option"),
}
REFS = st.sampled_from(["a", "b", "c", "d", "", "x"])


@given(
    st.lists(
        st.builds(
            Stage,
            ref_id=st.sampled_from("abcdefgh"),
            requisite_stage_ref_ids=st.sets(REFS, max_size=2),
            join_type=st.sampled_from(JoinType),
            join_threshold=st.integers(0, 2),
            split_type=st.sampled_from(SplitType),
            split_conditions=st.dictionaries(REFS, st.sampled_from(["true", "a +"]), max_size=1),
            split_count=st.none() | st.integers(-1, 1) | st.just("n"),
            milestone_ref_id=st.none() | REFS,
            milestone_status=st.sampled_from([None, "RUNNING", "SKIPPED", "DONE"]),
        ),
        max_size=6,
    )
)
def test_any_definition_is_valid_or_refused_with_its_kind_of_fault(stages: list[Stage]) -> None:
    fault = ": valid"
    try:
        validate_stage_graph(stages)
    except (CircularDependencyError, InvalidStageGraphError) as error:
        fault = str(error)
    assert fault.split(":")[0] in KINDS


@given(st.data())
def test_a_milestone_is_refused_just_when_the_stages_cannot_all_start(data: st.DataObject) -> None:
    """The oracle starts one stage after another by the rules of the joins, in any order."""
    size = data.draw(st.integers(1, 7))
    stages = []
    for number in range(size):
        after = data.draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        join = data.draw(st.sampled_from([JoinType.AND, JoinType.OR, JoinType.DISCRIMINATOR]))
        milestone = data.draw(st.none() | st.integers(0, size - 1))
        more: dict[str, Any] = {"join_type": join}
        if milestone is not None:
            more |= {"milestone_ref_id": f"s{milestone}", "milestone_status": "SUCCEEDED"}
        stages.append(stage(f"s{number}", *(f"s{other}" for other in after), **more))

    started: set[str] = set()
    while can_start := [each for each in stages if _can_start(each, started)]:
        started.add(can_start[0].ref_id)

    if len(started) == len(stages):
        validate_stage_graph(stages)
    else:
        assert_fault(fault_of(*stages), "unreachable_join", "milestone")


def _can_start(each: Stage, started: set[str]) -> bool:
    needs_all = each.join_type is not JoinType.DISCRIMINATOR
    arrived = each.requisite_stage_ref_ids & started
    joined = arrived == each.requisite_stage_ref_ids if needs_all else bool(arrived)
    return (
        each.ref_id not in started
        and (joined or not each.requisite_stage_ref_ids)
        and (each.milestone_ref_id is None or each.milestone_ref_id in started)
    )


# --- members of enums and types of fields ---------------------------------------------------------


@pytest.mark.parametrize("written", ["N_OF_M", "n_of_m", JoinType.N_OF_M])
def test_the_name_of_a_join_does_for_the_join(written: Any) -> None:
    made = StageExecution(ref_id="j", join_type=written, split_type="or", join_threshold=1)

    assert (made.join_type, made.split_type) == (JoinType.N_OF_M, SplitType.OR)
    assert made.definition == {"join_type": "N_OF_M", "split_type": "OR", "join_threshold": 1}


def test_the_name_of_the_default_is_the_default() -> None:
    assert StageExecution(ref_id="a", join_type="and", split_type="AND").definition == {}


@pytest.mark.parametrize("written", ["running", "RUNNING", WorkflowStatus.RUNNING])
def test_a_milestone_is_a_status_or_its_name(written: Any) -> None:
    made = StageExecution(ref_id="a", milestone_ref_id="m", milestone_status=written)

    assert made.milestone_status == "RUNNING"


def test_the_name_of_an_owner_does_for_the_owner() -> None:
    made = StageExecution(ref_id="a", synthetic_stage_owner="stage_before")  # type: ignore[arg-type]

    assert made.synthetic_stage_owner is SyntheticStageOwner.STAGE_BEFORE


@pytest.mark.parametrize(
    ("option", "wrong", "told"),
    [
        ("join_type", "ANDD", "did you mean 'AND'?"),
        ("join_type", "discriminate", "did you mean 'DISCRIMINATOR'?"),
        (
            "join_type",
            "zzz",
            "(AND, OR, XOR, MULTI_MERGE, DISCRIMINATOR, N_OF_M, THREADS): write one",
        ),
        ("join_type", 3, "write one of these"),
        ("join_type", SplitType.THREADS, "did you mean 'THREADS'?"),
        ("split_type", "thread", "did you mean 'THREADS'?"),
        ("split_type", "all of them", "(AND, OR, XOR, THREADS)"),
        ("synthetic_stage_owner", "before", "did you mean 'STAGE_BEFORE'?"),
    ],
)
def test_what_is_no_member_is_refused_with_the_stage_and_the_names(
    option: str, wrong: Any, told: str
) -> None:
    made = StageExecution(ref_id="x", **{option: wrong})

    with pytest.raises(InvalidStageGraphError) as caught:
        Workflow.create("tests", "w", [StageExecution(ref_id="a"), made])

    assert_fault(str(caught.value), "bad_option", "'x'", f"{option}={wrong!r}", told)


@pytest.mark.parametrize(
    ("option", "wrong", "told"),
    [
        ("trigger", "paid", "write Signal('name') or Timer('30m')"),
        ("trigger", {"signal": "paid"}, "write Signal('name') or Timer('30m')"),
        ("mi_config", {"count": 3}, "write MultiInstanceConfig(count=...)"),
        ("mi_config", 3, "write MultiInstanceConfig(count=...)"),
        ("join_threshold", "2", "write a number"),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_with_its_stage(
    option: str, wrong: Any, told: str
) -> None:
    with pytest.raises(TypeError) as caught:
        StageExecution(ref_id="x", **{option: wrong})

    assert f"stage 'x': {option}={wrong!r}: {told}" in str(caught.value)


def test_requisites_are_a_set_and_not_the_letters_of_a_name() -> None:
    with pytest.raises(TypeError) as caught:
        StageExecution(ref_id="b", requisite_stage_ref_ids="fetch")  # type: ignore[arg-type]

    told = "stage 'b': requisite_stage_ref_ids='fetch' is text, write a set: {'fetch'}"
    assert str(caught.value) == told


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_signal_has_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match="Signal"):
        Signal(name)


@pytest.mark.parametrize("after", [None, "soon", ["1m"]])
def test_a_timer_that_is_no_duration_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        Timer(after)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("count_from_context", 3),
        ("collection_from_context", [1, 2]),
        ("item_context_key", 1),
        ("complete_when", 1),
        ("sync_on_complete", "no"),
        ("allow_dynamic", 1),
        ("cancel_remaining", None),
    ],
)
def test_a_field_of_a_group_of_a_wrong_type_is_refused(option: str, wrong: Any) -> None:
    group = stage("a", mi_config=MultiInstanceConfig(**{option: wrong}))

    message = fault_of(group)

    assert "'a'" in message
    assert option in message
