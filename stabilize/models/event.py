"""The rows of event sourcing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stabilize.models.base import PREFIX, TABLE_OPTIONS, RowBase
from stabilize.types import BigId, Identifier, Json, UtcDateTime


class _EventColumns:
    """An event, with the columns that reports ask for beside its payload.

    `timestamp` is when it happened, `recorded_at` when it was written. `version` counts the events
    of one entity from 1, without a gap.
    """

    event_id: Mapped[str] = mapped_column(Identifier(64), unique=True)
    event_type: Mapped[str] = mapped_column(String(100))
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    entity_type: Mapped[str] = mapped_column(String(32))
    entity_id: Mapped[str] = mapped_column(Identifier(64))
    workflow_id: Mapped[str] = mapped_column(Identifier(64))
    version: Mapped[int] = mapped_column(Integer)
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    schema_version: Mapped[int] = mapped_column(Integer)
    correlation_id: Mapped[str] = mapped_column(Identifier(64))
    causation_id: Mapped[str | None] = mapped_column(Identifier(64))
    actor: Mapped[str] = mapped_column(String(255))
    source_handler: Mapped[str | None] = mapped_column(String(255))
    application: Mapped[str | None] = mapped_column(String(255))
    entity_name: Mapped[str | None] = mapped_column(String(255))
    ref_id: Mapped[str | None] = mapped_column(Identifier(255))
    stage_type: Mapped[str | None] = mapped_column(String(255))
    implementing_class: Mapped[str | None] = mapped_column(String(255))
    stage_id: Mapped[str | None] = mapped_column(Identifier(64))
    status: Mapped[str | None] = mapped_column(String(20))
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    attempt: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)


class EventRecord(_EventColumns, RowBase):
    """An event, append-only."""

    __tablename__ = PREFIX + "events"

    sequence: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)

    __table_args__ = (
        UniqueConstraint("entity_type", "entity_id", "version"),
        Index(None, "workflow_id", "sequence"),
        Index(None, "event_type", "sequence"),
        Index(None, "correlation_id"),
        Index(None, "timestamp"),
        {"sqlite_autoincrement": True, **TABLE_OPTIONS},
    )


class ArchivedEvent(_EventColumns, RowBase):
    """An event of a workflow that ended long ago, put out of the way of followers and reports."""

    __tablename__ = PREFIX + "events_archive"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    __table_args__ = (
        UniqueConstraint("entity_type", "entity_id", "version"),
        Index(None, "workflow_id", "sequence"),
        TABLE_OPTIONS,
    )


class EventFence(RowBase):
    """Marks around the numbering of events.

    Row 1 is what writers and frontier readers lock on MariaDB and MySQL. Row 2 holds the last
    frontier that was worked out, for readers that only have SQL. Row 3 exists, on SQLite, only
    inside a transaction that may change events.
    """

    __tablename__ = PREFIX + "event_fence"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (TABLE_OPTIONS,)


class SnapshotRecord(RowBase):
    """The state of an entity at a sequence: where a replay may start."""

    __tablename__ = PREFIX + "snapshots"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    entity_type: Mapped[str] = mapped_column(String(32))
    entity_id: Mapped[str] = mapped_column(Identifier(64))
    workflow_id: Mapped[str] = mapped_column(Identifier(64))
    version: Mapped[int] = mapped_column(Integer)
    sequence: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[dict[str, Any]] = mapped_column(Json)
    state_hash: Mapped[str] = mapped_column(String(64))
    reducer_version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        UniqueConstraint("entity_type", "entity_id", "sequence"),
        Index(None, "workflow_id"),
        TABLE_OPTIONS,
    )


class SubscriptionRecord(RowBase):
    """Whoever follows the events: how far it has come, how it fares, who works for it just now.

    Its `kind`: subscription, projection, or relay to an event store elsewhere. Times are
    milliseconds since the epoch by the database's clock. `claim_epoch` rises with each claim and is
    the fence of whoever moves a subscription.
    """

    __tablename__ = PREFIX + "event_subscriptions"

    id: Mapped[str] = mapped_column(Identifier(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    event_types: Mapped[list[str] | None] = mapped_column(Json)
    entity_filter: Mapped[dict[str, Any] | None] = mapped_column(Json)
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_secret_ref: Mapped[str | None] = mapped_column(String(255))
    webhook_order: Mapped[str | None] = mapped_column(String(20))
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    error_count: Mapped[int] = mapped_column(Integer, default=0)
    max_errors: Mapped[int] = mapped_column(Integer, default=0)
    on_max_errors: Mapped[str] = mapped_column(String(20), default="park")
    failing_sequence: Mapped[int | None] = mapped_column(BigInteger)
    first_failed_at: Mapped[int | None] = mapped_column(BigInteger)
    last_error: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[int] = mapped_column(BigInteger, default=0)
    claim_owner: Mapped[str | None] = mapped_column(Identifier(64))
    claim_epoch: Mapped[int] = mapped_column(Integer, default=0)
    claim_until: Mapped[int] = mapped_column(BigInteger, default=0)
    handler_version: Mapped[int] = mapped_column(Integer, default=1)
    delivered_count: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (TABLE_OPTIONS,)


class EventDelivery(RowBase):
    """One event on its way to one webhook: PENDING, DELIVERED or FAILED.

    Those of one `line` go one after another; without a line it waits for none.
    """

    __tablename__ = PREFIX + "event_deliveries"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    subscription_id: Mapped[str] = mapped_column(Identifier(255))
    sequence: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[str] = mapped_column(Identifier(64))
    line: Mapped[str | None] = mapped_column(Identifier(64))
    status: Mapped[str] = mapped_column(String(20), default="PENDING")
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    http_status: Mapped[int | None] = mapped_column(Integer)
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    delivered_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("subscription_id", "sequence"),
        Index(None, "status", "next_attempt_at"),
        Index(None, "subscription_id", "line", "status", "sequence"),
        TABLE_OPTIONS,
    )


class EventDeadLetter(RowBase):
    """An event that a subscriber could not take and that was set aside; it can be replayed."""

    __tablename__ = PREFIX + "event_dead_letters"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    subscription_id: Mapped[str] = mapped_column(Identifier(255))
    sequence: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[str] = mapped_column(Identifier(64))
    error: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer)
    first_failed_at: Mapped[int] = mapped_column(BigInteger)
    last_failed_at: Mapped[int] = mapped_column(BigInteger)
    resolved_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("subscription_id", "sequence"), TABLE_OPTIONS)
