"""The store: workflows written, read, searched and deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, func, inspect, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stabilize.clock import now_ms
from stabilize.dag.topological import topological_sort
from stabilize.database import Database, Joinable
from stabilize.errors import (
    ConcurrencyError,
    ConfigurationError,
    ConflictError,
    WorkflowNotFoundError,
)
from stabilize.models import (
    PausedDetails,
    StageExecution,
    TaskExecution,
    Workflow,
)
from stabilize.models.workflow import merge_outputs
from stabilize.status import WorkflowStatus
from stabilize.types import plain

if TYPE_CHECKING:
    from stabilize.queue.messages import Message
    from stabilize.queue.queue import Queue

from stabilize.store_rows import (
    WorkflowRows,
    delete_workflows,
    fill,
    lock_workflow,
    rows_of_workflow,
)

MAX_PAGE = 1_000
_S = WorkflowStatus


@dataclass(frozen=True, kw_only=True)
class WorkflowCriteria:
    """What a search is to find; times in milliseconds since the epoch; None does not restrict."""

    page_size: int | None = 20
    page: int = 0
    application: str | None = None
    name: str | None = None
    pipeline_config_id: str | None = None
    statuses: Sequence[WorkflowStatus] | None = None
    start_time_before: int | None = None
    start_time_after: int | None = None


class WorkflowStore:
    """Workflows in a database: from a URL, or on an engine you have.

    `create_tables=True` is for development and tests; run the migrations otherwise. Methods that
    take `session=` join the caller's transaction, the others have one of their own.
    """

    def __init__(
        self, database: str | URL | Engine | Database, create_tables: bool = False
    ) -> None:
        self.database = Database.at(database)
        if create_tables:
            self.database.create_tables()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r})"

    # --- writing ----------------------------------------------------------------------------

    def store(self, workflow: Workflow, *, session: Joinable | None = None) -> Workflow:
        """Insert a workflow; under an id that is taken, return the stored one if it is the same.

        Raises `ConflictError` when the stored one was defined otherwise, `PayloadError` when a
        context holds what JSON cannot.
        """

        def submit(connection: Connection) -> Workflow:
            if self.store_on(connection, workflow):
                return workflow
            return self.retrieve(workflow.id, session=connection)

        return self.database.transact(submit, session)

    def store_on(self, connection: Connection, workflow: Workflow) -> bool:
        """Insert a workflow within the transaction of `connection`; False when it is there."""
        self.database.require_tables(connection)
        if inspect(workflow).has_identity and self._version_of(connection, workflow.id) is not None:
            return False  # it was retrieved: what it has become since is no new definition
        rows = rows_of_workflow(workflow)
        if self._is_stored(connection, workflow):
            return False
        return self._insert(connection, workflow, rows)

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

    def _insert(self, connection: Connection, workflow: Workflow, rows: WorkflowRows) -> bool:
        if not self.database.backend.needs_savepoints:
            rows.insert(connection)
            return True
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
        where = [StageExecution.id == stage.id, StageExecution.version == stage.version]
        if expected_phase is not None:
            where.append(StageExecution.status == WorkflowStatus[expected_phase])
        values = {
            "status": stage.status,
            "context": plain(stage.context, f"stage {stage.ref_id!r}: context"),
            "outputs": plain(stage.outputs, f"stage {stage.ref_id!r}: outputs"),
            "start_time": stage.start_time,
            "end_time": stage.end_time,
            "definition": stage.definition,
            "name": stage.name,
            "version": stage.version + 1,
        }
        with self.database.writing(session) as connection:
            lock_workflow(connection, stage.workflow_id)
            changed = connection.execute(update(StageExecution).where(*where).values(values))
            if changed.rowcount != 1:
                raise ConcurrencyError(
                    f"stage {stage.ref_id!r} ({stage.id}) is not at version {stage.version} any "
                    "more: retrieve it again and repeat the change"
                )
            for task in stage.__dict__.get("tasks") or ():
                connection.execute(
                    update(TaskExecution)
                    .where(TaskExecution.id == task.id)
                    .values(
                        status=task.status,
                        start_time=task.start_time,
                        end_time=task.end_time,
                        version=task.version + 1,
                    )
                )
        stage.version += 1

    def update_status(self, workflow: Workflow, *, session: Joinable | None = None) -> None:
        """Write the workflow's status; `ConcurrencyError` when it was changed meanwhile."""
        with self.database.writing(session) as connection:
            changed = connection.execute(
                update(Workflow)
                .where(Workflow.id == workflow.id, Workflow.version == workflow.version)
                .values(status=workflow.status, version=workflow.version + 1)
            )
            if changed.rowcount != 1:
                raise ConcurrencyError(
                    f"workflow {workflow.id} is not at version {workflow.version} any more: "
                    "retrieve it again"
                )
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

    def pause(
        self,
        workflow_id: str,
        paused_by: str,
        *,
        session: Joinable | None = None,
        queue: Queue | None = None,
    ) -> bool:
        """Pause a workflow at once: what is being executed ends, nothing new begins."""
        paused = PausedDetails(paused_by=paused_by, pause_time=now_ms())
        with self.database.writing(session) as connection:
            changed = connection.execute(
                update(Workflow)
                .where(
                    Workflow.id == workflow_id,
                    Workflow.status.in_((_S.NOT_STARTED, _S.RUNNING, _S.BUFFERED)),
                )
                .values(status=_S.PAUSED, paused=paused, version=Workflow.version + 1)
            )
            return changed.rowcount == 1

    def cancel(
        self, workflow_id: str, by: str, reason: str, *, session: Joinable | None = None
    ) -> None:
        """Mark a workflow as canceled before it starts; it ends CANCELED when it would start."""
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

    # --- reading ----------------------------------------------------------------------------

    def retrieve(self, workflow_id: str, *, session: Joinable | None = None) -> Workflow:
        """The whole workflow, usable after the session; `WorkflowNotFoundError` if unknown."""
        with self._reading(session) as reading:
            workflow = reading.get(Workflow, workflow_id, populate_existing=True)
            if workflow is None:
                raise WorkflowNotFoundError(workflow_id)
            fill(reading, [workflow])
            reading.expunge_all()
            return workflow

    def retrieve_execution_summary(self, workflow_id: str) -> Workflow:
        """The workflow without its stages."""
        with self.database.reading() as reading:
            workflow = reading.get(Workflow, workflow_id)
            if workflow is None:
                raise WorkflowNotFoundError(workflow_id)
            set_committed_value(workflow, "stages", [])
            return workflow

    def exists(self, workflow_id: str) -> bool:
        with self.database.reading() as reading:
            found = reading.execute(select(Workflow.id).where(Workflow.id == workflow_id))
            return found.first() is not None

    def retrieve_stage(self, stage_id: str) -> StageExecution:
        """One run with its tasks and its workflow; `ValueError` if unknown."""
        with self.database.reading() as reading:
            owner = reading.execute(
                select(StageExecution.workflow_id).where(StageExecution.id == stage_id)
            ).scalar_one_or_none()
        if owner is None:
            raise ValueError(f"Stage {stage_id} not found")
        return self.retrieve(owner).stage_by_id(stage_id)

    def get_upstream_stages(self, workflow_id: str, ref_id: str) -> list[StageExecution]:
        return _named(self.retrieve(workflow_id), ref_id).upstream_stages()

    def get_downstream_stages(self, workflow_id: str, ref_id: str) -> list[StageExecution]:
        return _named(self.retrieve(workflow_id), ref_id).downstream_stages()

    def get_synthetic_stages(self, workflow_id: str, parent_id: str) -> list[StageExecution]:
        return self.retrieve(workflow_id).stage_by_id(parent_id).synthetic_stages()

    def get_merged_ancestor_outputs(self, workflow_id: str, ref_id: str) -> dict[str, Any]:
        """The outputs of everything before a stage, as its definition has it."""
        stage = _named(self.retrieve(workflow_id), ref_id)
        names = {ancestor.ref_id for ancestor in stage.ancestors()}
        ordered = topological_sort(stage.execution.top_level_stages())
        return merge_outputs(s.outputs for s in ordered if s.ref_id in names)

    def search(self, criteria: WorkflowCriteria) -> list[Workflow]:
        """One page of workflows without their stages, the latest start first."""
        query = _narrowed(select(Workflow), criteria).order_by(
            func.coalesce(Workflow.start_time, Workflow.created_at).desc(), Workflow.id.desc()
        )
        if criteria.page_size is not None:
            size = max(1, min(criteria.page_size, MAX_PAGE))
            query = query.limit(size).offset(size * max(0, criteria.page))
        with self.database.reading() as reading:
            found = list(reading.scalars(query))
            for workflow in found:
                set_committed_value(workflow, "stages", [])
            return found

    def count(self, criteria: WorkflowCriteria) -> int:
        """How many workflows a search finds in all its pages."""
        query = _narrowed(select(func.count()).select_from(Workflow), criteria)
        with self.database.reading() as reading:
            found: int = reading.execute(query).scalar_one()
            return found

    def list_workflows(self, application: str, limit: int = 100) -> list[Workflow]:
        return self.search(WorkflowCriteria(application=application, page_size=limit))

    def count_by_application(self, application: str) -> int:
        return self.count(WorkflowCriteria(application=application))

    def retrieve_by_application(
        self, application: str, criteria: WorkflowCriteria | None = None
    ) -> Iterator[Workflow]:
        yield from self._whole(criteria, application=application)

    def retrieve_by_pipeline_config_id(
        self, pipeline_config_id: str, criteria: WorkflowCriteria | None = None
    ) -> Iterator[Workflow]:
        yield from self._whole(criteria, pipeline_config_id=pipeline_config_id)

    def get_all_pending_workflows(
        self, criteria: WorkflowCriteria | None = None
    ) -> Iterator[Workflow]:
        pending = [status for status in WorkflowStatus if not status.is_complete]
        yield from self._whole(criteria, statuses=pending)

    def _whole(self, criteria: WorkflowCriteria | None, **values: Any) -> Iterator[Workflow]:
        given = criteria or WorkflowCriteria(page_size=None)
        wanted = WorkflowCriteria(**{**given.__dict__, **values})
        for summary in self.search(wanted):
            yield self.retrieve(summary.id)

    @contextmanager
    def _reading(self, session: Joinable | None) -> Iterator[Session]:
        if session is None:
            with self.database.reading() as reading:
                yield reading
            return
        connection = session.connection() if isinstance(session, Session) else session
        with Session(bind=connection, expire_on_commit=False) as reading:
            yield reading

    # --- the caller's own unit of work ------------------------------------------------------

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


def _named(workflow: Workflow, ref_id: str) -> StageExecution:
    stage = workflow.stage_by_ref_id(ref_id)
    if stage is None:
        raise ValueError(f"workflow {workflow.id} has no stage {ref_id!r}")
    return stage


def _narrowed(query: Any, criteria: WorkflowCriteria) -> Any:
    conditions = []
    for column, value in (
        (Workflow.application, criteria.application),
        (Workflow.name, criteria.name),
        (Workflow.pipeline_config_id, criteria.pipeline_config_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if criteria.statuses is not None:
        conditions.append(Workflow.status.in_(list(criteria.statuses)))
    if criteria.start_time_before is not None:
        conditions.append(Workflow.start_time <= criteria.start_time_before)
    if criteria.start_time_after is not None:
        conditions.append(Workflow.start_time >= criteria.start_time_after)
    return query.where(*conditions)


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
