"""The database is in trouble at a statement or a commit; nothing shows."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from stabilize import Database
from tests.crash.cases import Case
from tests.crash.shapes import SHAPES, Log, Places, ledger
from tests.support.backends import BackendUnderTest, Databases

LEASE = timedelta(seconds=0.2)
STRIDE = 5
"""Every fifth statement, for all of a turn's are the same to it, and every commit."""


def fail(where: str, in_driver: bool) -> None:
    """What SQLite says when the disk does not do what it should."""
    error = sqlite3.OperationalError("disk I/O error")
    if in_driver:
        raise error
    raise OperationalError(where, None, error)


@pytest.mark.parametrize("name", SHAPES)
def test_trouble_at_any_place_spends_no_attempt_and_loses_nothing(
    databases: Databases, name: str, tmp_path: Path
) -> None:
    """Before a commit the turn never happened; after it only the reply to it is lost."""
    with databases.lend("sqlite-file") as lent:
        ledger.create(lent.engine())
        sweep(lent, name, Log(tmp_path / "bodies"))


def sweep(backend: BackendUnderTest, name: str, log: Log) -> None:
    shape = SHAPES[name]

    def play(place: int) -> tuple[Case, Places]:
        # An engine of its own: what watches it goes with it.
        engine = create_engine(backend.url)
        places = Places(place, fail)
        case = Case(Database.at(engine), shape, f"place {place}", log, lease=LEASE)
        case.begin()
        places.watch(case.queue.database)
        case.finish()
        engine.dispose()
        return case, places

    whole, places = play(0)
    expected, bodies = whole.state(), whole.bodies()
    for place in range(1, places.passed + 1):
        if place not in places.commits and place % STRIDE:
            continue
        case, _ = play(place)
        case.where = f"place {place} of {places.passed}"
        case.check(expected)
        ran = case.bodies()
        if name != "transactional":  # there the body is rolled back with its transaction
            assert ran == bodies, f"place {place} of {places.passed}"
