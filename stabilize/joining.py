"""What is to happen once a transaction of the user's, which a verb has joined, is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

_KEY = "stabilize_after_commit"


@dataclass(frozen=True)
class _Promise:
    connection: Connection
    within: tuple[SessionTransaction, ...]
    act: Callable[[], Any]


def after_commit(session: Session, act: Callable[[], Any]) -> None:
    """Call `act` when what the session has open now is committed for good.

    Not when a savepoint is released, and not at all when one around this is rolled back, or when
    the session itself has joined a transaction that somebody else ends.
    """
    if _KEY not in session.info:
        session.info[_KEY] = []
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_soft_rollback", _rolled_back)
    connection = session.connection()
    within = []
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        within.append(transaction)
        transaction = transaction.parent
    session.info[_KEY].append(_Promise(connection, tuple(within), act))


def _committed(session: Session) -> None:
    if session.in_nested_transaction():
        return
    promises, session.info[_KEY] = session.info[_KEY], []
    for promise in promises:
        if not promise.connection.in_transaction():
            promise.act()


def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    kept = [promise for promise in session.info[_KEY] if transaction not in promise.within]
    session.info[_KEY] = kept
