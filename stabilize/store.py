"""The store: workflows written, changed and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from stabilize.amending import amending
from stabilize.clock import now_ms
from stabilize.database import Database, Joinable
from stabilize.errors import (
    ConcurrencyError,
    ConfigurationError,
    ConflictError,
)
from stabilize.events.base import EventType
from stabilize.models import (
    PausedDetails,
    StageExecution,
    TaskExecution,
    Workflow,
)
from stabilize.status import WorkflowStatus
from stabilize.store_reads import WorkflowCriteria, WorkflowReads
from stabilize.store_rows import WorkflowRows, delete_workflows, lock_workflow, rows_of_workflow
from stabilize.types import plain

if TYPE_CHECKING:
    from stabilize.queue.messages import Message
    from stabilize.queue.queue import Queue

_S = WorkflowStatus


class WorkflowStore(WorkflowReads):
    """Workflows in a database: from a URL, or on an engine you have.

    `create_tables=True` is for development and tests; run the migrations otherwise. Methods that
    take `session=` join the caller's transaction, the others have one of their own.
    """

    def store(self, workflow: Workflow, *, session: Joinable | None = None) -> Workflow:
        """Insert a workflow; under an id that is taken, return the stored one if it is the same.

        Raises `ConflictError` when the stored one was defined otherwise, `PayloadError` when a
        context holds what JSON cannot.
        """

        def submit(connection: Connection) -> Workflow:
            if self.store_on(connection, workflow, alone=session is None):
                return workflow
            return self.retrieve(workflow.id, session=connection)

        return self.database.transact(submit, session)

    def store_on(self, connection: Connection, workflow: Workflow, *, alone: bool = False) -> bool:
        """Insert a workflow within the transaction of `connection`; False when it is there.

        With `alone` the transaction is tried again when somebody else was faster
        (`Database.transact`), and needs no SAVEPOINT.
        """
        self.database.require_tables(connection)
        if inspect(workflow).has_identity and self._version_of(connection, workflow.id) is not None:
            return False  # it was retrieved: what it has become since is no new definition
        rows = rows_of_workflow(workflow)
        if self._is_stored(connection, workflow):
            return False
        if alone or not self.database.backend.needs_savepoints:
            rows.insert(connection)
            return True
        return self._insert_once(connection, workflow, rows)

    def _version_of(self, connection: Connection, workflow_id: str) -> int | None:
        found: int | None = connection.execute(
            select(Workflow.version).where(Workflow.id == workflow_id)
        ).scalar()
        return found

    def _is_stored(self, connection: Connection, workflow: Workflow) -> bool:
        stored = connection.execute(
            select(Workflow.definition_hash).where(Workflow.id == workflow.id)
        ).first()
        if stored is None:
            return False
        if stored.definition_hash != workflow.definition_hash:
            raise ConflictError(
                f"workflow {workflow.id!r} is stored with another definition: use another id, or "
                "submit the definition it was stored with"
            )
        return True

    def _insert_once(self, connection: Connection, workflow: Workflow, rows: WorkflowRows) -> bool:
        try:
            with connection.begin_nested():
                rows.insert(connection)
        except IntegrityError:
            if not self._is_stored(connection, workflow):
                raise
            return False
        return True

    def store_stage(
        self,
        stage: StageExecution,
        expected_phase: str | None = None,
        *,
        session: Joinable | None = None,
    ) -> None:
        """Write a stage and its tasks changed outside of the engine.

        Raises `ConcurrencyError` when the row is not of the version that was read, or not in the
        status named `expected_phase`.
        """
        context = plain(stage.context, f"stage {stage.ref_id!r}: context")
        outputs = plain(stage.outputs, f"stage {stage.ref_id!r}: outputs")
        with amending(self.database, session) as amendment:
            lock_workflow(amendment.session.connection(), stage.workflow_id)
            stored = amendment.session.get(StageExecution, stage.id, with_for_update=True)
            found = None if stored is None else stored.version
            if stored is None or found != stage.version:
                raise ConcurrencyError(
                    f"stage {stage.ref_id!r} ({stage.id}) is at version {found}, not "
                    f"{stage.version}: retrieve it again and repeat the change"
                )
            if expected_phase not in (None, stored.status.name):
                raise ConcurrencyError(
                    f"stage {stage.ref_id!r} ({stage.id}) is {stored.status.name}, not "
                    f"{expected_phase}: retrieve it again and repeat the change"
                )
            amendment.change(
                stored,
                status=stage.status,
                context=context,
                outputs=outputs,
                start_time=stage.start_time,
                end_time=stage.end_time,
                definition=stage.definition,
                name=stage.name,
                version=stage.version + 1,
            )
            for task in stage.__dict__.get("tasks") or ():
                stored_task = amendment.session.get(TaskExecution, task.id)
                if stored_task is not None:
                    amendment.change(
                        stored_task,
                        status=task.status,
                        start_time=task.start_time,
                        end_time=task.end_time,
                        version=task.version + 1,
                    )
        stage.version += 1

    def update_status(self, workflow: Workflow, *, session: Joinable | None = None) -> None:
        """Write the workflow's status; `ConcurrencyError` when it was changed meanwhile."""
        with amending(self.database, session) as amendment:
            stored = amendment.session.get(Workflow, workflow.id, with_for_update=True)
            if stored is None or stored.version != workflow.version:
                raise ConcurrencyError(
                    f"workflow {workflow.id} is not at version {workflow.version} any more: "
                    "retrieve it again"
                )
            amendment.change(stored, status=workflow.status, version=workflow.version + 1)
        workflow.version += 1

    def add_stage(self, stage: StageExecution, *, session: Joinable | None = None) -> None:
        """Add a stage to a stored workflow that has not started; `stage.workflow_id` names it."""
        workflow = self.retrieve(stage.workflow_id or stage.execution.id)
        if workflow.status is not _S.NOT_STARTED:
            raise ConflictError(f"workflow {workflow.id} is {workflow.status}: it takes no stages")
        known = {other.id for other in workflow.stages}
        if stage.id not in known:
            workflow.stages.append(stage)
        self._replace(workflow, session)

    def remove_stage(
        self, workflow: Workflow, stage_id: str, *, session: Joinable | None = None
    ) -> None:
        """Remove a stage from a stored workflow that has not started."""
        stored = self.retrieve(workflow.id)
        stored.remove_stage(stage_id)
        self._replace(stored, session)

    def _replace(self, workflow: Workflow, session: Joinable | None) -> None:
        rows = rows_of_workflow(workflow)
        with self.database.writing(session) as connection:
            delete_workflows(connection, [workflow.id])
            rows.insert(connection)

    def delete(self, workflow_id: str, *, session: Joinable | None = None) -> None:
        """Delete a workflow with all that belongs to it but its events; an unknown id is fine."""
        with self.database.writing(session) as connection:
            lock_workflow(connection, workflow_id)
            delete_workflows(connection, [workflow_id])

    def pause(self, workflow_id: str, paused_by: str, *, session: Joinable | None = None) -> bool:
        """Pause a workflow at once: what is being executed ends, nothing new begins.

        False when there is nothing to pause: no such workflow, or it is over or paused already.
        """
        with amending(self.database, session, actor=paused_by) as amendment:
            stored = amendment.session.get(Workflow, workflow_id, with_for_update=True)
            if stored is None or stored.status not in (_S.NOT_STARTED, _S.RUNNING, _S.BUFFERED):
                return False
            paused = PausedDetails(paused_by=paused_by, pause_time=now_ms())
            amendment.change(stored, status=_S.PAUSED, paused=paused, version=stored.version + 1)
            amendment.record(
                EventType.WORKFLOW_PAUSED,
                stored,
                paused_by=paused_by,
                pause_time=paused.pause_time,
            )
            return True

    def cancel(
        self, workflow_id: str, by: str, reason: str, *, session: Joinable | None = None
    ) -> None:
        """Mark a workflow as canceled: it ends CANCELED when it, or a task of it, would begin.

        `Orchestrator.cancel` withdraws at once what is under way.
        """
        with self.database.writing(session) as connection:
            connection.execute(
                update(Workflow)
                .where(Workflow.id == workflow_id)
                .values(
                    is_canceled=True,
                    canceled_by=by,
                    cancellation_reason=reason,
                    version=Workflow.version + 1,
                )
            )

    @contextmanager
    def transaction(self, queue: Queue) -> Iterator[StoreTransaction]:
        """Change stages and push messages together: all of it, or on an exception nothing."""
        if queue.database is not self.database:
            raise ConfigurationError(
                f"store and queue use different databases ({self.database!r} and "
                f"{queue.database!r}): give both the same URL or engine"
            )
        with self.database.writing() as connection:
            transaction = StoreTransaction(self, queue, connection)
            try:
                yield transaction
            except BaseException:
                transaction.restore()
                raise

    def is_healthy(self) -> bool:
        return self.database.is_healthy()

    def close(self) -> None:
        self.database.close()


class StoreTransaction:
    """What can be done together in `store.transaction(queue)`."""

    is_atomic = True

    def __init__(self, store: WorkflowStore, queue: Queue, connection: Connection) -> None:
        self._store = store
        self._queue = queue
        self._connection = connection
        self._versions: list[tuple[StageExecution | Workflow, int]] = []

    def store_stage(self, stage: StageExecution, expected_phase: str | None = None) -> None:
        self._versions.append((stage, stage.version))
        self._store.store_stage(stage, expected_phase, session=self._connection)

    def update_workflow_status(self, workflow: Workflow) -> None:
        self._versions.append((workflow, workflow.version))
        self._store.update_status(workflow, session=self._connection)

    def push_message(self, message: Message, delay: float = 0) -> None:
        self._queue.push(message, timedelta(seconds=delay), session=self._connection)

    def restore(self) -> None:
        for entity, version in reversed(self._versions):
            entity.version = version


class SqliteWorkflowStore(WorkflowStore):
    """A store in SQLite: `sqlite:///file.db`, `sqlite:////abs.db` or `sqlite:///:memory:`.

    Tables that are missing are created.
    """

    def __init__(
        self, connection_string: str | URL | Engine | Database, create_tables: bool = True
    ) -> None:
        super().__init__(connection_string, create_tables=create_tables)


class PostgresWorkflowStore(WorkflowStore):
    """A store in PostgreSQL; its tables come from the migrations."""


class MySQLWorkflowStore(WorkflowStore):
    """A store in MariaDB or MySQL; its tables come from the migrations."""


__all__ = [
    "MySQLWorkflowStore",
    "PostgresWorkflowStore",
    "SqliteWorkflowStore",
    "WorkflowCriteria",
    "WorkflowStore",
]
