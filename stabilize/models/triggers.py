"""What starts a stage from outside, beside its tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


@dataclass(frozen=True)
class Signal:
    """The stage starts when a signal of this name reaches it."""

    name: str

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not name:
            raise TypeError(f"Signal({name!r}) has no name: write text, as in Signal('paid')")

    def __str__(self) -> str:
        return f"signal {self.name}"

    def to_dict(self) -> dict[str, Any]:
        return {"signal": self.name}


@dataclass(frozen=True)
class Timer:
    """The stage starts so long after its tokens came: `"30m"`, seconds, or a `timedelta`."""

    after: str | float | timedelta

    def __post_init__(self) -> None:
        self.milliseconds  # noqa: B018  # a duration that cannot be read is refused here

    def __str__(self) -> str:
        return f"after {timedelta(milliseconds=self.milliseconds)}"

    @property
    def milliseconds(self) -> int:
        if isinstance(self.after, timedelta):
            return int(self.after.total_seconds() * 1000)
        if isinstance(self.after, (int, float)):
            return int(self.after * 1000)
        match = _DURATION.fullmatch(str(self.after).strip())
        if match is None:
            raise ValueError(
                f"Timer({self.after!r}) is no duration: write a number and one of "
                f"{', '.join(_UNITS)}, as in '30m'"
            )
        return int(float(match[1]) * _UNITS[match[2]])

    def to_dict(self) -> dict[str, Any]:
        return {"timer_ms": self.milliseconds}


StageTrigger = Signal | Timer


def trigger_from_dict(data: dict[str, Any]) -> StageTrigger:
    """The trigger that `to_dict` wrote."""
    if "signal" in data:
        return Signal(data["signal"])
    return Timer(data["timer_ms"] / 1000)


def trigger_to_dict(trigger: StageTrigger | None) -> dict[str, Any] | None:
    if trigger is None:
        return None
    if not isinstance(trigger, Signal | Timer):
        raise TypeError("write Signal('name') or Timer('30m')")
    return trigger.to_dict()
