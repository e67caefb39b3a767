"""Processes that follow events and are killed: `python -m tests.events.killing WHAT URL KILLS`.

WHAT they keep up to date is a `subscription` or a `projection`. Two do so at a time; the one heard
of last is killed at a random moment, KILLS times, and replaced. The last two come to the end. Out
go the sequences of the events that any of them has taken in, in that order.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from sqlalchemy import BigInteger, String, delete
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stabilize import Database
from stabilize.events import (
    Event,
    SqlEventStore,
    SubscriptionManager,
    TableProjection,
    TableProjectionRunner,
)

BATCH = 10
MOST = 40
"""The most events between two kills."""
Hears = Callable[[Event], object]


class Own(DeclarativeBase):
    """The models of a user."""


class Account(Own):
    """What the events of one entity add up to."""

    __tablename__ = "accounts_of_a_test"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    events: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[int] = mapped_column(BigInteger)


class Accounts(TableProjection):
    """Counts, adds up, and refuses what comes out of order."""

    name: ClassVar[str] = "accounts"

    def __init__(self, hears: Hears) -> None:
        self.hears = hears

    def apply(self, event: Event, session: Session) -> None:
        account = session.get(Account, event.entity_id)
        if account is None:
            account = Account(name=event.entity_id, events=0, total=0, last=0)
            session.add(account)
        assert account.last < event.sequence
        account.events += 1
        account.total += event.data["n"]
        account.last = event.sequence
        self.hears(event)

    def clear(self, session: Session) -> None:
        session.execute(delete(Account))


def listen(url: str, hears: Hears) -> None:
    manager = SubscriptionManager(SqlEventStore(url), batch_size=BATCH, lease_seconds=0.3)
    assert manager.load_subscription("x", hears)
    while True:
        manager.process_once()
        status = manager.get_subscription_status("x")
        if status is not None and status["lag"] == 0:
            return


def project(url: str, hears: Hears) -> None:
    runner = TableProjectionRunner(SqlEventStore(url), Accounts(hears), BATCH)
    while runner.position < runner.event_store.get_current_sequence():
        runner.process_once()


FOLLOWERS = {"subscription": listen, "projection": project}


def _fork(work: Callable[[Hears], None], pipe: int) -> int:
    child = os.fork()
    if child:
        return child

    def hears(event: Event) -> None:
        os.write(pipe, f"{os.getpid()} {event.sequence}\n".encode())
        time.sleep(0.001)  # or kills would find it between two batches

    try:
        work(hears)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(what: str, url: str, kills: str) -> None:
    kept = Database.at(url)  # so that no child has to load the driver
    rng = random.Random(7)
    reader, pipe = os.pipe()
    hire = partial(_fork, partial(FOLLOWERS[what], url), pipe)
    living = [hire(), hire()]
    with os.fdopen(reader) as said:
        for _ in range(int(kills)):
            for _ in range(rng.randint(1, MOST)):
                process, sequence = map(int, next(said).split())
                print(sequence)
            time.sleep(rng.uniform(0, 0.005))  # any moment is meant
            victim = process if process in living else living[0]
            os.kill(victim, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL
            living[living.index(victim)] = hire()
        os.close(pipe)
        for line in said:
            print(line.split()[1])
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in living] == [0, 0]
    kept.close()


def killed_at_random(what: str, url: str, kills: int) -> list[int]:
    """Have it done; the sequences taken in, again and again those of what a kill has undone."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.events.killing", what, url, str(kills)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


if __name__ == "__main__":
    main(*sys.argv[1:])
