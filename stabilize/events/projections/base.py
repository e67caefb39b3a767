"""What a projection in memory is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from stabilize.events.base import EntityType, Event


class Projection(ABC):
    """A view that events add up to: apply each in order, as often as you like.

    Call `reset` before replaying from the beginning.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """A unique name."""

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Take in an event; one that was taken in before changes nothing."""

    @abstractmethod
    def get_state(self) -> Any:
        """What it has come to."""

    def reset(self) -> None:
        """Forget everything."""
        raise NotImplementedError(f"{type(self).__name__} cannot be reset")


class SeenEvents:
    """Which events were taken in: a number per entity where there are versions, else their ids."""

    def __init__(self) -> None:
        self._versions: dict[tuple[EntityType, str], int] = {}
        self._ids: set[str] = set()

    def is_new(self, event: Event) -> bool:
        """Say whether the event comes for the first time, and remember it."""
        if event.version > 0:
            key = (event.entity_type, event.entity_id)
            if event.version <= self._versions.get(key, 0):
                return False
            self._versions[key] = event.version
            return True
        if event.event_id in self._ids:
            return False
        self._ids.add(event.event_id)
        return True
