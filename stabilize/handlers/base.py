"""What a handler is."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, get_args

from stabilize.queue.messages import Message
from stabilize.turn import Turn

M = TypeVar("M", bound=Message)


class Handler(Generic[M]):
    """Carries out one kind of message within a turn: load, guard, decide, act."""

    message_type: ClassVar[type[Message]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Message):
                    cls.message_type = argument

    def handle(self, message: M, turn: Turn) -> None:
        """Carry out `message` by changing rows and pushing messages through `turn`."""
        raise NotImplementedError(type(self).__name__)


StabilizeHandler = Handler
