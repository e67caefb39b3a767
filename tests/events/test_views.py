"""The reporting views: there on every database, and telling what happened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from stabilize import StageExecution, TaskResult, TransientError
from stabilize.events import SqlEventStore, SubscriptionManager
from stabilize.models.ddl import create_statements, drop_statements
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine, ok, stage, workflow

COLUMNS = {
    "workflow_runs": "workflow_id application name started_at ended_at status duration_ms error",
    "stage_runs": "stage_id workflow_id ref_id stage_type name started_at ended_at status"
    " duration_ms error first_sequence last_sequence",
    "task_runs": "task_id workflow_id stage_id name implementing_class started_at ended_at status"
    " duration_ms retries error",
    "stage_metrics": "stage_type runs succeeded failed skipped canceled avg_duration_ms"
    " min_duration_ms max_duration_ms",
    "stage_metrics_daily": "day stage_type runs succeeded failed avg_duration_ms max_duration_ms",
    "task_metrics": "name implementing_class runs succeeded failed retries avg_duration_ms"
    " max_duration_ms",
    "failures": "sequence timestamp workflow_id event_type entity_type entity_id entity_name"
    " ref_id stage_id status error",
    "retries": "sequence timestamp workflow_id task_id stage_id task_name attempt error",
    "audit_log": "sequence timestamp recorded_at actor event_type entity_type entity_id"
    " entity_name workflow_id correlation_id causation_id source_handler event_id",
    "event_rate_hourly": "hour event_type events",
    "human_waits": "workflow_id stage_id ref_id name suspended_at resumed_at resumed_by",
    "subscription_lag": "id kind enabled last_sequence current_sequence lag_events error_count"
    " failing_sequence last_error delivered_count claim_owner next_attempt_at",
    "queue": "queue type task_type messages held parked oldest_created_at first_due_at"
    " max_attempts",
}


def rows(engine: Engine, view: str, where: str = "1 = 1") -> list[dict[str, Any]]:
    with engine.database.reading() as session:
        found = session.execute(text(f"SELECT * FROM stabilize_v_{view} WHERE {where}"))
        return [dict(row._mapping) for row in found]


def test_the_views_tell_what_happened(engine: Engine, events: SqlEventStore) -> None:
    def flaky(stage: StageExecution) -> TaskResult:
        if not stage.context.get("again"):
            raise TransientError("busy", retry_after=0, context_update={"again": True})
        return TaskResult.success()

    def fails(stage: StageExecution) -> TaskResult:
        raise ValueError("no paper")

    def waits(stage: StageExecution) -> TaskResult:
        if stage.context.get("_signal_name"):
            return TaskResult.success()
        return TaskResult.suspend()

    good = workflow(stage("a", does=flaky, type="good"), stage("w", does=waits, after="a"))
    bad = workflow(stage("a", does=fails, type="bad"))
    engine.submit(good, bad)
    engine.play()
    waiting = engine.store.retrieve(good.id).stage_by_ref_id("w")
    assert waiting is not None
    engine.orchestrator.signal(good, waiting.id, "go", user="dora")
    engine.play()
    manager = SubscriptionManager(events)
    manager.create_subscription("x", lambda e: None, start_from="beginning")

    runs = {row["workflow_id"]: row for row in rows(engine, "workflow_runs")}
    assert (runs[good.id]["status"], runs[bad.id]["status"]) == ("SUCCEEDED", "TERMINAL")
    assert "no paper" in runs[bad.id]["error"]
    assert runs[good.id]["duration_ms"] >= 0
    of_good = rows(engine, "stage_runs", f"workflow_id = '{good.id}'")
    stages = {row["ref_id"]: row for row in of_good}
    assert {ref: row["status"] for ref, row in stages.items()} == {
        "a": "SUCCEEDED",
        "w": "SUCCEEDED",
    }
    (task,) = rows(engine, "task_runs", f"workflow_id = '{bad.id}'")
    assert (task["status"], int(task["retries"])) == ("TERMINAL", 0)
    metrics = {row["stage_type"]: row for row in rows(engine, "stage_metrics")}
    assert (int(metrics["good"]["succeeded"]), int(metrics["bad"]["failed"])) == (1, 1)
    daily = {row["stage_type"]: row for row in rows(engine, "stage_metrics_daily")}
    assert len(str(daily["good"]["day"])) == 10
    assert sum(int(row["retries"]) for row in rows(engine, "task_metrics")) == 1
    assert {row["event_type"] for row in rows(engine, "failures")} == {
        "task.failed",
        "stage.failed",
        "workflow.failed",
    }
    (retry,) = rows(engine, "retries")
    assert retry["attempt"] == 1
    assert "busy" in retry["error"]
    (wait,) = rows(engine, "human_waits")
    assert (wait["ref_id"], wait["resumed_by"]) == ("w", "dora")
    assert wait["resumed_at"] is not None
    timeline = rows(engine, "workflow_timeline", f"workflow_id = '{bad.id}'")
    assert sorted(row["step"] for row in timeline) == list(range(1, len(timeline) + 1))
    (lag,) = rows(engine, "subscription_lag", "kind = 'subscription'")
    assert lag["lag_events"] == events.count_events()
    assert sum(int(row["events"]) for row in rows(engine, "event_rate_hourly")) == (
        events.count_events()
    )
    manager.process_once()
    assert len(rows(engine, "events_stable")) == events.count_events()
    assert len(rows(engine, "audit_log")) == events.count_events()


def test_the_columns_of_the_views_are_public(backend: BackendUnderTest) -> None:
    with backend.engine().connect() as connection:
        found = {name: _columns(connection, name) for name in COLUMNS}

    assert found == {name: columns.split() for name, columns in COLUMNS.items()}


def _columns(connection: Connection, view: str) -> list[str]:
    return list(connection.execute(text(f"SELECT * FROM stabilize_v_{view}")).keys())


def test_what_is_made_can_be_removed_and_made_again(backend: BackendUnderTest) -> None:
    dialect = backend.engine().dialect.name
    with backend.engine().begin() as connection:
        before = inspect(connection).get_view_names()
        for _ in range(2):
            for statement in drop_statements(dialect):
                connection.execute(text(statement))
        assert inspect(connection).get_view_names() == []
        for _ in range(2):
            for statement in create_statements(dialect):
                connection.execute(text(statement))
        assert sorted(inspect(connection).get_view_names()) == sorted(before)


def test_the_questions_of_the_documentation_are_answered(engine: Engine) -> None:
    engine.run(stage("a", does=ok))
    page = Path(__file__).parents[2] / "docs" / "reference" / "reporting.md"
    questions = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)

    assert len(questions) == 10
    with engine.database.reading() as session:
        for question in questions:
            session.execute(text(question.strip().rstrip(";"))).all()


def test_every_view_and_column_is_documented(backend: BackendUnderTest) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "reporting.md").read_text()
    documented = {
        line.split("`")[1]: set(re.findall(r"`([a-z_]+)`", line)[1:])
        for line in page.splitlines()
        if line.startswith("| `stabilize_v_")
    }
    with backend.engine().connect() as connection:
        views = inspect(connection).get_view_names()
        assert sorted(documented) == sorted(views)
        for view in views:
            if view not in ("stabilize_v_events_stable", "stabilize_v_events_all"):
                assert documented[view] == set(
                    _columns(connection, view.removeprefix("stabilize_v_"))
                ), view
