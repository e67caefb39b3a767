"""How many commits and statements it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from stabilize import QueueProcessorConfig
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, sequence, stage, workflow


class Counter:
    """What went over one engine and those made of it with options."""

    def __init__(self) -> None:
        self.commits = 0
        self.statements: list[str] = []

    def on_commit(self, connection: Any) -> None:
        self.commits += 1

    def on_execute(
        self,
        connection: Any,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        many: bool,
    ) -> None:
        self.statements.append(statement)

    @contextmanager
    def watching(self, engine: SqlEngine) -> Iterator[Counter]:
        event.listen(engine, "commit", self.on_commit)
        event.listen(engine, "before_cursor_execute", self.on_execute)
        try:
            yield self
        finally:
            event.remove(engine, "commit", self.on_commit)
            event.remove(engine, "before_cursor_execute", self.on_execute)


@pytest.fixture
def own(backend: BackendUnderTest) -> SqlEngine:
    """The application's engine: what the library does is counted on it."""
    return backend.engine()


@pytest.fixture
def engine(own: SqlEngine) -> Iterator[Engine]:
    """The library on that engine."""
    with Engine(own, config=QueueProcessorConfig(poll_frequency_ms=60_000)) as engine:
        yield engine


def test_the_counter_sees_the_commits_of_the_library(engine: Engine, own: SqlEngine) -> None:
    with Counter().watching(own) as counted:
        engine.store.store(workflow(stage("a")))

    assert counted.commits == 1
    assert any(text.startswith("INSERT INTO stabilize_workflows") for text in counted.statements)


def test_a_sequence_of_ten_stages_commits_at_most_14_times(engine: Engine, own: SqlEngine) -> None:
    made = workflow(*sequence(*"abcdefghij"))
    with Counter().watching(own) as counted:
        engine.submit(made)
        engine.play()

    assert engine.status(made) == "SUCCEEDED"
    assert 10 <= counted.commits <= 14


def test_100_workflows_of_one_task_commit_at_most_60_times(engine: Engine, own: SqlEngine) -> None:
    made = [workflow(stage("a")) for _ in range(100)]
    engine.submit(*made)
    with Counter().watching(own) as counted:
        engine.play()

    assert {engine.status(one) for one in made} == {"SUCCEEDED"}
    assert 1 <= counted.commits <= 60


POLL = "SELECT stabilize_messages.visible_at"


def test_a_step_of_a_chain_takes_seven_statements_and_reads_nothing_twice(
    engine: Engine, own: SqlEngine
) -> None:
    """It locks a message, writes workflow, stage, task, token and the next message, and deletes.

    What is asked by the clock, like whether anything is due, is not counted.
    """
    counts = []
    for length in (10, 30):
        made = workflow(*sequence(*(f"s{n}" for n in range(length))))
        engine.submit(made)
        with Counter().watching(own) as counted:
            engine.play()
        work = [t for t in counted.statements if "stabilize_" in t and not t.startswith(POLL)]
        reads = [t for t in work if t.startswith("SELECT stabilize_stages")]
        assert len(reads) == 1
        counts.append(len(work))

    assert (counts[1] - counts[0]) / 20 == 7


def test_a_long_chain_reads_no_more_per_step_than_a_short_one(
    engine: Engine, own: SqlEngine
) -> None:
    counts = {}
    for length in (20, 200):
        made = workflow(*sequence(*(f"s{n}" for n in range(length))))
        engine.submit(made)
        with Counter().watching(own) as counted:
            engine.play()
        assert engine.status(made) == "SUCCEEDED"
        counts[length] = len(counted.statements) / length

    assert counts[200] <= counts[20] * 1.1
