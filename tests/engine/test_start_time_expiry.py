"""The time by which a stage has to begin, when it comes while the stage waits."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import Signal, StageExecution, TaskResult, Timer, Workflow
from stabilize.clock import now_ms
from tests.support.builders import Engine, stage, workflow

WAITS: dict[str, dict[str, Any]] = {
    "mutex": {"mutex_key": "k"},
    "section": {"section": "k"},
    "milestone": {"milestone_ref_id": "holder", "milestone_status": "SUCCEEDED"},
    "signal": {"trigger": Signal("x")},
    "timer": {"trigger": Timer("2h")},
}


def _suspends(stage: StageExecution) -> TaskResult:
    return TaskResult.success() if "_signal_name" in stage.context else TaskResult.suspend()


def _held_up(expiry: int, **waits_for: Any) -> Workflow:
    """A stage that waits for a holder of everything, or for a trigger."""
    held = {} if "milestone_ref_id" in waits_for else {"mutex_key": "k", "section": "k"}
    return workflow(
        stage("holder", does=_suspends, **held),
        stage("a", start_time_expiry=expiry, **waits_for),
        stage("b", after="a"),
    )


@pytest.mark.parametrize("gate", WAITS)
def test_a_stage_that_waits_is_skipped_when_its_time_is_past(engine: Engine, gate: str) -> None:
    clock = engine.stop_time()
    begun = clock.now_ms()
    made = _held_up(begun + 60_000, **WAITS[gate])
    engine.submit(made)

    ran = engine.go_on(made)

    assert ran.statuses == {"holder": "SUSPENDED", "a": "SKIPPED", "b": "SUCCEEDED"}
    assert 60_000 < (ran["a"].end_time or 0) - begun < 61_000
    assert engine.queue.size() == 0


@pytest.mark.parametrize("gate", ["mutex", "section", "milestone"])
def test_a_stage_that_waited_and_began_in_time_has_no_time_left_to_keep(
    engine: Engine, gate: str
) -> None:
    made = _held_up(now_ms() + 3_600_000, **WAITS[gate])
    made.stages[1].tasks[0].implementing_class = "suspends"
    engine.registry.register("suspends", _suspends)
    engine.submit(made)
    engine.play()
    waiting = engine.queue.size()
    engine.orchestrator.signal(made, engine.look(made)["holder"].id, "go")

    ran = engine.go_on(made)

    assert (waiting, engine.queue.size()) == (1, 0)
    assert ran.statuses["a"] == "SUSPENDED"


def test_a_wait_that_has_an_end_is_no_deadlock(engine: Engine) -> None:
    clock = engine.stop_time()

    ran = engine.run(
        stage("a1", section="s"),
        stage(
            "a2",
            after="a1",
            section="s",
            milestone_ref_id="late",
            milestone_status="SUCCEEDED",
            start_time_expiry=clock.now_ms() + 60_000,
        ),
        stage("wait", after="a1"),
        stage("b", after="wait", section="s"),
        stage("late", after="b"),
    )

    assert ran.status == "SUCCEEDED"
    assert (ran.statuses["a2"], ran.statuses["late"]) == ("SKIPPED", "SUCCEEDED")


def test_a_choice_does_not_fall_on_a_stage_whose_trigger_comes_too_late(engine: Engine) -> None:
    clock = engine.stop_time()
    offered: dict[str, Any] = {"deferred_choice_group": "g", "trigger": Signal("x")}
    made = workflow(
        stage("a", start_time_expiry=clock.now_ms() + 3 * 3_600_000, **offered),
        stage("b", **offered),
    )
    engine.submit(made)
    engine.play()
    engine.orchestrator.pause(made)
    engine.play()
    clock.advance(4 * 3600)
    for ref_id in ("a", "b"):
        engine.orchestrator.signal(made, engine.look(made)[ref_id].id, "x")
        engine.play()
    engine.orchestrator.resume(made)

    assert engine.go_on(made).statuses == {"a": "SKIPPED", "b": "SUCCEEDED"}
