"""Who is acting: correlation, cause and actor of what is recorded in this context."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace

from stabilize.events.base import EventMetadata

_current: ContextVar[EventMetadata | None] = ContextVar("stabilize_event_context", default=None)


def set_event_context(
    correlation_id: str, causation_id: str | None = None, actor: str = "system"
) -> None:
    """Set who acts in this context (thread or asyncio task), until it is set or cleared again.

    The verbs of an `Orchestrator` take `actor` for their user when they are given none, and
    `EventRecorder.record_...` takes all three.
    """
    _current.set(EventMetadata(correlation_id, causation_id, actor))


def clear_event_context() -> None:
    """Forget what `set_event_context` set."""
    _current.set(None)


def get_event_metadata(
    correlation_id: str = "", source_handler: str | None = None
) -> EventMetadata:
    """The metadata of an event recorded now; `correlation_id` is used when none was set."""
    current = _current.get() or EventMetadata(correlation_id)
    belongs_to = current.correlation_id or correlation_id
    return replace(current, correlation_id=belongs_to, source_handler=source_handler)


def current_actor(default: str) -> str:
    """The actor that was set, else `default`."""
    current = _current.get()
    return default if current is None or current.actor == "system" else current.actor
