"""Worker processes, made to be killed: `python -m tests.processes.worker`.

Orders come in as lines of JSON; for each a process is forked that plays until SIGTERM, and its pid
goes out. Forking saves each worker the second it takes to import everything. When nobody gives
orders any more, all of them end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from stabilize import (
    Queue,
    QueueProcessor,
    QueueProcessorConfig,
    StageExecution,
    Task,
    TaskRegistry,
    TaskResult,
    TransactionalTask,
    TransientError,
)
from tests.crash.shapes import Charge, Log


class Body(Task):
    """Does what the context of its stage says."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        settings = stage.settings
        time.sleep(settings.get("ms", 0) / 1000)
        tries = settings.get("tries", 0)
        if tries < settings.get("retries", 0):
            raise TransientError("not yet", retry_after=0.02, context_update={"tries": tries + 1})
        if settings.get("fails"):
            return TaskResult.terminal("it was bound to fail")
        return TaskResult.success()


class Deadly(Body):
    """Takes its process with it."""

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        os.kill(os.getpid(), signal.SIGKILL)
        return TaskResult.success()


class Tired(Body):
    """Waits until a file is there."""

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        self.log.add(stage, f"pid:{os.getpid()}")
        while not Path(stage.settings["until"]).exists():
            time.sleep(0.005)
        return TaskResult.success(outputs={"by": os.getpid()})


class SlowCharge(TransactionalTask):
    """Writes a row, and takes its time before the commit."""

    def __init__(self, log: Log) -> None:
        self.charge = Charge(log)

    def execute(self, stage: StageExecution, session: Session) -> TaskResult:
        result = self.charge.execute(stage, session)
        session.flush()
        time.sleep(0.002)
        return result


def registry_for(log: Log) -> TaskRegistry:
    registry = TaskRegistry()
    registry.register("body", Body(log))
    registry.register("deadly", Deadly(log))
    registry.register("tired", Tired(log))
    registry.register("charge", SlowCharge(log))
    return registry


def queue_at(url: str, lease: float, max_deaths: int) -> Queue:
    return Queue(url, lock_duration=timedelta(seconds=lease), max_deaths=max_deaths)


def work(url: str, log: str, turns: str, lease: float, max_deaths: int, slots: int) -> None:
    """Play until SIGTERM; then write down how many turns it were."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    processor = QueueProcessor(
        queue_at(url, lease, max_deaths),
        QueueProcessorConfig(max_workers=slots, poll_frequency_ms=20, shutdown_timeout=5),
        task_registry=registry_for(Log(Path(log))),
    )
    processor.start()
    signal.sigwait({signal.SIGTERM})
    Path(turns).with_suffix(f".{os.getpid()}").write_text(str(processor.turns_played))
    processor.stop()


def serve() -> None:
    children: list[int] = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(0)
            failed = 1
            try:
                work(**json.loads(line))
                failed = 0
            finally:
                sys.stderr.flush()
                os._exit(failed)
        children.append(child)
        print(child, flush=True)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    serve()
