"""What lies on the branches that a join, once it has started, no longer needs (WCP-29, 32)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """Stages by ref, each with whether the threads below that of the join count there too.

    `begun`: their runs end, and what they put from then on is dead. `ahead`: no run has come as far
    as there, and what rests before them becomes dead, so that it starts nothing.
    """

    begun: dict[str, bool] = field(default_factory=dict)
    ahead: dict[str, bool] = field(default_factory=dict)


def withdrawal(
    branches: Iterable[str],
    *,
    has_begun: Callable[[str, bool], bool],
    merges_threads: Callable[[str], bool],
    upstream: Callable[[str], Iterable[str]],
) -> Withdrawal:
    """Go up the branches that have brought nothing yet, to where something of them has begun.

    `has_begun` says whether a stage is under way, or has been, in the thread of the join, or as
    well in one below it: above a merge of threads those count that it merges.
    """
    found = Withdrawal()
    waiting = [(ref_id, False) for ref_id in branches]
    seen = {ref_id for ref_id, _ in waiting}
    while waiting:
        ref_id, below = waiting.pop()
        if has_begun(ref_id, below):
            found.begun[ref_id] = below
            continue
        below = below or merges_threads(ref_id)
        found.ahead[ref_id] = below
        further = [source for source in upstream(ref_id) if source not in seen]
        seen.update(further)
        waiting += [(source, below) for source in further]
    return found


def lies_in(thread: str, base: str, below: bool) -> bool:
    """Say whether a thread is this one, or as well one below it."""
    return thread == base or (below and thread.startswith(base))
