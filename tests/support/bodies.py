"""Bodies that another process can import."""

from __future__ import annotations

import os

from stabilize import StageExecution, Task, TaskResult


def tells_its_process(stage: StageExecution) -> TaskResult:
    """Put out the id of the process it runs in, and what it was given."""
    return TaskResult.success(outputs={"pid": os.getpid(), "m": stage.context["n"] + 1})


class Adds(Task):
    """Adds one to what it inherits."""

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"sum": stage.context["m"] + 1})
