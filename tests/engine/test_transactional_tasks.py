"""Tasks whose writes commit together with their outcome."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import (
    Column,
    FromClause,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.orm import Session

from stabilize import StageExecution, TaskResult, TransactionalTask, TransientError
from tests.support.backends import BackendUnderTest
from tests.support.builders import (
    Engine,
    Gate,
    Recorder,
    Script,
    eventually,
    stage,
    workflow,
)

_tables = MetaData()
PAYMENTS = Table(
    "payments",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("workflow", String(64)),
    Column("amount", Integer),
)


@pytest.fixture
def payments(backend: BackendUnderTest) -> Iterator[SqlEngine]:
    """An application's table in the same database."""
    own = backend.engine()
    _tables.create_all(own)
    yield own
    _tables.drop_all(own)


class Charge(TransactionalTask):
    """Writes a payment, then does what it is told."""

    def __init__(self, *steps: TaskResult | BaseException) -> None:
        self.script = Script(*steps)

    def execute(self, stage: StageExecution, session: Session) -> TaskResult:
        session.execute(
            insert(PAYMENTS).values(workflow=stage.workflow_id, amount=stage.context["amount"])
        )
        return self.script(stage)


def _paid(own: SqlEngine) -> int:
    with own.connect() as connection:
        return connection.scalar(select(func.count()).select_from(PAYMENTS)) or 0


def test_what_the_task_writes_is_there_with_its_outcome(
    engine: Engine, payments: SqlEngine
) -> None:
    last = Recorder()

    ran = engine.run(
        stage("a", does=Charge(TaskResult.success(outputs={"paid": True})), context={"amount": 7}),
        stage("b", after="a", does=last),
    )

    assert ran.status == "SUCCEEDED"
    assert ran["a"].outputs == {"paid": True}
    assert last.contexts == [{"paid": True}]
    assert _paid(payments) == 1


@pytest.mark.parametrize(
    "step",
    [
        TaskResult.terminal("declined"),
        ValueError("broken"),
        TaskResult.success({"x": float("nan")}),
    ],
    ids=["terminal", "exception", "unfit result"],
)
def test_a_task_that_fails_writes_nothing(
    engine: Engine, payments: SqlEngine, step: TaskResult | BaseException
) -> None:
    ran = engine.run(stage("a", does=Charge(step), context={"amount": 7}), stage("b", after="a"))

    assert ran.statuses == {"a": "TERMINAL", "b": "NOT_STARTED"}
    assert _paid(payments) == 0


def test_a_task_that_is_tried_again_writes_once(engine: Engine, payments: SqlEngine) -> None:
    engine.stop_time()
    task = Charge(TransientError("busy"), TransientError("busy"), TaskResult.success())

    ran = engine.run(stage("a", does=task, context={"amount": 7}))

    assert (ran.status, task.script.calls) == ("SUCCEEDED", 3)
    assert _paid(payments) == 1


def test_a_statement_that_the_database_refuses_fails_the_task(
    engine: Engine, payments: SqlEngine
) -> None:
    class Twice(TransactionalTask):
        def execute(self, stage: StageExecution, session: Session) -> TaskResult:
            session.execute(insert(PAYMENTS).values(id=1))
            session.execute(insert(PAYMENTS).values(id=1))
            return TaskResult.success()

    ran = engine.run(stage("a", does=Twice))

    assert ran.status == "TERMINAL"
    assert "IntegrityError" in str(ran["a"].context["exception"])
    assert _paid(payments) == 0


def test_rows_the_task_has_not_flushed_are_written_too(engine: Engine, payments: SqlEngine) -> None:
    from sqlalchemy.orm import DeclarativeBase

    class Base(DeclarativeBase):
        metadata = _tables

    class Payment(Base):
        __table__ = PAYMENTS

    class Lazy(TransactionalTask):
        def execute(self, stage: StageExecution, session: Session) -> TaskResult:
            session.add(Payment(workflow=stage.workflow_id, amount=3))
            return TaskResult.success()

    assert engine.run(stage("a", does=Lazy)).status == "SUCCEEDED"
    assert _paid(payments) == 1


def test_many_transactional_tasks_side_by_side_each_take_effect_once(
    engine: Engine, payments: SqlEngine
) -> None:
    task = Charge(TaskResult.success())

    ran = engine.run(*[stage(f"s{n}", does=task, context={"amount": n}) for n in range(8)])

    assert ran.status == "SUCCEEDED"
    with payments.connect() as connection:
        amounts = connection.scalars(select(PAYMENTS.c.amount)).all()
    assert sorted(amounts) == list(range(8))


def test_a_transactional_task_may_suspend_and_poll(engine: Engine, payments: SqlEngine) -> None:
    engine.stop_time()
    task = Charge(TaskResult.running({"polled": True}), TaskResult.success())

    ran = engine.run(stage("a", does=task, context={"amount": 1}))

    assert ran.status == "SUCCEEDED"
    assert task.script.contexts[1]["polled"] is True
    assert _paid(payments) == 2


@pytest.mark.parametrize("way", ["python", "statement"])
def test_a_transactional_task_that_takes_too_long_fails_and_writes_nothing(
    engine: Engine, payments: SqlEngine, way: str
) -> None:
    """It holds up nobody: neither those after it nor, on SQLite, every writer of the file."""
    hang, ended = Gate(), threading.Event()

    class Hangs(TransactionalTask):
        def execute(self, stage: StageExecution, session: Session) -> TaskResult:
            session.execute(insert(PAYMENTS).values(id=1000, amount=1))
            try:
                return hang(stage) if way == "python" else self.count(session)
            finally:
                ended.set()

        def count(self, session: Session) -> TaskResult:
            hang.entered.set()
            numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
            numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 1000))
            many: FromClause = numbers
            for _ in range(3):
                other = numbers.alias()
                many = many.join(other, other.c.n > -numbers.c.n)
            session.execute(select(func.count()).select_from(many)).all()
            return TaskResult.success()

    made = workflow(stage("a", does=Hangs, context={"stageTimeoutMs": 300}))
    after = workflow(stage("a", does=Charge(TaskResult.success()), context={"amount": 5}))
    engine.submit(made)
    with engine.started() as processor:
        assert hang.entered.wait(10)
        engine.submit(after)
        eventually(lambda: engine.status(made) == "TERMINAL")
        eventually(lambda: engine.status(after) == "SUCCEEDED")
        with payments.begin() as connection:  # what it had locked is free
            connection.execute(insert(PAYMENTS).values(id=1000, amount=2))
        hang.opened.set()
        assert ended.wait(20)
        eventually(lambda: processor.active_count == 0)

    assert "exceeded its timeout of 0.3 s" in engine.look(made).error("a")
    with payments.connect() as connection:
        assert sorted(connection.scalars(select(PAYMENTS.c.amount))) == [2, 5]
