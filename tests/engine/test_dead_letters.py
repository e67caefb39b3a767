"""Messages that keep failing: given up, shown, replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import update

from stabilize import QueueProcessor, StageExecution, TaskResult, Workflow
from stabilize.handlers import Handler
from stabilize.handlers.stage import StartStageHandler
from stabilize.models import QueueMessage
from stabilize.queue.messages import FailWorkflow, RunTask, StartStage, StartWorkflow
from stabilize.turn import Turn
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, eventually, stage, workflow


class Poisoned(Handler[StartStage]):
    """Cannot start the stages called `poison`."""

    cured = False
    seen = 0

    def handle(self, message: StartStage, turn: Turn) -> None:
        if turn.stage(message).ref_id == "poison" and not self.cured:
            self.seen += 1
            raise ZeroDivisionError("the handler is broken")
        StartStageHandler().handle(message, turn)


@pytest.fixture
def engine(backend: BackendUnderTest) -> Iterator[Engine]:
    """An engine that gives a message up after three failures."""
    with Engine(backend.url, max_attempts=3) as engine:
        engine.stop_time()
        yield engine


def _poisoned(engine: Engine, handler: Poisoned | None = None) -> tuple[QueueProcessor, Poisoned]:
    processor, handler = engine.processor(), handler or Poisoned()
    processor.replace_handler(handler)
    return processor, handler


def _bad() -> Workflow:
    return workflow(stage("first"), stage("poison", after="first"), stage("last", after="poison"))


def test_a_message_that_keeps_failing_is_given_up_and_its_workflow_shows_why(
    engine: Engine,
) -> None:
    processor, handler = _poisoned(engine)
    made = _bad()
    engine.submit(made)

    processor.process_all(20)

    ran = engine.look(made)
    assert handler.seen == 3
    assert ran.status == "TERMINAL"
    assert ran.statuses["last"] == "NOT_STARTED"
    told = [str(s.context) for s in ran.workflow.stages] + [str(ran.workflow.context)]
    assert any("the handler is broken" in text for text in told)
    assert engine.queue.size() == 0


def test_a_letter_says_what_it_was_and_why_it_was_given_up(engine: Engine) -> None:
    processor, _ = _poisoned(engine)
    made = _bad()
    engine.submit(made)
    processor.process_all(20)

    letters = engine.queue.list_dlq()

    assert engine.queue.dlq_size() == len(letters) == 1
    letter = letters[0]
    assert letter["workflow_id"] == made.id
    assert letter["reason"] == "failures"
    assert "ZeroDivisionError: the handler is broken" in letter["error"]
    assert engine.queue.list_dlq(message_type="SignalStage") == []
    assert engine.queue.list_dlq(message_type=letter["message_type"]) == letters


def test_a_failing_message_does_not_hold_the_others_up(engine: Engine) -> None:
    processor, _ = _poisoned(engine)
    bad = [_bad() for _ in range(3)]
    good = [workflow(stage("a"), stage("b", after="a")) for _ in range(10)]
    engine.submit(bad[0], *good[:5], bad[1], *good[5:], bad[2])

    processor.process_all(20)

    assert [engine.status(one) for one in good] == ["SUCCEEDED"] * 10
    assert [engine.status(one) for one in bad] == ["TERMINAL"] * 3
    assert engine.queue.dlq_size() == 3


def test_good_workflows_end_while_a_bad_message_waits_for_its_next_try(
    backend: BackendUnderTest,
) -> None:
    with Engine(backend.url, max_attempts=1000) as engine:
        processor, handler = _poisoned(engine)
        bad, good = _bad(), [workflow(stage("a")) for _ in range(5)]
        engine.submit(bad, *good)
        processor.start()
        try:
            eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in good))
            eventually(lambda: handler.seen >= 2)
            assert engine.status(bad) == "RUNNING"
        finally:
            processor.stop(timeout=10)


def test_a_message_that_fails_once_is_carried_out_at_its_next_try(engine: Engine) -> None:
    class Hiccup(Poisoned):
        def handle(self, message: StartStage, turn: Turn) -> None:
            self.cured = self.seen > 0
            super().handle(message, turn)

    processor, handler = _poisoned(engine, Hiccup())
    made = _bad()
    engine.submit(made)

    processor.process_all(20)

    assert engine.status(made) == "SUCCEEDED"
    assert handler.seen == 1
    assert engine.queue.dlq_size() == 0


def test_what_a_failed_turn_did_is_as_if_it_never_happened(engine: Engine) -> None:
    class Halfway(Handler[StartStage]):
        tries = 0

        def handle(self, message: StartStage, turn: Turn) -> None:
            StartStageHandler().handle(message, turn)
            self.tries += 1
            if self.tries == 1:
                raise ZeroDivisionError("after all was done")

    processor = engine.processor()
    processor.replace_handler(Halfway())
    bodies: list[str] = []

    def body(stage: StageExecution) -> TaskResult:
        bodies.append(stage.ref_id)
        return TaskResult.success()

    made = workflow(stage("a", does=body))
    engine.submit(made)
    processor.process_all(20)

    assert engine.status(made) == "SUCCEEDED"
    assert bodies == ["a"]


def test_a_replayed_letter_is_carried_out(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.submit(made)
    message = engine.queue.poll_one()
    assert message is not None
    engine.queue.move_to_dlq(message.message_id, "by hand")
    engine.queue.clear()  # not the end that comes with it: only the letter is left
    letter = engine.queue.list_dlq()[0]

    assert engine.queue.replay_dlq(letter["id"])
    engine.play()

    assert engine.status(made) == "SUCCEEDED"
    assert engine.queue.dlq_size() == 0
    assert not engine.queue.replay_dlq(letter["id"])


def test_a_message_given_up_by_hand_ends_its_workflow(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.submit(made)
    message = engine.queue.poll_one()
    assert message is not None

    assert engine.queue.move_to_dlq(message.message_id, "by hand")
    assert not engine.queue.move_to_dlq(message.message_id)

    ran = engine.go_on(made)
    assert ran.status == "TERMINAL"
    assert ran.workflow.context["error"] == "by hand"


def test_a_task_given_up_by_hand_is_named_with_its_stage(engine: Engine) -> None:
    made = workflow(stage("a"), stage("b", after="a"))
    engine.store.store(made)
    (task,) = made.stages[0].tasks
    engine.queue.push(RunTask.of_task(task, task_type="ok"))
    message = engine.queue.poll_one()
    assert message is not None

    engine.queue.move_to_dlq(message.message_id, "by hand")

    said = engine.queue.poll_one()
    assert said == FailWorkflow(
        execution_id=made.id, stage_id=made.stages[0].id, task_id=task.id, error="by hand"
    )


@dataclass
class Poke:
    """Two ways to get rid of a letter."""

    do: Callable[[Any, Any], None]


@pytest.mark.parametrize(
    "poke",
    [
        Poke(lambda queue, id: queue.discard_dlq(id)),
        Poke(lambda queue, id: queue.clear_dlq()),
    ],
    ids=["discard", "clear"],
)
def test_a_letter_can_be_forgotten(engine: Engine, poke: Poke) -> None:
    engine.queue.push(StartWorkflow(execution_id="nobody"))
    engine.play()
    letter = engine.queue.list_dlq()[0]

    poke.do(engine.queue, letter["id"])

    assert engine.queue.dlq_size() == 0
    assert not engine.queue.discard_dlq(letter["id"])


def test_a_message_for_a_workflow_nobody_stored_is_set_aside_with_the_reason(
    engine: Engine,
) -> None:
    engine.queue.push(StartWorkflow(execution_id="nobody"))
    good = workflow(stage("a"))
    engine.submit(good)

    engine.play()

    assert engine.status(good) == "SUCCEEDED"
    assert engine.queue.size() == 0
    letter = engine.queue.list_dlq()[0]
    assert (letter["reason"], letter["workflow_id"]) == ("unknown workflow", "nobody")
    assert "store it before you start it" in letter["error"]


@pytest.mark.parametrize(("limit", "listed"), [(-5, 1), (0, 1), (2, 2), (10**12, 3)])
def test_a_list_of_letters_is_bounded(engine: Engine, limit: int, listed: int) -> None:
    for _ in range(3):
        engine.queue.push(StartWorkflow(execution_id="nobody has stored it"))
    engine.play()

    assert len(engine.queue.list_dlq(limit)) == listed


def test_letters_are_listed_the_latest_first(engine: Engine) -> None:
    for name in ("w1", "w2", "w3"):
        engine.queue.push(StartWorkflow(execution_id=name))
        engine.play()

    assert [letter["workflow_id"] for letter in engine.queue.list_dlq()] == ["w3", "w2", "w1"]
    assert len(engine.queue.list_dlq(limit=2)) == 2


@pytest.mark.parametrize(("deaths", "status"), [(1, "SUCCEEDED"), (2, "TERMINAL")])
def test_a_message_that_took_three_workers_with_it_is_given_up(
    engine: Engine, deaths: int, status: str
) -> None:
    made = workflow(stage("a"))
    engine.submit(made)
    with engine.database.writing() as connection:  # as after so many leases that ran out
        connection.execute(update(QueueMessage).values(deaths=deaths, holder="a dead worker"))

    ran = engine.go_on(made)

    assert ran.status == status
    reasons = [letter["reason"] for letter in engine.queue.list_dlq()]
    assert reasons == (["deaths"] if status == "TERMINAL" else [])
