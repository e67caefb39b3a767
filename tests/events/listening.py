"""A process that works for a subscription: `python -m tests.events.listening URL LOG`."""

from __future__ import annotations

import sys
from pathlib import Path

from stabilize.events import Event, SqlEventStore, SubscriptionManager


def main(url: str, log: str) -> None:
    manager = SubscriptionManager(SqlEventStore(url), batch_size=10, lease_seconds=0.2)
    with Path(log).open("a") as out:

        def hear(event: Event) -> None:
            out.write(f"{event.sequence}\n")
            out.flush()

        manager.load_subscription("x", hear)
        while True:
            manager.process_once()
            status = manager.get_subscription_status("x")
            if status is not None and status["lag"] == 0:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
