"""Messages put in, taken by hand, given back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stabilize import ConfigurationError, Queue
from stabilize.queue.messages import (
    MESSAGE_TYPES,
    SignalStage,
    StartStage,
    StartWorkflow,
    create_message_from_dict,
    get_message_type_name,
)
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage, workflow


def test_what_is_pushed_is_taken_with_all_it_says(engine: Engine) -> None:
    sent = SignalStage(
        execution_id="w",
        stage_id="s",
        signal_name="go",
        signal_data={"n": [1, None]},
        persistent=True,
        user="alice",
    )
    engine.queue.push(sent)

    taken = engine.queue.poll_one()

    assert taken == sent
    assert taken is not None
    assert (taken.message_id is None, taken.attempts) == (False, 1)
    assert sent.message_id is None


def test_an_empty_queue_has_nothing(engine: Engine) -> None:
    assert engine.queue.poll_one() is None
    assert not engine.queue.poll(lambda message: None)
    assert engine.queue.size() == 0


def test_a_message_that_is_claimed_is_not_given_to_another(engine: Engine) -> None:
    engine.queue.push(StartWorkflow(execution_id="w"))
    engine.queue.poll_one()

    assert engine.queue.poll_one() is None
    assert engine.queue.size() == 1


def test_a_claim_ends_with_its_lease_and_the_late_holder_is_refused(engine: Engine) -> None:
    clock = engine.stop_time()
    engine.queue.push(StartWorkflow(execution_id="w"))
    first = engine.queue.poll_one()
    clock.advance(61)
    second = engine.queue.poll_one()
    assert first is not None
    assert second is not None

    assert second.attempts == 2
    assert not engine.queue.ack(first)
    assert not engine.queue.reschedule(first)
    assert not engine.queue.extend_lock(first)
    assert engine.queue.size() == 1
    assert engine.queue.ack(second)
    assert engine.queue.size() == 0


def test_a_longer_lock_keeps_the_message(engine: Engine) -> None:
    clock = engine.stop_time()
    engine.queue.push(StartWorkflow(execution_id="w"))
    message = engine.queue.poll_one()
    assert message is not None
    clock.advance(50)

    assert engine.queue.extend_lock(message)
    clock.advance(50)

    assert engine.queue.poll_one() is None


def test_a_delayed_message_comes_when_it_is_due(engine: Engine) -> None:
    clock = engine.stop_time()
    engine.queue.push(StartWorkflow(execution_id="w"), timedelta(seconds=30))

    assert engine.queue.poll_one() is None
    clock.advance(31)
    assert engine.queue.poll_one() == StartWorkflow(execution_id="w")


def test_a_message_given_back_comes_again(engine: Engine) -> None:
    clock = engine.stop_time()
    engine.queue.push(StartWorkflow(execution_id="w"))
    message = engine.queue.poll_one()
    assert message is not None

    assert engine.queue.reschedule(message, timedelta(seconds=5))

    assert engine.queue.poll_one() is None
    clock.advance(6)
    again = engine.queue.poll_one()
    assert again is not None
    assert again.attempts == 2


def test_poll_acknowledges_what_its_callback_has_carried_out(engine: Engine) -> None:
    seen: list[object] = []
    engine.queue.push(StartWorkflow(execution_id="w"))

    assert engine.queue.poll(seen.append)

    assert seen == [StartWorkflow(execution_id="w")]
    assert engine.queue.size() == 0


def test_poll_keeps_what_its_callback_fails_at(engine: Engine) -> None:
    def fail(message: object) -> None:
        raise LookupError

    engine.queue.push(StartWorkflow(execution_id="w"))

    with pytest.raises(LookupError):
        engine.queue.poll(fail)
    assert engine.queue.size() == 1


def test_messages_of_the_oldest_workflow_go_first(engine: Engine) -> None:
    old, new = workflow(stage("a")), workflow(stage("a"))
    new.created_at = old.created_at + 10
    engine.store.store(new)
    engine.store.store(old)
    engine.queue.push(StartWorkflow(execution_id=new.id))
    engine.queue.push(StartWorkflow(execution_id=old.id))

    taken = [engine.queue.poll_one(), engine.queue.poll_one()]

    assert [message.execution_id for message in taken if message] == [old.id, new.id]


def test_messages_are_counted_and_purged_by_what_they_are_about(engine: Engine) -> None:
    engine.queue.push(StartStage(execution_id="w", stage_id="s"))
    engine.queue.push(StartWorkflow(execution_id="other"))

    assert engine.queue.has_pending_message_for_stage("s")
    assert not engine.queue.has_pending_message_for_stage("t")
    assert engine.queue.has_pending_message_for_execution("w")
    assert not engine.queue.has_pending_message_for_task("s")
    assert engine.queue.purge_workflow("w") == 1
    assert engine.queue.size() == 1
    engine.queue.clear()
    assert engine.queue.size() == 0


def test_queues_of_different_names_keep_apart(engine: Engine, backend: BackendUnderTest) -> None:
    other = Queue(backend.url, table_name="other_messages")
    other.push(StartWorkflow(execution_id="w"))

    assert engine.queue.size() == 0
    assert engine.queue.poll_one() is None
    engine.queue.clear()
    assert other.size() == 1
    same = Queue(backend.url, table_name="other_messages")
    assert same.poll_one() == StartWorkflow(execution_id="w")


def test_workflows_of_one_queue_are_not_played_by_the_processor_of_another(
    engine: Engine, backend: BackendUnderTest
) -> None:
    from stabilize import Orchestrator, QueueProcessor

    other = Queue(backend.url, table_name="other_messages")
    made = workflow(stage("a", does=ok))
    Orchestrator(other, engine.store).start(made)

    engine.play()
    assert engine.status(made) == "NOT_STARTED"
    QueueProcessor(other, store=engine.store, task_registry=engine.registry).process_all(10)
    assert engine.status(made) == "SUCCEEDED"


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_a_queue_cannot_have_is_refused(backend: BackendUnderTest, name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 64 characters"):
        Queue(backend.url, table_name=name)


@pytest.mark.parametrize("name", sorted(MESSAGE_TYPES))
def test_every_message_goes_through_the_queue_and_back(engine: Engine, name: str) -> None:
    message = create_message_from_dict(name, {"execution_id": "w"})
    engine.queue.push(message)

    taken = engine.queue.poll_one()

    assert taken == message
    assert get_message_type_name(message) == name
