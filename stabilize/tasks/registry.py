"""Which task a name stands for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from stabilize.errors import ConfigurationError, TaskNotFoundError
from stabilize.tasks.interface import (
    CallableTask,
    NoOpTask,
    Task,
    TaskFunction,
    TransactionalTask,
    WaitTask,
)
from stabilize.tasks.loops import LoopBackTask, LoopConditionTask, LoopEntryTask
from stabilize.tasks.sub_workflow import SubWorkflowTask

logger = logging.getLogger(__name__)

AnyTask = Task | TransactionalTask
Registrable = type[Task] | type[TransactionalTask] | Task | TransactionalTask | TaskFunction

_BUILT_IN: dict[str, type[Task]] = {
    "NoOpTask": NoOpTask,
    "WaitTask": WaitTask,
    "LoopConditionTask": LoopConditionTask,
    "LoopBackTask": LoopBackTask,
    "LoopEntryTask": LoopEntryTask,
    "SubWorkflowTask": SubWorkflowTask,
}


class TaskRegistry:
    """Names of tasks, with what each stands for: a class, an instance or a plain function.

    A class is instantiated for each use, an instance is used again. A class is also found under
    its own name and its dotted path.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Registrable] = {}
        self._aliases: dict[str, str] = {}
        self.clear()

    def register(
        self,
        name: str,
        task: Registrable,
        aliases: Iterable[str] | None = None,
        strict: bool = False,
    ) -> None:
        """Let `name` stand for `task`; with `strict` a name that is taken is refused."""
        own = task if isinstance(task, type) else type(task)
        is_task = issubclass(own, (Task, TransactionalTask))
        if not is_task and (isinstance(task, type) or not callable(task)):
            raise ConfigurationError(
                f"{task!r} cannot be the task {name!r}: give a Task class, an instance of one, "
                "or a function that takes the stage"
            )
        if name in self._tasks and name not in _BUILT_IN:
            if strict:
                raise ValueError(f"task {name!r} is already registered")
            logger.warning("task %r is registered again and replaces the earlier one", name)
        self._tasks[name] = task
        self._aliases.pop(name, None)  # a name of its own goes before an alias
        given = [*(aliases or ()), *_aliases_of(task)]
        if is_task and own is not CallableTask:
            given += [own.__name__, f"{own.__module__}.{own.__qualname__}"]
        for alias in given:
            if alias not in self._tasks:
                self._aliases.setdefault(alias, name)

    def register_class(
        self, task: type[Task] | type[TransactionalTask], name: str | None = None
    ) -> None:
        self.register(name or task.__name__, task)

    def task(
        self, name: str, aliases: Iterable[str] | None = None
    ) -> Callable[[Registrable], Registrable]:
        """Register the decorated class or function as `name`."""

        def register(task: Registrable) -> Registrable:
            self.register(name, task, aliases)
            return task

        return register

    def _find(self, name: str) -> Registrable | None:
        return self._tasks.get(name if name in self._tasks else self._aliases.get(name, name))

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def get(self, name: str) -> AnyTask:
        """The task called `name`; `TaskNotFoundError` names those there are."""
        found = self._find(name)
        if found is None:
            raise TaskNotFoundError(name, self.list_tasks())
        if isinstance(found, type):
            made: AnyTask = found()
            return made
        return found if isinstance(found, (Task, TransactionalTask)) else CallableTask(found)

    def overrides(self, name: str, hook: str) -> bool:
        """Say whether the task called `name` does something of its own in `hook`."""
        found = self._find(name)
        kind = found if isinstance(found, type) else type(found)
        return getattr(kind, hook, None) is not getattr(Task, hook) and hasattr(kind, hook)

    def list_tasks(self) -> list[str]:
        return sorted(self._tasks)

    def known_names(self) -> list[str]:
        """Every name and alias a task execution may ask for."""
        return sorted({*self._tasks, *self._aliases})

    def clear(self) -> None:
        """Forget everything but what is built in."""
        self._tasks = {}
        self._aliases = {}
        for name, task in _BUILT_IN.items():
            self.register(name, task)


def _aliases_of(task: Any) -> list[str]:
    aliases = getattr(task, "aliases", ())
    if isinstance(aliases, property):
        aliases = task().aliases
    return list(aliases) if isinstance(aliases, (list, tuple, set)) else []


_default = TaskRegistry()


def get_default_registry() -> TaskRegistry:
    """The registry used when none is given."""
    return _default
