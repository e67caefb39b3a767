"""What a task is: the classes a user derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stabilize.clock import now_ms
from stabilize.tasks.result import TaskResult

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from stabilize.models.stage import StageExecution

TaskFunction = Callable[["StageExecution"], "TaskResult | Awaitable[TaskResult]"]


class Task(ABC):
    """A unit of work. Its body runs at least once; its result counts exactly once.

    `execute` may be `async def`. It reads `stage.context` and returns a `TaskResult`; what it
    changes on `stage` in place is not kept.
    """

    aliases: tuple[str, ...] | list[str] = ()

    @abstractmethod
    def execute(self, stage: StageExecution) -> TaskResult | Awaitable[TaskResult]:
        """Do the work and say how it went."""

    def on_timeout(self, stage: StageExecution) -> TaskResult | None:
        """Called when an execution took too long; a result replaces the failure."""
        return None

    def on_cancel(self, stage: StageExecution) -> TaskResult | None:
        """Called once when the stage is canceled while the task is at work; values are kept."""
        return None

    def on_cleanup(self, stage: StageExecution) -> None:
        """Called once when the stage is over, however it ended."""


class RetryableTask(Task):
    """A task that polls: `TaskResult.running()` means once more after a backoff.

    The total timeout counts from the first start of the task over all its executions.
    """

    @abstractmethod
    def get_timeout(self) -> timedelta:
        """How long all executions together may take."""

    def get_backoff_period(self, stage: StageExecution, duration: timedelta) -> timedelta:
        """The wait before the next execution; `duration` is the time since the first start."""
        return timedelta(seconds=1)

    def get_dynamic_timeout(self, stage: StageExecution) -> timedelta:
        return self.get_timeout()

    def get_dynamic_backoff_period(self, stage: StageExecution, duration: timedelta) -> timedelta:
        return self.get_backoff_period(stage, duration)

    def get_execution_timeout(self, stage: StageExecution) -> timedelta:
        """How long one execution may take."""
        return self.get_dynamic_timeout(stage)


class OverridableTimeoutRetryableTask(RetryableTask):
    """A `RetryableTask` whose timeout a stage may set with `stageTimeoutMs`."""

    def get_dynamic_timeout(self, stage: StageExecution) -> timedelta:
        own = stage.settings.get("stageTimeoutMs")
        return timedelta(milliseconds=own) if own is not None else self.get_timeout()


class SkippableTask(Task):
    """A task that is asked first whether it is wanted at all."""

    def is_enabled(self, stage: StageExecution) -> bool:
        return True

    @abstractmethod
    def do_execute(self, stage: StageExecution) -> TaskResult:
        """Do the work."""

    def execute(self, stage: StageExecution) -> TaskResult:
        return self.do_execute(stage) if self.is_enabled(stage) else TaskResult.skipped()


class TransactionalTask(ABC):
    """A task that works in this very database and takes effect exactly once.

    What it writes through `session` commits together with its outcome, or not at all. On SQLite it
    holds the write lock while it runs: keep it short.
    """

    aliases: tuple[str, ...] | list[str] = ()

    @abstractmethod
    def execute(self, stage: StageExecution, session: Session) -> TaskResult:
        """Do the work with `session`, which is committed by the engine."""


class CallableTask(Task):
    """A plain function `stage -> TaskResult` as a task."""

    def __init__(self, func: TaskFunction, name: str | None = None) -> None:
        self.func = func
        self.name = name or getattr(func, "__name__", type(func).__name__)

    def execute(self, stage: StageExecution) -> TaskResult | Awaitable[TaskResult]:
        return self.func(stage)


class NoOpTask(Task):
    """Does nothing, successfully."""

    aliases = ("noop",)

    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success()


class WaitTask(RetryableTask):
    """Waits for `waitTime` seconds of the stage's own context; puts out `waitedSeconds`."""

    aliases = ("wait",)

    def get_timeout(self) -> timedelta:
        return timedelta(hours=24)

    def get_backoff_period(self, stage: StageExecution, duration: timedelta) -> timedelta:
        left = self._seconds(stage) - (now_ms() - self._started(stage)) / 1000
        return timedelta(seconds=max(0.0, left))

    def execute(self, stage: StageExecution) -> TaskResult:
        started = self._started(stage)
        waited = (now_ms() - started) / 1000
        if waited >= self._seconds(stage):
            return TaskResult.success(outputs={"waitedSeconds": waited})
        return TaskResult.running(context={"waitStartTime": started})

    def _seconds(self, stage: StageExecution) -> float:
        wanted: Any = stage.settings.get("waitTime", 0)
        return float(wanted)

    def _started(self, stage: StageExecution) -> int:
        started: int | None = stage.settings.get("waitStartTime")
        return started or stage.start_time or now_ms()
