"""What an unsound net of the collection is, and how one is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stabilize import Fault, JoinType, SplitType, StageExecution
from tests.patterns.catalog.pattern import stage as one

Stages = list[StageExecution]
AND, OR, XOR = {}, {"join_type": JoinType.OR}, {"join_type": JoinType.XOR}
MULTI_MERGE = {"join_type": JoinType.MULTI_MERGE}


@dataclass(frozen=True, kw_only=True)
class Shows:
    """What the check has to find.

    `path` in a word, the stages between blanks. `given`: the conditions that hold on the way there,
    in a word too; the replay of the path on the engine lets each stage put them out.
    """

    fault: Fault
    stage: str
    path: str
    given: str = ""


@dataclass(frozen=True, kw_only=True)
class Unsound:
    """A net that was published as unsound, in the nearest construct that is so here.

    `source`: where it was published. `shape`: what it looks like there. `here`: what is different.
    """

    name: str
    source: str
    shape: str
    here: str
    stages: Callable[[], Stages]
    shows: tuple[Shows, ...]


@dataclass(frozen=True, kw_only=True)
class SoundHere:
    """A net that is unsound where it was published, and why it is not so here."""

    name: str
    source: str
    here: str
    stages: Callable[[], Stages]
    given: str = ""


def stage(ref_id: str, after: str = "", **fields: Any) -> StageExecution:
    """A stage that waits for a signal before it ends."""
    return one(ref_id, after, "waits", **fields)


def xor(*branches: str, default: str | None = None) -> dict[str, Any]:
    """A split that takes the first of its branches whose condition holds: the name of it does."""
    return _split(SplitType.XOR, branches, default)


def either(*branches: str, default: str | None = None) -> dict[str, Any]:
    """A split that takes one or more of its branches."""
    return _split(SplitType.OR, branches, default)


def _split(kind: SplitType, branches: tuple[str, ...], default: str | None) -> dict[str, Any]:
    return {
        "split_type": kind,
        "split_conditions": {branch: f"to_{branch}" for branch in branches},
        "split_default": default,
    }


def n_of_m(threshold: int, **fields: Any) -> dict[str, Any]:
    return {"join_type": JoinType.N_OF_M, "join_threshold": threshold, **fields}
