"""Runs user code in the executor and turns whatever comes of it into values."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stabilize.dag.names import member_of, suggest
from stabilize.errors import (
    PayloadError,
    TaskNotFoundError,
    TransientError,
    is_transient,
    truncate_error,
)
from stabilize.status import WorkflowStatus
from stabilize.tasks.interface import RetryableTask, TransactionalTask
from stabilize.tasks.result import TaskResult
from stabilize.types import plain

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from stabilize.models.stage import StageExecution
    from stabilize.tasks.registry import AnyTask

logger = logging.getLogger(__name__)

_NO_RESULTS = {WorkflowStatus.NOT_STARTED, WorkflowStatus.PAUSED, WorkflowStatus.BUFFERED}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one execution came to, in values any database can hold."""

    status: WorkflowStatus
    context: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    target: str | None = None
    terminates: bool = False
    exception: dict[str, Any] | None = None
    """`{"details": {...}}` of an exception, None when the task itself spoke."""
    transient: bool = False
    wait: float | None = None
    """Seconds before the next execution, where the task says so."""
    timed_out: bool = False
    child: dict[str, Any] | None = None
    """The definition of a child workflow to be started."""
    plan: Any = None
    """What a stage builder made, when that was asked."""

    @property
    def error(self) -> str | None:
        """What went wrong, in words."""
        if self.exception is not None:
            return str(self.exception["details"]["error"])
        said = self.context.get("error")
        return None if said is None else str(said)


class TaskCancelledError(Exception):
    """Raised inside a task by `raise_if_cancellation_requested`."""


class CancellationToken:
    """Tells running code that its stage was canceled."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until canceled, at most `timeout` seconds; say whether it was."""
        return self._event.wait(timeout)


_token: contextvars.ContextVar[CancellationToken | None] = contextvars.ContextVar(
    "stabilize_cancellation", default=None
)


def current_token() -> CancellationToken | None:
    """The cancellation token of the execution this code runs in, None outside of one."""
    return _token.get()


def is_cancellation_requested() -> bool:
    """Inside a task: has its stage been canceled meanwhile?"""
    token = _token.get()
    return token is not None and token.is_cancelled


def raise_if_cancellation_requested() -> None:
    """Inside a task: raise `TaskCancelledError` when its stage has been canceled."""
    if is_cancellation_requested():
        raise TaskCancelledError("the stage of this task was canceled")


@contextmanager
def bound(token: CancellationToken | None) -> Iterator[None]:
    """Make `token` the one that `is_cancellation_requested` looks at."""
    reset = _token.set(token)
    try:
        yield
    finally:
        _token.reset(reset)


def run_body(
    task: AnyTask,
    stage: StageExecution,
    hook: str = "execute",
    *,
    elapsed: float = 0.0,
    session: Session | None = None,
    lets_out: Callable[[BaseException], bool] = lambda error: False,
) -> Outcome:
    """Run one hook of `task` and return what came of it.

    The user's errors become outcomes; those that `lets_out` accepts are raised.
    """
    try:
        result = _call(task, stage, hook, session)
        return _as_outcome(task, stage, result, hook, elapsed)
    except KeyboardInterrupt:
        raise
    except TaskNotFoundError as error:
        return failure(error)
    except (Exception, SystemExit, GeneratorExit) as error:
        if lets_out(error):
            raise
        logger.debug("task %s raised", type(task).__name__, exc_info=True)
        outcome = failure(error, where=stage.ref_id)
        if outcome.transient and outcome.wait is None:
            return replace(outcome, wait=_own_backoff(task, stage, elapsed))
        return outcome


def _call(task: AnyTask, stage: StageExecution, hook: str, session: Session | None) -> Any:
    if isinstance(task, TransactionalTask):
        assert session is not None
        return task.execute(stage, session)
    found = getattr(task, hook)(stage)
    if inspect.isawaitable(found):
        return asyncio.run(_await(found))
    return found


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _as_outcome(
    task: AnyTask, stage: StageExecution, result: Any, hook: str, elapsed: float
) -> Outcome:
    if hook != "execute" and result is None:
        return Outcome(status=WorkflowStatus.SKIPPED)
    if not isinstance(result, TaskResult):
        raise TypeError(
            f"{type(task).__name__}.{hook} of stage {stage.ref_id!r} returned "
            f"{type(result).__name__}, not a TaskResult: end it with "
            "`return TaskResult.success(...)`"
        )
    if isinstance(result.status, str):
        status: Any = member_of(WorkflowStatus, result.status)
        result = replace(result, status=status)
    for wrong in _wrong_fields(result):
        raise TypeError(
            f"{type(task).__name__} of stage {stage.ref_id!r} returned a TaskResult with {wrong}"
        )
    if result.status in _NO_RESULTS:
        raise ValueError(
            f"{type(task).__name__} of stage {stage.ref_id!r} returned the status {result.status}, "
            "which a task cannot have"
        )
    if result.status is WorkflowStatus.REDIRECT and result.target_stage_ref_id is None:
        result = TaskResult.terminal("REDIRECT result without target_stage_ref_id", result.context)
    wait = None
    if result.status is WorkflowStatus.RUNNING:
        wait = _own_backoff(task, stage, elapsed)
    return Outcome(
        status=result.status,
        context=_values(result.context, "context"),
        outputs=_values(result.outputs, "outputs"),
        target=result.target_stage_ref_id,
        terminates=result.terminates,
        child=None if result.child is None else plain(result.child, "child workflow"),
        wait=wait,
    )


def _wrong_fields(result: Any) -> Iterator[str]:
    """The fields of a result that are not what they have to be, with the remedy; no values."""
    if not isinstance(result.status, WorkflowStatus):
        names = WorkflowStatus.__members__
        fix = suggest(result.status, names, f"write one of {', '.join(names)}")
        yield f"status={result.status!r}, which is no WorkflowStatus: {fix}"
    for name in ("context", "outputs"):
        value = getattr(result, name)
        if not isinstance(value, Mapping | None):
            yield f"{name} of type {type(value).__name__}: write a dict"
    if not isinstance(result.target_stage_ref_id, str | None):
        target = result.target_stage_ref_id
        yield f"target_stage_ref_id={target!r}: write the ref_id of a stage"


def _own_backoff(task: AnyTask, stage: StageExecution, elapsed: float) -> float | None:
    """The seconds the task itself wants to wait before it is executed again."""
    if not isinstance(task, RetryableTask):
        return None
    period = task.get_dynamic_backoff_period(stage, timedelta(seconds=elapsed))
    return period.total_seconds()


def _values(given: Any, where: str) -> dict[str, Any]:
    if not given or not isinstance(given, Mapping):
        return {}
    copied: dict[str, Any] = plain(given, where)
    return copied


def failure(error: BaseException, *, where: str = "", timed_out: bool = False) -> Outcome:
    """The outcome of an exception: another try when it is transient, else the end."""
    transient = is_transient(error) and not timed_out
    text = truncate_error(_readable(str(error) or type(error).__name__))
    details = {
        "error": text,
        "errors": [text],
        "type": type(error).__name__,
        "transient": transient,
    }
    context: dict[str, Any] = {}
    wait = None
    if isinstance(error, TransientError):
        wait = error.retry_after
        try:
            context = _values(error.context_update, "context_update")
        except PayloadError as refused:
            return failure(refused, where=where)
    return Outcome(
        status=WorkflowStatus.RUNNING if transient else WorkflowStatus.TERMINAL,
        context=context,
        exception={"details": details},
        transient=transient,
        wait=wait,
        timed_out=timed_out,
    )


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\\x00")
