"""The one source of time and of identifiers."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ulid import ULID

_RANDOM_BITS = 80
_LOW_BITS = 20
_LOW = (1 << _LOW_BITS) - 1
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs have it
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_lock = threading.Lock()
_last_ms = 0
_last_random = 0
_prefix = ""


def _forget() -> None:
    """A forked child must not go on counting where its parent does."""
    global _last_ms, _lock
    _last_ms, _lock = 0, threading.Lock()  # whoever held the old one is not here


os.register_at_fork(after_in_child=_forget)


def new_id() -> str:
    """Return a ULID: 26 characters, rising within this process.

    Within a millisecond it counts up, so all but the last four characters can be kept.
    """
    global _last_ms, _last_random, _prefix
    with _lock:
        ms = time.time_ns() // 1_000_000
        if ms > _last_ms:
            _last_ms = ms
            _last_random = int.from_bytes(os.urandom(10), "big") >> 1  # room to count upwards
            _prefix = _encode_high()
        else:
            _last_random += 1
            if not _last_random & _LOW:
                _prefix = _encode_high()
        low = _last_random & _LOW
        return _prefix + _PAIRS[low >> 10] + _PAIRS[low & 1023]


def _encode_high() -> str:
    return str(ULID.from_int((_last_ms << _RANDOM_BITS) | _last_random))[:-4]


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def chance() -> float:
    """A number from 0 up to 1, drawn at random: for jitter, not for secrets."""
    return random.random()


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)


def from_ms(ms: int) -> datetime:
    """The instant `ms` milliseconds after the epoch, aware, in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


class Clock(Protocol):
    """What a database asks for the time when its own clock is not to be used (tests)."""

    def now_ms(self) -> int: ...


class ManualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._ms = start_ms
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return self._ms

    def advance(self, seconds: float) -> None:
        """Move on by `seconds` and wake whoever waits for the time to pass."""
        self._ms += int(seconds * 1000)
        for listener in self._listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
