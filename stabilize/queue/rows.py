"""Messages as rows: how they are written and read, and how one is given up."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection, Table, delete, insert

from stabilize.clock import new_id, now_ms
from stabilize.models import DeadLetter, QueueMessage
from stabilize.queue.messages import (
    PAYLOAD_VERSION,
    FailWorkflow,
    Message,
    create_message_from_dict,
    payload_of,
)

logger = logging.getLogger(__name__)

MESSAGES: Table = QueueMessage.__table__  # type: ignore[assignment]
LETTERS: Table = DeadLetter.__table__  # type: ignore[assignment]
_ROUTING = ("stage_id", "task_id", "task_type")
_KEPT = ("queue", "type", "task_type", "workflow_id", "payload_version", "attempts", "deaths")


def row_of(
    message: Message,
    queue: str,
    now: int,
    *,
    visible_at: int,
    priority: int,
    holder: str | None = None,
) -> dict[str, Any]:
    """The row of a message to be inserted: due when, in which place in the line, held by whom."""
    routing = message.__dict__
    return {
        "id": new_id(),
        "queue": queue,
        "type": type(message).__name__,
        "stage_id": routing.get("stage_id"),
        "task_id": routing.get("task_id"),
        "task_type": routing.get("task_type"),
        "workflow_id": message.execution_id,
        "payload": payload_of(message),
        "payload_version": PAYLOAD_VERSION,
        "priority": priority,
        "visible_at": visible_at,
        "created_at": now,
        "attempts": 0 if holder is None else 1,
        "failures": 0,
        "deaths": 0,
        "holder": holder,
        "last_error": None,
    }


def _content_of(row: Any) -> dict[str, Any]:
    routing = {name: getattr(row, name) for name in _ROUTING}
    return {**row.payload, **{name: value for name, value in routing.items() if value is not None}}


def message_of(row: Any) -> Message:
    """The message a row holds, with the number of this delivery."""
    delivery = {
        "execution_id": row.workflow_id,
        "message_id": row.id,
        "attempts": row.attempts,
        "last_error": row.last_error,
    }
    return create_message_from_dict(row.type, {**_content_of(row), **delivery})


def failure_of(row: Any, error: str) -> FailWorkflow:
    """What a message that was given up means for its workflow."""
    return FailWorkflow(
        execution_id=row.workflow_id,
        stage_id=row.stage_id or "",
        task_id=row.task_id or "",
        error=error,
        message_id=row.id,
    )


def bury(connection: Connection, row: Any, reason: str, error: str, **known: Any) -> None:
    """Move one message to the dead letters, within the transaction of `connection`.

    `known` is what the row does not say yet.
    """
    connection.execute(delete(MESSAGES).where(MESSAGES.c.id == row.id))
    letter = {
        **{name: getattr(row, name) for name in (*_KEPT, "created_at")},
        "id": new_id(),
        "message_id": row.id,
        "payload": _content_of(row),
        "reason": reason,
        "error": error,
        "moved_at": now_ms(),
        **known,
    }
    connection.execute(insert(LETTERS).values(letter))
    logger.error(
        "message %s (%s) was given up: %s",
        row.id,
        row.type,
        reason,
        extra={"workflow_id": row.workflow_id},
    )
