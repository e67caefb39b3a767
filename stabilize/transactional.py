"""Tasks that work in this very database: their writes commit with their outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from stabilize.backends import rolled_back_on_error
from stabilize.backends.base import pause_within
from stabilize.events.recorder import get_event_recorder
from stabilize.net import Nets
from stabilize.status import WorkflowStatus
from stabilize.tasks.body import Outcome, failure
from stabilize.turn import Turn
from stabilize.work import Held, Written

if TYPE_CHECKING:
    from stabilize.coordinator import Coordinator

_TROUBLE_TRIES = 20


def play_with_body(
    coordinator: Coordinator, held: Held, body: Callable[[Any], Outcome]
) -> Outcome | None:
    """Run `body` with a session and record its outcome in the session's own transaction.

    Returns None when that has been done (or the message is not ours any more), and the outcome
    when nothing was written and a turn is to record it: the body failed.
    """
    database = coordinator.database
    for attempt in range(1, _TROUBLE_TRIES + 1):
        with database.turns.connect() as connection:
            try:
                with rolled_back_on_error(connection):
                    database.backend.begin(connection)
                    return _play(coordinator, connection, held, body)
            except DBAPIError as error:
                if attempt == _TROUBLE_TRIES or not database.backend.is_trouble(error):
                    return failure(error)
        pause_within(0.02 * attempt)
    return None


def _play(
    coordinator: Coordinator,
    connection: Connection,
    held: Held,
    body: Callable[[Any], Outcome],
) -> Outcome | None:
    session = Session(bind=connection, join_transaction_mode="rollback_only")
    outcome = body(session)
    trouble = _broken_by(coordinator, outcome)
    if trouble or outcome.exception is not None or outcome.status is WorkflowStatus.TERMINAL:
        connection.rollback()
        return outcome
    session.flush()
    if not connection.in_transaction():  # the body rolled back what it had done
        coordinator.database.backend.begin(connection)
    turn = Turn(
        connection,
        coordinator.queue,
        Nets(),
        coordinator.worker,
        slots=0,
        now=coordinator.now(),
        recorder=get_event_recorder(),
    )
    taken = turn.take_one(held, outcome)
    if taken is None:
        connection.rollback()
        return None
    turn.play(taken, coordinator.handler_of)
    written: Written = turn.write()
    session.close()
    connection.commit()
    coordinator.publish(written)
    coordinator.wake()
    return None


def _broken_by(coordinator: Coordinator, outcome: Outcome) -> bool:
    return outcome.status is WorkflowStatus.RUNNING and outcome.transient
