"""The rows of event sourcing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stabilize.models.base import PREFIX, TABLE_OPTIONS, RowBase
from stabilize.types import BigId, Identifier, Json, UtcDateTime


class EventRecord(RowBase):
    """An event, append-only, with the columns that reports ask for beside its payload."""

    __tablename__ = PREFIX + "events"

    sequence: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
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
    entity_name: Mapped[str | None] = mapped_column(String(255))
    ref_id: Mapped[str | None] = mapped_column(Identifier(255))
    stage_type: Mapped[str | None] = mapped_column(String(255))
    implementing_class: Mapped[str | None] = mapped_column(String(255))
    stage_id: Mapped[str | None] = mapped_column(Identifier(64))
    status: Mapped[str | None] = mapped_column(String(20))
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    attempt: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64))

    __table_args__ = (
        UniqueConstraint("entity_type", "entity_id", "version"),
        Index(None, "workflow_id", "sequence"),
        Index(None, "event_type", "sequence"),
        Index(None, "correlation_id"),
        Index(None, "timestamp"),
        {"sqlite_autoincrement": True, **TABLE_OPTIONS},
    )
