"""Small values that stand inside a workflow or a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


class Plain:
    """A value that goes to JSON and back; unknown keys of a later version are left out."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass
class Trigger(Plain):
    """What asked for the workflow: by whom, with which parameters."""

    type: str = "manual"
    user: str = "anonymous"
    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass
class PausedDetails(Plain):
    """Who paused the workflow and when; times in milliseconds since the epoch."""

    paused_by: str = ""
    pause_time: int | None = None
    resume_time: int | None = None
    paused_ms: int = 0

    @property
    def is_paused(self) -> bool:
        return self.pause_time is not None and self.resume_time is None


@dataclass
class MultiInstanceConfig(Plain):
    """How many runs a stage has at once, and when the group is done (WCP 12-15, 26, 27, 34-36)."""

    count: int = 0
    count_from_context: str = ""
    sync_on_complete: bool = True
    allow_dynamic: bool = False
    collection_from_context: str = ""
    join_threshold: int = 0
    cancel_remaining: bool = False
    item_context_key: str = "item"
    complete_when: str = ""


@dataclass(frozen=True)
class StageStateSnapshot:
    """The state of a stage at one moment, hashable."""

    status: str
    version: int
    context: tuple[tuple[str, Any], ...]
    outputs: tuple[tuple[str, Any], ...]

    def context_dict(self) -> dict[str, Any]:
        return dict(self.context)

    def outputs_dict(self) -> dict[str, Any]:
        return dict(self.outputs)
