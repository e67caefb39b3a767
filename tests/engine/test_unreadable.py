"""Messages that this version of the code cannot read."""

from __future__ import annotations

from sqlalchemy import update

from stabilize.models import QueueMessage, Workflow
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage


def _rewrite(engine: Engine, workflow_id: str, **values: object) -> None:
    with engine.queue.database.writing() as connection:
        connection.execute(
            update(QueueMessage).where(QueueMessage.workflow_id == workflow_id).values(**values)
        )


def _submitted(engine: Engine) -> Workflow:
    made = Workflow.create("tests", "unreadable", [stage("a", does=ok)])
    engine.submit(made)
    return made


def test_a_message_with_a_broken_payload_is_given_up_and_others_go_on(
    backend: BackendUnderTest,
) -> None:
    with Engine(backend.url) as engine:
        broken = _submitted(engine)
        sound = _submitted(engine)
        _rewrite(engine, broken.id, payload={"nonsense": 1})
        engine.play()
        assert str(engine.store.retrieve(sound.id).status) == "SUCCEEDED"
        ended = engine.store.retrieve(broken.id)
        assert str(ended.status) == "TERMINAL"
        assert "StartWorkflow cannot be read" in ended.context["error"]
        (letter,) = engine.queue.list_dlq()
        assert letter["reason"] == "unreadable"


def test_a_message_of_a_newer_version_is_left_to_workers_of_that_version(
    backend: BackendUnderTest,
) -> None:
    with Engine(backend.url) as engine:
        newer = _submitted(engine)
        _rewrite(engine, newer.id, type="FoldSpace")
        assert engine.play() == 0
        assert engine.queue.size() == 1
        assert engine.queue.dlq_size() == 0
