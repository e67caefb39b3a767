"""The rows of the outbox: messages waiting, and those given up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stabilize.models.base import PREFIX, TABLE_OPTIONS, RowBase
from stabilize.types import Identifier, Json

PARKED = 1 << 62
"""The `visible_at` of a message whose workflow is paused."""


class QueueMessage(RowBase):
    """A message in the outbox: it is there until the turn that carries it out commits.

    `visible_at` (milliseconds since the epoch, the database's clock) is delay, backoff and lease
    in one. `attempts` is raised by each claim and so is the fence; `deaths` counts the leases that
    ran out on a worker. `priority` is the age of the workflow: what is older goes first.
    """

    __tablename__ = PREFIX + "messages"

    id: Mapped[str] = mapped_column(Identifier(26), primary_key=True)
    queue: Mapped[str] = mapped_column(Identifier(64))
    type: Mapped[str] = mapped_column(String(64))
    task_type: Mapped[str | None] = mapped_column(Identifier(255))
    workflow_id: Mapped[str] = mapped_column(Identifier())
    stage_id: Mapped[str | None] = mapped_column(Identifier())
    task_id: Mapped[str | None] = mapped_column(Identifier())
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    payload_version: Mapped[int] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(BigInteger)
    visible_at: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer)
    failures: Mapped[int] = mapped_column(Integer)
    deaths: Mapped[int] = mapped_column(Integer)
    holder: Mapped[str | None] = mapped_column(Identifier())
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(None, "queue", "priority", "id", "visible_at"),
        Index(None, "queue", "visible_at"),
        Index(None, "workflow_id", "stage_id"),
        TABLE_OPTIONS,
    )


class DeadLetter(RowBase):
    """A message given up: what it was, whose it was and why; it can be replayed."""

    __tablename__ = PREFIX + "dead_letters"

    id: Mapped[str] = mapped_column(Identifier(26), primary_key=True)
    message_id: Mapped[str] = mapped_column(Identifier(26))
    queue: Mapped[str] = mapped_column(Identifier(64))
    type: Mapped[str] = mapped_column(String(64))
    task_type: Mapped[str | None] = mapped_column(Identifier(255))
    workflow_id: Mapped[str] = mapped_column(Identifier())
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    payload_version: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    deaths: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(String(64))
    error: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)
    moved_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index(None, "queue", "moved_at"),
        Index(None, "workflow_id"),
        TABLE_OPTIONS,
    )


class Worker(RowBase):
    """A process that plays turns: for routing and for people; no lease hangs on it."""

    __tablename__ = PREFIX + "workers"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    queue: Mapped[str] = mapped_column(Identifier(64))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    task_types: Mapped[list[str]] = mapped_column(Json)
    slots: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[int] = mapped_column(BigInteger)
    heartbeat_at: Mapped[int] = mapped_column(BigInteger, index=True)

    __table_args__ = (TABLE_OPTIONS,)
