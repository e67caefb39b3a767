"""The ORM models: every table of the library, on one metadata."""

from stabilize.models.base import metadata
from stabilize.models.event import (
    ArchivedEvent,
    EventDeadLetter,
    EventDelivery,
    EventFence,
    EventRecord,
    SnapshotRecord,
    SubscriptionRecord,
)
from stabilize.models.queue import DeadLetter, QueueMessage, Worker
from stabilize.models.stage import StageEdge, StageExecution
from stabilize.models.task import TaskExecution
from stabilize.models.token import BufferedSignal, Claim, Token
from stabilize.models.values import MultiInstanceConfig, PausedDetails, Trigger
from stabilize.models.workflow import Workflow

from stabilize.models import ddl  # isort: skip

__all__ = [
    "ArchivedEvent",
    "BufferedSignal",
    "Claim",
    "DeadLetter",
    "EventDeadLetter",
    "EventDelivery",
    "EventFence",
    "EventRecord",
    "MultiInstanceConfig",
    "PausedDetails",
    "QueueMessage",
    "SnapshotRecord",
    "StageEdge",
    "StageExecution",
    "SubscriptionRecord",
    "TaskExecution",
    "Token",
    "Trigger",
    "Worker",
    "Workflow",
    "ddl",
    "metadata",
]
