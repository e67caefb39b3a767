"""One small class per message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stabilize.handlers.base import Handler, StabilizeHandler
from stabilize.handlers.children import ChildEndedHandler
from stabilize.handlers.control import CancelRegionHandler, CancelStageHandler
from stabilize.handlers.instances import (
    AddMultiInstanceHandler,
    CancelMultiInstanceHandler,
    CompleteMultiInstanceHandler,
    InstanceEndedHandler,
    SpawnInstancesHandler,
    WithdrawInstancesHandler,
)
from stabilize.handlers.jump import JumpToStageHandler, RestartStageHandler
from stabilize.handlers.signal import SignalStageHandler
from stabilize.handlers.stage import (
    CompleteStageHandler,
    ContinueParentStageHandler,
    FailStageHandler,
    PlanStageHandler,
    SkipStageHandler,
    StageDeadlineHandler,
    StartStageHandler,
)
from stabilize.handlers.task import (
    CompleteTaskHandler,
    RunHookHandler,
    RunTaskHandler,
    StartTaskHandler,
)
from stabilize.handlers.workflow import (
    CancelWorkflowHandler,
    CompleteWorkflowHandler,
    FailWorkflowHandler,
    PauseWorkflowHandler,
    ResumeWorkflowHandler,
    StartWorkflowHandler,
)
from stabilize.queue.messages import Message
from stabilize.turn import Turn

DEFAULT_HANDLERS: tuple[type[Handler[Any]], ...] = (
    AddMultiInstanceHandler,
    ChildEndedHandler,
    CancelMultiInstanceHandler,
    CancelRegionHandler,
    CancelStageHandler,
    CancelWorkflowHandler,
    CompleteMultiInstanceHandler,
    InstanceEndedHandler,
    SpawnInstancesHandler,
    CompleteStageHandler,
    CompleteTaskHandler,
    CompleteWorkflowHandler,
    ContinueParentStageHandler,
    FailStageHandler,
    FailWorkflowHandler,
    JumpToStageHandler,
    PauseWorkflowHandler,
    PlanStageHandler,
    RestartStageHandler,
    ResumeWorkflowHandler,
    RunHookHandler,
    RunTaskHandler,
    SignalStageHandler,
    SkipStageHandler,
    StageDeadlineHandler,
    StartStageHandler,
    StartTaskHandler,
    StartWorkflowHandler,
    WithdrawInstancesHandler,
)


def default_handlers() -> dict[type[Message], Callable[[Any, Turn], None]]:
    """What carries out each message, by its class."""
    return {kind.message_type: kind().handle for kind in DEFAULT_HANDLERS}


__all__ = [
    "DEFAULT_HANDLERS",
    "Handler",
    "StabilizeHandler",
    "default_handlers",
    *(kind.__name__ for kind in DEFAULT_HANDLERS),
]
