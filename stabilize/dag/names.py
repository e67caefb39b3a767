"""Names as people write them: which member of an enum is meant, which name probably was."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from enum import Enum
from typing import TypeVar

E = TypeVar("E", bound=Enum)


def member_of(kind: type[E], value: object) -> object:
    """The member that `value` is, or names in whatever case; any other value as it is."""
    return kind.__members__.get(value.strip().upper(), value) if isinstance(value, str) else value


def suggest(wrong: object, known: Collection[str], otherwise: str) -> str:
    """Say which known name was probably meant, else what to do."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(str(wrong).lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}?" if close else otherwise
