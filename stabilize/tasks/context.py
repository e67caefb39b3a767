"""What a task reads as `stage.context`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stabilize.models.workflow import merge_outputs

logger = logging.getLogger(__name__)


class InheritingContext(dict[str, Any]):
    """A stage's own context over the outputs of everything its run came from.

    What is inherited is read on the first look at a key that is not the stage's own, once, and then
    stands still. Changes are kept in this object only, and warned of: a task returns what counts.
    """

    def __init__(
        self, own: Mapping[str, Any], inherit: Callable[[], dict[str, Any]], where: str
    ) -> None:
        super().__init__(own)
        self._inherit: Callable[[], dict[str, Any]] | None = inherit
        self._where = where
        self._warned = False

    def fill(self) -> InheritingContext:
        """Read what is inherited, if that has not been done."""
        if self._inherit is not None:
            merged = merge_outputs([self._inherit(), dict(super().items())])
            self._inherit = None
            super().clear()
            super().update(merged)
        return self

    def __getitem__(self, key: str) -> Any:
        if self._inherit is not None:
            if dict.__contains__(self, key):
                value = super().__getitem__(key)
                if not isinstance(value, list):
                    return value
            self.fill()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or dict.__contains__(self.fill(), key)

    def __iter__(self) -> Iterator[str]:
        return super(InheritingContext, self.fill()).__iter__()

    def __len__(self) -> int:
        return super(InheritingContext, self.fill()).__len__()

    def keys(self) -> Any:
        return super(InheritingContext, self.fill()).keys()

    def values(self) -> Any:
        return super(InheritingContext, self.fill()).values()

    def items(self) -> Any:
        return super(InheritingContext, self.fill()).items()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        return super(InheritingContext, self.fill()).__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        return super(InheritingContext, self.fill()).__repr__()

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __bool__(self) -> bool:
        return len(self) > 0

    def __reduce__(self) -> Any:
        return (dict, (self.copy(),))

    # --- changes ----------------------------------------------------------------------------

    def _warn(self) -> None:
        self.fill()
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: stage.context was changed in place, which is not kept: "
                "return the values in TaskResult(context=...) or outputs=",
                self._where,
            )

    def __setitem__(self, key: str, value: Any) -> None:
        self._warn()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._warn()
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._warn()
        super().update(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        self._warn()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._warn()
        return super().popitem()

    def clear(self) -> None:
        self._warn()
        super().clear()

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self
