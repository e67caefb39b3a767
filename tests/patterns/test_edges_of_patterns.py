"""What engines get wrong about the patterns, and where two of them meet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from stabilize import (
    JoinType,
    QueueProcessorConfig,
    SplitType,
    StageExecution,
    TaskResult,
    Workflow,
)
from stabilize.events import (
    EventType,
    SqlEventStore,
    configure_event_sourcing,
    reset_event_recorder,
)
from stabilize.events.bus import reset_event_bus
from stabilize.models import MultiInstanceConfig
from stabilize.models.definition import stage_to_dict
from stabilize.models.triggers import Signal, Timer
from stabilize.queue.messages import AddMultiInstance, CancelRegion, CancelStage
from tests.crash.shapes import AtOnce
from tests.support.builders import (
    Engine,
    Gate,
    Ran,
    Recorder,
    Script,
    eventually,
    fails,
    ok,
    puts,
    stage,
    workflow,
)

# --- joins ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "join",
    [
        {"join_type": JoinType.DISCRIMINATOR},
        {"join_type": JoinType.N_OF_M, "join_threshold": 1},
        {"join_type": JoinType.AND, "on_branch_failure": "dead"},
        {"join_type": JoinType.OR, "on_branch_failure": "arrive"},
    ],
)
def test_a_failure_that_a_join_absorbs_changes_nothing(engine: Engine, join: Any) -> None:
    ran = engine.run(
        stage("s"),
        stage("a", after="s"),
        stage("b", after="s", does=fails),
        stage("behind", after="b"),
        stage("join", after=["a", "behind"], **join),
        stage("end", after="join"),
    )

    assert (ran.status, ran.statuses["end"], ran.statuses["b"]) == (
        "SUCCEEDED",
        "SUCCEEDED",
        "TERMINAL",
    )
    assert ran.runs("join") == ["SUCCEEDED"]


def test_a_failure_that_one_path_leads_past_the_join_fails_the_workflow(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("b", does=fails),
        stage("join", after=["a", "b"], join_type=JoinType.DISCRIMINATOR),
        stage("past", after="b"),
    )

    assert ran.status == "TERMINAL"


def test_a_second_arrival_at_a_simple_merge_fails_and_names_both_branches(engine: Engine) -> None:
    ran = engine.run(
        stage("a"), stage("b"), stage("merge", after=["a", "b"], join_type=JoinType.XOR)
    )

    assert ran.status == "TERMINAL"
    assert "'a'" in ran.error("merge")
    assert "'b'" in ran.error("merge")


def test_a_thread_split_into_none_passes_the_thread_merge_over(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.THREADS, split_count=0),
        stage("a", after="s"),
        stage("merge", after="a", join_type=JoinType.THREADS, join_threshold=2),
        stage("end", after="merge"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"s": "SUCCEEDED", "a": "SKIPPED", "merge": "SKIPPED", "end": "SKIPPED"}


def test_threads_too_few_for_their_merge_are_a_deadlock_with_a_reason(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.THREADS, split_count=2),
        stage("merge", after="s", join_type=JoinType.THREADS, join_threshold=3),
    )

    assert ran.status == "TERMINAL"
    assert "'merge' waits for" in ran.workflow.context["error"]


def test_a_general_merge_does_not_wait_for_a_branch_that_can_no_longer_come(
    engine: Engine,
) -> None:
    """The threads of a multi-merge never meet at a plain join; at a general one they do."""
    ran = engine.run(
        stage("a"),
        stage("b"),
        stage("m", after=["a", "b"], join_type=JoinType.MULTI_MERGE),
        stage(
            "split",
            after="m",
            split_type=SplitType.XOR,
            split_conditions={"x": "False"},
            split_default="y",
        ),
        stage("x", after="split"),
        stage("y", after="split"),
        stage("join", after=["x", "y"], join_type=JoinType.OR, join_scope="general"),
        stage("end", after="join"),
    )

    assert ran.status == "SUCCEEDED"
    assert set(ran.runs("end")) == {"SUCCEEDED"}


def test_two_general_merges_in_a_row_go_in_the_order_of_the_definition(engine: Engine) -> None:
    ran = engine.run(
        stage("second", after=["first", "c"], join_type=JoinType.OR, join_scope="general"),
        stage("first", after=["a", "b"], join_type=JoinType.OR, join_scope="general"),
        stage("a"),
        stage("b"),
        stage("c"),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("first"), ran.runs("second")) == (["SUCCEEDED"], ["SUCCEEDED"])


# --- branches at the same time ----------------------------------------------------------------


def test_branches_run_at_the_same_time_by_hand_too(engine: Engine) -> None:
    meeting = threading.Barrier(3)

    def meets(stage: StageExecution) -> TaskResult:
        meeting.wait(10)
        return TaskResult.success()

    ran = engine.run(stage("s"), *[stage(ref, after="s", does=meets) for ref in "abc"])

    assert ran.status == "SUCCEEDED"


class Trace:
    """Bodies that say when they begin and end."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, stage: StageExecution) -> TaskResult:
        self.log += [f"{stage.ref_id} begins"]
        self.log += [f"{stage.ref_id} ends"]
        return TaskResult.success()

    def order(self) -> list[str]:
        return [line.removesuffix(" begins") for line in self.log if line.endswith("begins")]


def test_nobody_enters_a_critical_section_between_two_stages_of_it(engine: Engine) -> None:
    trace = Trace()

    def chain(name: str) -> list[StageExecution]:
        refs = [f"{name}{n}" for n in range(4)]
        return [
            stage(ref, after=before, does=trace, section="s")
            for before, ref in zip(["start", *refs], refs, strict=False)
        ]

    ran = engine.run(stage("start"), *chain("a"), *chain("b"), *chain("c"))

    assert ran.status == "SUCCEEDED"
    order = trace.order()
    assert sorted("".join(ref[0] for ref in order[i : i + 4]) for i in (0, 4, 8)) == [
        "aaaa",
        "bbbb",
        "cccc",
    ]


def test_a_section_is_free_again_when_its_rest_was_not_chosen(engine: Engine) -> None:
    ran = engine.run(
        stage(
            "a1",
            section="s",
            split_type=SplitType.XOR,
            split_conditions={"a2": "False"},
            split_default="out",
        ),
        stage("a2", after="a1", section="s"),
        stage("out", after="a1"),
        stage("b", section="s"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {
        "a1": "SUCCEEDED",
        "a2": "SKIPPED",
        "out": "SUCCEEDED",
        "b": "SUCCEEDED",
    }


def test_the_next_one_takes_a_mutex_when_the_holder_ends(engine: Engine) -> None:
    """Twenty stages of 10 ms: waiting for a poll each time would take far longer."""

    def works(stage: StageExecution) -> TaskResult:
        threading.Event().wait(0.01)
        return TaskResult.success()

    def spent(*stages: StageExecution) -> float:
        made = workflow(*stages)
        begun = time.monotonic()
        engine.submit(made)
        eventually(lambda: engine.status(made) == "SUCCEEDED")
        spans = sorted(
            (s.start_time or 0, s.end_time or 0) for s in engine.look(made).workflow.stages
        )
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        return time.monotonic() - begun

    def contending() -> float:
        return spent(*[stage(f"c{n}", does=works, mutex_key="k") for n in range(20)])

    def in_line() -> float:
        """So long it takes this machine, just now, when nothing has to be called."""
        line = [stage(f"c{n}", does=works, after=f"c{n - 1}" if n else ()) for n in range(20)]
        return spent(*line)

    with engine.started(config=QueueProcessorConfig(max_workers=4)):
        assert any(contending() < max(0.6, 1.5 * in_line()) for _ in range(5))


def test_a_mutex_goes_on_to_another_when_the_next_one_cannot_use_it(engine: Engine) -> None:
    ran = engine.run(
        stage("a", mutex_key="k"),
        stage("b", mutex_key="k", milestone_ref_id="c", milestone_status="SUCCEEDED"),
        stage("c", mutex_key="k"),
    )

    assert ran.status == "SUCCEEDED"
    assert set(ran.statuses.values()) == {"SUCCEEDED"}


# --- choices and milestones -------------------------------------------------------------------


def test_the_losers_of_a_deferred_choice_are_withdrawn_and_the_merge_runs(engine: Engine) -> None:
    ran = engine.run(
        stage("s"),
        stage("a", after="s", deferred_choice_group="g"),
        stage("b", after="s", deferred_choice_group="g"),
        stage("merge", after=["a", "b"]),
    )

    assert ran.status == "SUCCEEDED"
    assert sorted((ran.statuses["a"], ran.statuses["b"])) == ["SKIPPED", "SUCCEEDED"]
    assert ran.runs("merge") == ["SUCCEEDED"]


def test_a_branch_that_a_join_withdraws_before_it_begins_takes_no_choice(engine: Engine) -> None:
    """The end of `s` starts `a` and `join` at once."""
    ran = engine.run(
        stage("s"),
        stage("a", after="s", deferred_choice_group="g"),
        stage(
            "join",
            after=["s", "a"],
            join_type=JoinType.DISCRIMINATOR,
            join_rest="cancel",
            deferred_choice_group="g",
        ),
    )

    assert ran.statuses == {"s": "SUCCEEDED", "a": "SKIPPED", "join": "SUCCEEDED"}


def test_a_timer_decides_a_choice_when_nothing_else_came(engine: Engine) -> None:
    engine.stop_time()

    ran = engine.run(
        stage("slow", deferred_choice_group="g", trigger=Timer("10m")),
        stage("fast", deferred_choice_group="g", trigger=Timer("1m")),
        stage("merge", after=["slow", "fast"], join_type=JoinType.XOR),
    )

    assert ran.statuses == {"slow": "SKIPPED", "fast": "SUCCEEDED", "merge": "SUCCEEDED"}


GATES: dict[str, dict[str, str]] = {
    "mutex": {"mutex_key": "k"},
    "section": {"section": "k"},
    "milestone": {"milestone_ref_id": "holder", "milestone_status": "SUCCEEDED"},
}


def _send(engine: Engine, made: Workflow, ref_id: str, name: str) -> Ran:
    engine.orchestrator.signal(made, engine.look(made)[ref_id].id, name)
    return engine.go_on(made)


@pytest.mark.parametrize("gate", GATES)
def test_the_first_trigger_decides_a_choice_although_its_stage_still_waits(
    engine: Engine, gate: str
) -> None:
    held = GATES[gate] if gate != "milestone" else {}
    made = workflow(
        stage("holder", does="waits", **held),
        stage("pay", deferred_choice_group="g", trigger=Signal("paid"), **GATES[gate]),
        stage("drop", deferred_choice_group="g", trigger=Signal("dropped")),
        stage("end", after=["pay", "drop"]),
    )
    engine.submit(made)
    engine.play()

    chosen = _send(engine, made, "pay", "paid")
    late = _send(engine, made, "drop", "dropped")
    ran = _send(engine, made, "holder", "go")

    assert (chosen.statuses["pay"], chosen.statuses["drop"]) == ("NOT_STARTED", "SKIPPED")
    assert late.statuses == chosen.statuses
    assert ran.status == "SUCCEEDED"
    assert (ran.statuses["pay"], ran.runs("end")) == ("SUCCEEDED", ["SUCCEEDED"])


def test_a_timer_too_decides_a_choice_while_its_stage_still_waits(engine: Engine) -> None:
    engine.stop_time()
    made = workflow(
        stage("holder", does="waits", mutex_key="k"),
        stage("fast", deferred_choice_group="g", trigger=Timer("1m"), mutex_key="k"),
        stage("slow", deferred_choice_group="g", trigger=Timer("10m")),
    )
    engine.submit(made)
    engine.play(3600)

    ran = _send(engine, made, "holder", "go")

    assert ran.statuses == {"holder": "SUCCEEDED", "fast": "SUCCEEDED", "slow": "SKIPPED"}


def test_the_first_trigger_decides_a_choice_of_a_workflow_that_is_paused(engine: Engine) -> None:
    made = workflow(
        stage("a", deferred_choice_group="g", trigger=Signal("x")),
        stage("b", deferred_choice_group="g", trigger=Signal("x")),
    )
    engine.submit(made)
    engine.play()
    engine.orchestrator.pause(made)
    engine.play()
    _send(engine, made, "b", "x")
    paused = _send(engine, made, "a", "x")
    engine.orchestrator.resume(made)

    assert paused.statuses == {"a": "SKIPPED", "b": "NOT_STARTED"}
    assert engine.go_on(made).statuses == {"a": "SKIPPED", "b": "SUCCEEDED"}


def test_a_signal_kept_for_a_stage_decides_its_choice_when_it_is_offered(engine: Engine) -> None:
    made = workflow(
        stage("holder", does="waits", mutex_key="k"),
        stage("s", does="waits"),
        stage("a", after="s", deferred_choice_group="g", trigger=Signal("x"), mutex_key="k"),
        stage("b", after="s", deferred_choice_group="g", trigger=Timer("1m")),
    )
    engine.submit(made)
    engine.play()
    _send(engine, made, "a", "x")

    ran = _send(engine, made, "s", "go")

    assert (ran.statuses["a"], ran.statuses["b"]) == ("NOT_STARTED", "SKIPPED")


def test_a_choice_is_made_even_if_the_milestone_of_the_chosen_stage_is_past(
    engine: Engine,
) -> None:
    made = workflow(
        stage("mark", does="waits"),
        stage("holder", does="waits", mutex_key="k"),
        stage(
            "a",
            deferred_choice_group="g",
            trigger=Signal("x"),
            mutex_key="k",
            milestone_ref_id="mark",
            milestone_status="SUSPENDED",
        ),
        stage("b", deferred_choice_group="g", trigger=Signal("x")),
        stage("end", after=["a", "b"], join_type=JoinType.XOR),
    )
    engine.submit(made)
    engine.play()
    _send(engine, made, "a", "x")
    _send(engine, made, "mark", "go")

    ran = _send(engine, made, "holder", "go")

    assert (ran.statuses["a"], ran.statuses["b"]) == ("SKIPPED", "SKIPPED")
    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")


def test_a_choice_gives_up_the_branch_that_the_section_of_the_chosen_one_waits_for(
    engine: Engine,
) -> None:
    offered: dict[str, Any] = {"deferred_choice_group": "g", "trigger": Signal("x")}
    made = workflow(
        stage("open", section="s"),
        stage("offer", after="open"),
        stage("pay", after="offer", section="s", **offered),
        stage("drop", after="offer", **offered),
        stage("close", after=["open", "drop"], section="s"),
    )
    engine.submit(made)
    engine.play()

    ran = _send(engine, made, "pay", "x")

    assert ran.status == "SUCCEEDED"
    assert (ran.statuses["drop"], ran.statuses["close"]) == ("SKIPPED", "SUCCEEDED")


def test_a_choice_without_triggers_falls_on_the_first_that_can_start(engine: Engine) -> None:
    made = workflow(
        stage("holder", does="waits", mutex_key="k"),
        stage("a", deferred_choice_group="g", mutex_key="k"),
        stage("s"),
        stage("b", after="s", deferred_choice_group="g"),
    )
    engine.submit(made)

    assert engine.go_on(made).statuses["b"] == "SUCCEEDED"
    assert engine.look(made).statuses["a"] == "SKIPPED"


def test_a_milestone_that_was_not_reached_yet_is_waited_for(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("mark", after="a"),
        stage("x", milestone_ref_id="mark", milestone_status="SUCCEEDED"),
    )

    assert ran.statuses["x"] == "SUCCEEDED"
    assert (ran["x"].start_time or 0) >= (ran["mark"].end_time or 0)


def test_a_milestone_that_is_past_passes_the_stage_over(engine: Engine) -> None:
    ran = engine.run(
        stage("mark"),
        stage("x", after="mark", milestone_ref_id="mark", milestone_status="RUNNING"),
        stage("end", after="x"),
    )

    assert ran.statuses == {"mark": "SUCCEEDED", "x": "SKIPPED", "end": "SUCCEEDED"}


@pytest.mark.parametrize("trigger", [Signal("x"), Timer("10m")], ids=["signal", "timer"])
def test_a_stage_whose_milestone_is_past_does_not_wait_for_its_trigger(
    engine: Engine, trigger: Signal | Timer
) -> None:
    ran = engine.run(
        stage("mark"),
        stage(
            "x",
            after="mark",
            trigger=trigger,
            milestone_ref_id="mark",
            milestone_status="RUNNING",
        ),
        stage("end", after="x"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"mark": "SUCCEEDED", "x": "SKIPPED", "end": "SUCCEEDED"}


@pytest.mark.parametrize(
    "waits_for",
    [{"trigger": Signal("x")}, {"trigger": Timer("10m")}, {"mutex_key": "k"}, {"section": "s"}],
    ids=["signal", "timer", "mutex", "section"],
)
def test_a_stage_is_passed_over_when_its_milestone_passes_whatever_it_waits_for(
    engine: Engine, waits_for: Any
) -> None:
    made = workflow(
        stage("holder", does="waits", mutex_key="k", section="s"),
        stage("mark", does="waits"),
        stage("x", milestone_ref_id="mark", milestone_status="SUSPENDED", **waits_for),
        stage("free", after=["mark", "x"]),
    )
    engine.submit(made)
    engine.play()
    before = engine.look(made).statuses["x"]

    ran = _send(engine, made, "mark", "go")

    assert before == "NOT_STARTED"
    assert (ran.statuses["x"], ran.statuses["free"]) == ("SKIPPED", "SUCCEEDED")
    assert engine.queue.size() == 0
    assert _send(engine, made, "holder", "go").status == "SUCCEEDED"


@pytest.mark.parametrize("order", [("x", "mark"), ("mark", "x")], ids=" then ".join)
def test_a_trigger_and_a_milestone_are_both_waited_for_in_any_order(
    engine: Engine, order: tuple[str, str]
) -> None:
    made = workflow(
        stage("mark", does="waits"),
        stage("x", trigger=Signal("go"), milestone_ref_id="mark", milestone_status="SUCCEEDED"),
    )
    engine.submit(made)
    engine.play()

    half = _send(engine, made, order[0], "go")
    ran = _send(engine, made, order[1], "go")

    assert half.statuses["x"] == "NOT_STARTED"
    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"mark": "SUCCEEDED", "x": "SUCCEEDED"}


def test_a_timer_runs_on_when_the_milestone_of_its_stage_changes(engine: Engine) -> None:
    engine.stop_time()

    ran = engine.run(
        stage("mark", trigger=Timer("5m")),
        stage("x", trigger=Timer("10m"), milestone_ref_id="mark", milestone_status="SUCCEEDED"),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran["x"].start_time or 0) - (ran["mark"].start_time or 0) == 300_000


def test_a_signal_reaches_the_run_that_waits_not_an_earlier_one_that_was_passed_over(
    engine: Engine,
) -> None:
    back = Script(TaskResult.jump_to("s"), TaskResult.success())
    made = workflow(
        stage("s"),
        stage("mark", after="s", does="waits"),
        stage(
            "x",
            after="s",
            trigger=Signal("go"),
            milestone_ref_id="mark",
            milestone_status="SUSPENDED",
        ),
        stage("end", after=["x", "mark"], does=back),
    )
    engine.submit(made)
    engine.play()
    _send(engine, made, "mark", "go")

    engine.orchestrator.signal(made, made.stages[2].id, "go")
    engine.play()

    assert engine.look(made).runs("x") == ["SKIPPED", "SUCCEEDED"]


def test_a_milestone_that_can_never_come_passes_the_stage_over(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.XOR, split_conditions={"mark": "False"}, split_default="b"),
        stage("mark", after="s"),
        stage("b", after="s"),
        stage("x", milestone_ref_id="mark", milestone_status="SUCCEEDED"),
    )

    assert (ran.status, ran.statuses["x"]) == ("SUCCEEDED", "SKIPPED")


@pytest.fixture
def _recording(engine: Engine) -> Iterator[None]:
    configure_event_sourcing(SqlEventStore(engine.database))
    yield
    reset_event_recorder()
    reset_event_bus()


@pytest.mark.usefixtures("_recording")
def test_waits_that_nobody_can_end_are_a_deadlock_with_a_reason(engine: Engine) -> None:
    """`a` waits for a stage behind one that waits for the section which `a`'s other half holds."""
    ran = engine.run(
        stage("a1", section="s"),
        stage("a2", after="a1", section="s", milestone_ref_id="late", milestone_status="SUCCEEDED"),
        stage("wait", after="a1"),
        stage("b", after="wait", section="s"),
        stage("late", after="b"),
    )

    assert ran.status == "TERMINAL"
    assert "'a2' waits for milestone:late" in ran.workflow.context["error"]
    told = SqlEventStore(engine.database).get_events_for_workflow(ran.workflow.id)
    assert [e for e in told if e.event_type is EventType.WORKFLOW_DEADLOCKED]


# --- multiple instances -----------------------------------------------------------------------


def test_instances_added_while_others_run_are_waited_for_and_do_their_tasks(
    engine: Engine,
) -> None:
    gate, log = Gate(), []

    def works(stage: StageExecution) -> TaskResult:
        log.append(stage.context.get("item"))
        return gate(stage) if stage.context.get("item") is None else TaskResult.success()

    made = workflow(
        stage("group", does=works, mi_config=MultiInstanceConfig(count=1, allow_dynamic=True)),
        stage("end", after="group"),
    )
    with engine.started():
        engine.submit(made)
        gate.entered.wait(20)
        group = engine.look(made)["group"]
        for item in ("x", "y"):
            engine.queue.push(AddMultiInstance.of(group, instance_context={"item": item}))
        eventually(lambda: len(log) == 3)
        assert engine.look(made).statuses["end"] == "NOT_STARTED"
        gate.opened.set()
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert sorted(map(str, log)) == ["None", "x", "y"]


def test_a_group_of_none_lets_what_follows_begin_at_once(engine: Engine) -> None:
    ran = engine.run(
        stage("s", does=puts(items=[])),
        stage("group", after="s", mi_config=MultiInstanceConfig(collection_from_context="items")),
        stage("end", after="group"),
    )

    assert ran.statuses == {"s": "SUCCEEDED", "group": "SUCCEEDED", "end": "SUCCEEDED"}


def test_a_group_fails_when_too_few_of_its_instances_can_still_succeed(engine: Engine) -> None:
    def odd_ones_fail(stage: StageExecution) -> TaskResult:
        odd = stage.context["_mi_instance_index"] % 2
        return TaskResult.terminal("odd") if odd else TaskResult.success()

    ran = engine.run(
        stage(
            "group", does=odd_ones_fail, mi_config=MultiInstanceConfig(count=4, join_threshold=3)
        ),
        stage("end", after="group"),
    )

    assert (ran.status, ran.statuses) == (
        "TERMINAL",
        {"group": "TERMINAL", "end": "NOT_STARTED"},
    )


def test_a_failure_among_instances_nobody_waits_for_is_not_lost(engine: Engine) -> None:
    ran = engine.run(
        stage("group", does=fails, mi_config=MultiInstanceConfig(count=2, sync_on_complete=False))
    )

    assert ran.status == "TERMINAL"


def test_an_instance_that_is_withdrawn_does_not_hold_up_the_group(engine: Engine) -> None:
    made = workflow(
        stage("group", does="waits", mi_config=MultiInstanceConfig(count=2)),
        stage("end", after="group"),
    )
    engine.submit(made)
    engine.play()
    first, second = engine.look(made)["group#1[0]"], engine.look(made)["group#1[1]"]
    engine.queue.push(CancelStage.of(first))
    engine.orchestrator.signal(made, second.id, "go")

    ran = engine.go_on(made)

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "SUCCEEDED")


def test_a_wide_group_is_made_in_bounded_turns(engine: Engine) -> None:
    ran = engine.run(
        stage("group", does=ok, mi_config=MultiInstanceConfig(count=300)),
        stage("end", after="group"),
    )

    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert len(ran.workflow.stages) == 302


# --- withdrawing ------------------------------------------------------------------------------


def test_the_rest_decides_when_a_region_is_withdrawn(engine: Engine) -> None:
    gate = Gate()
    made = workflow(
        stage("a", does=gate, cancel_region="r"),
        stage("b", after="a", cancel_region="r"),
        stage("c", does="waits"),
        stage("end", after=["b", "c"]),
    )
    with engine.started():
        engine.submit(made)
        gate.entered.wait(20)
        engine.queue.push(CancelRegion(execution_id=made.id, region="r", user="tests"))
        eventually(lambda: engine.look(made).statuses["b"] == "SKIPPED")
        gate.opened.set()
        engine.orchestrator.signal(made, engine.look(made)["c"].id, "go")
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert engine.look(made).statuses == {
        "a": "CANCELED",
        "b": "SKIPPED",
        "c": "SUCCEEDED",
        "end": "SUCCEEDED",
    }


def test_a_join_that_waits_for_quiet_does_not_start_after_an_explicit_end(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("b", after="a"),
        stage("stop", after="b", end="terminate"),
        stage("join", after=["a", "stop"], join_scope="general"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses["join"] == "NOT_STARTED"


@pytest.mark.parametrize(
    "passed_over",
    [
        {"context": {"stageEnabled": False}},
        {"start_time_expiry": 1},
        {"milestone_ref_id": "a", "milestone_status": "RUNNING"},
    ],
    ids=["condition", "expiry", "milestone"],
)
def test_a_stage_that_did_not_run_ends_nothing(engine: Engine, passed_over: Any) -> None:
    ran = engine.run(
        stage("a"),
        stage("stop", after="a", end="terminate", **passed_over),
        stage("b", after="stop"),
        stage("c", after="a"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "SUCCEEDED", "stop": "SKIPPED", "b": "SUCCEEDED", "c": "SUCCEEDED"}


def test_a_late_result_changes_nothing_after_an_explicit_end(engine: Engine) -> None:
    gate = Gate(TaskResult.success(outputs={"late": True}))
    made = workflow(stage("slow", does=gate), stage("stop", does="waits", end="terminate"))
    with engine.started():
        engine.submit(made)
        gate.entered.wait(20)
        eventually(lambda: engine.look(made).statuses["stop"] == "SUSPENDED")
        engine.orchestrator.signal(made, engine.look(made)["stop"].id, "go")
        eventually(lambda: engine.status(made) == "SUCCEEDED")
        gate.opened.set()

    ran = engine.look(made)
    assert ran.statuses == {"slow": "CANCELED", "stop": "SUCCEEDED"}
    assert "late" not in ran.context


def test_an_instance_may_end_the_whole_workflow(engine: Engine) -> None:
    ran = engine.run(
        stage(
            "group", does=lambda s: TaskResult.terminate(), mi_config=MultiInstanceConfig(count=1)
        ),
        stage("end", after="group"),
    )

    assert (ran.status, ran.statuses["end"]) == ("SUCCEEDED", "NOT_STARTED")


# --- children ---------------------------------------------------------------------------------


def _child(*stages: StageExecution) -> dict[str, Any]:
    return {"_sub_workflow_config": {"name": "child", "stages": list(stages)}}


def test_the_outputs_of_a_child_come_back(engine: Engine) -> None:
    end = Recorder()

    ran = engine.run(
        stage(
            "call",
            does="SubWorkflowTask",
            context=_child(stage("x", does="puts", context={"puts": {"answer": 42}})),
        ),
        stage("end", after="call", does=end),
    )

    assert ran.status == "SUCCEEDED"
    assert end.contexts[0]["sub_workflow_outputs"] == {"answer": 42}


def test_a_child_that_ends_in_a_turn_of_its_parent_brings_its_outputs(engine: Engine) -> None:
    engine.executor = AtOnce()  # so each turn records a stage of the parent and one of the child
    child = _child(stage("x", does="puts", context={"puts": {"answer": 42}}))

    ran = engine.run(
        stage("call", does="SubWorkflowTask", context=child),
        stage("0"),
        *(stage(f"{n}", after=f"{n - 1}") for n in range(1, 6)),
    )

    assert ran.status == "SUCCEEDED"
    assert ran["call"].outputs["sub_workflow_status"] == "SUCCEEDED"
    assert ran["call"].outputs["sub_workflow_outputs"] == {"answer": 42}


def _two_ways() -> list[StageExecution]:
    """Both conditions hold; the one to be asked first comes last in the alphabet."""
    return [
        stage("s", split_type=SplitType.XOR, split_conditions={"zebra": "True", "ant": "True"}),
        stage("zebra", after="s", does="puts", context={"puts": {"way": "zebra"}}),
        stage("ant", after="s", does="puts", context={"puts": {"way": "ant"}}),
    ]


def _as_plain_values(*stages: StageExecution) -> dict[str, Any]:
    written = [{**stage_to_dict(one), "definition": dict(one.definition)} for one in stages]
    return {"_sub_workflow_config": {"stages": written}}


def test_the_conditions_of_a_split_are_asked_in_their_order(engine: Engine) -> None:
    inner = stage("call", does="SubWorkflowTask", context=_as_plain_values(*_two_ways()))

    ran = engine.run(
        *_two_ways(),
        stage("child", does="SubWorkflowTask", context=_child(*_two_ways())),
        stage("plain", does="SubWorkflowTask", context=_as_plain_values(*_two_ways())),
        stage("nested", does="SubWorkflowTask", context=_as_plain_values(inner)),
    )

    assert ran.statuses["zebra"] == "SUCCEEDED"
    assert ran["child"].outputs["sub_workflow_outputs"] == {"way": "zebra"}
    assert ran["plain"].outputs["sub_workflow_outputs"] == {"way": "zebra"}
    nested = ran["nested"].outputs["sub_workflow_outputs"]
    assert nested["sub_workflow_outputs"] == {"way": "zebra"}


def test_cancelling_the_parent_cancels_the_child(engine: Engine) -> None:
    made = workflow(stage("call", does="SubWorkflowTask", context=_child(stage("x", does="waits"))))
    engine.submit(made)
    engine.play()
    engine.orchestrator.cancel(made, "tests", "enough")

    ran = engine.go_on(made)

    child = ran["call"].delivered["_sub_workflow_id"]
    assert ran.status == "CANCELED"
    assert Ran(engine.store.retrieve(child)).statuses == {"x": "CANCELED"}


# --- jumps ------------------------------------------------------------------------------------


def test_a_jump_forward_withdraws_what_it_leaves_out_and_starts_its_target_once(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("s", does=lambda s: TaskResult.jump_to("target")),
        stage("between", after="s"),
        stage("target", after="between"),
        stage("beside", after="between"),
        stage("end", after=["target", "beside"]),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.runs("target"), ran.runs("end")) == (["SUCCEEDED"], ["SUCCEEDED"])
    assert (ran.statuses["between"], ran.statuses["beside"]) == ("SKIPPED", "SKIPPED")


def test_a_stage_withdrawn_before_it_began_runs_in_the_next_round(engine: Engine) -> None:
    made = workflow(
        stage("a", does="waits"),
        stage("b", after="a"),
        stage("c", after="b", does="jumps", context={"to": "a", "times": 2}),
        stage("d", does="waits"),
        stage("e", after="d", does="jumps", context={"to": "a", "times": 2}),
    )
    engine.submit(made)
    engine.play()
    engine.queue.push(CancelStage.of(engine.look(made)["b"]))
    engine.orchestrator.signal(made, engine.look(made)["a"].id, "go")
    engine.play()
    engine.orchestrator.signal(made, engine.look(made)["d"].id, "go")
    engine.play()
    engine.orchestrator.signal(made, engine.look(made)["a"].id, "go")
    engine.play()

    assert engine.look(made).runs("b")[:2] == ["SKIPPED", "SUCCEEDED"]
