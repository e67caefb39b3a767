"""The first tables, with the triggers and views on them.

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import stabilize.types
from stabilize.models.ddl import create_statements, drop_statements

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL = {"charset": "utf8mb4", "collate": "utf8mb4_bin", "engine": "InnoDB"}
OPTIONS = {
    f"{dialect}_{name}": value for dialect in ("mariadb", "mysql") for name, value in _MYSQL.items()
}


def place() -> tuple[str, str | None]:
    """The dialect, and the schema if one was chosen."""
    context = op.get_context()
    return context.dialect.name, context.opts.get("version_table_schema")


def upgrade() -> None:
    op.create_table(
        "stabilize_claims",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("scope", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("claim_key", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("owner", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_claims")),
        sa.UniqueConstraint(
            "scope", "kind", "claim_key", name=op.f("uq_stabilize_claims_scope_kind_claim_key")
        ),
        **OPTIONS,
    )
    op.create_index(op.f("ix_stabilize_claims_owner"), "stabilize_claims", ["owner"], unique=False)
    op.create_table(
        "stabilize_dead_letters",
        sa.Column("id", stabilize.types.Identifier(length=26), nullable=False),
        sa.Column("message_id", stabilize.types.Identifier(length=26), nullable=False),
        sa.Column("queue", stabilize.types.Identifier(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("task_type", stabilize.types.Identifier(length=255), nullable=True),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("payload", stabilize.types.Json(), nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_dead_letters")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_dead_letters_queue_moved_at"),
        "stabilize_dead_letters",
        ["queue", "moved_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_dead_letters_workflow_id"),
        "stabilize_dead_letters",
        ["workflow_id"],
        unique=False,
    )
    op.create_table(
        "stabilize_event_dead_letters",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("subscription_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_failed_at", sa.BigInteger(), nullable=False),
        sa.Column("last_failed_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_event_dead_letters")),
        sa.UniqueConstraint(
            "subscription_id",
            "sequence",
            name=op.f("uq_stabilize_event_dead_letters_subscription_id_sequence"),
        ),
        **OPTIONS,
    )
    op.create_table(
        "stabilize_event_deliveries",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("subscription_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("line", stabilize.types.Identifier(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_event_deliveries")),
        sa.UniqueConstraint(
            "subscription_id",
            "sequence",
            name=op.f("uq_stabilize_event_deliveries_subscription_id_sequence"),
        ),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_event_deliveries_status_next_attempt_at"),
        "stabilize_event_deliveries",
        ["status", "next_attempt_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_event_deliveries_subscription_id_line_status_sequence"),
        "stabilize_event_deliveries",
        ["subscription_id", "line", "status", "sequence"],
        unique=False,
    )
    op.create_table(
        "stabilize_event_fence",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_event_fence")),
        **OPTIONS,
    )
    op.create_table(
        "stabilize_event_subscriptions",
        sa.Column("id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("event_types", stabilize.types.Json(), nullable=True),
        sa.Column("entity_filter", stabilize.types.Json(), nullable=True),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("webhook_secret_ref", sa.String(length=255), nullable=True),
        sa.Column("webhook_order", sa.String(length=20), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("error_count", sa.Integer(), nullable=False),
        sa.Column("max_errors", sa.Integer(), nullable=False),
        sa.Column("on_max_errors", sa.String(length=20), nullable=False),
        sa.Column("failing_sequence", sa.BigInteger(), nullable=True),
        sa.Column("first_failed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.Column("claim_owner", stabilize.types.Identifier(), nullable=True),
        sa.Column("claim_epoch", sa.Integer(), nullable=False),
        sa.Column("claim_until", sa.BigInteger(), nullable=False),
        sa.Column("handler_version", sa.Integer(), nullable=False),
        sa.Column("delivered_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_event_subscriptions")),
        **OPTIONS,
    )
    op.create_table(
        "stabilize_events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("event_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("timestamp", stabilize.types.UtcDateTime(), nullable=False),
        sa.Column("recorded_at", stabilize.types.UtcDateTime(), nullable=False),
        sa.Column("entity_type", sa.String(length=32), nullable=False),
        sa.Column("entity_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", stabilize.types.Json(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("correlation_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("causation_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("source_handler", sa.String(length=255), nullable=True),
        sa.Column("application", sa.String(length=255), nullable=True),
        sa.Column("entity_name", sa.String(length=255), nullable=True),
        sa.Column("ref_id", stabilize.types.Identifier(length=255), nullable=True),
        sa.Column("stage_type", sa.String(length=255), nullable=True),
        sa.Column("implementing_class", sa.String(length=255), nullable=True),
        sa.Column("stage_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_stabilize_events")),
        sa.UniqueConstraint(
            "entity_type",
            "entity_id",
            "version",
            name=op.f("uq_stabilize_events_entity_type_entity_id_version"),
        ),
        sa.UniqueConstraint("event_id", name=op.f("uq_stabilize_events_event_id")),
        **OPTIONS,
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_stabilize_events_correlation_id"),
        "stabilize_events",
        ["correlation_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_events_event_type_sequence"),
        "stabilize_events",
        ["event_type", "sequence"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_events_timestamp"), "stabilize_events", ["timestamp"], unique=False
    )
    op.create_index(
        op.f("ix_stabilize_events_workflow_id_sequence"),
        "stabilize_events",
        ["workflow_id", "sequence"],
        unique=False,
    )
    op.create_table(
        "stabilize_events_archive",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("timestamp", stabilize.types.UtcDateTime(), nullable=False),
        sa.Column("recorded_at", stabilize.types.UtcDateTime(), nullable=False),
        sa.Column("entity_type", sa.String(length=32), nullable=False),
        sa.Column("entity_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", stabilize.types.Json(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("correlation_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("causation_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("source_handler", sa.String(length=255), nullable=True),
        sa.Column("application", sa.String(length=255), nullable=True),
        sa.Column("entity_name", sa.String(length=255), nullable=True),
        sa.Column("ref_id", stabilize.types.Identifier(length=255), nullable=True),
        sa.Column("stage_type", sa.String(length=255), nullable=True),
        sa.Column("implementing_class", sa.String(length=255), nullable=True),
        sa.Column("stage_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_stabilize_events_archive")),
        sa.UniqueConstraint(
            "entity_type",
            "entity_id",
            "version",
            name=op.f("uq_stabilize_events_archive_entity_type_entity_id_version"),
        ),
        sa.UniqueConstraint("event_id", name=op.f("uq_stabilize_events_archive_event_id")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_events_archive_workflow_id_sequence"),
        "stabilize_events_archive",
        ["workflow_id", "sequence"],
        unique=False,
    )
    op.create_table(
        "stabilize_messages",
        sa.Column("id", stabilize.types.Identifier(length=26), nullable=False),
        sa.Column("queue", stabilize.types.Identifier(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("task_type", stabilize.types.Identifier(length=255), nullable=True),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("stage_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("task_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("payload", stabilize.types.Json(), nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("visible_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("holder", stabilize.types.Identifier(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_messages")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_messages_queue_priority_id_visible_at"),
        "stabilize_messages",
        ["queue", "priority", "id", "visible_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_messages_queue_visible_at"),
        "stabilize_messages",
        ["queue", "visible_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_messages_workflow_id_stage_id"),
        "stabilize_messages",
        ["workflow_id", "stage_id"],
        unique=False,
    )
    op.create_table(
        "stabilize_signals",
        sa.Column("id", stabilize.types.Identifier(length=26), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("data", stabilize.types.Json(), nullable=False),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_signals")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_signals_workflow_id_ref_id_id"),
        "stabilize_signals",
        ["workflow_id", "ref_id", "id"],
        unique=False,
    )
    op.create_table(
        "stabilize_snapshots",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("entity_type", sa.String(length=32), nullable=False),
        sa.Column("entity_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("state", stabilize.types.Json(), nullable=False),
        sa.Column("state_hash", sa.String(length=64), nullable=False),
        sa.Column("reducer_version", sa.Integer(), nullable=False),
        sa.Column("created_at", stabilize.types.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_snapshots")),
        sa.UniqueConstraint(
            "entity_type",
            "entity_id",
            "sequence",
            name=op.f("uq_stabilize_snapshots_entity_type_entity_id_sequence"),
        ),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_snapshots_workflow_id"),
        "stabilize_snapshots",
        ["workflow_id"],
        unique=False,
    )
    op.create_table(
        "stabilize_stage_edges",
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("upstream_ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("downstream_ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("upstream_position", sa.Integer(), nullable=False),
        sa.Column("downstream_position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "workflow_id",
            "upstream_ref_id",
            "downstream_ref_id",
            name=op.f("pk_stabilize_stage_edges"),
        ),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_stage_edges_workflow_id_downstream_position"),
        "stabilize_stage_edges",
        ["workflow_id", "downstream_position"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_stage_edges_workflow_id_upstream_position"),
        "stabilize_stage_edges",
        ["workflow_id", "upstream_position"],
        unique=False,
    )
    op.create_table(
        "stabilize_tokens",
        sa.Column("source_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("downstream_ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("upstream_ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("thread", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "LIVE", "DEAD", "FAILED", "HALT", name="tokenkind", native_enum=False, length=8
            ),
            nullable=False,
        ),
        sa.Column("consumer_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(
            "source_id", "downstream_ref_id", "ordinal", name=op.f("pk_stabilize_tokens")
        ),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_tokens_consumer_id"), "stabilize_tokens", ["consumer_id"], unique=False
    )
    op.create_index(
        op.f("ix_stabilize_tokens_workflow_id_downstream_ref_id_closed"),
        "stabilize_tokens",
        ["workflow_id", "downstream_ref_id", "closed"],
        unique=False,
    )
    op.create_table(
        "stabilize_workers",
        sa.Column("id", stabilize.types.Identifier(), nullable=False),
        sa.Column("queue", stabilize.types.Identifier(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("task_types", stabilize.types.Json(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_workers")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_workers_heartbeat_at"),
        "stabilize_workers",
        ["heartbeat_at"],
        unique=False,
    )
    op.create_table(
        "stabilize_workflows",
        sa.Column("id", stabilize.types.Identifier(), nullable=False),
        sa.Column(
            "type",
            sa.Enum("PIPELINE", "ORCHESTRATION", name="workflowtype", native_enum=False, length=20),
            nullable=False,
        ),
        sa.Column("application", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "NOT_STARTED",
                "RUNNING",
                "PAUSED",
                "SUSPENDED",
                "SUCCEEDED",
                "FAILED_CONTINUE",
                "TERMINAL",
                "CANCELED",
                "REDIRECT",
                "STOPPED",
                "SKIPPED",
                "BUFFERED",
                name="workflowstatus",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("context", stabilize.types.Json(), nullable=False),
        sa.Column("trigger", stabilize.types.Json(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("start_time_expiry", sa.BigInteger(), nullable=True),
        sa.Column("is_canceled", sa.Boolean(), nullable=False),
        sa.Column("canceled_by", sa.String(length=255), nullable=True),
        sa.Column("cancellation_reason", sa.String(length=1024), nullable=True),
        sa.Column("paused", stabilize.types.Json(), nullable=True),
        sa.Column("pipeline_config_id", stabilize.types.Identifier(length=255), nullable=True),
        sa.Column("is_limit_concurrent", sa.Boolean(), nullable=False),
        sa.Column("max_concurrent_executions", sa.Integer(), nullable=False),
        sa.Column("keep_waiting_pipelines", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("parent_workflow_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("parent_stage_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("parent_task_id", stabilize.types.Identifier(), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("definition_hash", sa.String(length=64), nullable=False),
        sa.Column("stage_count", sa.Integer(), nullable=False),
        sa.Column("jumps", sa.Integer(), nullable=False),
        sa.Column("open_runs", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_workflows")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_workflows_application_start_time"),
        "stabilize_workflows",
        ["application", "start_time"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_workflows_parent_workflow_id"),
        "stabilize_workflows",
        ["parent_workflow_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_workflows_pipeline_config_id_status"),
        "stabilize_workflows",
        ["pipeline_config_id", "status"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_workflows_status_created_at"),
        "stabilize_workflows",
        ["status", "created_at"],
        unique=False,
    )
    op.create_table(
        "stabilize_stages",
        sa.Column("id", stabilize.types.Identifier(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("ref_id", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("thread", stabilize.types.Identifier(length=255), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "NOT_STARTED",
                "RUNNING",
                "PAUSED",
                "SUSPENDED",
                "SUCCEEDED",
                "FAILED_CONTINUE",
                "TERMINAL",
                "CANCELED",
                "REDIRECT",
                "STOPPED",
                "SKIPPED",
                "BUFFERED",
                name="workflowstatus",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column(
            "phase",
            sa.Enum(
                "WAITING",
                "READY",
                "PLANNING",
                "BEFORE",
                "TASKS",
                "AFTER",
                "FAILURE",
                "ENDED",
                name="stagephase",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("context", stabilize.types.Json(), nullable=False),
        sa.Column("outputs", stabilize.types.Json(), nullable=False),
        sa.Column("delivered", stabilize.types.Json(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("waits_for", stabilize.types.Identifier(length=300), nullable=True),
        sa.Column("waiting_since", sa.BigInteger(), nullable=True),
        sa.Column("requisite_stage_ref_ids", stabilize.types.StringSet(), nullable=False),
        sa.Column("parent_stage_id", stabilize.types.Identifier(), nullable=True),
        sa.Column(
            "synthetic_stage_owner",
            sa.Enum(
                "STAGE_BEFORE",
                "STAGE_AFTER",
                "STAGE_FAILURE",
                "INSTANCE",
                name="syntheticstageowner",
                native_enum=False,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("definition", stabilize.types.DefinitionJson(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["stabilize_workflows.id"],
            name=op.f("fk_stabilize_stages_workflow_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_stages")),
        sa.UniqueConstraint(
            "workflow_id", "ref_id", "run", name=op.f("uq_stabilize_stages_workflow_id_ref_id_run")
        ),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_stages_parent_stage_id"),
        "stabilize_stages",
        ["parent_stage_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_stages_workflow_id_position"),
        "stabilize_stages",
        ["workflow_id", "position"],
        unique=False,
    )
    op.create_table(
        "stabilize_tasks",
        sa.Column("id", stabilize.types.Identifier(), nullable=False),
        sa.Column("workflow_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("stage_id", stabilize.types.Identifier(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("implementing_class", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "NOT_STARTED",
                "RUNNING",
                "PAUSED",
                "SUSPENDED",
                "SUCCEEDED",
                "FAILED_CONTINUE",
                "TERMINAL",
                "CANCELED",
                "REDIRECT",
                "STOPPED",
                "SKIPPED",
                "BUFFERED",
                name="workflowstatus",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("stage_start", sa.Boolean(), nullable=False),
        sa.Column("stage_end", sa.Boolean(), nullable=False),
        sa.Column("loop_start", sa.Boolean(), nullable=False),
        sa.Column("loop_end", sa.Boolean(), nullable=False),
        sa.Column("task_exception_details", stabilize.types.Json(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stage_id"],
            ["stabilize_stages.id"],
            name=op.f("fk_stabilize_tasks_stage_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stabilize_tasks")),
        **OPTIONS,
    )
    op.create_index(
        op.f("ix_stabilize_tasks_stage_id_position"),
        "stabilize_tasks",
        ["stage_id", "position"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stabilize_tasks_workflow_id"), "stabilize_tasks", ["workflow_id"], unique=False
    )
    for statement in create_statements(*place()):
        op.execute(sa.text(statement))


def downgrade() -> None:
    for statement in drop_statements(*place()):
        op.execute(sa.text(statement))
    op.drop_table("stabilize_tasks")
    op.drop_table("stabilize_stages")
    op.drop_table("stabilize_workflows")
    op.drop_table("stabilize_workers")
    op.drop_table("stabilize_tokens")
    op.drop_table("stabilize_stage_edges")
    op.drop_table("stabilize_snapshots")
    op.drop_table("stabilize_signals")
    op.drop_table("stabilize_messages")
    op.drop_table("stabilize_events_archive")
    op.drop_table("stabilize_events")
    op.drop_table("stabilize_event_subscriptions")
    op.drop_table("stabilize_event_fence")
    op.drop_table("stabilize_event_deliveries")
    op.drop_table("stabilize_event_dead_letters")
    op.drop_table("stabilize_dead_letters")
    op.drop_table("stabilize_claims")
