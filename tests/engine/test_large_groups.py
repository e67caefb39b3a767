"""A group of very many instances costs each turn no more than a small one.

`STABILIZE_FULL=1 pytest tests/engine/test_large_groups.py` makes groups of 10,000, else of 1,000.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from stabilize import StageExecution, TaskResult, Workflow
from stabilize.models import MultiInstanceConfig
from stabilize.net import INSTANCES_KEPT, Net, Nets
from stabilize.queue.messages import (
    AddMultiInstance,
    CancelMultiInstance,
    CancelStage,
    CompleteMultiInstance,
    StageLevel,
)
from stabilize.turn import ROWS
from tests.support.builders import Engine, Ran, ok, puts, stage, workflow

SIZE = 10_000 if os.environ.get("STABILIZE_FULL") else 1_000
PATIENCE = 600.0
STATEMENTS = 30


def waits(stage: StageExecution) -> TaskResult:
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    return TaskResult.success(outputs=stage.context["_signal_data"])


class Turns:
    """What each turn wrote and read."""

    def __init__(self) -> None:
        self.written: list[int] = [0]
        self.statements: list[int] = [0]
        self.read: list[int] = [0]

    @contextmanager
    def watching(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        turns, keep = engine.database.turns, Net.keep

        def on_execute(conn: Any, cursor: Any, text: str, *rest: Any) -> None:
            self.statements[-1] += 1
            if not text.startswith("SELECT"):
                self.written[-1] += max(cursor.rowcount, 0)

        def on_end(connection: Any) -> None:
            for counts in (self.written, self.statements, self.read):
                counts.append(0)

        def counted(net: Net, run: StageExecution, tasks: Any) -> None:
            self.read[-1] += 1
            keep(net, run, tasks)

        monkeypatch.setattr(Net, "keep", counted)
        event.listen(turns, "after_cursor_execute", on_execute)
        event.listen(turns, "commit", on_end)
        try:
            yield
        finally:
            monkeypatch.setattr(Net, "keep", keep)
            event.remove(turns, "after_cursor_execute", on_execute)
            event.remove(turns, "commit", on_end)

    def check(self) -> None:
        """No turn did more than a turn may."""
        assert sum(self.written) > SIZE
        assert max(self.written) < 2 * ROWS
        assert max(self.statements) < STATEMENTS
        assert max(self.read) < ROWS


@pytest.fixture
def turns(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    watched = Turns()
    with watched.watching(engine, monkeypatch):
        yield watched


def group(ref_id: str = "group", does: Any = ok, **config: Any) -> StageExecution:
    context = config.pop("context", None)
    after = config.pop("after", ())
    return stage(
        ref_id, after=after, does=does, context=context, mi_config=MultiInstanceConfig(**config)
    )


def instances(ran: Ran) -> list[StageExecution]:
    return [s for s in ran.workflow.stages if s.parent_stage_id is not None]


def ends(ran: Ran) -> dict[str, int]:
    return dict(Counter(s.status.name for s in instances(ran)))


def finished(engine: Engine, made: Workflow) -> Ran:
    engine.play(PATIENCE)
    assert not engine.queue.has_pending_message_for_execution(made.id)
    return engine.look(made)


def run(engine: Engine, *stages: StageExecution) -> Ran:
    made = workflow(*stages)
    engine.submit(made)
    return finished(engine, made)


def test_a_large_group_is_made_and_ends_in_bounded_turns(engine: Engine, turns: Turns) -> None:
    ran = run(engine, group(count=SIZE), stage("end", after="group"))

    turns.check()
    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert ends(ran) == {"SUCCEEDED": SIZE}
    assert ran.workflow.open_runs == 0


def test_a_process_that_did_not_make_a_group_reads_only_the_instances_it_moves(
    engine: Engine, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nets, "known", lambda nets, versions: {})

    ran = run(engine, group(count=SIZE), stage("end", after="group"))

    turns.check()
    assert max(turns.read) < 300
    assert ends(ran) == {"SUCCEEDED": SIZE}


def test_a_process_knows_a_bounded_number_of_instances_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, let_go = [0], Net.let_go

    def counted(net: Net) -> None:
        let_go(net)
        known.append(len(net.instances))

    monkeypatch.setattr(Net, "let_go", counted)
    made = workflow(group(does=waits, count=SIZE + 500))
    engine.submit(made)
    engine.play(PATIENCE)

    assert ends(engine.look(made)) == {"SUSPENDED": SIZE + 500}
    assert max(known) == INSTANCES_KEPT


def test_small_workflows_end_long_before_a_large_group_beside_them(engine: Engine) -> None:
    log: list[str] = []

    def notes(stage: StageExecution) -> TaskResult:
        log.append(stage.context.get("who", "instance"))
        return TaskResult.success()

    small = [
        workflow(
            stage("first", does=notes, context={"who": "small"}),
            stage("second", after="first", does=notes, context={"who": "small"}),
        )
        for _ in range(5)
    ]
    engine.submit(workflow(group(does=notes, count=SIZE)), *small)
    engine.play(PATIENCE)

    assert Counter(log) == {"instance": SIZE, "small": 10}
    last = max(place for place, who in enumerate(log) if who == "small")
    assert last < SIZE / 2


# --- withdrawing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{"join_threshold": 1}, {"complete_when": "yes >= 1"}],
    ids=["join_threshold", "complete_when"],
)
def test_the_rest_of_a_large_group_is_withdrawn_in_bounded_turns(
    engine: Engine, turns: Turns, config: dict[str, Any]
) -> None:
    made = workflow(
        group(does=waits, count=SIZE, cancel_remaining=True, **config), stage("end", after="group")
    )
    engine.submit(made)
    engine.play(PATIENCE)
    last = engine.look(made)[f"group#1[{SIZE - 1}]"]
    engine.orchestrator.signal(made, last.id, "go", {"yes": True})
    ran = finished(engine, made)

    turns.check()
    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert ran.status == "SUCCEEDED"
    assert ends(ran) == {"CANCELED": SIZE - 1, "SUCCEEDED": 1}
    assert ran.workflow.open_runs == 0


@pytest.mark.parametrize(
    ("message", "group_ends", "end"),
    [
        (CompleteMultiInstance, "SUCCEEDED", "SUCCEEDED"),
        (CancelMultiInstance, "CANCELED", "SKIPPED"),
        (CancelStage, "CANCELED", "SKIPPED"),
    ],
)
def test_a_large_group_that_is_ended_from_outside_is_withdrawn_in_bounded_turns(
    engine: Engine, turns: Turns, message: type[StageLevel], group_ends: str, end: str
) -> None:
    made = workflow(
        stage("beside"), group(does=waits, count=SIZE), stage("end", after="group", does=ok)
    )
    engine.submit(made)
    engine.play(PATIENCE)
    engine.queue.push(message.of(engine.look(made)["group"]))
    ran = finished(engine, made)

    turns.check()
    assert ran.statuses == {"beside": "SUCCEEDED", "group": group_ends, "end": end}
    assert ran.status == "SUCCEEDED"
    assert ends(ran) == {"CANCELED": SIZE}
    assert ran.workflow.open_runs == 0


@pytest.mark.parametrize("waits_for_all", [True, False])
def test_canceling_a_workflow_withdraws_a_large_group_in_bounded_turns(
    engine: Engine, turns: Turns, waits_for_all: bool
) -> None:
    made = workflow(
        group(does=waits, count=SIZE, sync_on_complete=waits_for_all),
        stage("end", after="group", does=waits),
    )
    engine.submit(made)
    engine.play(PATIENCE)
    engine.orchestrator.cancel(made, "tests", "enough")
    ran = finished(engine, made)

    turns.check()
    assert ran.status == "CANCELED"
    assert ends(ran) == {"CANCELED": SIZE}
    assert ran.workflow.open_runs == 0


def test_a_group_that_jumps_back_leaves_none_of_its_instances_at_work(engine: Engine) -> None:
    def once(stage: StageExecution) -> TaskResult:
        if "again" in stage.context:
            return TaskResult.success()
        return TaskResult.jump_to("group", context={"again": True})

    made = workflow(
        group(does=waits, count=60, sync_on_complete=False), stage("end", after="group", does=once)
    )
    engine.submit(made)
    engine.play(PATIENCE)
    found = engine.look(made)

    assert Counter((s.ref_id.split("[")[0], s.status.name) for s in instances(found)) == {
        ("group#1", "CANCELED"): 60,
        ("group#2", "SUSPENDED"): 60,
    }


def test_what_is_withdrawn_in_later_turns_begins_nothing_before(engine: Engine) -> None:
    begun = []

    def first_ends(stage: StageExecution) -> TaskResult:
        begun.append(stage.context["_mi_instance_index"])
        return TaskResult.success()

    ran = run(engine, group(does=first_ends, count=SIZE, join_threshold=1, cancel_remaining=True))

    assert ran.statuses == {"group": "SUCCEEDED"}
    assert len(begun) < 200
    assert set(ends(ran)) <= {"SUCCEEDED", "CANCELED", "SKIPPED"}


# --- what an instance is given, and what comes of it --------------------------------------------


def test_each_item_of_a_large_collection_has_an_instance(engine: Engine, turns: Turns) -> None:
    items = [{"number": number} for number in range(SIZE)]

    def echoes(stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"n": stage.context["item"]["number"]})

    ran = run(
        engine,
        stage("s", does=puts(items=items)),
        group(after="s", does=echoes, collection_from_context="items"),
    )

    turns.check()
    assert ran["group"].outputs["instances"] == [{"n": number} for number in range(SIZE)]
    assert "items" not in str(ran["group"].delivered)


@pytest.mark.parametrize("source", ["upstream", "own"])
def test_an_instance_is_given_its_item_and_may_read_the_whole_collection(
    engine: Engine, source: str
) -> None:
    def sees(stage: StageExecution) -> TaskResult:
        context = stage.context
        return TaskResult.success(
            outputs={"own": stage.settings["item"], "all": context["items"], "k": context["k"]}
        )

    given = {"items": ["a", "b"], "k": 1}
    upstream = source == "upstream"
    ran = run(
        engine,
        stage("s", does=puts(**given) if upstream else ok),
        group(
            after="s",
            does=sees,
            collection_from_context="items",
            context={} if upstream else given,
        ),
    )

    assert ran["group"].outputs["instances"] == [
        {"own": "a", "all": ["a", "b"], "k": 1},
        {"own": "b", "all": ["a", "b"], "k": 1},
    ]
    assert all("items" not in s.context for s in instances(ran))


def test_outputs_too_large_to_be_one_list_stay_with_the_instances(engine: Engine) -> None:
    ran = run(
        engine,
        group(does=puts(text="x" * 300_000), count=4),
        stage("end", after="group"),
    )

    assert ran.status == "SUCCEEDED"
    assert set(ran["group"].outputs) == {"instances_left_out"}
    assert [len(s.outputs["text"]) for s in instances(ran)] == [300_000] * 4


def test_only_what_the_condition_asks_for_is_counted(engine: Engine) -> None:
    def differs(stage: StageExecution) -> TaskResult:
        number = stage.context["_mi_instance_index"]
        return TaskResult.success(outputs={f"key{number}": True, "yes": number < 3})

    ran = run(engine, group(does=differs, count=100, complete_when="yes >= 3"))

    assert ran["group"].delivered["_mi"]["truths"] == {"yes": 3}


# --- dynamic groups -----------------------------------------------------------------------------


def test_very_many_instances_may_be_added(engine: Engine, turns: Turns) -> None:
    made = workflow(
        group(does=waits, count=1, allow_dynamic=True, complete_when="done == wanted"),
        stage("end", after="group"),
    )
    engine.submit(made)
    engine.play(PATIENCE)
    found = engine.look(made)["group"]
    added = AddMultiInstance.of(found, instance_context={"_signal_name": "", "_signal_data": {}})
    with engine.database.engine.begin() as connection:
        for _ in range(SIZE):
            engine.queue.push_on(connection, added)
    engine.play(PATIENCE)
    ran = engine.look(made)
    assert ends(ran) == {"SUSPENDED": 1, "SUCCEEDED": SIZE}
    assert ran.statuses["end"] == "NOT_STARTED"
    engine.orchestrator.signal(made, ran["group#1[0]"].id, "go")
    ran = finished(engine, made)

    turns.check()
    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert ends(ran) == {"SUCCEEDED": SIZE + 1}


def test_instances_added_while_the_group_is_being_made_come_after_its_own(engine: Engine) -> None:
    def notes(stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"who": stage.context.get("who", "own")})

    made = workflow(
        stage("s", does=waits),
        group(after="s", does=notes, count=120, allow_dynamic=True),
        stage("end", after="group"),
    )
    engine.submit(made)
    engine.play()
    found = engine.look(made)
    for _ in range(3):
        engine.queue.push(AddMultiInstance.of(found["group"], instance_context={"who": "early"}))
    engine.play()
    engine.orchestrator.signal(made, found["s"].id, "go")
    ran = finished(engine, made)

    who = [one["who"] for one in ran["group"].outputs["instances"]]
    assert who == ["own"] * 120 + ["early"] * 3


def test_a_dynamic_group_of_none_without_a_condition_is_over_at_once(engine: Engine) -> None:
    ran = run(engine, group(count=0, allow_dynamic=True), stage("end", after="group"))

    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}


# --- before all instances are made --------------------------------------------------------------


def test_a_group_goes_on_after_enough_instances_and_still_makes_the_rest(engine: Engine) -> None:
    ran = run(engine, group(count=300, join_threshold=2), stage("end", after="group"))

    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert ends(ran) == {"SUCCEEDED": 300}


def test_a_failure_while_the_rest_is_being_made_is_not_lost(engine: Engine) -> None:
    def first_fails(stage: StageExecution) -> TaskResult:
        first = stage.context["_mi_instance_index"] == 0
        return TaskResult.terminal("boom") if first else TaskResult.success()

    ran = run(engine, group(does=first_fails, count=300, sync_on_complete=False))

    assert ran.status == "TERMINAL"


# --- instances with stages of their own ---------------------------------------------------------


def test_instances_with_synthetic_stages_are_read_with_all_they_consist_of(
    engine: Engine, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nets, "known", lambda nets, versions: {})
    engine.build(
        "built",
        before=[stage("b1", does=ok), stage("b2", after="b1", does=ok)],
        following=[stage("a1", does=ok)],
    )
    made = stage("group", does=ok, type="built", mi_config=MultiInstanceConfig(count=80))
    ran = run(engine, made, stage("end", after="group"))

    assert ran.statuses == {"group": "SUCCEEDED", "end": "SUCCEEDED"}
    assert ends(ran) == {"SUCCEEDED": 80 * 4}
    assert max(turns.read) <= 64 * 5 + 2  # what a turn takes, each of five, and the definition
    refs = Counter(s.ref_id for s in instances(ran))
    assert set(refs.values()) == {1}


def test_instances_of_very_many_tasks_are_made_fewer_at_a_time(
    engine: Engine, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stabilize.turn.ROWS", 400)
    config = MultiInstanceConfig(count=8)
    ran = run(engine, stage("group", does=[ok] * 80, mi_config=config))

    assert ends(ran) == {"SUCCEEDED": 8}
    assert sum(turns.written) > 8 * 80
    assert max(turns.written) < 400
