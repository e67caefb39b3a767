"""Bodies that another process can import."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

from stabilize import RetryableTask, StageExecution, Task, TaskResult


def tells_its_process(stage: StageExecution) -> TaskResult:
    """Put out the id of the process it runs in, and what it was given."""
    return TaskResult.success(outputs={"pid": os.getpid(), "m": stage.context["n"] + 1})


class Adds(Task):
    """Adds one to what it inherits."""

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"sum": stage.context["m"] + 1})


class Sleeps(RetryableTask):
    """Takes longer than it may."""

    def get_timeout(self) -> timedelta:
        return timedelta(seconds=0.2)

    def execute(self, stage: StageExecution) -> TaskResult:
        threading.Event().wait(2)
        return TaskResult.success()


class SleepsInVain(Sleeps):
    """The same, asked about it, and without an answer."""

    def on_timeout(self, stage: StageExecution) -> TaskResult | None:
        return None
