"""Where a new workflow is handed to the coordinator of the same process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import inspect

from stabilize.models import Workflow
from stabilize.net import BLOCK
from stabilize.queue.messages import StartWorkflow
from stabilize.store_rows import WorkflowRows

_PATIENCE = 1.0


def may_be_admitted(workflow: Workflow) -> bool:
    """Say whether a workflow is small, not stored yet as far as is known here, and may start."""
    return (
        len(workflow.stages) <= BLOCK  # of a larger one a turn reads only what it needs
        and not inspect(workflow).has_identity
        and not (workflow.is_canceled or workflow.is_limit_concurrent)
    )


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A workflow to be stored and started; `done` says whether it was."""

    rows: WorkflowRows
    message: StartWorkflow
    done: Future[bool] = field(default_factory=Future)


class Desk:
    """Takes new workflows while its coordinator has nothing to do.

    One transaction then stores and starts a workflow, where otherwise the caller's stores it and
    the coordinator's next one reads it again. It is speed and never needed: whoever is told False
    writes rows and message in a transaction of its own.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._open = False
        self._closed = False
        self._offered: deque[Submission] = deque()

    @property
    def is_open(self) -> bool:
        """The coordinator waits for something to do."""
        return self._open

    @contextmanager
    def open(self) -> Iterator[None]:
        """The coordinator waits inside."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def submit(self, rows: WorkflowRows, message: StartWorkflow) -> bool:
        """Have a workflow stored and started; False when nobody does it, or it is there already."""
        submission = Submission(rows=rows, message=message)
        self._offered.append(submission)
        if self._closed:
            return not submission.done.cancel() and submission.done.result()
        self._wake()
        try:
            return submission.done.result(_PATIENCE)
        except TimeoutError:
            return not submission.done.cancel() and submission.done.result()

    def close(self) -> None:
        """Send away who still waits."""
        self._closed = True
        for submission in self.take():
            submission.done.set_result(False)

    def take(self) -> list[Submission]:
        """What has been handed in and is still wanted."""
        found = []
        while self._offered:
            submission = self._offered.popleft()
            if submission.done.set_running_or_notify_cancel():
                found.append(submission)
        return found
