"""Entities of turns: classes beside the mapped ones, with their columns in the open."""

from __future__ import annotations

import pytest

from stabilize.models import StageExecution, TaskExecution, Workflow
from stabilize.models.base import Base
from stabilize.models.unwatched import KIND_OF, KINDS, Entity, unwatched
from stabilize.status import JoinType, WorkflowStatus
from stabilize.tasks.result import TaskResult
from tests.support.builders import Engine, stage


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_of_its_kind_and_the_mapping_does_not_know_it(kind: type[Entity]) -> None:
    other = unwatched(kind)

    assert other is not kind
    assert issubclass(other, kind)
    assert KIND_OF[other] is KIND_OF[kind] is kind
    assert other not in {mapper.class_ for mapper in Base.registry.mappers}


def test_what_it_has_is_read_and_written_in_the_entity_itself() -> None:
    kind = unwatched(StageExecution)
    entity = kind.__new__(kind)
    entity.__dict__.update(status=WorkflowStatus.RUNNING, definition={"join_type": "OR"})

    entity.run = 2

    assert (entity.status, entity.join_type) == (WorkflowStatus.RUNNING, JoinType.OR)
    assert set(entity.__dict__) == {"status", "definition", "run"}


def test_a_body_gets_entities_of_the_mapped_classes(engine: Engine) -> None:
    seen: list[type] = []

    def look(stage: StageExecution) -> TaskResult:
        seen.extend([type(stage), type(stage.workflow), *(type(task) for task in stage.tasks)])
        return TaskResult.success()

    engine.registry.register("look", look)
    engine.run(stage("a", does="look"))

    assert seen == [StageExecution, Workflow, TaskExecution]
