"""Workflows and stages as objects, without a database."""

from __future__ import annotations

import pytest

from stabilize import (
    JoinType,
    StageExecution,
    SyntheticStageOwner,
    TaskExecution,
    Workflow,
    WorkflowStatus,
)
from stabilize.models import MultiInstanceConfig, PausedDetails, Trigger
from stabilize.status import InvalidStateTransitionError, can_transition, validate_transition
from tests.support.builders import sequence, stage, workflow

S = WorkflowStatus


def test_a_status_prints_its_bare_name() -> None:
    assert (str(S.SUCCEEDED), f"{S.SUCCEEDED}", repr(S.SUCCEEDED)) == (
        "SUCCEEDED",
        "SUCCEEDED",
        "WorkflowStatus.SUCCEEDED",
    )
    assert WorkflowStatus["RUNNING"] is S.RUNNING


@pytest.mark.parametrize(
    ("predicate", "names"),
    [
        ("is_complete", "SUCCEEDED FAILED_CONTINUE TERMINAL CANCELED STOPPED SKIPPED"),
        ("is_halt", "TERMINAL CANCELED STOPPED"),
        ("is_successful", "SUCCEEDED SKIPPED"),
        ("is_failure", "FAILED_CONTINUE TERMINAL STOPPED"),
        ("is_skipped", "SKIPPED"),
        ("is_dirty", "RUNNING REDIRECT"),
    ],
)
def test_predicates_of_statuses(predicate: str, names: str) -> None:
    assert {s.name for s in WorkflowStatus if getattr(s, predicate)} == set(names.split())


def test_a_transition_that_is_not_allowed_is_refused_with_those_that_are() -> None:
    assert can_transition(S.RUNNING, S.SUSPENDED)
    assert can_transition(S.TERMINAL, S.TERMINAL)
    with pytest.raises(
        InvalidStateTransitionError, match="from SUSPENDED: CANCELED, RUNNING, STOP"
    ):
        validate_transition(S.SUSPENDED, S.SUCCEEDED, "stage", "s")
    made = workflow(stage("a"))
    with pytest.raises(InvalidStateTransitionError):
        made.update_status(S.SUCCEEDED)
    made.update_status(S.RUNNING)
    assert made.status is S.RUNNING


def test_no_complete_status_leads_anywhere() -> None:
    for status in WorkflowStatus:
        onward = [other for other in WorkflowStatus if can_transition(status, other)]
        assert (onward == [status]) is status.is_complete


def test_stages_know_their_neighbours_before_they_are_stored() -> None:
    made = workflow(*sequence("a", "b", "c"), stage("d", after=["a", "c"]))
    a, b, c, d = made.stages

    assert (a.is_initial(), d.is_initial(), d.is_join(), c.is_join()) == (True, False, True, False)
    assert b.upstream_stages() == [a]
    assert a.downstream_stages() == [b, d]
    assert {s.ref_id for s in d.ancestors()} == {"a", "b", "c"}
    assert made.initial_stages() == [a]
    assert made.stage_by_ref_id("b") is b
    assert made.stage_by_ref_id("x") is None
    assert made.stage_by_id(b.id) is b
    with pytest.raises(ValueError, match="not found"):
        made.stage_by_id("x")


def test_a_detached_stage_says_so() -> None:
    alone = StageExecution(ref_id="a")

    assert not alone.has_execution()
    with pytest.raises(ValueError, match="belongs to no workflow"):
        _ = alone.execution
    with pytest.raises(ValueError, match="not synthetic"):
        alone.parent()


def test_a_halted_upstream_is_found_through_stages_that_never_started() -> None:
    made = workflow(*sequence("a", "b", "c"))
    a, b, c = made.stages
    assert not c.any_upstream_stages_failed()
    a.status = S.TERMINAL

    assert c.any_upstream_stages_failed()
    assert not c.all_upstream_stages_complete()
    b.status = S.FAILED_CONTINUE
    assert c.all_upstream_stages_complete()


def test_synthetic_stages_belong_to_their_parent() -> None:
    parent = stage("p")
    before = StageExecution.create_synthetic("t", "b", parent, SyntheticStageOwner.STAGE_BEFORE)
    after = StageExecution.create_synthetic(
        "t",
        "a",
        parent,
        SyntheticStageOwner.STAGE_AFTER,
        {"c": 1},
        tasks=[TaskExecution.create("x", "ok")],
    )
    made = Workflow.create("app", "w", [parent, before, after])

    assert made.top_level_stages() == [parent]
    assert parent.synthetic_stages() == [before, after]
    assert (parent.before_stages(), parent.after_stages()) == ([before], [after])
    assert (before.parent(), before.is_synthetic(), len(before.ref_id)) == (parent, True, 26)
    assert (after.context, after.tasks[0].name) == ({"c": 1}, "x")


def test_tasks_of_a_stage_follow_each_other() -> None:
    tasks = [
        TaskExecution.create("one", "ok", True),
        TaskExecution.create("two", "ok", False, True),
    ]
    made = StageExecution(ref_id="a", tasks=tasks)

    assert made.first_task() is tasks[0]
    assert made.next_task(tasks[0]) is tasks[1]
    assert made.next_task(tasks[1]) is None
    assert made.has_tasks()
    assert StageExecution(ref_id="b").first_task() is None


@pytest.mark.parametrize(
    ("context", "status"),
    [
        ({}, S.TERMINAL),
        ({"continuePipelineOnFailure": True}, S.FAILED_CONTINUE),
        ({"failPipeline": False}, S.STOPPED),
        ({"failPipeline": False, "continuePipelineOnFailure": True}, S.FAILED_CONTINUE),
    ],
)
def test_a_failure_amounts_to_what_the_flags_say(
    context: dict[str, bool], status: WorkflowStatus
) -> None:
    assert StageExecution(ref_id="a", context=dict(context)).failure_status() is status
    assert StageExecution(ref_id="a").failure_status(S.CANCELED) is S.CANCELED


def test_a_snapshot_of_a_stage_does_not_move_with_it() -> None:
    made = StageExecution(ref_id="a", context={"b": 1, "a": 2})
    taken = made.state_snapshot()
    made.context = {}
    made.status = S.RUNNING

    assert (taken.status, taken.version, taken.context_dict()) == (
        "NOT_STARTED",
        0,
        {"a": 2, "b": 1},
    )
    assert made.phase_version == ("RUNNING", 0)


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        StageExecution(ref_id="a", join_type=JoinType.N_OF_M, join_threshold=-1)


def test_outputs_are_merged_in_topological_order() -> None:
    made = workflow(*reversed(sequence("a", "b")))
    made.stages[1].outputs = {"v": 1, "l": [1, 2]}
    made.stages[0].outputs = {"v": 2, "l": [2, 3]}

    assert made.get_context() == {"v": 2, "l": [1, 2, 3]}


def test_pausing_counts_the_time_it_took() -> None:
    made = workflow(stage("a"))
    assert made.paused_duration_relative_to(10) == 0
    made.pause("alice")
    assert made.paused is not None
    assert (made.paused.is_paused, made.status) == (True, S.PAUSED)
    began = made.paused.pause_time
    assert began is not None
    assert made.paused_duration_relative_to(began + 500) == 500

    made.resume()

    assert not made.paused.is_paused
    assert made.status is S.RUNNING


@pytest.mark.parametrize(
    "value",
    [
        Trigger(user="a", parameters={"p": [1]}),
        PausedDetails(paused_by="a", pause_time=3),
        MultiInstanceConfig(count=3, allow_dynamic=True),
    ],
)
def test_small_values_go_to_plain_data_and_back(value: Trigger) -> None:
    assert type(value).from_dict({**value.to_dict(), "of a later version": 1}) == value


def test_small_values_take_their_fields_in_the_documented_order() -> None:
    assert Trigger("webhook", "ada", {"p": 1}) == Trigger(
        type="webhook", user="ada", parameters={"p": 1}
    )
    assert MultiInstanceConfig(3, "", False, True, "items", 2, True) == MultiInstanceConfig(
        count=3,
        sync_on_complete=False,
        allow_dynamic=True,
        collection_from_context="items",
        join_threshold=2,
        cancel_remaining=True,
    )


def test_the_factory_of_a_stage_takes_its_tasks() -> None:
    made = StageExecution.create("t", "n", "r", {"c": 1}, {"up"}, [TaskExecution.create("x", "ok")])

    assert (made.type, made.name, made.ref_id, made.context) == ("t", "n", "r", {"c": 1})
    assert (made.requisite_stage_ref_ids, len(made.tasks)) == ({"up"}, 1)


def test_stages_are_added_to_and_removed_from_a_definition() -> None:
    made = workflow(stage("a"))
    made.add_stage(extra := stage("b"))
    assert extra.execution is made
    made.remove_stage(made.stages[0].id)
    assert [s.ref_id for s in made.stages] == ["b"]
