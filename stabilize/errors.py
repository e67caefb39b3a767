"""The errors of the library, and which of anybody's errors are worth another try."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import urllib.error
from typing import Any


class StabilizeError(Exception):
    """Every error this library raises on purpose is one of these."""

    code = 100

    def __init__(
        self, message: str = "", *, code: int | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} caused by: {self.cause}" if self.cause else self.message


class TransientError(StabilizeError):
    """Raised by a task to say: try again later.

    `retry_after`: seconds before the next execution, at the least. `context_update`: merged into
    the stage's context first, so that the next execution goes on where this one stopped.
    """

    code = 101

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        context_update: dict[str, Any] | None = None,
        code: int | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, code=code, cause=cause)
        self.retry_after = retry_after
        self.context_update = dict(context_update or {})


class PermanentError(StabilizeError):
    """Raised by a task to say: another try would fail just the same."""

    code = 102


class RecoveryError(StabilizeError):
    code = 103


class ConfigurationError(StabilizeError):
    """The pieces handed to the library do not fit together."""

    code = 104


class ConcurrencyError(TransientError):
    """Somebody else changed the row since it was read: read it again and repeat the change."""

    code = 105


class ConflictError(StabilizeError):
    """The id is taken by something that was defined otherwise."""

    code = 106


class SchemaError(ConfigurationError):
    """The database's tables are missing, or of another version than this code can use."""

    code = 107


class PayloadError(PermanentError, ValueError):
    """A value that JSON, or one of the databases, cannot hold; the message names the key."""

    code = 108


class TaskError(StabilizeError):
    code = 200

    def __init__(
        self,
        message: str = "",
        *,
        task_name: str | None = None,
        stage_id: str | None = None,
        execution_id: str | None = None,
        details: dict[str, Any] | None = None,
        code: int | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, code=code, cause=cause)
        self.task_name = task_name
        self.stage_id = stage_id
        self.execution_id = execution_id
        self.details = dict(details or {})


class TaskTimeoutError(TaskError):
    code = 201


class TaskNotFoundError(TaskError):
    """No task is registered under this name; the message says which are."""

    code = 202

    def __init__(self, task_type: str, known: list[str] | None = None) -> None:
        names = ", ".join(known or []) or "none"
        super().__init__(
            f"No task found for type: {task_type}. Registered: {names}. "
            f'Register it with registry.register("{task_type}", YourTask).'
        )
        self.task_type = task_type


class WorkflowError(StabilizeError):
    code = 300

    def __init__(self, message: str = "", *, execution_id: str | None = None) -> None:
        super().__init__(message)
        self.execution_id = execution_id


class WorkflowNotFoundError(WorkflowError):
    """No workflow is stored under this id."""

    code = 301

    def __init__(self, execution_id: str) -> None:
        super().__init__(
            f"Execution not found: {execution_id}. Is it stored, and in this database?",
            execution_id=execution_id,
        )


class StageNotFoundError(WorkflowError):
    """The workflow has no stage run of this id."""

    code = 302


class QueueError(StabilizeError):
    code = 500


class VerificationError(StabilizeError):
    code = 600


class TransientVerificationError(VerificationError, TransientError):
    code = 601


_TRANSIENT_ERRNOS = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
}
_TRANSIENT_TYPES = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    http.client.RemoteDisconnected,
    urllib.error.URLError,
)
_PERMANENT_TYPES = (ValueError, TypeError, AttributeError, KeyError, IndexError)
_PERMANENT_NAMES = re.compile(
    "validation|authentication|authorization|forbidden|notfound|invalid", re.IGNORECASE
)
_TRANSIENT_NAMES = re.compile(
    "timeout|connection|temporary|unavailable|retry|throttl|ratelimit", re.IGNORECASE
)


def in_short(error: BaseException) -> str:
    """The first line of an error: a database's goes on with statement and values, for no log."""
    return str(error).partition("\n")[0]


def is_transient(error: BaseException) -> bool:
    """Say whether another try may succeed, by type first, then by the name of the class."""
    if isinstance(error, TransientError):
        return True
    if isinstance(error, PermanentError):
        return False
    if isinstance(error, _TRANSIENT_TYPES):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    name = type(error).__name__
    if _PERMANENT_NAMES.search(name):
        return False
    if _TRANSIENT_NAMES.search(name):
        return True
    return error.__cause__ is not None and is_transient(error.__cause__)


def is_permanent(error: BaseException) -> bool:
    """Say whether another try is sure to fail the same way."""
    if isinstance(error, TransientError):
        return False
    if isinstance(error, (PermanentError, *_PERMANENT_TYPES)):
        return True
    return _PERMANENT_NAMES.search(type(error).__name__) is not None


def truncate_error(text: str, max_bytes: int = 102_400) -> str:
    """Cut `text` to `max_bytes` of UTF-8, between characters, and say that it was cut."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return text
    return raw[:max_bytes].decode("utf-8", "ignore") + " [TRUNCATED]"
