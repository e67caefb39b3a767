"""A process that copies events and dies: `python -m tests.events.relaying SOURCE TARGET PLACE N`.

PLACE is before, inside or after the N-th commit of the target.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import event

from stabilize import Database
from stabilize.events import Event, SqlEventStore
from stabilize.events.relay import Relay


class Deadly(SqlEventStore):
    """Kills its process around a commit."""

    place = ""
    left = 0

    def append_batch(self, events: Sequence[Event], connection: Any = None) -> Any:
        self.left -= 1
        if self.left == 0 and self.place == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        stored = super().append_batch(events, connection)
        if self.left == 0 and self.place == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return stored


def main(source: str, target: str, place: str, number: str) -> None:
    store = Deadly(target)
    store.place, store.left = place, int(number)

    def commits(_: object) -> None:
        if store.left == 0 and store.place == "inside":
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(store.database.engine, "commit", commits)
    Relay(Database.at(source), store).drain(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
