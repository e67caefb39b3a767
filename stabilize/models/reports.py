"""The reporting views: plain SQL over our tables, the same on every database.

Their names and columns are public. `docs/` tells what each column means.
"""

from __future__ import annotations

from stabilize.models.base import by_dialect
from stabilize.models.event import EventRecord

_COMMON = {
    "stage_ends": "('stage.completed', 'stage.failed', 'stage.skipped', 'stage.canceled')",
    "task_ends": "('task.completed', 'task.failed')",
    "event": ", ".join(column.name for column in EventRecord.__table__.columns),
    "outcomes": """SUM(CASE WHEN status = 'SUCCEEDED' THEN 1 ELSE 0 END) AS succeeded,
       SUM(CASE WHEN status IN ('TERMINAL', 'STOPPED', 'FAILED_CONTINUE') THEN 1 ELSE 0 END)
           AS failed""",
}
_SETTLED = "sequence <= (SELECT value FROM {s}stabilize_event_fence WHERE id = 2)"
_WORDS = by_dialect(
    sqlite={
        "create": "CREATE VIEW IF NOT EXISTS",
        "hour": "strftime('%Y-%m-%d %H:00:00', timestamp)",
        "day": "date(started_at)",
        "stable": "1 = 1",
    },
    postgresql={
        "create": "CREATE OR REPLACE VIEW",
        "hour": "to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00:00')",
        "day": "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        "stable": _SETTLED,
    },
    mysql={
        "create": "CREATE OR REPLACE VIEW",
        "hour": "date_format(timestamp, '%Y-%m-%d %H:00:00')",
        "day": "date_format(started_at, '%Y-%m-%d')",
        "stable": _SETTLED,
    },
)
"""What stands for the words in braces below; `{s}` is the prefix of the schema."""

EVENT_VIEWS = {
    "workflow_runs": """SELECT c.workflow_id, c.application, c.entity_name AS name,
       s.timestamp AS started_at,
       CASE WHEN e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.canceled')
            THEN e.timestamp END AS ended_at,
       COALESCE(e.status, 'RUNNING') AS status, e.duration_ms, e.error
FROM {s}stabilize_events c
JOIN {s}stabilize_events s ON s.entity_type = 'workflow' AND s.entity_id = c.entity_id
     AND s.event_type = 'workflow.started'
LEFT JOIN {s}stabilize_events e ON e.sequence = (
     SELECT MAX(x.sequence) FROM {s}stabilize_events x
     WHERE x.entity_type = 'workflow' AND x.entity_id = c.entity_id AND x.status IS NOT NULL)
WHERE c.event_type = 'workflow.created'""",
    "stage_runs": """SELECT entity_id AS stage_id, workflow_id, MAX(ref_id) AS ref_id,
       MAX(stage_type) AS stage_type, MAX(entity_name) AS name,
       MIN(CASE WHEN event_type = 'stage.started' THEN timestamp END) AS started_at,
       MAX(CASE WHEN event_type IN {stage_ends} THEN timestamp END) AS ended_at,
       COALESCE(MAX(CASE WHEN event_type IN {stage_ends} THEN status END), 'RUNNING') AS status,
       MAX(CASE WHEN event_type IN {stage_ends} THEN duration_ms END) AS duration_ms,
       MAX(CASE WHEN event_type = 'stage.failed' THEN error END) AS error,
       MIN(sequence) AS first_sequence, MAX(sequence) AS last_sequence
FROM {s}stabilize_events
WHERE entity_type = 'stage'
GROUP BY entity_id, workflow_id""",
    "task_runs": """SELECT entity_id AS task_id, workflow_id, MAX(stage_id) AS stage_id,
       MAX(entity_name) AS name, MAX(implementing_class) AS implementing_class,
       MIN(CASE WHEN event_type = 'task.started' THEN timestamp END) AS started_at,
       MAX(CASE WHEN event_type IN {task_ends} THEN timestamp END) AS ended_at,
       COALESCE(MAX(CASE WHEN event_type IN {task_ends} THEN status END), 'RUNNING') AS status,
       MAX(CASE WHEN event_type IN {task_ends} THEN duration_ms END) AS duration_ms,
       SUM(CASE WHEN event_type = 'task.retried' THEN 1 ELSE 0 END) AS retries,
       MAX(CASE WHEN event_type = 'task.failed' THEN error END) AS error
FROM {s}stabilize_events
WHERE entity_type = 'task'
GROUP BY entity_id, workflow_id""",
    "stage_metrics": """SELECT stage_type, COUNT(*) AS runs,
       {outcomes},
       SUM(CASE WHEN status = 'SKIPPED' THEN 1 ELSE 0 END) AS skipped,
       SUM(CASE WHEN status = 'CANCELED' THEN 1 ELSE 0 END) AS canceled,
       AVG(duration_ms) AS avg_duration_ms, MIN(duration_ms) AS min_duration_ms,
       MAX(duration_ms) AS max_duration_ms
FROM {s}stabilize_v_stage_runs
GROUP BY stage_type""",
    "stage_metrics_daily": """SELECT {day} AS day, stage_type, COUNT(*) AS runs,
       {outcomes},
       AVG(duration_ms) AS avg_duration_ms, MAX(duration_ms) AS max_duration_ms
FROM {s}stabilize_v_stage_runs
WHERE started_at IS NOT NULL
GROUP BY {day}, stage_type""",
    "task_metrics": """SELECT name, implementing_class, COUNT(*) AS runs,
       {outcomes},
       SUM(retries) AS retries,
       AVG(duration_ms) AS avg_duration_ms, MAX(duration_ms) AS max_duration_ms
FROM {s}stabilize_v_task_runs
GROUP BY name, implementing_class""",
    "workflow_timeline": """SELECT workflow_id,
       ROW_NUMBER() OVER (PARTITION BY workflow_id ORDER BY sequence) AS step,
       sequence, timestamp, event_type, entity_type, entity_id, entity_name, ref_id, status,
       duration_ms, error,
       LAG(timestamp) OVER (PARTITION BY workflow_id ORDER BY sequence) AS previous_timestamp
FROM {s}stabilize_events""",
    "failures": """SELECT sequence, timestamp, workflow_id, event_type, entity_type, entity_id,
       entity_name, ref_id, stage_id, status, error
FROM {s}stabilize_events
WHERE event_type IN ('task.failed', 'stage.failed', 'workflow.failed')""",
    "retries": """SELECT sequence, timestamp, workflow_id, entity_id AS task_id, stage_id,
       entity_name AS task_name, attempt, error
FROM {s}stabilize_events
WHERE event_type = 'task.retried'""",
    "human_waits": """SELECT s.workflow_id, s.entity_id AS stage_id, s.ref_id,
       s.entity_name AS name, s.timestamp AS suspended_at, r.timestamp AS resumed_at,
       r.actor AS resumed_by
FROM {s}stabilize_events s
LEFT JOIN {s}stabilize_events r ON r.entity_type = 'stage' AND r.entity_id = s.entity_id
     AND r.version = (SELECT MIN(x.version) FROM {s}stabilize_events x
                      WHERE x.entity_type = 'stage' AND x.entity_id = s.entity_id
                        AND x.version > s.version AND x.event_type = 'stage.resumed')
WHERE s.event_type = 'stage.suspended'""",
    "entity_history": """SELECT entity_type, entity_id, version, sequence, timestamp, event_type,
       workflow_id, status, duration_ms, attempt, error, actor
FROM {s}stabilize_events""",
    "audit_log": """SELECT sequence, timestamp, recorded_at, actor, event_type, entity_type,
       entity_id, entity_name, workflow_id, correlation_id, causation_id, source_handler, event_id
FROM {s}stabilize_events""",
    "event_rate_hourly": """SELECT {hour} AS hour, event_type, COUNT(*) AS events
FROM {s}stabilize_events
GROUP BY {hour}, event_type""",
    "events_stable": """SELECT * FROM {s}stabilize_events WHERE {stable}""",
    "events_all": """SELECT {event} FROM {s}stabilize_events
UNION ALL
SELECT {event} FROM {s}stabilize_events_archive""",
    "snapshot_coverage": """SELECT workflow_id, COUNT(*) AS snapshots,
       MAX(sequence) AS last_sequence, MAX(version) AS last_version,
       MAX(created_at) AS last_created_at
FROM {s}stabilize_snapshots
GROUP BY workflow_id""",
    "subscription_lag": """SELECT id, kind, enabled, last_sequence,
       (SELECT COALESCE(MAX(e.sequence), 0) FROM {s}stabilize_events e) AS current_sequence,
       (SELECT COUNT(*) FROM {s}stabilize_events e WHERE e.sequence > last_sequence) AS lag_events,
       error_count, failing_sequence, last_error, delivered_count, claim_owner, next_attempt_at
FROM {s}stabilize_event_subscriptions""",
    "webhook_deliveries": """SELECT d.id, d.subscription_id, u.webhook_url, d.sequence, d.event_id,
       e.event_type, e.workflow_id, d.status, d.attempt, d.http_status, d.duration_ms, d.error,
       d.line, d.next_attempt_at, d.created_at, d.delivered_at
FROM {s}stabilize_event_deliveries d
LEFT JOIN {s}stabilize_event_subscriptions u ON u.id = d.subscription_id
LEFT JOIN {s}stabilize_events e ON e.sequence = d.sequence""",
    "event_dead_letters": """SELECT d.id, d.subscription_id, d.sequence, d.event_id,
       e.event_type, e.workflow_id, d.error, d.attempts, d.first_failed_at,
       d.last_failed_at, d.resolved_at
FROM {s}stabilize_event_dead_letters d
LEFT JOIN {s}stabilize_events e ON e.sequence = d.sequence""",
}
"""Views over the event tables alone."""

ENGINE_VIEWS = {
    "queue": """SELECT queue, type, task_type,
       COUNT(*) AS messages,
       SUM(CASE WHEN holder IS NOT NULL THEN 1 ELSE 0 END) AS held,
       SUM(CASE WHEN visible_at >= 4611686018427387904 THEN 1 ELSE 0 END) AS parked,
       MIN(created_at) AS oldest_created_at, MIN(visible_at) AS first_due_at,
       MAX(attempts) AS max_attempts
FROM {s}stabilize_messages
GROUP BY queue, type, task_type""",
    "dead_letters": """SELECT id, queue, type, task_type, workflow_id, message_id,
       attempts, deaths, reason, error, created_at, moved_at
FROM {s}stabilize_dead_letters""",
}
"""Views over the tables of the engine."""


def create_views(views: dict[str, str], dialect: str, schema: str = "") -> list[str]:
    """The statements that make `views`; `schema` is a prefix with its dot, or empty."""
    words = {name: text.format(s=schema) for name, text in _WORDS[dialect].items()}
    return [
        f"{words['create']} {schema}stabilize_v_{name} AS "
        + query.format(s=schema, **_COMMON, **words)
        for name, query in views.items()
    ]


def drop_views(views: dict[str, str], schema: str = "") -> list[str]:
    """The statements that remove `views`, whether they are there or not."""
    return [f"DROP VIEW IF EXISTS {schema}stabilize_v_{name}" for name in reversed(views)]
