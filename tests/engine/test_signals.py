"""Signals: to a stage that waits, kept for one that does not yet, or dropped."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import StageExecution, StageNotFoundError, TaskResult, Workflow
from stabilize.events import (
    EventType,
    SqlEventStore,
    configure_event_sourcing,
    reset_event_recorder,
)
from stabilize.events.bus import reset_event_bus
from stabilize.queue.messages import SignalStage
from tests.support.builders import Engine, Recorder, Script, fails, stage, workflow


class Approval:
    """Waits until it has been sent `wanted`; keeps every signal it was given."""

    def __init__(self, wanted: str = "approved") -> None:
        self.wanted = wanted
        self.heard: list[tuple[Any, Any]] = []

    def __call__(self, stage: StageExecution) -> TaskResult:
        name, data = stage.context.get("_signal_name"), stage.context.get("_signal_data")
        self.heard.append((name, data))
        if name == self.wanted:
            return TaskResult.success(outputs={"by": data})
        return TaskResult.suspend(context={"asked": True})


def _send(engine: Engine, made: Workflow, name: str, ref_id: str = "a", **fields: Any) -> None:
    target = made.stage_by_ref_id(ref_id)
    assert target is not None
    engine.queue.push(
        SignalStage(execution_id=made.id, stage_id=target.id, signal_name=name, **fields)
    )


def _send_to(engine: Engine, made: Workflow, stage_id: str) -> None:
    engine.queue.push(SignalStage(execution_id=made.id, stage_id=stage_id, signal_name="approved"))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_signal_wakes_the_stage_that_waits(engine: Engine, persistent: bool) -> None:
    approval = Approval()
    made = workflow(stage("a", does=approval), stage("b", after="a"))
    engine.submit(made)
    waiting = engine.go_on(made)

    _send(engine, made, "approved", signal_data={"user": "alice"}, persistent=persistent)
    ran = engine.go_on(made)

    assert (waiting.status, waiting.statuses["a"]) == ("RUNNING", "SUSPENDED")
    assert waiting["a"].context["asked"] is True
    assert ran.status == "SUCCEEDED"
    assert ran["a"].outputs == {"by": {"user": "alice"}}
    assert approval.heard == [(None, None), ("approved", {"user": "alice"})]


def test_a_persistent_signal_that_comes_before_the_start_is_kept(engine: Engine) -> None:
    approval = Approval()
    made = workflow(stage("first"), stage("a", after="first", does=approval))
    engine.store.store(made)
    _send(engine, made, "approved", signal_data={"n": 1}, persistent=True)

    engine.submit(made)
    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert ran["a"].outputs == {"by": {"n": 1}}


def test_a_persistent_signal_that_comes_while_the_body_runs_is_kept(engine: Engine) -> None:
    approval = Approval()

    def body(stage: StageExecution) -> TaskResult:
        if not approval.heard:
            engine.orchestrator.signal(stage.workflow_id, stage.id, "approved")
        return approval(stage)

    ran = engine.run(stage("a", does=body))

    assert ran.status == "SUCCEEDED"
    assert len(approval.heard) == 2


def test_a_transient_signal_that_comes_early_is_dropped(engine: Engine) -> None:
    made = workflow(stage("a", does=Approval()))
    engine.store.store(made)
    _send(engine, made, "approved", persistent=False)

    engine.submit(made)

    assert engine.go_on(made).statuses == {"a": "SUSPENDED"}


def test_two_early_signals_are_delivered_in_order(engine: Engine) -> None:
    approval = Approval(wanted="second")
    made = workflow(stage("a", does=approval))
    engine.store.store(made)
    _send(engine, made, "first", signal_data={"n": 1}, persistent=True)
    _send(engine, made, "second", signal_data={"n": 2}, persistent=True)

    engine.submit(made)
    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert [name for name, _ in approval.heard] == [None, "first", "second"]


def test_a_signal_is_used_once(engine: Engine) -> None:
    made = workflow(stage("a", does=Approval()), stage("b", after="a", does=Approval("other")))
    engine.submit(made)
    engine.play()
    _send(engine, made, "approved", persistent=True)

    ran = engine.go_on(made)

    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUSPENDED"}
    assert "_signal_name" not in ran["b"].delivered


def test_a_signal_to_a_stage_that_is_over_is_dropped(engine: Engine) -> None:
    made = workflow(stage("a"), stage("b", after="a", does=Approval()))
    engine.submit(made)
    engine.play()
    _send(engine, made, "approved", ref_id="a", persistent=True)

    ran = engine.go_on(made)

    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUSPENDED"}
    assert engine.queue.size() == 0


def test_a_signal_for_another_workflows_stage_is_refused(engine: Engine) -> None:
    mine = workflow(stage("a", does=Approval()))
    theirs = workflow(stage("a", does=Approval()))
    engine.submit(mine, theirs)
    engine.play()

    with pytest.raises(StageNotFoundError):
        engine.orchestrator.signal(mine, theirs.stages[0].id, "approved")
    _send_to(engine, mine, theirs.stages[0].id)
    engine.play()

    assert engine.look(mine).statuses == {"a": "SUSPENDED"}
    assert engine.look(theirs).statuses == {"a": "SUSPENDED"}
    assert engine.queue.size() == 0


def test_the_id_of_an_old_run_reaches_the_run_that_waits(engine: Engine) -> None:
    first = Script(TaskResult.jump_to("a"), TaskResult.suspend(), TaskResult.success())
    made = workflow(stage("a", does=first))
    engine.submit(made)
    engine.play()
    before = engine.look(made)

    _send(engine, made, "go on", persistent=True)
    ran = engine.go_on(made)

    assert before.runs("a") == ["SUCCEEDED", "SUSPENDED"]
    assert before["a"].id != made.stages[0].id
    assert ran.runs("a") == ["SUCCEEDED", "SUCCEEDED"]
    assert first.contexts[-1]["_signal_name"] == "go on"


def test_a_signal_kept_for_a_stage_reaches_its_next_run_too(engine: Engine) -> None:
    approval = Approval()
    back = Script(TaskResult.jump_to("a"))
    made = workflow(stage("a", does=back))
    made.stages[0].tasks[0].implementing_class = "switch"

    def switch(stage: StageExecution) -> TaskResult:
        if stage.run == 1:
            engine.orchestrator.signal(stage.workflow_id, stage.id, "approved")
            return TaskResult.jump_to("a")
        return approval(stage)

    engine.registry.register("switch", switch)
    engine.submit(made)
    engine.play()
    ran = engine.go_on(made)

    assert ran.status == "SUCCEEDED"
    assert approval.heard[-1][0] == "approved"


def test_the_verb_signals_too_and_takes_plain_ids(engine: Engine) -> None:
    made = workflow(stage("a", does=Approval()))
    engine.submit(made)
    engine.play()

    engine.orchestrator.signal(made.id, made.stages[0].id, "approved", {"user": "bob"})

    assert engine.go_on(made)["a"].outputs == {"by": {"user": "bob"}}


def test_a_stage_waits_for_a_signal_beside_branches_that_go_on(engine: Engine) -> None:
    beside = Recorder()
    made = workflow(
        stage("a", does=Approval()),
        stage("b"),
        stage("c", after="b", does=beside),
        stage("d", after=["a", "c"]),
    )
    engine.submit(made)

    ran = engine.go_on(made)

    assert ran.status == "RUNNING"
    assert ran.statuses == {
        "a": "SUSPENDED",
        "b": "SUCCEEDED",
        "c": "SUCCEEDED",
        "d": "NOT_STARTED",
    }


def test_a_failed_branch_withdraws_the_stage_that_waits(engine: Engine) -> None:
    ran = engine.run(stage("a", does=Approval()), stage("b"), stage("c", after="b", does=fails))

    assert ran.status == "TERMINAL"
    assert ran.statuses == {"a": "CANCELED", "b": "SUCCEEDED", "c": "TERMINAL"}


def test_signal_data_that_json_does_not_have_is_refused_when_it_is_sent(engine: Engine) -> None:
    made = workflow(stage("a", does=Approval()))
    engine.store.store(made)

    with pytest.raises(ValueError, match=r"signal_data\.amount"):
        engine.orchestrator.signal(made, made.stages[0].id, "x", {"amount": float("nan")})

    assert engine.queue.size() == 0


def test_a_signal_for_an_unknown_stage_is_dropped_with_an_event_and_a_warning(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    configure_event_sourcing(events := SqlEventStore(engine.database))
    try:
        made = engine.run(stage("a", does=Approval())).workflow
        _send_to(engine, made, "nobody")
        engine.play()
    finally:
        reset_event_recorder()
        reset_event_bus()

    found = list(events.get_events_for_workflow(made.id))
    assert (found[-1].event_type, found[-1].entity_id) == (EventType.SIGNAL_DROPPED, made.id)
    assert found[-1].data["signal_name"] == "approved"
    assert "nobody" in found[-1].data["reason"]
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.workflow_id for record in warned] == [made.id]  # type: ignore[attr-defined]
    assert "stage nobody is not one of workflow" in warned[0].getMessage()
