"""Projections: timelines, metrics, and tables of one's own that count every event exactly once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from sqlalchemy import Integer, String, delete, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stabilize import StageExecution, TaskResult, TransientError
from stabilize.events import (
    Event,
    EventType,
    SqlEventStore,
    StageMetrics,
    StageMetricsProjection,
    TableProjection,
    TableProjectionRunner,
    WorkflowTimelineProjection,
    create_stage_event,
    create_workflow_event,
)
from tests.events.killing import MOST, Account, killed_at_random
from tests.events.killing import Own as OwnElsewhere
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage, workflow

KILLS = 30 if os.environ.get("STABILIZE_FULL") else 8


def test_a_timeline_tells_the_story(engine: Engine, events: SqlEventStore) -> None:
    def fails(stage: StageExecution) -> TaskResult:
        raise ValueError("no paper")

    made = workflow(stage("a", does=ok), stage("b", does=fails, after="a"))
    engine.submit(made)
    engine.play()
    projection = WorkflowTimelineProjection(made.id)
    told = events.get_events_for_workflow(made.id)
    for event in [*reversed(told), *told]:  # in any order, and again
        projection.apply(event)
    projection.apply(create_workflow_event(EventType.WORKFLOW_FAILED, "another"))

    timeline = projection.get_state()

    assert (timeline.status, timeline.workflow_id) == ("TERMINAL", made.id)
    assert timeline.total_duration_ms is not None
    assert timeline.start_time is not None
    assert timeline.end_time is not None
    assert [e.event_type for e in projection.get_stages()] == [
        "stage.started",
        "stage.completed",
        "stage.started",
        "stage.failed",
    ]
    assert next(e.entity_name for e in projection.get_tasks())
    failures = projection.get_failures()
    assert [e.event_type for e in failures] == ["task.failed", "stage.failed", "workflow.failed"]
    assert all("no paper" in e.details["error"] for e in failures)
    assert projection.get_stages()[1].duration_ms is not None
    projection.reset()
    assert projection.get_state().entries == []
    assert projection.name == f"workflow-timeline-{made.id}"


def test_metrics_count_stages_by_type_and_tasks_by_name(
    engine: Engine, events: SqlEventStore
) -> None:
    def fails(stage: StageExecution) -> TaskResult:
        return TaskResult.terminal("no")

    def flaky(stage: StageExecution) -> TaskResult:
        if not stage.context.get("again"):
            raise TransientError("busy", retry_after=0, context_update={"again": True})
        return TaskResult.success()

    for _ in range(3):
        engine.submit(workflow(stage("a", does=flaky, type="good")))
    engine.submit(workflow(stage("a", does=fails, type="good")))
    engine.submit(workflow(stage("a", does=fails, type="bad")))
    engine.play()
    metrics = StageMetricsProjection()
    for event in [*events.get_events_since(0), *events.get_events_since(0)]:
        metrics.apply(event)

    good = metrics.get_metrics_for_type("good")
    assert good is not None
    assert (good.execution_count, good.success_count, good.failure_count) == (4, 3, 1)
    assert (good.success_rate, good.failure_rate) == (75.0, 25.0)
    assert len(good.durations) == 3
    assert metrics.get_top_failing_stages(1) == [("bad", 100.0)]
    assert [name for name, _ in metrics.get_top_slowest_stages()] == ["good"]
    assert set(metrics.get_state()) == {"good", "bad"}
    assert sum(m.retry_count for m in metrics.get_task_state().values()) == 3
    assert metrics.get_metrics_for_type("unknown") is None
    assert metrics.to_dict()["stages"]["good"]["success_count"] == 3
    metrics.reset()
    assert metrics.get_state() == {}


def test_durations_are_summed_up() -> None:
    few = StageMetrics("t", durations=[30, 10, 20])
    many = StageMetrics("t", durations=list(range(1, 101)))
    none = StageMetrics("t")

    assert (few.avg_duration_ms, few.median_duration_ms, few.p95_duration_ms) == (20, 20, 30)
    assert (few.min_duration_ms, few.max_duration_ms) == (10, 30)
    assert (many.p95_duration_ms, many.median_duration_ms) == (96, 50.5)
    assert (none.avg_duration_ms, none.p95_duration_ms, none.success_rate) == (0, 0, 0)


# --- tables of one's own --------------------------------------------------------------------------


class Own(DeclarativeBase):
    pass


class Total(Own):
    __tablename__ = "totals_of_a_test"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    count: Mapped[int] = mapped_column(Integer)


class Totals(TableProjection):
    """Counts events by type."""

    name: ClassVar[str] = "totals"
    event_types = (EventType.STAGE_STARTED, EventType.STAGE_COMPLETED)
    fails_on: int = -1

    def apply(self, event: Event, session: Session) -> None:
        total = session.get(Total, event.event_type.value)
        if total is None:
            session.add(Total(name=event.event_type.value, count=1))
        else:
            total.count += 1
        if event.data.get("n") == self.fails_on:
            raise ValueError("the disk is full")

    def clear(self, session: Session) -> None:
        session.execute(delete(Total))


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    store = SqlEventStore(backend.url)
    Own.metadata.create_all(store.database.engine)
    yield store
    Own.metadata.drop_all(store.database.engine)
    store.close()


def totals(store: SqlEventStore) -> dict[str, int]:
    with store.database.reading() as session:
        rows = session.execute(select(Total.name, Total.count)).all()
        return {str(name): int(count) for name, count in rows}


def append(store: SqlEventStore, count: int) -> None:
    kinds = (EventType.STAGE_STARTED, EventType.STAGE_COMPLETED, EventType.STAGE_FAILED)
    store.append_batch([create_stage_event(kinds[n % 3], "s", "w", {"n": n}) for n in range(count)])


def test_a_projection_into_a_table_counts_each_event_once(store: SqlEventStore) -> None:
    projection = Totals()
    runners = [TableProjectionRunner(store, projection, batch_size=7) for _ in range(2)]
    append(store, 60)

    while any(runner.process_once() for runner in runners):
        pass
    append(store, 30)

    assert runners[0].catch_up() == 20
    assert totals(store) == {"stage.started": 30, "stage.completed": 30}
    assert runners[1].position == store.get_current_sequence()


def test_a_projection_that_fails_moves_neither_its_tables_nor_its_position(
    store: SqlEventStore,
) -> None:
    projection = Totals()
    projection.fails_on = 9
    runner = TableProjectionRunner(store, projection, batch_size=6)
    append(store, 12)

    assert runner.process_once() == 4
    with pytest.raises(ValueError, match="disk is full"):
        runner.process_once()
    assert totals(store) == {"stage.started": 2, "stage.completed": 2}

    projection.fails_on = -1
    runner.catch_up()
    assert totals(store) == {"stage.started": 4, "stage.completed": 4}


def test_a_projection_is_rebuilt_on_demand_and_when_its_version_rises(
    store: SqlEventStore,
) -> None:
    append(store, 12)
    TableProjectionRunner(store, Totals()).catch_up()
    with store.database.writing() as connection:
        connection.execute(Total.__table__.update().values(count=99))  # type: ignore[attr-defined]

    assert TableProjectionRunner(store, Totals()).rebuild() == 8
    assert totals(store) == {"stage.started": 4, "stage.completed": 4}

    class Newer(Totals):
        version = 2
        event_types = (EventType.STAGE_FAILED,)

    TableProjectionRunner(store, Newer()).catch_up()
    assert totals(store) == {"stage.failed": 4}


def test_a_projection_that_is_killed_again_and_again_is_exact(
    backend: BackendUnderTest, store: SqlEventStore
) -> None:
    if "multi_process" not in backend.capabilities:
        pytest.skip("another process cannot see this database")
    OwnElsewhere.metadata.create_all(store.database.engine)
    rounds = (KILLS + 2) * MOST // 4
    appended = store.append_batch(
        [
            create_stage_event(EventType.CUSTOM, f"stage-{number}", "w", {"n": n * number})
            for n in range(rounds)
            for number in range(4)
        ]
    )

    taken_in = killed_at_random("projection", backend.url, KILLS)

    undone = len(taken_in) - len(appended)
    print(f"{KILLS} kills, {len(appended)} events, {undone} taken in again after a rollback")
    assert undone > 0  # else no kill has hit what it was meant to
    with store.database.reading() as session:
        found = {account.name: account for account in session.scalars(select(Account))}
    assert {name: (a.events, a.total) for name, a in found.items()} == {
        f"stage-{number}": (rounds, number * rounds * (rounds - 1) // 2) for number in range(4)
    }
    assert max(account.last for account in found.values()) == appended.last_sequence
    OwnElsewhere.metadata.drop_all(store.database.engine)


def test_events_without_versions_are_told_apart_by_their_ids() -> None:
    metrics = StageMetricsProjection()
    one = create_stage_event(EventType.STAGE_STARTED, "s", "w", {"type": "t"})
    other: Any = replace(one, event_id="other")
    for event in (one, one, other):
        metrics.apply(event)

    found = metrics.get_metrics_for_type("t")
    assert found is not None
    assert found.execution_count == 2
