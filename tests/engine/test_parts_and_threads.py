"""Where parts of stages, threads, jumps, signals and groups meet."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import func, select

from stabilize import (
    JoinType,
    LoopBuilder,
    SplitType,
    StageExecution,
    SyntheticStageOwner,
    TaskResult,
)
from stabilize.models import BufferedSignal, MultiInstanceConfig
from stabilize.models.triggers import Signal
from stabilize.queue.messages import CancelMultiInstance, CancelRegion
from tests.support.builders import (
    Engine,
    Ran,
    Recorder,
    eventually,
    fails,
    ok,
    sequence,
    stage,
    workflow,
)

BEFORE = SyntheticStageOwner.STAGE_BEFORE
TWO_THREADS: dict[str, Any] = {"split_type": SplitType.THREADS, "split_count": 2}
MERGE: dict[str, Any] = {"join_type": JoinType.THREADS, "join_threshold": 2}
FIRST: dict[str, Any] = {"join_type": JoinType.DISCRIMINATOR, "join_rest": "cancel"}


def waits(stage: StageExecution) -> TaskResult:
    """Wait for a signal; go where it says, or put out what it brings."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    data = stage.context["_signal_data"] or {}
    return TaskResult.jump_to(data["to"]) if "to" in data else TaskResult.success(outputs=data)


def part(parent: StageExecution, does: Any = ok, **fields: Any) -> StageExecution:
    """A stage before another one, that stage's `before`."""
    made = stage("before", does=does, **fields)
    made.parent_stage_id, made.synthetic_stage_owner = parent.id, BEFORE
    return made


def run_of(ran: Ran, ref_id: str, run: int) -> StageExecution:
    (found,) = [s for s in ran.workflow.stage_runs if (s.ref_id, s.run) == (ref_id, run)]
    return found


def signal(
    engine: Engine, ran: Ran, ref_id: str, run: int = 1, name: str = "go", **data: Any
) -> Ran:
    """Send a signal to a run by its own id, and play."""
    engine.orchestrator.signal(ran.workflow, run_of(ran, ref_id, run).id, name, data)
    return engine.go_on(ran.workflow)


# --- stages before others -----------------------------------------------------------------------


def test_a_stage_ends_after_its_tasks_however_many_stages_before_it_end_at_once(
    engine: Engine,
) -> None:
    parent = stage("p", does=fails)
    parts = [part(parent, context={"stageEnabled": False}) for _ in range(3)]
    for number, one in enumerate(parts):
        one.ref_id = f"before {number}"

    ran = engine.run(parent, *parts, stage("after", after="p"))

    assert (ran.status, ran.statuses) == ("TERMINAL", {"p": "TERMINAL", "after": "NOT_STARTED"})


@pytest.mark.parametrize("how", ["stage", "region"])
def test_to_withdraw_a_stage_before_another_withdraws_that_one_and_not_the_workflow(
    engine: Engine, how: str
) -> None:
    parent = stage("p")
    made = workflow(
        parent, part(parent, waits, cancel_region="r"), stage("q", after="p"), stage("other")
    )
    engine.submit(made)
    ran = engine.go_on(made)
    if how == "stage":
        engine.orchestrator.cancel_stage(ran["before"])
    else:
        engine.queue.push(CancelRegion(execution_id=made.id, region="r"))

    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"p": "CANCELED", "q": "SKIPPED", "other": "SUCCEEDED"}


def test_a_part_that_waits_for_what_its_stage_holds_is_a_deadlock(engine: Engine) -> None:
    parent = stage("p", mutex_key="k")

    ran = engine.run(parent, part(parent, mutex_key="k"))

    assert ran.status == "TERMINAL"
    assert "nothing can go on: 'before' waits for mutex:k" in ran.workflow.context["error"]


def test_a_jump_out_of_a_part_leaves_the_whole_stage(engine: Engine) -> None:
    parent = stage("p")
    jumps = part(parent, lambda stage: TaskResult.jump_to("z"))

    ran = engine.run(parent, jumps, stage("q", after="p"), stage("z", after="q"))

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"p": "SUCCEEDED", "q": "SKIPPED", "z": "SUCCEEDED"}
    assert ran.tasks("p") == ["SKIPPED"]


def test_a_jump_out_of_an_instance_withdraws_the_others(engine: Engine) -> None:
    group = stage("g", does=waits, mi_config=MultiInstanceConfig(count=2))
    ran = engine.run(group, stage("b", after="g"), stage("z", after="b"))

    ran = signal(engine, ran, "g#1[0]", to="z")

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"g": "SUCCEEDED", "b": "SKIPPED", "z": "SUCCEEDED"}
    assert ran["g#1[1]"].status.name == "CANCELED"


# --- instances that run on ----------------------------------------------------------------------


def leftovers(engine: Engine, follower: Any) -> Ran:
    """A group that needs one of three, has it, and lets the others run on."""
    group = stage("g", does=waits, mi_config=MultiInstanceConfig(count=3, join_threshold=1))
    ran = engine.run(group, stage("after", after="g", does=follower))
    return signal(engine, ran, "g#1[0]")


@pytest.mark.parametrize(
    ("follower", "status"),
    [
        (waits, "CANCELED"),
        (fails, "TERMINAL"),
        (lambda stage: TaskResult.terminate(), "SUCCEEDED"),
    ],
)
def test_what_is_left_of_a_group_ends_with_its_workflow(
    engine: Engine, follower: Any, status: str
) -> None:
    ran = leftovers(engine, follower)
    if status == "CANCELED":
        engine.orchestrator.cancel(ran.workflow)
        ran = engine.go_on(ran.workflow)

    assert ran.status == status
    assert [ran[f"g#1[{n}]"].status.name for n in (1, 2)] == ["CANCELED", "CANCELED"]
    assert ran.workflow.open_runs == 0


@pytest.mark.parametrize("how", ["stage", "group"])
def test_what_is_left_of_a_group_can_be_withdrawn(engine: Engine, how: str) -> None:
    ran = leftovers(engine, ok)
    assert ran.status == "RUNNING"
    if how == "stage":
        engine.orchestrator.cancel_stage(ran["g"])
    else:
        where = {"execution_id": ran.workflow.id, "stage_id": ran["g"].id}
        engine.queue.push(CancelMultiInstance(**where))

    ran = engine.go_on(ran.workflow)

    assert (ran.status, ran.statuses["g"]) == ("SUCCEEDED", "SUCCEEDED")
    assert [ran[f"g#1[{n}]"].status.name for n in (1, 2)] == ["CANCELED", "CANCELED"]


def test_a_group_that_fails_says_how_many_of_its_instances_did(engine: Engine) -> None:
    config = MultiInstanceConfig(count=3, join_threshold=2)
    ran = engine.run(stage("g", does=fails, mi_config=config))

    explained = engine.orchestrator.explain(ran.workflow.id)["g"]

    assert explained == ("0 of 3 instances succeeded and 2 did not: the group needs 2 to succeed")


def test_a_stage_whose_time_is_over_cancels_the_workflow_it_waits_for(engine: Engine) -> None:
    engine.stop_time()
    child = stage("forever", does=waits)
    engine.learn(child)
    config = {"application": "children", "name": "child", "stages": [child]}
    calls = stage(
        "calls",
        does="subWorkflow",
        context={"_sub_workflow_config": config, "stageTimeoutMs": 60_000},
    )

    ran = engine.run(calls)

    assert ran.status == "TERMINAL"
    (child_workflow,) = engine.store.retrieve_by_application("children")
    assert child_workflow.status.name == "CANCELED"


# --- signals ------------------------------------------------------------------------------------


def test_each_thread_that_waits_for_a_trigger_is_reached_by_its_own_signal(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s", trigger=Signal("go")),
        stage("end", after="a", **MERGE),
    )
    assert ran.runs("a") == ["NOT_STARTED", "NOT_STARTED"]

    ran = signal(engine, ran, "a", run=1)
    assert ran.runs("a") == ["SUCCEEDED", "NOT_STARTED"]

    ran = signal(engine, ran, "a", run=1)  # it reaches the run that still waits
    assert (ran.status, ran.runs("a")) == ("SUCCEEDED", ["SUCCEEDED", "SUCCEEDED"])


def test_a_signal_reaches_the_run_that_waits_rather_than_one_that_works(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("w", after="s", does=waits),
        stage("end", after="w", **MERGE),
    )
    second = run_of(ran, "w", 2)
    engine.orchestrator.signal(ran.workflow, second.id, "go", {"n": 1})
    engine.orchestrator.signal(ran.workflow, second.id, "go", {"n": 2})  # which works by then

    ran = engine.go_on(ran.workflow)

    assert ran.status == "SUCCEEDED"
    assert [run_of(ran, "w", n).outputs["n"] for n in (1, 2)] == [2, 1]


def test_a_signal_kept_under_another_name_is_no_trigger(engine: Engine) -> None:
    made = workflow(*sequence("a"), stage("b", after="a", trigger=Signal("pay")))
    engine.submit(made)
    engine.orchestrator.signal(made, made.stages[1].id, "other", {}, persistent=True)

    ran = engine.go_on(made)
    assert (ran.status, ran.statuses["b"]) == ("RUNNING", "NOT_STARTED")

    assert signal(engine, ran, "b", name="pay").status == "SUCCEEDED"


def test_a_signal_kept_for_a_stage_is_for_whichever_of_its_runs_waits(engine: Engine) -> None:
    made = workflow(
        stage("s", **TWO_THREADS),
        stage("w", after="s", does=waits, mutex_key="one at a time"),
        stage("end", after="w", **MERGE),
    )
    engine.submit(made)
    for n in (1, 2):
        engine.orchestrator.signal(made, made.stages[1].id, "go", {"n": n}, persistent=True)

    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert [run_of(ran, "w", n).outputs["n"] for n in (1, 2)] == [1, 2]


def test_a_signal_kept_while_a_stage_works_outlives_its_jump_to_itself(engine: Engine) -> None:
    def is_kept() -> bool:
        with engine.database.reading() as session:
            return bool(session.scalar(select(func.count()).select_from(BufferedSignal)))

    def works(stage: StageExecution) -> TaskResult:
        if stage.run > 1:
            return waits(stage)
        engine.orchestrator.signal(stage.workflow_id, stage.id, "go", {"n": 1}, persistent=True)
        eventually(is_kept)  # before the jump is played
        return TaskResult.jump_to("a")

    made = workflow(stage("a", does=works))
    engine.submit(made)
    with engine.started():
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert run_of(engine.look(made), "a", 2).outputs["n"] == 1


def test_a_second_signal_does_not_change_what_has_triggered(engine: Engine) -> None:
    made = workflow(stage("b", trigger=Signal("go"), does=waits))
    engine.submit(made)
    ran = engine.go_on(made)
    for n in (1, 2):
        engine.orchestrator.signal(made, ran["b"].id, "go", {"n": n})

    ran = engine.go_on(made)

    assert ran["b"].outputs["n"] == 1


# --- joins that cancel --------------------------------------------------------------------------


def test_a_join_withdraws_the_branches_of_its_own_thread(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("x", after="s"),
        stage("a", after="x", does=waits),
        stage("b", after="x", does=waits),
        stage("first", after=["a", "b"], **FIRST),
        stage("end", after="first", **MERGE),
    )
    thread = run_of(ran, "b", 1).thread

    ran = signal(engine, ran, "b", run=1)

    assert {s.thread: s.status.name for s in ran.workflow.stage_runs if s.ref_id == "a"} == {
        run.thread: "CANCELED" if run.thread == thread else "SUSPENDED"
        for run in (run_of(ran, "a", 1), run_of(ran, "a", 2))
    }
    assert signal(engine, ran, "b", run=2).status == "SUCCEEDED"


def test_a_join_withdraws_all_threads_of_a_branch(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("w", after="s", does=waits),
        stage("merge", after="w", **MERGE),
        stage("quick", does=waits),  # else it may end before the threads part
        stage("first", after=["merge", "quick"], **FIRST),
    )

    ran = signal(engine, ran, "quick")

    assert ran.status == "SUCCEEDED"
    assert ran.runs("w") == ["CANCELED", "CANCELED"]


def test_a_join_on_a_withdrawn_branch_does_not_start_for_what_has_come_to_it(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("quick", does=waits),
        stage("here"),
        stage("slow", does=waits),
        stage("inner", after=["here", "slow"]),
        stage("behind", after="inner"),
        stage("first", after=["quick", "behind"], **FIRST),
    )

    ran = signal(engine, ran, "quick")

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {
        "quick": "SUCCEEDED",
        "here": "SUCCEEDED",
        "slow": "CANCELED",
        "inner": "SKIPPED",
        "behind": "SKIPPED",
        "first": "SUCCEEDED",
    }


@pytest.mark.parametrize(
    "join",
    [
        {"join_type": JoinType.N_OF_M, "join_threshold": 2},
        {"join_type": JoinType.N_OF_M, "join_threshold": 2, "join_rest": "block"},
        {"join_type": JoinType.OR, "join_scope": "general"},
        {"join_keep": True},
    ],
)
def test_whatever_kind_of_join_lies_on_a_withdrawn_branch_passes_it_over(
    engine: Engine, join: dict[str, Any]
) -> None:
    ran = engine.run(
        stage("quick", does=waits),
        stage("here"),
        stage("lost", does=fails if "join_threshold" in join else ok),
        stage("slow", does=waits),
        stage("inner", after=["here", "lost", "slow"], **join),
        stage("first", after=["quick", "inner"], **FIRST),
    )

    ran = signal(engine, ran, "quick")

    assert (ran.status, ran.statuses["inner"], ran.runs("first")) == (
        "SUCCEEDED",
        "SKIPPED",
        ["SUCCEEDED"],
    )


def test_what_has_come_to_a_join_in_another_thread_is_left_alone(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("x", after="s"),
        stage("quick", after="x", does=waits),
        stage("here", after="x"),
        stage("slow", after="x", does=waits),
        stage("inner", after=["here", "slow"]),
        stage("first", after=["quick", "inner"], **FIRST),
        stage("end", after="first", **MERGE),
    )
    other = run_of(ran, "slow", 2)

    beside = 1 if run_of(ran, "quick", 2).thread == other.thread else 2

    ran = signal(engine, ran, "quick", run=beside)
    assert ran.runs("inner") == ["SKIPPED"]
    engine.orchestrator.signal(ran.workflow, other.id, "go", {})
    ran = engine.go_on(ran.workflow)

    assert (ran.status, ran.runs("inner")) == ("SUCCEEDED", ["SKIPPED", "SUCCEEDED"])


def test_threads_that_wait_for_their_merge_are_withdrawn_with_their_branch(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("w", after="s", does=waits),
        stage("merge", after="w", **MERGE),
        stage("quick", does=waits),
        stage("first", after=["merge", "quick"], **FIRST),
    )
    ran = signal(engine, ran, "w", run=1)

    ran = signal(engine, ran, "quick")

    assert (ran.status, ran.statuses["merge"]) == ("SUCCEEDED", "SKIPPED")
    assert sorted(ran.runs("w")) == ["CANCELED", "SUCCEEDED"]


# --- jumps and restarts in threads --------------------------------------------------------------


def test_a_jump_back_out_of_threads_withdraws_all_of_them(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("w", after="s", does=waits),
        stage("merge", after="w", **MERGE),
    )

    ran = signal(engine, ran, "w", run=2, to="s")
    assert ran.runs("w") == ["CANCELED", "SUCCEEDED", "SUSPENDED", "SUSPENDED"]

    ran = signal(engine, signal(engine, ran, "w", run=3), "w", run=4)
    assert (ran.status, ran.runs("merge")) == ("SUCCEEDED", ["SUCCEEDED"])


def test_a_jump_within_a_thread_leaves_the_others_alone(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s"),
        stage("w", after="a", does=waits),
        stage("merge", after="w", **MERGE),
    )
    first, second = run_of(ran, "w", 1).thread, run_of(ran, "w", 2).thread
    ran = signal(engine, ran, "w", run=2)  # its token lies before the merge

    ran = signal(engine, ran, "w", run=1, to="a")

    assert {run_of(ran, "a", n).thread for n in (1, 2)} == {first, second}
    assert run_of(ran, "a", 3).thread == run_of(ran, "w", 3).thread == first
    assert signal(engine, ran, "w", run=3).status == "SUCCEEDED"


def prepared(parent: StageExecution) -> list[StageExecution]:
    """A stage with two stages before it, both of which wait, and a third that joins them."""
    parts = [part(parent, waits), part(parent, waits), part(parent)]
    for one, ref_id in zip(parts, ("left", "right", "both"), strict=True):
        one.ref_id = ref_id
    parts[-1].requisite_stage_ref_ids = {"left", "right"}
    return [parent, *parts]


def by_thread(ran: Ran, ref_id: str, thread: str) -> list[StageExecution]:
    """The runs of a stage in one thread, the first one first."""
    return [s for s in ran.workflow.stage_runs if (s.ref_id, s.thread) == (ref_id, thread)]


def tell(engine: Engine, ran: Ran, run: StageExecution, **data: Any) -> Ran:
    engine.orchestrator.signal(ran.workflow, run.id, "go", data)
    return engine.go_on(ran.workflow)


def test_a_jump_leaves_the_parts_of_the_stage_in_other_threads_alone(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("c"),
        stage("m", after=["a", "c"], join_type=JoinType.MULTI_MERGE),
        *prepared(stage("p", after="m")),
    )
    (first, second) = sorted({s.thread for s in ran.workflow.stage_runs if s.ref_id == "p"})
    ran = tell(engine, ran, by_thread(ran, "left", second)[0])  # its token lies before `both`

    ran = tell(engine, ran, by_thread(ran, "right", first)[0], to="p")
    ran = tell(engine, ran, by_thread(ran, "right", second)[0])
    for ref_id in ("left", "right"):
        ran = tell(engine, ran, by_thread(ran, ref_id, first)[-1])

    assert ran.status == "SUCCEEDED"
    assert [s.status.name for s in by_thread(ran, "p", second)] == ["SUCCEEDED"]
    assert [s.status.name for s in by_thread(ran, "both", second)] == ["SUCCEEDED"]
    assert [s.status.name for s in by_thread(ran, "p", first)] == ["SUCCEEDED"] * 2


def test_a_jump_in_a_thread_forgets_what_the_parts_of_the_stage_have_brought_there(
    engine: Engine,
) -> None:
    ran = engine.run(stage("s", **TWO_THREADS), *prepared(stage("p", after="s")))
    thread = run_of(ran, "p", 1).thread
    ran = tell(engine, ran, by_thread(ran, "left", thread)[0])
    ran = tell(engine, ran, by_thread(ran, "right", thread)[0], to="p")

    ran = tell(engine, ran, by_thread(ran, "right", thread)[-1])
    assert "SUCCEEDED" not in ran.runs("both")

    ran = tell(engine, ran, by_thread(ran, "left", thread)[-1])
    assert ran.runs("both").count("SUCCEEDED") == 1


@pytest.mark.parametrize("builder", [LoopBuilder.while_loop, LoopBuilder.repeat_until])
def test_a_loop_goes_round_in_each_thread_by_itself(engine: Engine, builder: Any) -> None:
    def counts(stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"n": stage.context.get("n", 0) + 1})

    condition = "n < 3" if builder is LoopBuilder.while_loop else "n >= 3"
    loop = builder(condition, [stage("body", does=counts)], "loop", context={"n": 0})
    loop[0].requisite_stage_ref_ids = {"s"}
    end = Recorder()

    ran = engine.run(
        stage("s", **TWO_THREADS),
        *loop,
        stage("merge", after=loop[-1].ref_id, **MERGE),
        stage("end", after="merge", does=end),
    )

    assert ran.status == "SUCCEEDED"
    bodies = [s for s in ran.workflow.stage_runs if s.ref_id == "body" and s.outputs]
    rounds: dict[str, list[int]] = {}
    for body in bodies:
        rounds.setdefault(body.thread, []).append(body.outputs["n"])
    assert list(rounds.values()) == [[1, 2, 3], [1, 2, 3]]
    assert (end.calls, ran.runs("merge")) == (1, ["SUCCEEDED"])


def test_a_restart_runs_a_stage_in_every_thread_in_which_it_ran(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("w", after="s"),
        stage("merge", after="w", **MERGE),
        stage("z", after="merge", does=waits),
    )

    engine.orchestrator.restart(ran.workflow, ran["w"].id)
    ran = engine.go_on(ran.workflow)

    assert ran.runs("w") == ["SUCCEEDED"] * 4
    assert ran.runs("merge") == ["SUCCEEDED"] * 2
    assert ran.runs("z") == ["CANCELED", "SUSPENDED"]
    assert signal(engine, ran, "z", run=2).status == "SUCCEEDED"


def test_a_stage_that_is_restarted_still_starts_in_the_threads_that_come_to_it_later(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s", does=waits),
        stage("b", after=["s", "a"]),
    )
    ran = signal(engine, ran, "a", run=1)

    engine.orchestrator.restart(ran.workflow, ran["b"].id)
    ran = engine.go_on(ran.workflow)
    assert ran.runs("b") == ["SUCCEEDED", "SUCCEEDED"]

    ran = signal(engine, ran, "a", run=2)
    assert (ran.status, ran.runs("b")) == ("SUCCEEDED", ["SUCCEEDED"] * 3)


@pytest.mark.parametrize("join", ["AND", "DISCRIMINATOR"])
def test_a_jump_to_a_stage_starts_it_too_in_a_thread_in_which_it_had_yet_to_begin(
    engine: Engine, join: str
) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s"),
        stage("b", after=["s", "a"], does=waits, mutex_key="k", join_type=JoinType[join]),
        stage("f", does=waits),
    )
    assert ran.runs("b") == ["SUSPENDED", "NOT_STARTED"]

    ran = signal(engine, ran, "f", to="b")
    ran = signal(engine, ran, "b", run=3)
    ran = signal(engine, ran, "b", run=4)

    assert (ran.status, ran.runs("b")[2:]) == ("SUCCEEDED", ["SUCCEEDED"] * 2)


def test_what_a_failure_cut_short_runs_again_when_the_failed_stage_does(engine: Engine) -> None:
    other = Recorder()
    ran = engine.run(
        stage("s", does=lambda stage: TaskResult.success(outputs={"seen": 1})),
        stage("a", after="s", does=waits),
        stage("b", after="s", does=waits),
        stage("c", after="b", does=other),
        stage("join", after=["a", "c"]),
    )
    engine.orchestrator.signal(ran.workflow, ran["a"].id, "go", {"to": "nowhere"})
    ran = engine.go_on(ran.workflow)
    assert (ran.status, ran.runs("b")) == ("TERMINAL", ["CANCELED"])

    engine.orchestrator.restart(ran.workflow, ran["a"].id)
    ran = engine.go_on(ran.workflow)

    assert (ran.status, ran.runs("b")) == ("RUNNING", ["CANCELED", "SUSPENDED"])
    ran = signal(engine, signal(engine, ran, "a", run=2), "b", run=2)
    assert ran.status == "SUCCEEDED"
    assert other.contexts[0]["seen"] == 1  # what it inherits came through the run cut short


# --- sections -----------------------------------------------------------------------------------


def test_nobody_enters_a_section_while_somebody_in_it_jumps_back(engine: Engine) -> None:
    order: list[str] = []

    def tells(stage: StageExecution) -> TaskResult:
        order.append(stage.ref_id)
        jumps = stage.ref_id == "b" and order.count("b") < 3
        return TaskResult.jump_to("a") if jumps else TaskResult.success()

    ran = engine.run(
        stage("a", does=tells, section="m"),
        stage("b", after="a", does=tells, section="m"),
        stage("x", does=tells, section="m"),
        stage("y", after="x", does=tells, section="m"),
    )

    assert ran.status == "SUCCEEDED"
    assert "".join(order) in ("abababxy", "xyababab")


def test_a_section_is_taken_until_the_last_thread_in_it_is_through(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s", does=waits, section="m"),
        stage("b", after="a", section="m"),
        stage("later", after="b", **MERGE),
        stage("p"),
        stage("x", after="p", section="m"),
    )
    assert ran.statuses["x"] == "NOT_STARTED"

    ran = signal(engine, ran, "a", run=1)
    assert ran.statuses["x"] == "NOT_STARTED"

    ran = signal(engine, ran, "a", run=2)
    assert (ran.status, ran.statuses["x"]) == ("SUCCEEDED", "SUCCEEDED")


def test_a_section_that_a_jump_empties_is_free(engine: Engine) -> None:
    ran = engine.run(
        stage("t"),
        stage("x", after="t", section="m"),
        stage("w", after="t", does=waits),
        stage("y", after=["x", "w"], section="m"),
        stage("q", after="t", section="m"),
        stage("needs", after="q"),
    )
    ran = signal(engine, ran, "w", to="t")

    ran = signal(engine, ran, "w", run=2)

    assert (ran.status, ran.statuses["y"], ran.statuses["q"]) == ("SUCCEEDED",) * 3


def test_a_section_in_whose_midst_the_workflow_has_ended_is_free(engine: Engine) -> None:
    ran = engine.run(
        stage("x", section="m"),
        stage("f", does=waits),
        stage("a", section="m"),
        stage("b", after=["a", "f"], section="m"),
    )
    ran = signal(engine, ran, "f", to="nowhere")
    assert (ran.status, ran.statuses["a"], ran.statuses["b"]) == (
        "TERMINAL",
        "SUCCEEDED",
        "NOT_STARTED",
    )

    engine.orchestrator.restart(ran.workflow, ran["x"].id)
    ran = engine.go_on(ran.workflow)

    assert ran.runs("x") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_section_that_a_failure_cuts_short_goes_on_first_after_a_restart(engine: Engine) -> None:
    ran = engine.run(
        stage("a", section="m"),
        stage("p"),
        stage("x", after="p", section="m"),
        stage("b", after="a", section="m", does=waits),
        stage("c", after="b", section="m"),
        stage("f", does=waits),
    )
    ran = signal(engine, ran, "f", to="nowhere")
    assert (ran.status, ran.statuses["x"], ran.statuses["b"]) == (
        "TERMINAL",
        "NOT_STARTED",
        "CANCELED",
    )

    engine.orchestrator.restart(ran.workflow, ran["f"].id)
    ran = engine.go_on(ran.workflow)
    assert (ran.runs("x"), ran.runs("b")) == (["NOT_STARTED"] * 2, ["CANCELED", "SUSPENDED"])

    ran = signal(engine, signal(engine, ran, "b", run=2), "f", run=2)
    assert (ran.status, ran.runs("x")) == ("SUCCEEDED", ["NOT_STARTED", "SUCCEEDED"])


# --- large workflows ----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 130])
def test_a_deadlock_far_off_is_found_by_a_process_that_has_not_read_it(
    engine: Engine, backend: Any, more: int
) -> None:
    """Stages are read by blocks: what none of those read so far asks may still be asked."""
    made = workflow(
        stage("w", does=waits),
        *(stage(f"filler {n}") for n in range(more)),
        stage("a", section="m"),
        stage("b", after=["a", "w"], section="m", milestone_ref_id="c", milestone_status="RUNNING"),
        stage("c", after="a", section="m"),
    )
    made.stages[-1].section = "m"
    made.stages[-1].requisite_stage_ref_ids = set()
    engine.submit(made)
    ran = engine.go_on(made)
    target: str | SqlEngine = engine.target

    with Engine(target) as another:
        another.learn(*made.stages)
        another.orchestrator.signal(made, ran["w"].id, "go", {})
        another.play()
        ran = another.look(made)

    assert ran.status == "TERMINAL"
    assert "nothing can go on" in ran.workflow.context["error"]


# --- explaining ---------------------------------------------------------------------------------


def test_every_run_that_waits_is_explained(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s", trigger=Signal("go"), does=waits),
        stage("end", after="a", **MERGE),
    )
    ran = signal(engine, ran, "a", run=2, to="nowhere")

    explained = engine.orchestrator.explain(ran.workflow.id)

    assert explained["a"] == "Target stage not found: nowhere"
    parent = stage("p")
    ran = engine.run(parent, part(parent, waits))
    explained = engine.orchestrator.explain(ran.workflow.id)
    assert explained["p"] == (
        "it is running; 'before': it waits for a signal: orchestrator.signal wakes it"
    )


def test_a_run_beside_the_newest_is_explained_too(engine: Engine) -> None:
    ran = engine.run(
        stage("s", **TWO_THREADS),
        stage("a", after="s", trigger=Signal("go")),
        stage("end", after="a", **MERGE),
    )
    ran = signal(engine, ran, "a", run=2)

    explained = engine.orchestrator.explain(ran.workflow.id)

    assert explained["a"] == "it waits for the signal 'go'"


def test_an_exception_is_the_reason_of_a_stage(engine: Engine) -> None:
    def breaks(stage: StageExecution) -> TaskResult:
        raise RuntimeError("the disk is full")

    ran = engine.run(stage("a", does=breaks))

    assert "the disk is full" in engine.orchestrator.explain(ran.workflow.id)["a"]
