"""An engine to measure: no-op tasks on a database of its own."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import event, select

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    QueueProcessorConfig,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
    WorkflowStatus,
    WorkflowStore,
)

TIMEOUT = 600.0
_STORES = {
    "sqlite": "SqliteEventStore",
    "postgresql": "PostgresEventStore",
    "mysql": "MySQLEventStore",
}


class EventsMissing(Exception):
    """Event sourcing is not there to be turned on."""


class MeasuredEngine:
    """Store, queue and processor on the empty database at `url`; 10 slots unless told otherwise."""

    def __init__(self, url: str, *, events: bool = False, slots: int = 10) -> None:
        self.store = WorkflowStore(url, create_tables=True)
        self.database = self.store.database
        self.queue = Queue(url)
        self.orchestrator = Orchestrator(self.queue, self.store)
        self.registry = TaskRegistry()
        self.executed = threading.Event()
        self.registry.register("noop", lambda stage: TaskResult.success())
        self.registry.register("last", self._last)
        self.commits = 0
        self._slots = slots
        event.listen(self.database.engine, "commit", self._count)
        if events:
            record_events(url, self.database.backend.dialects[0])

    def _last(self, stage: StageExecution) -> TaskResult:
        self.executed.set()
        return TaskResult.success()

    def _count(self, connection: object) -> None:
        self.commits += 1

    def processor(self) -> QueueProcessor:
        return QueueProcessor(
            self.queue,
            config=QueueProcessorConfig(max_workers=self._slots),
            store=self.store,
            task_registry=self.registry,
        )

    def submit(self, workflows: Iterable[Workflow]) -> float:
        """Start workflows in one transaction; return the seconds it took."""
        began = time.perf_counter()
        with self.database.writing() as connection:
            for workflow in workflows:
                self.orchestrator.start(workflow, session=connection)
        return time.perf_counter() - began

    def run(self) -> float:
        """Play everything to its end; return the seconds it took."""
        self.commits = 0
        gc.collect()  # what making the workflows has left is not part of playing them
        began = time.perf_counter()
        self.processor().process_all(TIMEOUT)
        return time.perf_counter() - began

    def check(self, workflows: Sequence[Workflow]) -> None:
        """Make sure that what was measured is what was asked for."""
        query = select(Workflow.status).where(Workflow.id.in_([w.id for w in workflows]))
        with self.database.reading() as session:
            statuses = set(session.scalars(query))
        if statuses != {WorkflowStatus.SUCCEEDED} or self.queue.size():
            raise AssertionError(f"not all done: {statuses}, {self.queue.size()} messages left")

    def duration(self, workflow: Workflow) -> float:
        """Seconds from the start to the end of a workflow, as the store has them."""
        stored = self.store.retrieve_execution_summary(workflow.id)
        assert stored.start_time is not None
        assert stored.end_time is not None
        return (stored.end_time - stored.start_time) / 1000

    def latencies(self, count: int) -> list[float]:
        """Seconds from `start` of one workflow to its end in the store, on an idle processor."""
        found = []
        idle = threading.Event()
        with self.processor():
            idle.wait(0.5)
            for _ in range(count):
                workflow = one_task("last")
                status = self._status_of(workflow)
                self.executed.clear()
                began = time.perf_counter()
                self.orchestrator.start(workflow)
                self._wait_for(status)
                found.append(time.perf_counter() - began)
                idle.wait(0.02)
        return found

    def _status_of(self, workflow: Workflow) -> str:
        """The statement that asks for its status, made before the clock starts."""
        query = select(Workflow.status).where(Workflow.id == workflow.id)
        return str(query.compile(self.database.engine, compile_kwargs={"literal_binds": True}))

    def _wait_for(self, text: str) -> None:
        """Ask the store only when the body has been executed: asking takes time from the rest."""
        if not self.executed.wait(TIMEOUT):
            raise AssertionError("the task was never executed")
        with self.database.polls.connect() as connection:
            cursor = connection.connection.cursor()  # the driver's own: it asks in a moment
            while not self._is_complete(cursor, text):
                time.sleep(0.0002)

    def _is_complete(self, cursor: Any, text: str) -> bool:
        cursor.execute(text)
        return WorkflowStatus[cursor.fetchone()[0]].is_complete


def record_events(url: str, dialect: str) -> None:
    """Turn event sourcing on, in the engine's own database."""
    try:
        import stabilize.events as events  # noqa: PLC0415  # only this measurement needs it

        store = getattr(events, _STORES[dialect])(url)
        events.configure_event_sourcing(store)
    except (ImportError, AttributeError) as error:
        raise EventsMissing(str(error)) from error


def stage(ref_id: str, requisites: Iterable[str] = (), task: str = "noop") -> StageExecution:
    return StageExecution(
        ref_id=ref_id,
        requisite_stage_ref_ids=set(requisites),
        tasks=[TaskExecution.create("task", task)],
    )


def one_task(task: str = "noop") -> Workflow:
    return Workflow.create("benchmarks", "one", [stage("only", task=task)])


def chain(length: int) -> Workflow:
    """Stages one after the other."""
    stages = [stage(f"{n}", [f"{n - 1}"] if n else []) for n in range(length)]
    return Workflow.create("benchmarks", f"chain of {length}", stages)


def fan_out(width: int) -> Workflow:
    """One stage, so many after it, and one that joins them."""
    branches = [f"branch {n}" for n in range(width)]
    stages = [stage("first"), *(stage(ref, ["first"]) for ref in branches), stage("last", branches)]
    return Workflow.create("benchmarks", f"fan-out of {width}", stages)


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
