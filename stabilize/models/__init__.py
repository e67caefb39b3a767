"""The ORM models: every table of the library, on one metadata."""

from stabilize.models.base import metadata
from stabilize.models.event import EventRecord
from stabilize.models.queue import DeadLetter, QueueMessage, Worker
from stabilize.models.stage import StageEdge, StageExecution
from stabilize.models.task import TaskExecution
from stabilize.models.token import BufferedSignal, Claim, Token
from stabilize.models.values import MultiInstanceConfig, PausedDetails, Trigger
from stabilize.models.workflow import Workflow

__all__ = [
    "BufferedSignal",
    "Claim",
    "DeadLetter",
    "EventRecord",
    "MultiInstanceConfig",
    "PausedDetails",
    "QueueMessage",
    "StageEdge",
    "StageExecution",
    "TaskExecution",
    "Token",
    "Trigger",
    "Worker",
    "Workflow",
    "metadata",
]
