"""What user code sees of a workflow: detached copies, read further on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from stabilize.database import Database
from stabilize.handlers.context import inherited
from stabilize.models import StageExecution, Workflow
from stabilize.net import Net
from stabilize.store import WorkflowStore
from stabilize.tasks.context import InheritingContext

T = TypeVar("T")


class _Lazy(list[T], Generic[T]):
    """A list that is filled when somebody looks at it."""

    def __init__(self, load: Callable[[], Iterable[T]]) -> None:
        super().__init__()
        self._load: Callable[[], Iterable[T]] | None = load

    def _fill(self) -> None:
        if self._load is not None:
            load, self._load = self._load, None
            self.extend(load())

    def __iter__(self) -> Iterator[T]:
        self._fill()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self._fill()
        return super().__getitem__(index)

    def __reduce__(self) -> Any:
        return (list, ())


def clone(entity: Any) -> Any:
    """A detached copy that user code may look at while the engine changes the original."""
    copied = type(entity).__mapper__.class_manager.new_instance()
    values = entity.__dict__
    copied.__dict__.update({k: v for k, v in values.items() if k != "_sa_instance_state"})
    return copied


def _copy(value: Any) -> Any:
    """A copy all the way down of what JSON gave: user code cannot reach ours through it."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _workflow_view(net: Net, database: Database) -> Workflow:
    if net.view is None or net.view[0] != net.workflow.version:
        seen: Workflow = clone(net.workflow)
        seen.__dict__["context"] = _copy(net.workflow.context)
        store, id = WorkflowStore(database), net.workflow.id
        seen.__dict__["stages"] = _Lazy(lambda: store.retrieve(id).stages)
        net.view = (net.workflow.version, seen)
    return net.view[1]


def view_of(net: Net, stage: StageExecution, database: Database) -> StageExecution:
    """The stage as a task sees it."""

    def read() -> dict[str, Any]:
        with database.engine.connect() as connection:
            return inherited(connection, stage)

    def inherit() -> dict[str, Any]:
        return database.retrying(read, patience=math.inf)

    tasks = net.tasks_of(stage)
    where = f"stage {stage.ref_id!r} of workflow {stage.workflow_id}"
    seen: StageExecution = clone(stage)
    values = seen.__dict__
    values["own_context"] = stage.context
    values["context"] = InheritingContext(
        _copy({**stage.context, **stage.delivered}), inherit, where
    )
    values["outputs"] = _copy(stage.outputs)
    values["definition"] = dict(stage.definition)
    values["tasks"] = _Lazy(lambda: [clone(task) for task in tasks])
    values["workflow"] = _workflow_view(net, database)
    return seen
