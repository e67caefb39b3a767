"""`MultiInstanceBuilder`: what it makes, and that it runs."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import (
    JoinType,
    MultiInstanceBuilder,
    StageDefinitionBuilder,
    StageExecution,
    TaskExecution,
    TaskResult,
)
from stabilize.dag.validation import InvalidStageGraphError
from stabilize.queue.messages import AddMultiInstance
from tests.support.builders import Engine, Ran, puts, stage, workflow


class Sends(StageDefinitionBuilder):
    """Gives each instance its one task."""

    @property
    def type(self) -> str:
        return "send"

    def build_tasks(self, stage: StageExecution) -> list[TaskExecution]:
        return [TaskExecution.create("Send", "sends", stage_start=True, stage_end=True)]


def sends(stage: StageExecution) -> TaskResult:
    """Wait or fail when told to; else put out whom it was for."""
    context = stage.context
    whom = context.get("item", context.get("whom", context["_mi_instance_index"]))
    if whom == "nobody":
        return TaskResult.terminal("nobody is there")
    if whom == "later" and "_signal_name" not in context:
        return TaskResult.suspend()
    return TaskResult.success(outputs={"sent": whom})


@pytest.fixture
def engine(engine: Engine) -> Engine:
    engine.registry.register("sends", sends)
    engine.builders.register(Sends())
    return engine


def sent(ran: Ran) -> list[Any]:
    """What the instances did, in their order."""
    return [s.outputs["sent"] for s in ran.workflow.stages if "sent" in s.outputs]


def after_join(*made: StageExecution) -> list[StageExecution]:
    return [*made, stage("end", after=made[-1].ref_id)]


# --- a number known now -------------------------------------------------------------------------


def test_a_fixed_number_makes_so_many_stages_and_a_join() -> None:
    made = MultiInstanceBuilder.create_fixed(stage("p"), 2, "send")

    assert [s.ref_id for s in made] == ["p_instance_0", "p_instance_1", "p_mi_join"]
    first, second, join = made
    assert (first.name, second.name, first.type) == ("Instance [0]", "Instance [1]", "send")
    assert first.context == {"_mi_parent_ref_id": "p", "_mi_instance_index": 0}
    assert second.context == {"_mi_parent_ref_id": "p", "_mi_instance_index": 1}
    assert first.requisite_stage_ref_ids == second.requisite_stage_ref_ids == {"p"}
    assert first.tasks == []
    assert (join.type, join.join_type) == ("noop", JoinType.AND)
    assert join.requisite_stage_ref_ids == {"p_instance_0", "p_instance_1"}


def test_without_synchronization_there_is_no_join() -> None:
    made = MultiInstanceBuilder.create_fixed(stage("p"), 2, sync_on_complete=False)

    assert [s.ref_id for s in made] == ["p_instance_0", "p_instance_1"]


def test_instances_may_have_contexts_of_their_own_and_another_name(engine: Engine) -> None:
    parent = stage("p")
    made = MultiInstanceBuilder.create_fixed(
        parent,
        2,
        instance_type="send",
        instance_name_prefix="Letter",
        instance_contexts=[{"whom": "ann"}, {"whom": "bob"}],
    )
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert sent(ran) == ["ann", "bob"]
    assert ran["p_instance_1"].name == "Letter [1]"


def test_the_type_of_the_parent_is_that_of_the_instances_unless_another_is_given() -> None:
    made = MultiInstanceBuilder.create_fixed(StageExecution(ref_id="p", type="send"), 1)

    assert made[0].type == "send"


def test_so_many_as_the_threshold_says_are_enough(engine: Engine) -> None:
    parent = stage("p")
    made = MultiInstanceBuilder.create_fixed(
        parent,
        3,
        "send",
        join_threshold=2,
        instance_contexts=[{"whom": "ann"}, {"whom": "nobody"}, {"whom": "bob"}],
    )
    assert (made[-1].join_type, made[-1].join_threshold) == (JoinType.N_OF_M, 2)
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert ran.statuses["p_instance_1"] == "TERMINAL"


def test_the_rest_is_withdrawn_when_that_is_asked_for(engine: Engine) -> None:
    parent = stage("p")
    made = MultiInstanceBuilder.create_fixed(
        parent,
        2,
        "send",
        join_threshold=1,
        cancel_remaining=True,
        instance_contexts=[{"whom": "later"}, {"whom": "bob"}],
    )
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert ran.statuses["p_instance_0"] in ("CANCELED", "SKIPPED")


def test_none_at_all_go_on_after_the_parent(engine: Engine) -> None:
    parent = stage("p")
    made = MultiInstanceBuilder.create_fixed(parent, 0)
    assert made[0].requisite_stage_ref_ids == {"p"}
    ran = engine.run(parent, *after_join(*made))

    assert ran.statuses == {"p": "SUCCEEDED", "p_mi_join": "SUCCEEDED", "end": "SUCCEEDED"}


@pytest.mark.parametrize(("count", "contexts"), [(-1, None), (2, [{}])])
def test_a_number_that_cannot_be_made_is_refused(count: int, contexts: Any) -> None:
    with pytest.raises(ValueError, match="give one to each"):
        MultiInstanceBuilder.create_fixed(stage("p"), count, instance_contexts=contexts)


def test_more_than_there_are_instances_cannot_be_waited_for() -> None:
    parent = stage("p")
    made = MultiInstanceBuilder.create_fixed(parent, 2, join_threshold=3)

    with pytest.raises(InvalidStageGraphError, match="p_mi_join"):
        workflow(parent, *made)


# --- a number from a context --------------------------------------------------------------------


def test_a_number_in_the_context_of_the_parent_is_known_now() -> None:
    parent = stage("p", context={"n": 2})
    made = MultiInstanceBuilder.create_from_context(parent, "n", "send")

    assert [s.ref_id for s in made] == ["p_instance_0", "p_instance_1", "p_mi_join"]


def test_a_number_that_the_parent_puts_out_is_read_when_it_has(engine: Engine) -> None:
    parent = stage("p", does=puts(n=3))
    made = MultiInstanceBuilder.create_from_context(
        parent, "n", instance_type="send", instance_name_prefix="Copy"
    )
    assert made[-1].ref_id == "p_mi_join"
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert sent(ran) == [0, 1, 2]
    instance = ran["p_instances#1[2]"]
    assert instance.name == "Copy [2]"
    assert instance.context["_mi_parent_ref_id"] == "p"


def test_items_in_the_context_of_the_parent_are_known_now() -> None:
    parent = stage("p", context={"people": ["ann", "bob"]})
    made = MultiInstanceBuilder.create_from_collection(parent, "people", item_context_key="who")

    assert [s.ref_id for s in made] == ["p_instance_0", "p_instance_1", "p_mi_join"]
    assert [s.context["who"] for s in made[:2]] == ["ann", "bob"]


@pytest.mark.parametrize("source", ["definition", "outputs"])
@pytest.mark.parametrize("threshold", [0, 2])
def test_each_item_of_a_collection_has_an_instance(
    engine: Engine, source: str, threshold: int
) -> None:
    people = ["ann", "bob", "cid"]
    known = source == "definition"
    parent = stage("p", does=puts(people=people), context={"people": people} if known else {})
    made = MultiInstanceBuilder.create_from_collection(
        parent, "people", "send", join_threshold=threshold
    )
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert sent(ran) == people


def test_a_failed_instance_of_a_group_fails_the_workflow(engine: Engine) -> None:
    parent = stage("p", does=puts(people=["ann", "nobody"]))
    made = MultiInstanceBuilder.create_from_collection(parent, "people", "send")
    ran = engine.run(parent, *after_join(*made))

    assert (ran.status, ran.statuses["end"]) == ("TERMINAL", "NOT_STARTED")


def test_a_group_nobody_waits_for_has_no_join(engine: Engine) -> None:
    parent = stage("p", does=puts(n=2))
    made = MultiInstanceBuilder.create_from_context(parent, "n", "send", sync_on_complete=False)
    ran = engine.run(parent, *made)

    assert [s.ref_id for s in made] == ["p_instances"]
    assert (ran.status, sent(ran)) == ("SUCCEEDED", [0, 1])


# --- added while running ------------------------------------------------------------------------


def test_instances_added_to_the_parent_run_once_it_is_complete(engine: Engine) -> None:
    parent = stage("p", does="waits")
    engine.registry.register("waits", _waits)
    made = workflow(parent, *after_join(*MultiInstanceBuilder.create_dynamic(parent, "send", "N")))
    engine.submit(made)
    engine.play()
    for whom in ("ann", "bob"):
        engine.queue.push(
            AddMultiInstance(
                execution_id=made.id, stage_id=parent.id, instance_context={"whom": whom}
            )
        )
    engine.play()
    assert sent(engine.look(made)) == []
    engine.orchestrator.signal(made, parent.id, "go")
    ran = engine.go_on(made)

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert sent(ran) == ["ann", "bob"]


def test_the_join_waits_for_instances_added_while_others_run(engine: Engine) -> None:
    parent = stage("p")
    made = workflow(
        parent,
        *after_join(*MultiInstanceBuilder.create_dynamic(parent, "send", "N", initial_count=1)),
    )
    engine.submit(made)
    add = AddMultiInstance(
        execution_id=made.id, stage_id=parent.id, instance_context={"whom": "later"}
    )
    engine.queue.push(add)
    engine.play()
    for _ in range(2):
        engine.queue.push(add)
    engine.play()
    found = engine.look(made)
    waiting = [s for s in found.workflow.stages if s.status.name == "SUSPENDED"]
    assert len(waiting) == 3
    assert found.statuses["end"] == "NOT_STARTED"
    for one in waiting:
        engine.orchestrator.signal(made, one.id, "go")
    ran = engine.go_on(made)

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")
    assert sent(ran) == [0, "later", "later", "later"]


def test_a_dynamic_group_to_which_nobody_adds_is_passed(engine: Engine) -> None:
    parent = stage("p")
    ran = engine.run(parent, *after_join(*MultiInstanceBuilder.create_dynamic(parent, "send")))

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")


def test_an_instance_added_after_the_end_is_refused(engine: Engine) -> None:
    parent = stage("p")
    ran = engine.run(parent, *after_join(*MultiInstanceBuilder.create_dynamic(parent, "send")))
    engine.queue.push(AddMultiInstance(execution_id=ran.workflow.id, stage_id=parent.id))
    engine.play()

    assert len(engine.look(ran.workflow).workflow.stages) == 4


def _waits(stage: StageExecution) -> TaskResult:
    return TaskResult.success() if "_signal_name" in stage.context else TaskResult.suspend()
