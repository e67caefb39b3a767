"""Recovery, for programs that ask for it when they begin.

There is nothing to repair: a message stays until its effect has been committed, and the lease of a
worker that died ends by itself. What is left is to start what was stored and never started.
"""

from __future__ import annotations

from dataclasses import dataclass

from stabilize.clock import now_ms
from stabilize.models import Workflow
from stabilize.orchestrator import Orchestrator
from stabilize.queue.queue import Queue
from stabilize.status import WorkflowStatus
from stabilize.store import WorkflowCriteria, WorkflowStore

_OPEN = (WorkflowStatus.NOT_STARTED, WorkflowStatus.RUNNING, WorkflowStatus.BUFFERED)
_HOUR_MS = 3_600_000


@dataclass(frozen=True, kw_only=True)
class RecoveryResult:
    """What was done about one workflow; `status`: "recovered" or "skipped"."""

    workflow_id: str
    status: str
    message: str


class WorkflowRecovery:
    """Goes through the open workflows of the last `max_recovery_age_hours`."""

    def __init__(
        self,
        store: WorkflowStore,
        queue: Queue,
        max_recovery_age_hours: float = 24.0,
        batch_size: int = 100,
    ) -> None:
        self._store = store
        self._queue = queue
        self._orchestrator = Orchestrator(queue, store)
        self._age_ms = int(max_recovery_age_hours * _HOUR_MS)
        self._batch_size = batch_size

    def recover_pending_workflows(self, application: str | None = None) -> list[RecoveryResult]:
        """Start those that never were; calling it again does nothing more."""
        since = now_ms() - self._age_ms
        found: list[Workflow] = []
        page = 0
        while batch := self._store.search(
            WorkflowCriteria(
                application=application, statuses=_OPEN, page_size=self._batch_size, page=page
            )
        ):
            found += [w for w in batch if (w.start_time or w.created_at) >= since]
            page += 1
        return [self._recover(workflow) for workflow in found]

    def _recover(self, workflow: Workflow) -> RecoveryResult:
        status, message = "skipped", "its messages, or what it waits for, move it on"
        if workflow.status is WorkflowStatus.NOT_STARTED and not (
            self._queue.has_pending_message_for_execution(workflow.id)
        ):
            self._orchestrator.start(workflow)
            status, message = "recovered", "it had been stored and not started: it is started"
        return RecoveryResult(workflow_id=workflow.id, status=status, message=message)


def recover_on_startup(
    store: WorkflowStore,
    queue: Queue,
    application: str | None = None,
    max_age_hours: float = 24.0,
) -> list[RecoveryResult]:
    """Start the workflows that were stored within `max_age_hours` and never started."""
    return WorkflowRecovery(store, queue, max_age_hours).recover_pending_workflows(application)
