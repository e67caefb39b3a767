"""Bodies that another process can import."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

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
        return timedelta(seconds=1)

    def execute(self, stage: StageExecution) -> TaskResult:
        threading.Event().wait(3)
        return TaskResult.success()


class SleepsInVain(Sleeps):
    """The same, asked about it, and without an answer."""

    def on_timeout(self, stage: StageExecution) -> TaskResult | None:
        return None


def _begin(stage: StageExecution) -> Path:
    """Leave a mark that a body of this stage has begun; the folder of the marks."""
    folder = Path(stage.settings["folder"])
    (folder / f"{stage.ref_id}.{time.monotonic_ns()}").touch()
    return folder


def _wait_for(folder: Path, marks: str) -> None:
    while not list(folder.glob(marks)):
        time.sleep(0.005)


class Dies(Task):
    """Takes its process with it, once `good` has begun."""

    def execute(self, stage: StageExecution) -> TaskResult:
        _wait_for(_begin(stage), "good.*")
        os._exit(1)


class Outlives(Task):
    """Waits for its death the first time."""

    def execute(self, stage: StageExecution) -> TaskResult:
        marks = list(_begin(stage).glob("good.*"))
        if len(marks) == 1:
            threading.Event().wait(30)
        return TaskResult.success()


class Unsure(Sleeps):
    """Fails when it is asked how long it may take."""

    def get_timeout(self) -> timedelta:
        raise LookupError("nobody knows")
