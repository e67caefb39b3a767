"""What a task reads as `stage.context`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stabilize.models.workflow import merge_outputs

logger = logging.getLogger(__name__)


def copied(value: Any) -> Any:
    """A copy all the way down of what JSON gave: who changes it does not reach the original."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()} if value else {}
    return [copied(item) for item in value] if isinstance(value, list) else value


def after(prepare: Callable[[Any], object], method: Callable[..., Any]) -> Any:
    """A method of a built-in class that is called after `prepare`."""

    def call(self: Any, *args: Any, **named: Any) -> Any:
        prepare(self)
        return method(self, *args, **named)

    return call


class InheritingContext(dict[str, Any]):
    """A stage's own context over the outputs of everything its run came from.

    What is inherited is read on the first look at a key that is not the stage's own, once, and then
    stands still. Changes are kept in this object only, and warned of: a task returns what counts.
    `shared`: others inherit the same objects, so each is copied before it is handed out.
    """

    def __init__(
        self,
        own: Mapping[str, Any],
        inherit: Callable[[], dict[str, Any]],
        where: str,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__(own)
        self._inherit: Callable[[], dict[str, Any]] | None = inherit
        self._where = where
        self._warned = False
        self._shared = shared
        self._borrowed: set[str] = set()

    def fill(self) -> InheritingContext:
        """Read what is inherited, if that has not been done."""
        if self._inherit is not None:
            inherited, own = self._inherit(), dict(super().items())
            merged = merge_outputs([inherited, own])
            if self._shared:
                self._borrowed = {key for key in inherited if merged[key] is not own.get(key)}
            self._inherit = None
            super().clear()
            super().update(merged)
        return self

    def _take_over(self, keys: Iterable[str]) -> None:
        """Have values of our own where others read the same objects."""
        for key in self._borrowed.intersection(keys):
            super().__setitem__(key, copied(super().__getitem__(key)))
        self._borrowed.difference_update(keys)

    def _take_over_all(self) -> None:
        self.fill()._take_over(tuple(self._borrowed))

    def __getitem__(self, key: str) -> Any:
        if self._inherit is not None:
            if dict.__contains__(self, key):
                value = super().__getitem__(key)
                if not isinstance(value, list):
                    return value
            self.fill()
        self._take_over((key,))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or dict.__contains__(self.fill(), key)

    __iter__ = after(fill, dict.__iter__)
    __len__ = after(fill, dict.__len__)
    __eq__ = after(fill, dict.__eq__)
    __hash__ = None
    __repr__ = after(fill, dict.__repr__)
    keys = after(fill, dict.keys)
    values = after(_take_over_all, dict.values)
    items = after(_take_over_all, dict.items)
    copy = after(_take_over_all, dict.copy)
    __or__ = after(_take_over_all, dict.__or__)

    def __reduce__(self) -> Any:
        return (dict, (self.copy(),))

    # --- changes ----------------------------------------------------------------------------

    def _warn(self) -> None:
        self._take_over_all()
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: stage.context was changed in place, which is not kept: "
                "return the values in TaskResult(context=...) or outputs=",
                self._where,
            )

    __setitem__ = after(_warn, dict.__setitem__)
    __delitem__ = after(_warn, dict.__delitem__)
    __ior__ = after(_warn, dict.__ior__)
    update = after(_warn, dict.update)
    pop = after(_warn, dict.pop)
    popitem = after(_warn, dict.popitem)
    clear = after(_warn, dict.clear)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]
