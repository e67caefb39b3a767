"""The time by which a workflow or a stage has to begin, for those that wait when it comes.

The message that begins it is due at that time once more; its handler finds the time to be past.
"""

from __future__ import annotations

from sqlalchemy import delete

from stabilize.queue.messages import Message
from stabilize.queue.rows import MESSAGES
from stabilize.turn import Turn


def is_past(expiry: int | None, turn: Turn) -> bool:
    return expiry is not None and expiry < turn.now


def begin_by(turn: Turn, start: Message, expiry: int | None) -> None:
    """What `start` is to begin waits from now on: look again when its time is past."""
    if expiry is not None:
        turn.push(start, delay_ms=expiry - turn.now + 1)


def has_begun(turn: Turn, start: Message, expiry: int | None) -> None:
    """What waited has begun: there is nothing to look for."""
    if expiry is None:
        return
    stage_id = getattr(start, "stage_id", None)

    def is_stale(other: Message) -> bool:
        here = other.execution_id == start.execution_id
        return here and type(other) is type(start) and getattr(other, "stage_id", None) == stage_id

    turn.outbox.drop(is_stale)
    turn.connection.execute(
        delete(MESSAGES).where(
            MESSAGES.c.workflow_id == start.execution_id,
            MESSAGES.c.type == type(start).__name__,
            MESSAGES.c.stage_id.is_not_distinct_from(stage_id),
        )
    )
