"""Entities as turns have them: no session watches what is read of them or written to them."""

from __future__ import annotations

from types import new_class
from typing import Any, TypeVar

from stabilize.models.stage import StageExecution
from stabilize.models.task import TaskExecution
from stabilize.models.workflow import Workflow

Entity = Workflow | StageExecution | TaskExecution
E = TypeVar("E", bound=Entity)

KINDS: tuple[type[Entity], ...] = (Workflow, StageExecution, TaskExecution)


class _Column:
    """A column whose value Python finds in the entity itself: a sixth of what the mapped one costs.

    Only where there is no value, the mapped attribute is asked.
    """

    def __init__(self, mapped: Any) -> None:
        self._mapped = mapped

    def __get__(self, entity: Any, owner: type) -> Any:
        return self._mapped.__get__(entity, owner)


def _unwatched(kind: type[Entity]) -> type[Entity]:
    """A class like `kind`, of which the mapping knows nothing, with its columns in the open."""

    def fill(body: dict[str, Any]) -> None:
        body.update(__abstract__=True, __module__=kind.__module__, __doc__=kind.__doc__)
        for column in kind.__table__.columns:
            body[column.key] = _Column(getattr(kind, column.key))

    return new_class(kind.__name__, (kind,), exec_body=fill)


_UNWATCHED: dict[type, type[Any]] = {kind: _unwatched(kind) for kind in KINDS}
KIND_OF: dict[type[Entity], type[Entity]] = {
    **{kind: kind for kind in KINDS},
    **{unwatched: kind for kind, unwatched in _UNWATCHED.items()},
}
"""Which of the three an entity is, watched or not."""


def unwatched(kind: type[E]) -> type[E]:
    """The class to make entities of that a turn reads from rows, by `__new__`."""
    return _UNWATCHED[kind]
