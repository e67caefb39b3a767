"""What user code sees of a workflow: detached copies, read further on demand."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from stabilize.database import Database
from stabilize.handlers.context import inherited
from stabilize.models import StageExecution, Workflow
from stabilize.net import Net
from stabilize.status import SyntheticStageOwner
from stabilize.store import WorkflowStore
from stabilize.tasks.context import InheritingContext, after, copied

_GROUPS_KEPT = 8


class _Stages(list[StageExecution]):
    """The stages of a workflow, read when somebody looks at them."""

    def __init__(self, database: Database, workflow: Workflow) -> None:
        super().__init__()
        self._unread: tuple[Database, Workflow] | None = (database, workflow)

    def _fill(self) -> None:
        if self._unread is not None:
            (database, workflow), self._unread = self._unread, None
            read = WorkflowStore(database).retrieve(workflow.id)
            self.extend(read.stages)
            workflow.__dict__["all_runs"] = read.stage_runs

    __iter__ = after(_fill, list.__iter__)
    __len__ = after(_fill, list.__len__)
    __getitem__ = after(_fill, list.__getitem__)
    __contains__ = after(_fill, list.__contains__)
    __eq__ = after(_fill, list.__eq__)
    __hash__ = None
    __repr__ = after(_fill, list.__repr__)
    __add__ = after(_fill, list.__add__)
    index = after(_fill, list.index)
    copy = after(_fill, list.copy)

    def __reduce__(self) -> Any:
        return (list, ())


class Handed:
    """What groups hand on to their instances: read once, however many there are."""

    def __init__(self) -> None:
        self._of_group: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, group_id: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the instances of a group inherit, all of them the same objects."""
        with self._lock:
            handed = self._of_group.get(group_id)
            if handed is None:
                handed = self._of_group[group_id] = read()
            self._of_group.move_to_end(group_id)
            while len(self._of_group) > _GROUPS_KEPT:
                self._of_group.popitem(last=False)
        return handed


def clone(entity: Any) -> Any:
    """A detached copy that user code may look at while the engine changes the original."""
    copied = type(entity).__mapper__.class_manager.new_instance()
    state = copied.__dict__
    watched_by = state["_sa_instance_state"]
    state.update(entity.__dict__)
    state["_sa_instance_state"] = watched_by
    return copied


def view_of(net: Net, stage: StageExecution, database: Database, handed: Handed) -> StageExecution:
    """The stage as one execution of a task sees it: others share nothing of it."""
    is_instance = stage.synthetic_stage_owner is SyntheticStageOwner.INSTANCE

    def read() -> dict[str, Any]:
        with database.engine.connect() as connection:
            return inherited(connection, stage)

    def patiently() -> dict[str, Any]:
        return database.retrying(read, patience=math.inf)

    def inherit() -> dict[str, Any]:
        return handed.of(stage.parent_stage_id or "", patiently) if is_instance else patiently()

    workflow: Workflow = clone(net.workflow)
    workflow.__dict__["context"] = copied(net.workflow.context)
    workflow.__dict__["stages"] = _Stages(database, workflow)
    seen: StageExecution = clone(stage)
    state = seen.__dict__
    where = f"stage {state['ref_id']!r} of workflow {state['workflow_id']}"
    own = copied(state["context"])
    context = {**own, **copied(state["delivered"])}
    state.update(
        own_context=own,
        context=InheritingContext(context, inherit, where, shared=is_instance),
        outputs=copied(state["outputs"]),
        definition=copied(state["definition"]),
        tasks=[clone(task) for task in net.tasks_of(stage)],
        workflow=workflow,
    )
    return seen
