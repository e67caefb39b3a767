"""When a worker looks at the table of messages again."""

from __future__ import annotations

import time


class Lookout:
    """Knows whether something may be due: because it was told so, or because it is time to poll.

    Polling is the contract, being told is speed. Right after a look that found everything, nothing
    can be due before somebody commits (then this process is told, or a poll finds it) or a time
    that is known comes.
    """

    def __init__(self, poll_seconds: float) -> None:
        self._poll = poll_seconds
        self._told = True
        self._next = 0.0
        self._saw_all = False

    def tell(self) -> None:
        """Something may have become due."""
        self._told = True

    @property
    def was_told(self) -> bool:
        """Somebody in this process has committed something since the last look."""
        return self._told

    def is_due(self, *, slots_freed: bool) -> bool:
        """Say whether to look; `slots_freed`: work may be taken that could not be before."""
        return self._told or time.monotonic() >= self._next or (slots_freed and not self._saw_all)

    def looking(self) -> None:
        """A look begins: what is told from now on is news."""
        self._told = False

    def looked(self, *, saw_all: bool, more: bool = False, seconds: float | None = None) -> None:
        """The look is over. `saw_all`: starting messages were looked at too; `more`: it found as
        many as it wanted; `seconds`: until the next message is due, if that is known."""
        self._saw_all = saw_all
        if more:
            self._next = 0.0
            return
        wait = self._poll if seconds is None else min(self._poll, max(0.0, seconds))
        self._next = time.monotonic() + wait

    def expect(self, seconds: float) -> None:
        """Something will be due after `seconds`."""
        self._next = min(self._next, time.monotonic() + seconds)

    @property
    def seconds(self) -> float:
        """How long until the next look."""
        return 0.0 if self._told else max(0.0, self._next - time.monotonic())
