"""Worker processes of a test: started, killed, replaced, counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import func, select

from stabilize import Orchestrator, WorkflowStatus
from stabilize.models import QueueMessage, Worker, Workflow
from tests.crash.shapes import Log
from tests.processes.worker import queue_at

ROOT: Final = Path(__file__).parent.parent.parent


def eventually(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again and again until it is so; fail, saying what did not happen, after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Fleet:
    """Workers on one database, which this process only watches."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        lease: float = 1.0,
        max_deaths: int = 1_000,
        slots: int = 4,
    ) -> None:
        self.url = url
        self.log = Log(folder / "bodies")
        self.pids: list[int] = []
        self.queue = queue_at(url, lease, max_deaths)
        self.orchestrator = Orchestrator(self.queue)
        self._turns = folder / "turns"
        self._order = {
            "url": url,
            "log": str(self.log.path),
            "turns": str(self._turns),
            "lease": lease,
            "max_deaths": max_deaths,
            "slots": slots,
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pid in self.pids:  # a frozen one too
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.communicate(timeout=10)
        self.queue.close()

    # --- processes --------------------------------------------------------------------------

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps(self._order) + "\n")
            self._server.stdin.flush()
            self.pids.append(int(self._server.stdout.readline()))

    def replace_the_dead(self) -> None:
        """Start a worker for each that has died by itself."""
        dead = [pid for pid in self.pids if not _is_alive(pid)]
        self.pids = [pid for pid in self.pids if pid not in dead]
        self.start(len(dead))

    def kill(self, pid: int) -> int:
        """SIGKILL one; return how many messages it held."""
        os.kill(pid, signal.SIGKILL)
        self.pids.remove(pid)
        self._wait_for_end([pid])
        return self.held_by(pid)

    def retire(self) -> dict[int, int]:
        """End all of them in good order; how many turns each has played."""
        pids, self.pids = self.pids, []
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        self._wait_for_end(pids)
        return {pid: int(self._turns.with_suffix(f".{pid}").read_text()) for pid in pids}

    def _wait_for_end(self, pids: list[int]) -> None:
        eventually(lambda: not any(map(_is_alive, pids)), 15, f"{pids} end")

    # --- the database -----------------------------------------------------------------------

    def held_by(self, pid: int) -> int:
        with self.queue.database.reading() as session:
            query = select(func.count(QueueMessage.id)).where(QueueMessage.holder == Worker.id)
            return session.execute(query.where(Worker.pid == pid)).scalar_one()

    def workers(self) -> int:
        """How many have signed on."""
        with self.queue.database.reading() as session:
            query = select(func.count()).where(Worker.pid.in_(self.pids))
            return session.execute(query).scalar_one()

    def wait_for_workers(self) -> None:
        eventually(lambda: self.workers() == len(self.pids), 20, "all workers sign on")

    def statuses(self) -> dict[str, WorkflowStatus]:
        with self.queue.database.reading() as session:
            rows = session.execute(select(Workflow.id, Workflow.status))
            return dict(rows.all())

    def open(self) -> int:
        """How many workflows have not ended."""
        with self.queue.database.reading() as session:
            ended = [status for status in WorkflowStatus if status.is_complete]
            query = select(func.count()).where(Workflow.status.not_in(ended))
            return session.execute(query).scalar_one()

    def wait_for_the_end(self, seconds: float) -> None:
        """Wait until every workflow has ended and no message is left."""
        eventually(lambda: self.open() == 0, seconds, "every workflow ends")
        eventually(lambda: self.queue.size() == 0, 10, "the queue is empty")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
