"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass

from stabilize.clock import chance


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter: `base`, `base * factor`, ... at most `cap` seconds."""

    base: float = 1.0
    factor: float = 2.0
    cap: float = 60.0
    jitter: float = 0.25

    def seconds(self, attempt: int) -> float:
        """The wait after try number `attempt` (from 1), in seconds."""
        exponent = min(max(attempt, 1) - 1, 64)
        plain = min(self.cap, self.base * self.factor**exponent)
        return plain * (1 + self.jitter * (2 * chance() - 1))
