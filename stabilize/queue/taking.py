"""The statements by which a worker takes messages, built once for each worker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, case, delete, or_, select, update

from stabilize.models import Workflow
from stabilize.models.queue import PARKED
from stabilize.queue.messages import MESSAGE_TYPES
from stabilize.queue.queue import Queue
from stabilize.queue.rows import MESSAGES

STARTING_TYPES = sorted(
    name for name, kind in MESSAGE_TYPES.items() if kind.runs_user_code or kind.starts_work
)
"""What a worker without a free slot leaves to others: it would only write what they take."""

_KNOWN_TYPES = sorted(MESSAGE_TYPES)
_WORKFLOWS: Table = Workflow.__table__  # type: ignore[assignment]
_ROWS = (
    select(MESSAGES, _WORKFLOWS.c.version.label("workflow_version"))
    .select_from(_WORKFLOWS)  # first: where both are locked, the workflow is locked first
    .join(MESSAGES, MESSAGES.c.workflow_id == _WORKFLOWS.c.id)
)
_BY_ID = _ROWS.where(MESSAGES.c.id.in_(bindparam("ids", expanding=True)))
_BY_ID_SKIPPING = _BY_ID.with_for_update(skip_locked=True, key_share=True)
_BY_ID_WAITING = _BY_ID.with_for_update(key_share=True)
_ATTEMPTS = select(MESSAGES.c.id, MESSAGES.c.attempts).where(
    MESSAGES.c.id.in_(bindparam("ids", expanding=True))
)
CONSUME = delete(MESSAGES).where(MESSAGES.c.id.in_(bindparam("ids", expanding=True)))
_TIDYING = sorted(name for name, kind in MESSAGE_TYPES.items() if kind.tidies_up)
PURGE = delete(MESSAGES).where(
    MESSAGES.c.workflow_id == bindparam("workflow"),
    MESSAGES.c.queue == bindparam("queue"),
    MESSAGES.c.type.not_in(_TIDYING),
)
_FOR_ANY_RUN = sorted(name for name, kind in MESSAGE_TYPES.items() if kind.is_for_any_run)
PURGE_STAGES = PURGE.where(
    MESSAGES.c.stage_id.in_(bindparam("ids", expanding=True)),
    MESSAGES.c.type.not_in(_FOR_ANY_RUN),
)
UNPARK = (
    update(MESSAGES)
    .where(MESSAGES.c.workflow_id == bindparam("workflow"), MESSAGES.c.visible_at >= PARKED)
    .values(visible_at=bindparam("at"))
)
_NOBODY_DIED = or_(MESSAGES.c.holder.is_(None), MESSAGES.c.holder == bindparam("by"))
TAKE_BACK = (
    update(MESSAGES)
    .where(
        MESSAGES.c.id == bindparam("b_id"),
        MESSAGES.c.attempts == bindparam("b_attempts") + 1,
        MESSAGES.c.holder.is_not(None),
        MESSAGES.c.deaths > 0,
    )
    .values(deaths=MESSAGES.c.deaths - 1)
)
"""A worker whose message another has claimed lives: that was no death."""
CLAIM = (
    update(MESSAGES)
    .where(MESSAGES.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        visible_at=bindparam("at"),
        attempts=MESSAGES.c.attempts + 1,
        deaths=MESSAGES.c.deaths + case((_NOBODY_DIED, 0), else_=1),
        holder=bindparam("by"),
    )
)
AGAIN = (
    update(MESSAGES)
    .where(MESSAGES.c.id == bindparam("b_id"))
    .values(visible_at=bindparam("b_at"), holder=None, deaths=0)  # its holder has survived it
)


def lock_messages(connection: Connection, ids: list[str], *, wait: bool = False) -> list[Row[Any]]:
    """Lock messages with their workflows: those nobody has locked, or with `wait` all of them."""
    statement = _BY_ID_WAITING if wait else _BY_ID_SKIPPING
    return list(connection.execute(statement, {"ids": ids}))


def attempts_of(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """How often messages have been claimed, without locking them."""
    rows = connection.execute(_ATTEMPTS, {"ids": list(ids)})
    return {row.id: row.attempts for row in rows}


class Taking:
    """What one worker may take of a queue.

    `task_names`: the task types it has; None when it takes every type, to fail those that neither
    it nor the workers `elsewhere` have.
    """

    def __init__(
        self, queue: Queue, task_names: Sequence[str] | None, elsewhere: Collection[str] = ()
    ) -> None:
        self._queue = queue
        self._task_names = task_names
        self._elsewhere = sorted(set(elsewhere) - set(task_names or ()))
        self._due = {starting: self._due_first(starting) for starting in (True, False)}
        self._next = {starting: self._due_next(starting) for starting in (True, False)}

    def due(
        self, connection: Connection, now: int, limit: int, *, starting: bool
    ) -> list[Row[Any]]:
        """Lock the messages that are due and go first, each with its workflow."""
        return list(connection.execute(self._due[starting], {"now": now, "limit": limit}))

    def next_due(self, connection: Connection, *, starting: bool) -> int | None:
        """When the next message is due, in ms; None when there is none."""
        found: int | None = connection.execute(self._next[starting]).scalar()
        return found

    def _mine(self, starting: bool) -> list[Any]:
        messages = MESSAGES.c
        conditions: list[Any] = [
            messages.queue == self._queue.name,
            messages.type.in_(_KNOWN_TYPES),  # others are for workers of a newer version
        ]
        if not starting:
            conditions.append(messages.type.not_in(STARTING_TYPES))
        elif self._task_names is not None:
            conditions.append(
                or_(messages.task_type.is_(None), messages.task_type.in_(self._task_names))
            )
        elif self._elsewhere:
            conditions.append(
                or_(messages.task_type.is_(None), messages.task_type.not_in(self._elsewhere))
            )
        return conditions

    def _due_first(self, starting: bool) -> Any:
        query = (
            # "+ 0" keeps planners from the index on visible_at: they would sort every due message
            # for the few that go first, where the index in order of priority stops at LIMIT
            _ROWS.where(*self._mine(starting), MESSAGES.c.visible_at + 0 <= bindparam("now"))
            .order_by(MESSAGES.c.priority, MESSAGES.c.id)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True, key_share=True)
        )
        hint = self._queue.database.backend.take_hint()
        return query if hint is None else query.with_hint(MESSAGES, *hint)

    def _due_next(self, starting: bool) -> Any:
        return (
            select(MESSAGES.c.visible_at)
            .where(*self._mine(starting))
            .order_by(MESSAGES.c.visible_at)
            .limit(1)
        )
