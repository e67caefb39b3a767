"""User code on its way: what this process holds messages for, and what came of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from stabilize.clock import now_ms
from stabilize.errors import ConcurrencyError, TaskTimeoutError
from stabilize.executor import BodyThreads, Lent, Processes
from stabilize.models import StageExecution, TaskExecution
from stabilize.net import Net
from stabilize.queue.messages import Message, PlanStage, RunHook, RunTask
from stabilize.stages.builder import StageDefinitionBuilderFactory, plan
from stabilize.status import WorkflowStatus
from stabilize.tasks.body import CancellationToken, Outcome, bound, failure, run_body
from stabilize.tasks.interface import RetryableTask, TransactionalTask
from stabilize.tasks.loops import LoopTask
from stabilize.tasks.registry import AnyTask, TaskRegistry
from stabilize.transactional import play_with_body
from stabilize.views import Handed, view_of
from stabilize.work import Finished

if TYPE_CHECKING:
    from stabilize.coordinator import Coordinator

logger = logging.getLogger(__name__)

_LAST_WORDS = 30.0
"""How many seconds `on_timeout` may take at the least."""


@dataclass(eq=False)
class Flight:
    """One execution: the message it is for, and how long it may take."""

    message: Message
    stage: StageExecution
    task: TaskExecution | None = None
    hook: str = "execute"
    token: CancellationToken = field(default_factory=CancellationToken)
    limit: float = 0.0
    deadline: float = 0.0
    """When it has taken too long, by the monotonic clock; 0 before it has begun."""
    future: Future[Any] | None = None
    """What a process does for it."""
    connection: Any = None
    """The driver's connection that a transactional task works on."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def task_type(self) -> str:
        return "" if self.task is None else self.task.implementing_class

    @contextmanager
    def working_on(self, connection: Connection) -> Iterator[None]:
        """Whoever writes the execution off cuts this connection; then nobody else may have it."""
        self.connection = connection.connection.driver_connection
        try:
            yield
        finally:
            if self.take_connection() is None:
                connection.invalidate()

    def take_connection(self) -> Any:
        with self.lock:
            connection, self.connection = self.connection, None
            return connection


class Flights:
    """The executions of one process, and the results that wait for a turn."""

    def __init__(
        self,
        executor: Executor | None,
        slots: int,
        registry: TaskRegistry,
        builders: StageDefinitionBuilderFactory,
        coordinator: Coordinator,
        timeout: float,
    ) -> None:
        self.slots = slots
        self.finished: deque[Finished] = deque()
        self._processes: Processes | None = None
        self._threads: BodyThreads | Lent = BodyThreads(slots)
        if isinstance(executor, ProcessPoolExecutor):
            self._processes = Processes(executor)
        elif executor is not None:
            self._threads = Lent(executor)
        self._registry = registry
        self._builders = builders
        self._coordinator = coordinator
        self._database = coordinator.database
        self._timeout = timeout
        self._flights: dict[str, Flight] = {}
        self._handed = Handed()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def free(self) -> int:
        """How many more messages to hold: more than run at once while bodies are short."""
        return self.slots * self._threads.ahead - len(self._flights) - self._threads.stuck

    @property
    def are_idle(self) -> bool:
        """Nothing is under way, and nothing has come back."""
        return not self._flights and not self.finished

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._flights

    def held(self) -> list[Message]:
        """The messages whose executions are under way."""
        with self._lock:
            return [flight.message for flight in self._flights.values()]

    # --- departures -------------------------------------------------------------------------

    def launch(self, message: Message, net: Net) -> None:
        """Hand a held message to the executor."""
        assert isinstance(message, (RunTask, RunHook, PlanStage))
        stage = net.stages[message.stage_id]
        seen = view_of(net, stage, self._database, self._handed)
        task_id, hook = getattr(message, "task_id", ""), getattr(message, "hook", "execute")
        task = next((task for task in seen.tasks if task.id == task_id), None)
        self._start(Flight(message, seen, task, hook))

    def _start(self, flight: Flight) -> None:
        with self._lock:
            self._flights[flight.message.row_id] = flight
        self._threads.call(lambda: self._fly(flight))

    def _fly(self, flight: Flight) -> None:
        with self._lock:
            if not self._is_under_way(flight):
                return  # it was withdrawn before it began
            flight.limit = flight.limit or self._timeout
            least = _LAST_WORDS if flight.hook == "on_timeout" else 0.0
            flight.deadline = time.monotonic() + max(least, flight.limit)
        outcome: Outcome | None = None
        try:
            outcome = self._run(flight)
        except BrokenProcessPool as error:
            self._count_death(flight, error)
        except BaseException as error:  # noqa: BLE001  # the message has to come back
            outcome = failure(error)
        self._land(flight, outcome)

    def _run(self, flight: Flight) -> Outcome | None:
        """Do what the message asks for; None when there is nothing left to be recorded of it."""
        if isinstance(flight.message, PlanStage):
            return self._plan(flight.stage, flight.message)
        task = self._registry.get(flight.task_type)
        if isinstance(task, TransactionalTask):
            return self._in_its_transaction(flight, task)
        if self._processes is None or isinstance(task, LoopTask):
            outcome = self._execute(flight, task)
        else:
            outcome = self._in_a_process(flight, task, self._processes)
        if flight.hook == "on_timeout" and outcome.status is WorkflowStatus.SKIPPED:
            return _timeout_failure(flight)
        return outcome

    def _plan(self, stage: StageExecution, message: PlanStage) -> Outcome:
        builder = self._builders.get(stage.type)
        if builder is None:
            return failure(LookupError(f"no builder for stage type {stage.type!r}: register one"))
        made = plan(builder, stage, message.for_failure)
        return Outcome(status=WorkflowStatus.SUCCEEDED, plan=made)

    def _execute(self, flight: Flight, task: AnyTask) -> Outcome:
        with bound(flight.token):
            return self._too_late(flight, task) or run_body(
                task, flight.stage, flight.hook, elapsed=self._elapsed(flight)
            )

    def _in_a_process(self, flight: Flight, task: AnyTask, processes: Processes) -> Outcome:
        too_late = self._too_late(flight, task)
        if too_late is not None:
            return too_late
        stage = flight.stage
        stage.__dict__["context"] = dict(stage.context.items())
        flight.future = processes.submit(
            run_body, task, stage, flight.hook, elapsed=self._elapsed(flight)
        )
        outcome: Outcome = flight.future.result()
        return outcome

    def _in_its_transaction(self, flight: Flight, task: TransactionalTask) -> Outcome | None:
        flight.stage.context.items()  # now: SQLite in memory has no readers beside a writer
        self._too_late(flight, task)
        is_trouble = self._database.backend.is_trouble

        def body(session: Any) -> Outcome:
            with bound(flight.token):
                return run_body(task, flight.stage, session=session, lets_out=is_trouble)

        return play_with_body(self._coordinator, flight, body)

    def _elapsed(self, flight: Flight) -> float:
        """Seconds since the task was first begun."""
        clock = self._database.clock
        now = now_ms() if clock is None else clock.now_ms()
        started = flight.task.start_time if flight.task is not None else None
        return 0.0 if started is None else max(0.0, (now - started) / 1000)

    # --- arrivals ---------------------------------------------------------------------------

    def _is_under_way(self, flight: Flight) -> bool:
        return self._flights.get(flight.message.row_id) is flight

    def _land(self, flight: Flight, outcome: Outcome | None) -> None:
        with self._lock:
            if not self._is_under_way(flight):
                self._threads.recover()
                return
            if outcome is not None:
                self.finished.append(Finished(message=flight.message, outcome=outcome))
            del self._flights[flight.message.row_id]
        self._coordinator.landed()

    def _count_death(self, flight: Flight, error: BrokenProcessPool) -> None:
        """Give a message back whose process is gone: as if its worker had died of it."""
        logger.warning("stage %r lost its process: %s", flight.stage.ref_id, error)
        try:
            self._coordinator.queue.count_death(flight.message)
        except (DBAPIError, ConcurrencyError) as trouble:  # then its lease ends
            logger.warning("a death is not counted: %s", trouble)

    def drain(self) -> list[Finished]:
        """Take the results that have come in."""
        found: list[Finished] = []
        while self.finished:
            found.append(self.finished.popleft())
        return found

    # --- time limits ------------------------------------------------------------------------

    def _too_late(self, flight: Flight, task: AnyTask) -> Outcome | None:
        """Find how long an execution may take; what it comes to when it is too late to begin."""
        if flight.hook != "execute":
            return None
        own = flight.stage.settings.get("stageTimeoutMs")
        limits = [own / 1000] if isinstance(own, (int, float)) else []
        if isinstance(task, RetryableTask):
            total = task.get_dynamic_timeout(flight.stage)
            if timedelta(seconds=self._elapsed(flight)) > total:
                said = run_body(task, flight.stage, "on_timeout")
                late = TaskTimeoutError(f"Task exceeded total timeout ({total})")
                is_silent = said.status is WorkflowStatus.SKIPPED
                return failure(late, timed_out=True) if is_silent else said
            limits.append(task.get_execution_timeout(flight.stage).total_seconds())
        flight.limit = min(limits, default=self._timeout)
        flight.deadline = time.monotonic() + flight.limit
        return None

    def next_deadline(self) -> float | None:
        """When the next execution has taken too long, by the monotonic clock."""
        with self._lock:
            return min((f.deadline for f in self._flights.values() if f.deadline), default=None)

    def give_up_late(self) -> None:
        """Write off the executions that have taken too long, after a last word of theirs."""
        now = time.monotonic()
        for flight in self._write_off(lambda flight: 0 < flight.deadline <= now):
            logger.warning(
                "stage %r: its task takes longer than %g s and is written off",
                flight.stage.ref_id,
                flight.limit,
                extra={"workflow_id": flight.stage.workflow_id},
            )
            message, stage, task = flight.message, flight.stage, flight.task
            wants = self._registry.overrides(flight.task_type, "on_timeout")
            if flight.hook == "execute" and wants:
                self._start(Flight(message, stage, task, "on_timeout", limit=flight.limit))
            else:
                self.finished.append(Finished(message=message, outcome=_timeout_failure(flight)))

    def withdraw(self, purged: Collection[tuple[str, str | None]]) -> None:
        """Write off what runs for messages that are gone: their stages were canceled."""
        gone = set(purged)

        def is_withdrawn(flight: Flight) -> bool:
            workflow_id = flight.stage.workflow_id
            purged = (workflow_id, None) in gone or (workflow_id, flight.stage.id) in gone
            return purged and not flight.message.tidies_up

        self._write_off(is_withdrawn)

    def withdraw_these(self, messages: Collection[Message]) -> None:
        """Write off what runs for messages that another process has deleted or taken over."""
        lost = {(message.row_id, message.attempts) for message in messages}
        self._write_off(lambda f: (f.message.row_id, f.message.attempts) in lost)

    def _write_off(self, wanted: Callable[[Flight], bool]) -> list[Flight]:
        """Tell executions to stop: their results do not count, and others may have their slots."""
        with self._lock:
            chosen = [flight for flight in self._flights.values() if wanted(flight)]
            for flight in chosen:
                del self._flights[flight.message.row_id]
                if flight.deadline:
                    self._threads.abandon()
        for flight in chosen:
            flight.token.cancel()
            if flight.future is not None:
                flight.future.cancel()
            self._cut(flight)
        if self._threads.stuck:
            logger.error("%d slots are taken by bodies that do not end", self._threads.stuck)
        return chosen

    def _cut(self, flight: Flight) -> None:
        connection = flight.take_connection()
        if connection is None:
            return
        try:
            self._database.backend.cut(self._database.engine, connection)
        except DBAPIError as error:
            logger.warning("stage %r keeps what it has locked: %s", flight.stage.ref_id, error)

    def shutdown(self) -> None:
        """Nothing more is waited for: what still runs is told to stop."""
        self._threads.shutdown()
        self._write_off(lambda flight: True)
        if self._processes is not None:
            self._processes.shutdown()


def _timeout_failure(flight: Flight) -> Outcome:
    what = "The builder" if flight.task is None else f"Task {flight.task.name!r}"
    text = f"{what} exceeded its timeout of {flight.limit:g} s"
    return failure(TaskTimeoutError(text), timed_out=True)
