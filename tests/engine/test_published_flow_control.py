"""Flow control as the documents of the project write it: their names, arguments and import paths.

Every program here is built from public parts only, as a user would.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from stabilize import (
    LoopBuilder,
    MultiInstanceConfig,
    Orchestrator,
    QueueProcessor,
    StageExecution,
    SubWorkflowTask,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    TransientError,
    Workflow,
    WorkflowStatus,
)
from stabilize.models.stage import JoinType, SplitType
from stabilize.queue.messages import AddMultiInstance, CancelRegion, SignalStage
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine


class Put(Task):
    """Put out what the stage is told to."""

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs=stage.context.get("puts", {}))


class Sign(Task):
    """Wait until somebody signs."""

    def execute(self, stage: StageExecution) -> TaskResult:
        if stage.context.get("_signal_name") == "signed":
            return TaskResult.success(outputs={"by": stage.context["_signal_data"]["user"]})
        return TaskResult.suspend()


class Program:
    """A registry, a store, a queue and a processor, put together as the quick start does."""

    def __init__(self, engine: Engine) -> None:
        self.store, self.queue = engine.store, engine.queue
        self.queue._create_table()
        self.registry = TaskRegistry()
        self.registry.register("put", Put)
        self.registry.register("sign", Sign)
        self.processor = QueueProcessor(self.queue, store=self.store, task_registry=self.registry)
        self.orchestrator = Orchestrator(self.queue)

    def submit(self, *stages: StageExecution) -> Workflow:
        workflow = Workflow.create(application="clinic", name="a visit", stages=list(stages))
        self.store.store(workflow)
        self.orchestrator.start(workflow)
        return self.go_on(workflow)

    def go_on(self, workflow: Workflow) -> Workflow:
        self.processor.process_all(timeout=10.0)
        return self.store.retrieve(workflow.id)


@pytest.fixture
def program(backend: BackendUnderTest) -> Any:
    with Engine(backend.url) as engine:
        yield Program(engine)


def step(ref_id: str, task: str = "put", **fields: Any) -> StageExecution:
    return StageExecution(
        ref_id=ref_id,
        type=ref_id,
        name=ref_id.title(),
        tasks=[
            TaskExecution.create(
                name=ref_id, implementing_class=task, stage_start=True, stage_end=True
            )
        ],
        **fields,
    )


def statuses(workflow: Workflow) -> dict[str, str]:
    return {stage.ref_id: stage.status.name for stage in workflow.top_level_stages()}


# --- splits and joins ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patient", "seen_by"),
    [
        ({"complaint": "fever", "pain": 0}, {"doctor"}),
        ({"complaint": "fracture", "pain": 7}, {"x_ray", "nurse"}),
    ],
)
def test_an_or_split_activates_each_branch_whose_condition_holds(
    program: Program, patient: dict[str, Any], seen_by: set[str]
) -> None:
    branches = {"doctor", "x_ray", "nurse"}
    ended = program.submit(
        step(
            "reception",
            context=patient,
            split_type=SplitType.OR,
            split_conditions={
                "doctor": "complaint == 'fever'",
                "x_ray": "complaint == 'fracture'",
                "nurse": "pain > 0",
            },
        ),
        *(step(branch, requisite_stage_ref_ids={"reception"}) for branch in sorted(branches)),
        step("bill", join_type=JoinType.OR, requisite_stage_ref_ids=branches),
    )

    assert ended.status is WorkflowStatus.SUCCEEDED
    assert {ref for ref in branches if statuses(ended)[ref] == "SUCCEEDED"} == seen_by
    assert statuses(ended)["bill"] == "SUCCEEDED"


def test_a_discriminator_fires_on_the_first_of_its_branches(program: Program) -> None:
    waiting = program.submit(
        step("pager"),
        step("phone", "sign"),
        step(
            "on_call",
            join_type=JoinType.DISCRIMINATOR,
            requisite_stage_ref_ids={"pager", "phone"},
        ),
    )
    assert statuses(waiting) == {
        "pager": "SUCCEEDED",
        "phone": "SUSPENDED",
        "on_call": "SUCCEEDED",
    }
    phone = waiting.stage_by_ref_id("phone")
    assert phone is not None
    program.queue.push(_signature(waiting, phone))
    ended = program.go_on(waiting)

    assert ended.status is WorkflowStatus.SUCCEEDED
    assert [run.ref_id for run in ended.stage_runs].count("on_call") == 1


def test_three_of_five_are_enough(program: Program) -> None:
    reviews = [f"review{number}" for number in range(1, 6)]
    waiting = program.submit(
        *(step(review, "sign" if review > "review3" else "put") for review in reviews),
        step(
            "admit",
            join_type=JoinType.N_OF_M,
            join_threshold=3,
            requisite_stage_ref_ids=set(reviews),
        ),
    )

    assert statuses(waiting)["admit"] == "SUCCEEDED"
    assert waiting.status is WorkflowStatus.RUNNING


# --- signals ------------------------------------------------------------------------------------


def _signature(workflow: Workflow, stage: StageExecution, **fields: Any) -> SignalStage:
    return SignalStage(
        execution_id=workflow.id,
        stage_id=stage.id,
        signal_name="signed",
        signal_data={"user": "ines"},
        **fields,
    )


@pytest.mark.parametrize("early", [True, False])
def test_a_persistent_signal_ends_a_wait_whether_it_comes_early_or_late(
    program: Program, early: bool
) -> None:
    consent = step("consent", "sign", requisite_stage_ref_ids={"talk"})
    workflow = Workflow.create("clinic", "a visit", [step("talk"), consent])
    program.store.store(workflow)
    if not early:
        program.orchestrator.start(workflow)
        assert statuses(program.go_on(workflow))["consent"] == "SUSPENDED"
    program.queue.push(_signature(workflow, consent, persistent=True))
    if early:
        program.go_on(workflow)
        program.orchestrator.start(workflow)
    ended = program.go_on(workflow)

    assert ended.status is WorkflowStatus.SUCCEEDED
    assert ended.stages[1].outputs == {"by": "ines"}


def test_a_signal_that_is_not_persistent_and_comes_early_is_lost(program: Program) -> None:
    consent = step("consent", "sign")
    workflow = Workflow.create("clinic", "a visit", [consent])
    program.store.store(workflow)
    program.queue.push(_signature(workflow, consent))
    program.go_on(workflow)
    program.orchestrator.start(workflow)

    assert statuses(program.go_on(workflow)) == {"consent": "SUSPENDED"}


def test_a_wait_may_leave_a_note_in_the_context(program: Program) -> None:
    class Remind(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            if "_signal_name" in stage.context:
                return TaskResult.success(outputs={"asked": stage.context["asked"]})
            return TaskResult.suspend(context={"asked": 1})

    program.registry.register("remind", Remind)
    waiting = program.submit(step("r", "remind"))
    program.queue.push(_signature(waiting, waiting.stages[0], user="ines"))

    assert program.go_on(waiting).stages[0].outputs == {"asked": 1}


# --- mutual exclusion, milestones, choices, regions ---------------------------------------------


def test_stages_with_one_mutex_key_never_run_at_once(program: Program) -> None:
    ended = program.submit(*(step(f"scan{n}", mutex_key="scanner") for n in range(4)))

    spans = sorted((s.start_time or 0, s.end_time or 0) for s in ended.stages)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert ended.status is WorkflowStatus.SUCCEEDED


def test_a_stage_is_enabled_only_while_its_milestone_is_running(program: Program) -> None:
    waiting = program.submit(
        step("stay", "sign"),
        step("meal", milestone_ref_id="stay", milestone_status="RUNNING"),
        step("late", requisite_stage_ref_ids={"stay"}),
        step(
            "too_late",
            requisite_stage_ref_ids={"late"},
            milestone_ref_id="stay",
            milestone_status="RUNNING",
        ),
    )
    stay = waiting.stage_by_ref_id("stay")
    assert stay is not None
    program.queue.push(_signature(waiting, stay))
    ended = program.go_on(waiting)

    assert ended.status is WorkflowStatus.SUCCEEDED
    assert statuses(ended)["too_late"] == "SKIPPED"
    assert statuses(ended)["meal"] == "SUCCEEDED"


def test_the_first_branch_of_a_deferred_choice_to_start_wins(program: Program) -> None:
    ended = program.submit(
        step("ask"),
        step("come_in", requisite_stage_ref_ids={"ask"}, deferred_choice_group="answer"),
        step("call_back", requisite_stage_ref_ids={"ask"}, deferred_choice_group="answer"),
    )

    assert ended.status is WorkflowStatus.SUCCEEDED
    ends = sorted(statuses(ended)[ref] for ref in ("come_in", "call_back"))
    assert ends in (["CANCELED", "SUCCEEDED"], ["SKIPPED", "SUCCEEDED"])


def test_a_region_is_withdrawn_by_one_message(program: Program) -> None:
    waiting = program.submit(
        step("blood", "sign", cancel_region="lab"),
        step("urine", "sign", cancel_region="lab"),
        step("home"),
    )
    program.queue.push(CancelRegion(execution_id=waiting.id, region="lab"))
    ended = program.go_on(waiting)

    assert statuses(ended) == {"blood": "CANCELED", "urine": "CANCELED", "home": "SUCCEEDED"}
    assert ended.status is WorkflowStatus.SUCCEEDED


# --- jumps, retries, loops ----------------------------------------------------------------------


def test_a_router_goes_back_until_it_has_what_it_needs(program: Program) -> None:
    class Route(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            if stage.context.get("samples", 0) >= 2:
                return TaskResult.success()
            return TaskResult.jump_to("sample", context={"reason": "not enough"})

    class Sample(Task):
        taken = 0

        def execute(self, stage: StageExecution) -> TaskResult:
            Sample.taken += 1
            told = stage.context.get("reason", "first")
            return TaskResult.success(outputs={"samples": Sample.taken, "told": told})

    program.registry.register("route", Route)
    program.registry.register("sample", Sample)
    ended = program.submit(
        step("sample", "sample"), step("check", "route", requisite_stage_ref_ids={"sample"})
    )

    assert ended.status is WorkflowStatus.SUCCEEDED
    assert ended.stages[0].outputs == {"samples": 2, "told": "not enough"}


def test_a_retry_keeps_what_was_done_so_far(program: Program) -> None:
    class Count(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            done = stage.context.get("done", 0)
            if done < 20:
                raise TransientError(
                    "the device is busy", retry_after=0.01, context_update={"done": done + 10}
                )
            return TaskResult.success(outputs={"total": done})

    program.registry.register("count", Count)

    assert program.submit(step("c", "count")).stages[0].outputs == {"total": 20}


def test_loops_run_their_body_as_often_as_their_condition_says(program: Program) -> None:
    class Add(Task):
        def execute(self, stage: StageExecution) -> TaskResult:
            return TaskResult.success(outputs={"n": stage.context.get("n", 0) + 1})

    program.registry.register("add", Add)
    before = LoopBuilder.while_loop("n < 3", [step("dose", "add")], context={"n": 0})
    after = LoopBuilder.repeat_until(
        "iteration >= 2", [step("walk")], loop_ref_prefix="again", max_iterations=5
    )
    after[0].requisite_stage_ref_ids = {"loop_loopback"}
    ended = program.submit(
        *before, *after, step("rest", requisite_stage_ref_ids={"again_condition"})
    )

    assert ended.status is WorkflowStatus.SUCCEEDED
    runs = [run for run in ended.stage_runs if run.status is WorkflowStatus.SUCCEEDED]
    assert [run.outputs["n"] for run in runs if run.ref_id == "dose"] == [1, 2, 3]
    assert [run.ref_id for run in runs].count("walk") == 2
    tail = ended.stage_by_ref_id("loop_loopback")
    assert tail is not None
    assert (tail.outputs["loop_iterations"], tail.outputs["loop_exhausted"]) == (3, False)


# --- children and instances ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["SubWorkflowTask", "subWorkflow", "sub_workflow", "childWorkflow"]
)
def test_a_child_workflow_brings_its_outputs_back(program: Program, name: str) -> None:
    program.registry.register("SubWorkflowTask", SubWorkflowTask)
    ended = program.submit(
        step(
            "refer",
            name,
            context={
                "_sub_workflow_config": {
                    "application": "clinic",
                    "name": "specialist",
                    "stages": [step("look", context={"puts": {"found": "nothing"}})],
                    "context": {"urgent": True},
                }
            },
        )
    )

    outputs = ended.stages[0].outputs
    assert ended.status is WorkflowStatus.SUCCEEDED
    assert outputs["sub_workflow_status"] == "SUCCEEDED"
    assert outputs["sub_workflow_outputs"] == {"found": "nothing"}
    child = program.store.retrieve(outputs["sub_workflow_id"])
    assert child.context == {"urgent": True, "_parent_workflow_id": ended.id}


def test_the_settings_of_a_group_go_by_place_and_come_back_from_a_dict() -> None:
    config = MultiInstanceConfig(3, "", True, False, "", 2, True)

    assert config == MultiInstanceConfig(count=3, join_threshold=2, cancel_remaining=True)
    assert MultiInstanceConfig.from_dict(config.to_dict()) == config


def test_an_instance_may_be_added_while_the_group_is_open(program: Program) -> None:
    waiting = program.submit(
        step("visit", "sign", mi_config=MultiInstanceConfig(count=1, allow_dynamic=True)),
        step("report", requisite_stage_ref_ids={"visit"}),
    )
    group = waiting.stage_by_ref_id("visit")
    assert group is not None
    program.queue.push(
        AddMultiInstance(execution_id=waiting.id, stage_id=group.id, instance_context={"ward": 7})
    )
    waiting = program.go_on(waiting)
    visits = [stage for stage in waiting.stages if stage.parent_stage_id == group.id]
    assert [stage.context.get("ward") for stage in visits] == [None, 7]
    for visit in visits:
        program.queue.push(_signature(waiting, visit))
    ended = program.go_on(waiting)

    assert statuses(ended) == {"visit": "SUCCEEDED", "report": "SUCCEEDED"}
