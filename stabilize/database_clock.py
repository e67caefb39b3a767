"""What time it is by the clock of a database."""

from __future__ import annotations

import time

from sqlalchemy import select

from stabilize.database import Database

_KEEP_SECONDS = 1.0
_QUICK_SECONDS = 0.005
_READINGS = 3


class DatabaseClock:
    """The clock of a database, read once a second and carried on in between; it never goes back.

    All processes on a database go by its clock, so that their own may be wrong.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ahead = 0.0
        self._read_at = float("-inf")
        self._latest = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch: at most 2 more than the database would say, and no less."""
        if time.monotonic() - self._read_at > _KEEP_SECONDS:
            self._ahead = self._read()
            self._read_at = time.monotonic()
        self._latest = max(self._latest, int(time.monotonic() * 1000 + self._ahead))
        return self._latest

    def _read(self) -> float:
        """How far the database's clock is ahead of the monotonic one, in ms.

        The quickest answer errs least (F. Cristian, "Probabilistic clock synchronization", 1989):
        another one is asked for only where it took long.
        """
        readings: list[tuple[float, float]] = []
        with self._database.reading() as session:
            session.connection()  # before the clock starts: connecting may take long
            while len(readings) < _READINGS and min(readings, default=(1.0,))[0] > _QUICK_SECONDS:
                before = time.monotonic()
                theirs = int(session.execute(select(self._database.now())).scalar_one())
                after = time.monotonic()
                # theirs is cut to whole ms: never be behind, or what is due now waits for a poll
                readings.append((after - before, theirs + 1.5 - (before + after) / 2 * 1000))
        return min(readings)[1]
