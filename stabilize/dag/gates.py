"""What a stage may have to wait for beside its tokens, decided over plain values.

Mutex: WCP-17 and 40. Section: WCP-39. Milestone: WCP-18. Deferred choice: WCP-16.
"""

from __future__ import annotations

from dataclasses import dataclass

from stabilize.status import WorkflowStatus, can_become


@dataclass(frozen=True)
class Wait:
    """The stage waits; `key` says what for, and is called when that changes."""

    key: str


@dataclass(frozen=True)
class PassOver:
    """The moment for the stage has gone; what follows it runs."""

    reason: str


@dataclass(frozen=True)
class Withdraw:
    """Another stage was chosen; this branch brings nothing."""

    reason: str


Obstacle = Wait | PassOver | Withdraw


def choice(group: str, chosen: str | None, claimant: str) -> Obstacle | None:
    """The first of a group takes it; the others are withdrawn."""
    if chosen in (None, claimant):
        return None
    return Withdraw(f"another branch of the choice {group!r} was taken")


def choice_key(group: str, thread: str) -> str:
    """Each thread has a choice of its own."""
    return f"{group}@{thread}" if thread else group


def milestone(
    ref_id: str, wanted: WorkflowStatus, status: WorkflowStatus | None, *, has_ended: bool
) -> Obstacle | None:
    """A stage starts while its milestone has the status wanted, and not after it."""
    if status is wanted:
        return None
    if status is None or has_ended or not can_become(status, wanted):
        return PassOver(f"the milestone {ref_id!r} is past {wanted}")
    return Wait(f"milestone:{ref_id}")


def right(kind: str, key: str, owner: str | None, claimant: str) -> Obstacle | None:
    """A mutex or a section has one owner at a time."""
    return None if owner in (None, claimant) else Wait(f"{kind}:{key}")
