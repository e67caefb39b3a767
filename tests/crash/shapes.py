"""Small workflows, each with what is asked of it while processes die over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Column, Connection, MetaData, String, Table, event, insert
from sqlalchemy.orm import Session

from stabilize import (
    Database,
    JoinType,
    Orchestrator,
    Queue,
    RetryableTask,
    StageDefinitionBuilder,
    StageExecution,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    TransactionalTask,
    TransientError,
    Workflow,
)
from stabilize.stages.builder import Graph, StageDefinitionBuilderFactory
from stabilize.status import SyntheticStageOwner

T = TypeVar("T")
LEASE: Final = timedelta(seconds=0.5)
MAX_DEATHS: Final = 1_000
"""Here it is never the message's fault."""

ledger = Table(
    "ledger",
    MetaData(),
    Column("workflow_id", String(64)),
    Column("ref_id", String(64)),
)
"""A user's own table. Nothing but the engine keeps a row from being there twice."""


def queue_at(database: str | Database, name: str, lease: timedelta = LEASE) -> Queue:
    """A queue whose claims run out soon."""
    return Queue(database, table_name=name, lock_duration=lease, max_deaths=MAX_DEATHS)


class AtOnce(Executor):
    """Runs a body where it is handed in: what a process does is the same each time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Places:
    """Counts where something could happen to the turns of a process, and has it happen at one."""

    def __init__(self, fatal: int, happen: Callable[[str, bool], None]) -> None:
        self.passed = 0
        self.commits: set[int] = set()
        self._fatal = fatal
        self._happen = happen

    def watch(self, database: Database) -> None:
        """Pass a place before each statement of a turn, and before and after each commit."""
        database.turns = database.turns.execution_options(is_a_turn=True)
        event.listen(database.engine, "before_cursor_execute", self._before_statement)
        commit = database.engine.dialect.do_commit

        def watched(connection: Any) -> None:
            self._pass("before a commit", in_driver=True)
            commit(connection)
            self._pass("after a commit", in_driver=True)

        database.engine.dialect.do_commit = watched  # type: ignore[method-assign, assignment]

    def _before_statement(
        self, connection: Connection, cursor: object, statement: str, *rest: object
    ) -> None:
        if connection.get_execution_options().get("is_a_turn"):
            self._pass("before " + " ".join(statement.split())[:100])

    def _pass(self, where: str, in_driver: bool = False) -> None:
        if threading.current_thread().name == "stabilize-heartbeat":
            return
        self.passed += 1
        if in_driver:
            self.commits.add(self.passed)
        if self.passed == self._fatal:
            self._happen(where, in_driver)


# --- bodies ----------------------------------------------------------------------------------


class Log:
    """A file to which every execution of a body adds a line, whatever becomes of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, stage: StageExecution, what: str = "execute") -> None:
        line = f"{stage.execution.id} {stage.ref_id} {what}\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def counts(self) -> dict[tuple[str, str, str], int]:
        """How often each body ran: by workflow, stage and hook."""
        found: dict[tuple[str, str, str], int] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                workflow_id, ref_id, what = line.split()
                found[workflow_id, ref_id, what] = found.get((workflow_id, ref_id, what), 0) + 1
        return found


class Logged(Task):
    """A body that leaves a line and succeeds."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        return TaskResult.success(outputs={stage.ref_id: "done"})


class Flaky(Logged):
    """Fails twice, as the database remembers."""

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        tries = stage.context.get("tries", 0)
        if tries < 2:
            raise TransientError("not yet", retry_after=0, context_update={"tries": tries + 1})
        return TaskResult.success(outputs={"tries": tries})


class Failing(Logged):
    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        return TaskResult.terminal("it was bound to fail")


class JumpsBack(Logged):
    """Sends the workflow back once."""

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        if stage.context.get("round") == 2:
            return TaskResult.success(outputs={"round": 2})
        return TaskResult.jump_to("b", context={"round": 2})


class Waiting(Logged):
    """Waits for a signal; says goodbye when it is canceled."""

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        if "_signal_name" in stage.context:
            return TaskResult.success(outputs={"heard": stage.context["_signal_data"]})
        return TaskResult.suspend()

    def on_cleanup(self, stage: StageExecution) -> None:
        self.log.add(stage, "on_cleanup")


class Pausing(RetryableTask):
    """A body whose workflow somebody pauses before it is executed for the second time."""

    def __init__(self, log: Log, queue: Queue) -> None:
        self.log = log
        self.queue = queue

    def get_timeout(self) -> timedelta:
        return timedelta(minutes=5)

    def get_backoff_period(self, stage: StageExecution, duration: timedelta) -> timedelta:
        return timedelta(milliseconds=30)

    def execute(self, stage: StageExecution) -> TaskResult:
        self.log.add(stage)
        if stage.execution.paused is not None:
            return TaskResult.success()
        Orchestrator(self.queue).pause(stage.execution.id, user="a body")
        return TaskResult.running()


class Charge(TransactionalTask):
    """Writes a row of the user's in the transaction that records its outcome."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def execute(self, stage: StageExecution, session: Session) -> TaskResult:
        self.log.add(stage)
        row = {"workflow_id": stage.execution.id, "ref_id": stage.ref_id}
        session.execute(insert(ledger).values(**row))
        return TaskResult.success(outputs={"charged": stage.ref_id})


def registry_for(queue: Queue, log: Log) -> TaskRegistry:
    """Every body that the workflows below name."""
    registry = TaskRegistry()
    for kind in (Logged, Flaky, Failing, JumpsBack, Waiting):
        registry.register(kind.__name__.lower(), kind(log))
    registry.register("pausing", Pausing(log, queue))
    registry.register("charge", Charge(log))
    return registry


class SurroundedBuilder(StageDefinitionBuilder):
    """Gives stages of type `surrounded` something to do before, after and on failure."""

    def build_tasks(self, stage: StageExecution) -> list[TaskExecution]:
        return [TaskExecution.create("core", str(stage.settings["core"]))]

    def before_stages(self, stage: StageExecution, graph: Graph) -> None:
        self._add(stage, graph, "before", SyntheticStageOwner.STAGE_BEFORE)

    def after_stages(self, stage: StageExecution, graph: Graph) -> None:
        self._add(stage, graph, "after", SyntheticStageOwner.STAGE_AFTER)

    def on_failure_stages(self, stage: StageExecution, graph: Graph) -> None:
        self._add(stage, graph, "failure", SyntheticStageOwner.STAGE_FAILURE)

    def _add(
        self, stage: StageExecution, graph: Graph, kind: str, owner: SyntheticStageOwner
    ) -> None:
        made = StageExecution.create_synthetic(
            "plain", kind, stage, owner, tasks=[TaskExecution.create(kind, "logged")]
        )
        made.ref_id = f"{stage.ref_id}-{kind}"
        graph.add(made)


def builders() -> StageDefinitionBuilderFactory:
    factory = StageDefinitionBuilderFactory()
    factory.clear()
    factory.register(SurroundedBuilder())
    return factory


# --- workflows -------------------------------------------------------------------------------

Asked = Callable[[Orchestrator, list[Workflow]], None]


def start_all(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    for workflow in workflows:
        orchestrator.start(workflow)


def _stage_id(workflow: Workflow, ref_id: str) -> str:
    stage = workflow.stage_by_ref_id(ref_id)
    assert stage is not None
    return stage.id


def _start_and_signal(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    start_all(orchestrator, workflows)
    for workflow in workflows:
        orchestrator.signal(workflow, _stage_id(workflow, "b"), "go", {"n": 1})


def _cancel(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    for workflow in workflows:
        orchestrator.cancel(workflow, user="somebody", reason="because")


def _resume(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    for workflow in workflows:
        orchestrator.resume(workflow)


def _restart(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    for workflow in workflows:
        orchestrator.restart(workflow, _stage_id(workflow, "b"))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Workflows, and what is asked of them, phase by phase; one phase is the one that crashes.

    `bodies`: the executions of an uncrashed run, by stage and hook, where it is not one each.
    """

    make: Callable[[], list[Workflow]]
    phases: Sequence[Asked] = (start_all,)
    crashes_in: int = 0


def stage(
    ref_id: str, *after: str, task: str | Sequence[str] = "logged", **more: object
) -> StageExecution:
    """A stage after some others, with tasks."""
    names = [task] if isinstance(task, str) else list(task)
    return StageExecution(
        ref_id=ref_id,
        name=ref_id,
        requisite_stage_ref_ids=set(after),
        tasks=[TaskExecution.create(f"{ref_id}{n}", name) for n, name in enumerate(names)],
        **more,  # type: ignore[arg-type]
    )


def workflow_of(*stages: StageExecution, config: str | None = None) -> Workflow:
    return Workflow.create("crash", "test", list(stages), pipeline_config_id=config)


def _two_with_one_slot() -> list[Workflow]:
    made = [workflow_of(stage("a"), stage("b", "a")) for _ in range(2)]
    for workflow in made:
        workflow.pipeline_config_id = f"one at a time {made[0].id}"
        workflow.is_limit_concurrent = True
        workflow.max_concurrent_executions = 1
        workflow.keep_waiting_pipelines = True
    return made


def _surrounded(
    ref_id: str, *after: str, core: str = "logged", **context: object
) -> StageExecution:
    return StageExecution(
        ref_id=ref_id,
        name=ref_id,
        type="surrounded",
        requisite_stage_ref_ids=set(after),
        context={"core": core, **context},
    )


SHAPES: Final[dict[str, Shape]] = {
    "sequence": Shape(
        make=lambda: [
            workflow_of(stage("a"), stage("b", "a", task=["logged"] * 2), stage("c", "b"))
        ],
    ),
    "diamond": Shape(
        make=lambda: [
            workflow_of(stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c"))
        ],
    ),
    "discriminator": Shape(
        make=lambda: [
            workflow_of(
                stage("a"),
                stage("b", "a"),
                stage("c", "a"),
                stage("d", "b", "c", join_type=JoinType.DISCRIMINATOR),
            )
        ],
    ),
    "retry": Shape(make=lambda: [workflow_of(stage("a", task="flaky"), stage("b", "a"))]),
    "jump": Shape(
        make=lambda: [workflow_of(stage("a"), stage("b", "a"), stage("c", "b", task="jumpsback"))],
    ),
    "signal that comes early": Shape(
        make=lambda: [workflow_of(stage("a"), stage("b", "a", task="waiting"), stage("c", "b"))],
        phases=(_start_and_signal,),
    ),
    "synthetic stages": Shape(
        make=lambda: [
            workflow_of(
                _surrounded("a"),
                _surrounded("b", "a", core="failing", continuePipelineOnFailure=True),
            )
        ],
    ),
    "failure beside a stage that waits": Shape(
        make=lambda: [
            workflow_of(
                stage("a"),
                stage("b", "a", task="waiting"),
                stage("c", "a", task="failing"),
                stage("d", "b", "c"),
            )
        ],
    ),
    "cancel": Shape(
        make=lambda: [workflow_of(stage("a"), stage("b", "a", task="waiting"), stage("c", "b"))],
        phases=(start_all, _cancel),
        crashes_in=1,
    ),
    "pause": Shape(
        make=lambda: [workflow_of(stage("a", task="pausing"), stage("b", "a"))],
        phases=(start_all, _resume),
    ),
    "resume": Shape(
        make=lambda: [workflow_of(stage("a", task="pausing"), stage("b", "a"))],
        phases=(start_all, _resume),
        crashes_in=1,
    ),
    "restart": Shape(
        make=lambda: [workflow_of(stage("a"), stage("b", "a"), stage("c", "b"))],
        phases=(start_all, _restart),
        crashes_in=1,
    ),
    "two workflows and one slot": Shape(make=_two_with_one_slot),
    "transactional": Shape(
        make=lambda: [workflow_of(stage("a", task="charge"), stage("b", "a", task="charge"))],
    ),
}
