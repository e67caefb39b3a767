"""Durable workflows in your own SQL database."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stabilize.clock import ManualClock as ManualClock
    from stabilize.clock import new_id as new_id
    from stabilize.dag.reducers import apply_output_reducers as apply_output_reducers
    from stabilize.dag.reducers import get_reducer as get_reducer
    from stabilize.dag.reducers import register_reducer as register_reducer
    from stabilize.dag.soundness import Fault as Fault
    from stabilize.dag.soundness import Finding as Finding
    from stabilize.database import Database as Database
    from stabilize.errors import ConcurrencyError as ConcurrencyError
    from stabilize.errors import ConfigurationError as ConfigurationError
    from stabilize.errors import ConflictError as ConflictError
    from stabilize.errors import PayloadError as PayloadError
    from stabilize.errors import PermanentError as PermanentError
    from stabilize.errors import RecoveryError as RecoveryError
    from stabilize.errors import SchemaError as SchemaError
    from stabilize.errors import StabilizeError as StabilizeError
    from stabilize.errors import StageNotFoundError as StageNotFoundError
    from stabilize.errors import TaskError as TaskError
    from stabilize.errors import TransientError as TransientError
    from stabilize.errors import TransientVerificationError as TransientVerificationError
    from stabilize.errors import WorkflowNotFoundError as WorkflowNotFoundError
    from stabilize.errors import is_permanent as is_permanent
    from stabilize.errors import is_transient as is_transient
    from stabilize.models import MultiInstanceConfig as MultiInstanceConfig
    from stabilize.models import StageExecution as StageExecution
    from stabilize.models import TaskExecution as TaskExecution
    from stabilize.models import Trigger as Trigger
    from stabilize.models import Workflow as Workflow
    from stabilize.models import metadata as metadata
    from stabilize.models.triggers import Signal as Signal
    from stabilize.models.triggers import Timer as Timer
    from stabilize.orchestrator import Orchestrator as Orchestrator
    from stabilize.processor import QueueProcessor as QueueProcessor
    from stabilize.processor import QueueProcessorConfig as QueueProcessorConfig
    from stabilize.queue import MySQLQueue as MySQLQueue
    from stabilize.queue import PostgresQueue as PostgresQueue
    from stabilize.queue import Queue as Queue
    from stabilize.queue import SqliteQueue as SqliteQueue
    from stabilize.stages.builder import StageDefinitionBuilder as StageDefinitionBuilder
    from stabilize.stages.builder import register_builder as register_builder
    from stabilize.stages.instances import MultiInstanceBuilder as MultiInstanceBuilder
    from stabilize.stages.loops import LoopBuilder as LoopBuilder
    from stabilize.status import JoinType as JoinType
    from stabilize.status import SplitType as SplitType
    from stabilize.status import SyntheticStageOwner as SyntheticStageOwner
    from stabilize.status import WorkflowStatus as WorkflowStatus
    from stabilize.store import MySQLWorkflowStore as MySQLWorkflowStore
    from stabilize.store import PostgresWorkflowStore as PostgresWorkflowStore
    from stabilize.store import SqliteWorkflowStore as SqliteWorkflowStore
    from stabilize.store import WorkflowCriteria as WorkflowCriteria
    from stabilize.store import WorkflowStore as WorkflowStore
    from stabilize.tasks import RetryableTask as RetryableTask
    from stabilize.tasks import SkippableTask as SkippableTask
    from stabilize.tasks import Task as Task
    from stabilize.tasks import TaskRegistry as TaskRegistry
    from stabilize.tasks import TaskResult as TaskResult
    from stabilize.tasks import TransactionalTask as TransactionalTask
    from stabilize.tasks.body import CancellationToken as CancellationToken
    from stabilize.tasks.body import TaskCancelledError as TaskCancelledError
    from stabilize.tasks.body import is_cancellation_requested as is_cancellation_requested
    from stabilize.tasks.body import (
        raise_if_cancellation_requested as raise_if_cancellation_requested,
    )
    from stabilize.tasks.sub_workflow import SubWorkflowTask as SubWorkflowTask

_HOMES: dict[str, tuple[str, ...]] = {
    "clock": ("ManualClock", "new_id"),
    "dag.reducers": ("apply_output_reducers", "get_reducer", "register_reducer"),
    "dag.soundness": ("Fault", "Finding"),
    "database": ("Database",),
    "errors": (
        "ConcurrencyError",
        "ConfigurationError",
        "ConflictError",
        "PayloadError",
        "PermanentError",
        "RecoveryError",
        "SchemaError",
        "StabilizeError",
        "StageNotFoundError",
        "TaskError",
        "TransientError",
        "TransientVerificationError",
        "WorkflowNotFoundError",
        "is_permanent",
        "is_transient",
    ),
    "models": (
        "MultiInstanceConfig",
        "StageExecution",
        "TaskExecution",
        "Trigger",
        "Workflow",
        "metadata",
    ),
    "orchestrator": ("Orchestrator",),
    "processor": ("QueueProcessor", "QueueProcessorConfig"),
    "queue": ("MySQLQueue", "PostgresQueue", "Queue", "SqliteQueue"),
    "models.triggers": ("Signal", "Timer"),
    "stages.instances": ("MultiInstanceBuilder",),
    "stages.loops": ("LoopBuilder",),
    "tasks.sub_workflow": ("SubWorkflowTask",),
    "stages.builder": ("StageDefinitionBuilder", "register_builder"),
    "status": ("JoinType", "SplitType", "SyntheticStageOwner", "WorkflowStatus"),
    "store": (
        "MySQLWorkflowStore",
        "PostgresWorkflowStore",
        "SqliteWorkflowStore",
        "WorkflowCriteria",
        "WorkflowStore",
    ),
    "tasks": (
        "RetryableTask",
        "SkippableTask",
        "Task",
        "TaskRegistry",
        "TaskResult",
        "TransactionalTask",
    ),
    "tasks.body": (
        "CancellationToken",
        "TaskCancelledError",
        "is_cancellation_requested",
        "raise_if_cancellation_requested",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import stabilize` stays light."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'stabilize' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stabilize.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
