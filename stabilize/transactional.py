"""Tasks that work in this very database: their writes commit with their outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from stabilize.coordinator import Coordinator
    from stabilize.flights import Flight

Body = Callable[[Session], Outcome]


def play_with_body(coordinator: Coordinator, flight: Flight, body: Body) -> Outcome | None:
    """Run `body` with a session and record its outcome in the session's own transaction.

    Returns None when that has been done (or the message is not ours any more), and the outcome
    when nothing was written and a turn is to record it: the body failed.
    """
    database = coordinator.database
    tries = 0
    while not flight.token.is_cancelled:
        with database.turns.connect() as connection, flight.working_on(connection):
            try:
                with rolled_back_on_error(connection):
                    database.backend.begin(connection)
                    return _play(coordinator, connection, flight, body)
            except DBAPIError as error:
                if not database.backend.is_trouble(error):
                    return failure(error)
        tries += 1
        pause_within(min(2.0, 0.02 * tries))
    return None


def _play(
    coordinator: Coordinator, connection: Connection, flight: Flight, body: Body
) -> Outcome | None:
    session = Session(bind=connection, join_transaction_mode="rollback_only")
    outcome = body(session)
    if outcome.exception is not None or outcome.status is WorkflowStatus.TERMINAL:
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
    taken = turn.take_one(flight.message, outcome)
    if taken is None:
        connection.rollback()
        return None
    turn.play(taken, coordinator.handler_of)
    written = turn.write()
    session.close()
    connection.commit()
    coordinator.publish(written)
    coordinator.wake()
    return None
