"""Reading of the store: workflows retrieved, searched and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stabilize.database import Database, Joinable
from stabilize.errors import WorkflowNotFoundError
from stabilize.models import StageExecution, Workflow
from stabilize.models.workflow import merge_in_order
from stabilize.status import WorkflowStatus
from stabilize.store_rows import fill

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


class WorkflowReads:
    """What can be asked of the workflows in a database."""

    def __init__(
        self, database: str | URL | Engine | Database, create_tables: bool = False
    ) -> None:
        self.database = Database.at(database)
        if create_tables:
            self.database.create_tables()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r})"

    def retrieve(self, workflow_id: str, *, session: Joinable | None = None) -> Workflow:
        """The whole workflow, usable after the session; `WorkflowNotFoundError` if unknown."""
        if session is None:
            self.database.require_tables()
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
        return merge_in_order(s for s in stage.execution.top_level_stages() if s.ref_id in names)

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
