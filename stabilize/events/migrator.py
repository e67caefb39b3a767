"""Upcasting: events of an older shape are read as if they had been recorded today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stabilize.events.base import Event
from stabilize.events.rows import SCHEMA_VERSION

Upcaster = Callable[[Event], Event]


class EventMigrator:
    """Steps from one `schema_version` to a later one, applied one after another on reading."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every registered step."""
        self.steps: dict[int, tuple[int, Upcaster]] = {}
        self.current_version = SCHEMA_VERSION
        """The version events have once they were migrated."""

    def register(self, from_version: int, to_version: int) -> Callable[[Upcaster], Upcaster]:
        """Decorate a function that turns an event of one version into one of a later version."""
        if to_version <= from_version:
            raise ValueError(f"a step leads upwards, not from {from_version} to {to_version}")

        def decorate(upcaster: Upcaster) -> Upcaster:
            self.steps[from_version] = (to_version, upcaster)
            self.current_version = max(self.current_version, to_version)
            return upcaster

        return decorate

    def migrate(
        self, event: Event, target_version: int | None = None, strict: bool = True
    ) -> Event:
        """The event at `target_version`, by default the current one.

        When a step is missing, or the event is newer than that: `ValueError` if `strict`, else the
        event as far as it could be brought.
        """
        target = self.current_version if target_version is None else target_version
        while event.schema_version < target:
            step = self.steps.get(event.schema_version)
            if step is None:
                if strict:
                    raise ValueError(
                        f"event {event.event_id} has schema version {event.schema_version} and "
                        f"nothing leads from there to {target}: register a step"
                    )
                return event
            to_version, upcaster = step
            event = replace(upcaster(event), schema_version=to_version)
        if event.schema_version > target and strict:
            raise ValueError(
                f"event {event.event_id} has schema version {event.schema_version}, this program "
                f"reads up to {target}: a newer one wrote it"
            )
        return event


_migrator = EventMigrator()


def get_event_migrator() -> EventMigrator:
    """The migrator that replay and projections use."""
    return _migrator


def reset_event_migrator() -> None:
    """Forget every registered step."""
    _migrator.reset()
