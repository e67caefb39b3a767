"""Tasks: what a user's code looks like to the engine."""

from stabilize.tasks.interface import (
    CallableTask,
    NoOpTask,
    OverridableTimeoutRetryableTask,
    RetryableTask,
    SkippableTask,
    Task,
    TransactionalTask,
    WaitTask,
)
from stabilize.tasks.registry import TaskRegistry
from stabilize.tasks.result import TaskResult, TaskResultBuilder

__all__ = [
    "CallableTask",
    "NoOpTask",
    "OverridableTimeoutRetryableTask",
    "RetryableTask",
    "SkippableTask",
    "Task",
    "TaskRegistry",
    "TaskResult",
    "TaskResultBuilder",
    "TransactionalTask",
    "WaitTask",
]
