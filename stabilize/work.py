"""What goes in and out of a turn: messages taken, held and finished, and who plays them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stabilize.errors import StabilizeError
from stabilize.events.base import Event
from stabilize.queue.messages import BUILDER, Message
from stabilize.tasks.body import Outcome


class MessageRefused(StabilizeError):
    """The message is about something that is not there or not its own; it is dropped."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What the executor made of a message that this worker holds."""

    message: Message
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A message locked by this turn, with what the executor made of it, if that was its job."""

    message: Message
    row: Any
    outcome: Outcome | None = None


class HandlerLookup(Protocol):
    def __call__(self, message: Message) -> Callable[[Message, Any], None]: ...


@dataclass(kw_only=True)
class Worker:
    """What a turn has to know of who plays it."""

    id: str
    lease_ms: int
    knows: Callable[[str], bool] = lambda name: True
    overrides: Callable[[str, str], bool] = lambda name, hook: False
    has_builder: Callable[[str], bool] = lambda stage_type: False
    task_names: Sequence[str] = ()
    routes: Sequence[str] = ()
    """All it takes messages for: its task types, and the types of stages whose builders it has."""
    elsewhere: Collection[str] = frozenset()
    """What other live workers take messages for."""
    fails_unknown: bool = True
    limit: int = 64

    def has_planner(self, stage_type: str) -> bool:
        """Say whether this worker, or another live one, has a builder for a type of stage."""
        return self.has_builder(stage_type) or BUILDER + stage_type in self.elsewhere


@dataclass
class Written:
    """What a committed turn leaves to be done outside of it."""

    dispatched: list[Message] = field(default_factory=list)
    purged: list[tuple[str, str | None]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    left_work: bool = False
    next_at: int | None = None
    """When the first message that was put off is due, in ms."""
    played: int = 0
