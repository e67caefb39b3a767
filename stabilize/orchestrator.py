"""The verbs: start, cancel, pause, resume, restart, signal; each can join your transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from stabilize.database import Joinable
from stabilize.desk import Desk, may_be_admitted
from stabilize.errors import ConfigurationError, StageNotFoundError, WorkflowNotFoundError
from stabilize.events.context import current_actor
from stabilize.explain import Explanation, explain
from stabilize.models import StageExecution, Workflow
from stabilize.queue.messages import (
    CancelStage,
    CancelWorkflow,
    Message,
    PauseWorkflow,
    RestartStage,
    ResumeWorkflow,
    SignalStage,
    StartWorkflow,
)
from stabilize.queue.queue import Queue
from stabilize.store import WorkflowStore
from stabilize.store_rows import rows_of_workflow


class Orchestrator:
    """Asks for things to happen; a processor on the same database makes them happen.

    Every verb puts a message in the outbox. With `session=` (a `Session` or `Connection` of yours
    on the same database) it becomes visible with your commit, and a rollback leaves no trace;
    without, it is a transaction of its own, in which an unknown workflow or stage is refused
    (`WorkflowNotFoundError`, `StageNotFoundError`).
    """

    def __init__(self, queue: Queue, store: WorkflowStore | None = None) -> None:
        if store is not None and store.database is not queue.database:
            raise ConfigurationError(
                f"store and queue use different databases ({store.database!r} and "
                f"{queue.database!r}): give both the same URL or engine"
            )
        self.queue = queue
        self.store = store or WorkflowStore(queue.database)

    def start(self, workflow: Workflow, *, session: Joinable | None = None) -> None:
        """Start a workflow, storing it first if it is not stored; a second start does nothing."""

        message = StartWorkflow(
            execution_id=workflow.id, execution_type=workflow.type.name, user=_by("")
        )
        if session is None and self._hand_over(workflow, message):
            return

        def submit(connection: Connection) -> None:
            self.store.store_on(connection, workflow, alone=session is None)
            self.queue.push_on(connection, message, priority=workflow.created_at)

        self.queue.database.transact(submit, session)

    def _hand_over(self, workflow: Workflow, message: StartWorkflow) -> bool:
        """Have the coordinator of this process store and start it, if it has nothing to do."""
        desk: Desk | None = self.queue.database.desks.get(self.queue.name)
        if desk is None or not desk.is_open or not may_be_admitted(workflow):
            return False
        return desk.submit(rows_of_workflow(workflow), message)

    def cancel(
        self,
        workflow: Workflow | str,
        user: str = "anonymous",
        reason: str = "",
        *,
        session: Joinable | None = None,
    ) -> None:
        """Withdraw everything of a workflow that is not complete: it ends CANCELED."""
        message = CancelWorkflow(execution_id=_id(workflow), user=_by(user), reason=reason)
        self._push(message, session)

    def pause(
        self, workflow: Workflow | str, user: str = "anonymous", *, session: Joinable | None = None
    ) -> None:
        """Let what is being executed end and nothing new begin."""
        self._push(PauseWorkflow(execution_id=_id(workflow), user=_by(user)), session)

    def resume(
        self, workflow: Workflow | str, user: str = "anonymous", *, session: Joinable | None = None
    ) -> None:
        """Go on with a paused workflow."""
        self._push(ResumeWorkflow(execution_id=_id(workflow), user=_by(user)), session)

    def unpause(self, workflow: Workflow | str, *, session: Joinable | None = None) -> None:
        """Another name for `resume`."""
        self.resume(workflow, session=session)

    def restart(
        self,
        workflow: Workflow | str,
        stage_id: StageExecution | str,
        user: str = "anonymous",
        *,
        session: Joinable | None = None,
    ) -> None:
        """Run a complete stage and what follows it once more."""
        message = RestartStage(execution_id=_id(workflow), stage_id=_id(stage_id), user=_by(user))
        self._push(message, session)

    def cancel_stage(
        self,
        stage: StageExecution,
        user: str = "anonymous",
        reason: str = "",
        *,
        session: Joinable | None = None,
    ) -> None:
        """Withdraw one stage; the rest of its workflow goes on."""
        self._push(CancelStage.of(stage, user=_by(user), reason=reason), session)

    def signal(
        self,
        workflow: Workflow | str,
        stage_id: StageExecution | str,
        name: str,
        data: dict[str, Any] | None = None,
        *,
        persistent: bool = True,
        user: str = "",
        session: Joinable | None = None,
    ) -> None:
        """Send a signal to a stage; a persistent one is kept until the stage waits for it."""
        self._push(
            SignalStage(
                execution_id=_id(workflow),
                stage_id=_id(stage_id),
                signal_name=name,
                signal_data=dict(data or {}),
                persistent=persistent,
                user=_by(user),
            ),
            session,
        )

    def get_execution(self, workflow_id: str) -> Workflow:
        """The stored workflow; `WorkflowNotFoundError` if unknown."""
        return self.store.retrieve(workflow_id)

    def explain(self, workflow_id: Workflow | str) -> Explanation:
        """Say why each stage that is not running is not; `WorkflowNotFoundError` if unknown."""
        return explain(self.store, _id(workflow_id))

    def _push(self, message: Message, session: Joinable | None) -> None:
        if session is not None:  # what it is about may be yet to come in that transaction
            self.queue.push(message, session=session)
            return

        def put(connection: Connection) -> None:
            self.queue.database.require_tables(connection)
            age = _age_of(connection, message)
            self.queue.push_on(connection, message, priority=age)

        self.queue.database.transact(put)


def _age_of(connection: Connection, message: Message) -> int:
    """When the workflow of a message was made, which also shows that it and the stage exist."""
    workflow_id, stage_id = message.execution_id, getattr(message, "stage_id", None)
    its_stage = (StageExecution.workflow_id == Workflow.id) & (StageExecution.id == stage_id)
    query = select(Workflow.created_at, StageExecution.id).outerjoin(StageExecution, its_stage)
    found = connection.execute(query.where(Workflow.id == workflow_id)).first()
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    if stage_id is not None and found.id is None:
        here = StageExecution.workflow_id == workflow_id, StageExecution.ref_id == stage_id
        meant = connection.scalar(select(StageExecution.id).where(*here, StageExecution.latest))
        remedy = f"that is a ref_id, give its id: {meant!r}" if meant else "give the id of a run"
        raise StageNotFoundError(
            f"Stage not found: {stage_id!r} is no stage of workflow {workflow_id}: {remedy}",
            execution_id=workflow_id,
        )
    return int(found.created_at)


def _by(user: str) -> str:
    """Who asks for it: `user`, or if nobody was named, who acts in this context."""
    return current_actor(user) if user in ("", "anonymous") else user


def _id(entity: Workflow | StageExecution | str) -> str:
    return entity if isinstance(entity, str) else entity.id
