"""User code on its way: what this process holds messages for, and what came of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from stabilize.clock import now_ms
from stabilize.database import Database
from stabilize.errors import TaskTimeoutError
from stabilize.executor import BodyThreads
from stabilize.models import StageExecution
from stabilize.net import Net
from stabilize.queue.messages import PlanStage, RunHook, RunTask
from stabilize.stages.builder import StageDefinitionBuilderFactory, plan
from stabilize.status import WorkflowStatus
from stabilize.tasks.body import CancellationToken, Outcome, bound, failure, run_body
from stabilize.tasks.interface import RetryableTask, Task, TransactionalTask
from stabilize.tasks.registry import TaskRegistry
from stabilize.views import view_of
from stabilize.work import Finished, Held

logger = logging.getLogger(__name__)

_SHORT_SECONDS = 0.005
_AHEAD = 4
"""So many times its slots a process holds while its bodies are short: turns are shared by more."""

Transactional = Callable[[Held, Callable[[Any], Outcome]], Outcome | None]


@dataclass(eq=False)
class Flight:
    """One execution: the message it is for, and how long it may take."""

    held: Held
    stage: StageExecution
    task_name: str = ""
    task_type: str = ""
    task_started: int | None = None
    token: CancellationToken = field(default_factory=CancellationToken)
    deadline: float | None = None
    limit: float = 0.0
    hook: str = "execute"
    future: Future[Any] | None = None
    written_off: bool = False


class Flights:
    """The executions of one process, and the results that wait for a turn."""

    def __init__(
        self,
        executor: Executor | None,
        slots: int,
        registry: TaskRegistry,
        builders: StageDefinitionBuilderFactory,
        database: Database,
        transactional: Transactional,
        wake: Callable[[], None],
        timeout: float,
    ) -> None:
        self.slots = slots
        self.finished: deque[Finished] = deque()
        self._given = executor
        self._threads: BodyThreads | None = None
        self._registry = registry
        self._builders = builders
        self._database = database
        self._transactional = transactional
        self._wake = wake
        self._timeout = timeout
        self._flights: dict[str, Flight] = {}
        self._lock = threading.Lock()
        self._typical = _SHORT_SECONDS

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def awaited(self) -> int:
        """How many executions will bring a result that counts: their stage was not canceled."""
        with self._lock:
            return sum(not flight.token.is_cancelled for flight in self._flights.values())

    @property
    def free(self) -> int:
        """How many more messages to hold: more than run at once while bodies are short."""
        ahead = _AHEAD if self._typical < _SHORT_SECONDS else 1
        return self.slots * ahead - len(self._flights)

    def ids(self) -> list[str]:
        with self._lock:
            return list(self._flights)

    def threads(self) -> BodyThreads:
        if self._threads is None:
            self._threads = BodyThreads(self.slots)
        return self._threads

    # --- departures -------------------------------------------------------------------------

    def launch(self, held: Held, net: Net) -> None:
        """Hand a held message to the executor."""
        message = held.message
        assert isinstance(message, (RunTask, RunHook, PlanStage))
        stage = net.stages[message.stage_id]
        flight = Flight(held, view_of(net, stage, self._database))
        if isinstance(message, RunHook):
            flight.hook = message.hook
        for task in net.tasks_of(stage):
            if task.id == getattr(message, "task_id", ""):
                flight.task_name, flight.task_type = task.name, task.implementing_class
                flight.task_started = task.start_time
        with self._lock:
            self._flights[held.id] = flight
        self._submit(flight)

    def _submit(self, flight: Flight) -> None:
        if self._given is None or isinstance(flight.held.message, PlanStage):
            self.threads().call(lambda: self._fly(flight))
            return
        if isinstance(self._given, ProcessPoolExecutor):
            future = self._submit_apart(flight, self._given)
        else:
            future = self._given.submit(self._run, flight)
        if future is not None:
            flight.future = future
            future.add_done_callback(lambda future: self._returned(flight, future))

    def _submit_apart(self, flight: Flight, pool: Executor) -> Future[Any] | None:
        task = self._registry.get(flight.task_type)
        if isinstance(task, TransactionalTask) or self._set_limit(flight, task) is not None:
            self.threads().call(lambda: self._fly(flight))
            return None
        stage = flight.stage
        stage.__dict__["context"] = dict(stage.context.items())
        return pool.submit(run_body, task, stage, flight.hook, elapsed=self._elapsed(flight))

    def _fly(self, flight: Flight) -> None:
        began = time.monotonic()
        try:
            outcome = self._run(flight)
        except BaseException as error:  # noqa: BLE001  # the message has to come back
            outcome = failure(error)
        self._typical += 0.1 * (time.monotonic() - began - self._typical)
        self._landed(flight, outcome)
        if flight.written_off and self._threads is not None:
            self._threads.recover()

    def _returned(self, flight: Flight, future: Future[Any]) -> None:
        if future.cancelled():
            outcome = failure(TimeoutError("the execution was cancelled before it began"))
        else:
            error = future.exception()
            outcome = failure(error) if error is not None else future.result()
            if flight.hook == "on_timeout" and outcome.status is WorkflowStatus.SKIPPED:
                outcome = self._timeout_failure(flight)
        self._landed(flight, outcome)

    def _plan(self, flight: Flight, message: PlanStage) -> Outcome:
        builder = self._builders.get(flight.stage.type)
        if builder is None:
            return failure(LookupError(f"no builder for stage type {flight.stage.type!r}"))
        made = plan(builder, flight.stage, message.for_failure)
        return Outcome(status=WorkflowStatus.SUCCEEDED, plan=made)

    def _run(self, flight: Flight) -> Outcome | None:
        if isinstance(flight.held.message, PlanStage):
            return self._plan(flight, flight.held.message)
        task = self._registry.get(flight.task_type)
        if isinstance(task, TransactionalTask):
            flight.stage.context.items()  # now: SQLite in memory has no readers beside a writer
            return self._transactional(
                flight.held,
                lambda session: run_body(
                    task,
                    flight.stage,
                    session=session,
                    lets_out=self._database.backend.is_trouble,
                ),
            )
        with bound(flight.token):
            if flight.hook == "execute":
                late = self._set_limit(flight, task)
                if late is not None:
                    return self._timed_out(task, flight, late)
            elapsed = self._elapsed(flight)
            outcome = run_body(task, flight.stage, flight.hook, elapsed=elapsed)
            if flight.hook == "on_timeout" and outcome.status is WorkflowStatus.SKIPPED:
                return self._timeout_failure(flight)
            return outcome

    def _elapsed(self, flight: Flight) -> float:
        if flight.task_started is None:
            return 0.0
        clock = self._database.clock
        now = now_ms() if clock is None else clock.now_ms()
        return max(0.0, (now - flight.task_started) / 1000)

    # --- time limits ------------------------------------------------------------------------

    def _set_limit(self, flight: Flight, task: Any) -> str | None:
        """Find how long this execution may take; the reason when it is too late to begin."""
        limit = self._timeout
        own = flight.stage.settings.get("stageTimeoutMs")
        if isinstance(own, (int, float)):
            limit = own / 1000
        if isinstance(task, RetryableTask):
            total = task.get_dynamic_timeout(flight.stage)
            if timedelta(seconds=self._elapsed(flight)) > total:
                return f"Task exceeded total timeout ({total})"
            one = task.get_execution_timeout(flight.stage).total_seconds()
            limit = min(limit, one) if isinstance(own, (int, float)) else one
        flight.limit = limit
        flight.deadline = time.monotonic() + limit
        return None

    def _timed_out(self, task: Task, flight: Flight, reason: str) -> Outcome:
        outcome = run_body(task, flight.stage, "on_timeout")
        if outcome.status is not WorkflowStatus.SKIPPED:
            return outcome
        return failure(TaskTimeoutError(reason), timed_out=True)

    def _timeout_failure(self, flight: Flight) -> Outcome:
        return failure(
            TaskTimeoutError(
                f"Task {flight.task_name!r} exceeded its timeout of {flight.limit:g} s"
            ),
            timed_out=True,
        )

    def next_deadline(self) -> float | None:
        """When the next execution has taken too long, by the monotonic clock."""
        with self._lock:
            deadlines = [f.deadline for f in self._flights.values() if f.deadline is not None]
        return min(deadlines, default=None)

    def give_up_late(self) -> None:
        """Write off the executions that have taken too long; their slots are free again."""
        now = time.monotonic()
        with self._lock:
            late = [f for f in self._flights.values() if f.deadline and f.deadline <= now]
            for flight in late:
                del self._flights[flight.held.id]
        for flight in late:
            self._write_off(flight)
            wants = self._registry.overrides(flight.task_type, "on_timeout")
            if flight.hook == "execute" and wants:
                again = replace(
                    flight,
                    hook="on_timeout",
                    token=CancellationToken(),
                    deadline=now + max(30.0, flight.limit),
                    written_off=False,
                )
                with self._lock:
                    self._flights[again.held.id] = again
                self._submit(again)
            else:
                self.finished.append(
                    Finished(held=flight.held, outcome=self._timeout_failure(flight))
                )

    def _write_off(self, flight: Flight) -> None:
        flight.token.cancel()
        logger.warning(
            "stage %r: its task takes longer than %g s and is written off",
            flight.stage.ref_id,
            flight.limit,
            extra={"workflow_id": flight.stage.workflow_id},
        )
        if flight.future is not None:
            flight.future.cancel()
        elif self._threads is not None:
            flight.written_off = True
            self._threads.abandon()

    # --- arrivals ---------------------------------------------------------------------------

    def _landed(self, flight: Flight, outcome: Outcome | None) -> None:
        with self._lock:
            if self._flights.get(flight.held.id) is not flight:
                return  # written off
            if outcome is not None:
                self.finished.append(Finished(held=flight.held, outcome=outcome))
            del self._flights[flight.held.id]
        self._wake()

    def drain(self) -> list[Finished]:
        """Take the results that have come in."""
        found: list[Finished] = []
        while self.finished:
            found.append(self.finished.popleft())
        return found

    def withdraw(self, purged: Iterable[tuple[str, str | None]]) -> None:
        """Tell running code that its message is gone: its stage was canceled."""
        with self._lock:
            for workflow_id, stage_id in purged:
                for flight in self._flights.values():
                    stage = flight.stage
                    if isinstance(flight.held.message, RunHook):
                        continue
                    if stage.workflow_id == workflow_id and stage_id in (None, stage.id):
                        flight.token.cancel()

    def withdraw_missing(self, still_held: set[str], asked: Iterable[str]) -> None:
        """Tell code to stop whose message another process has deleted or taken over."""
        with self._lock:
            for id in asked:
                if id not in still_held and id in self._flights:
                    self._flights[id].token.cancel()

    def shutdown(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
