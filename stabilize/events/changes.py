"""What is different between two nested values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MISSING = object()


def changes_between(before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """`added` and `removed` (path -> value), `changed` (path -> before, after); dotted paths."""
    found: dict[str, dict[str, Any]] = {"added": {}, "removed": {}, "changed": {}}
    for path, old, new in _differences(before, after, ""):
        if old is _MISSING:
            found["added"][path] = new
        elif new is _MISSING:
            found["removed"][path] = old
        else:
            found["changed"][path] = {"before": old, "after": new}
    return found


def _differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key, _MISSING), after.get(key, _MISSING), below)
    elif before != after or (before is _MISSING) != (after is _MISSING):
        yield path, before, after
