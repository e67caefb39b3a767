"""Small builders: stages that do something, and an engine to run them on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from weakref import WeakKeyDictionary

from sqlalchemy import Engine as SqlEngine

from stabilize import (
    ManualClock,
    Orchestrator,
    Queue,
    QueueProcessor,
    QueueProcessorConfig,
    StageDefinitionBuilder,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
    WorkflowStore,
)
from stabilize.clock import now_ms
from stabilize.coordinator import Coordinator
from stabilize.dag.graph import StageGraphBuilder
from stabilize.stages.builder import StageDefinitionBuilderFactory
from stabilize.tasks.registry import Registrable

PATIENCE = 20.0
"""Seconds before a test that waits for something says that it did not come."""

Body = Callable[[StageExecution], TaskResult]
Does = Registrable | str

_bodies: WeakKeyDictionary[StageExecution, dict[str, Registrable]] = WeakKeyDictionary()
_numbers = itertools.count(1)


# --- bodies -------------------------------------------------------------------------------------


def ok(stage: StageExecution) -> TaskResult:
    """Succeed."""
    return TaskResult.success()


def fails(stage: StageExecution) -> TaskResult:
    """Fail for good."""
    return TaskResult.terminal("boom")


def puts(**outputs: Any) -> Body:
    """Succeed with these outputs."""
    return lambda stage: TaskResult.success(outputs=outputs)


def returns(result: Any) -> Body:
    """Return the very same thing each time, a result or not."""
    return lambda stage: result


def raises(error: BaseException) -> Body:
    """Raise the same error each time."""

    def body(stage: StageExecution) -> TaskResult:
        raise error

    return body


class Script:
    """A body that does one thing after another: results are returned, errors raised.

    The last one is repeated. `contexts` has what each execution was given.
    """

    def __init__(self, *steps: TaskResult | BaseException) -> None:
        self.steps = steps
        self.contexts: list[dict[str, Any]] = []

    @property
    def calls(self) -> int:
        return len(self.contexts)

    def __call__(self, stage: StageExecution) -> TaskResult:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.contexts.append(dict(stage.context))
        if isinstance(step, BaseException):
            raise step
        return step


class Recorder(Script):
    """A body that succeeds and keeps what it was given."""

    def __init__(self, **outputs: Any) -> None:
        super().__init__(TaskResult.success(outputs=outputs))


class Gate:
    """A body that says when it has begun and goes on when it is let."""

    def __init__(self, result: TaskResult | None = None) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.result = result or TaskResult.success()
        self.calls = 0

    def __call__(self, stage: StageExecution) -> TaskResult:
        self.calls += 1
        self.entered.set()
        if not self.opened.wait(PATIENCE):
            raise AssertionError(f"nobody opened the gate of stage {stage.ref_id!r}")
        return self.result


def eventually(holds: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until `holds()` is true; fail when it is not so in time."""
    end = time.monotonic() + patience
    tick = threading.Event()
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        tick.wait(0.005)


# --- definitions --------------------------------------------------------------------------------


def stage(
    ref_id: str,
    *,
    after: str | Sequence[str] = (),
    does: Does | Sequence[Does] = ok,
    context: dict[str, Any] | None = None,
    **fields: Any,
) -> StageExecution:
    """A stage whose tasks are functions, task classes, instances, or registered names."""
    steps = list(does) if isinstance(does, (list, tuple)) else [does]
    bodies: dict[str, Registrable] = {}
    tasks = []
    for place, step in enumerate(steps):
        name = _name_of(step)
        if not isinstance(step, str):
            bodies[name] = step  # type: ignore[assignment]
        tasks.append(TaskExecution.create(name, name, place == 0, place == len(steps) - 1))
    made = StageExecution(
        ref_id=ref_id,
        name=ref_id,
        requisite_stage_ref_ids={after} if isinstance(after, str) else set(after),
        context=context or {},
        tasks=tasks,
        **fields,
    )
    _bodies[made] = bodies
    return made


def _name_of(step: Any) -> str:
    if isinstance(step, str):
        return step
    if step in (ok, fails):
        return str(step.__name__)
    kind = getattr(step, "__name__", type(step).__name__).strip("<>")
    return f"{kind}-{next(_numbers)}"


def workflow(*stages: StageExecution, id: str | None = None, **fields: Any) -> Workflow:
    """A workflow of these stages; further fields are set as attributes."""
    context = fields.pop("context", None)
    config = fields.pop("pipeline_config_id", None)
    made = Workflow.create("tests", "a workflow", stages, None, config, context, id=id)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def sequence(*refs: str, does: Does = ok) -> list[StageExecution]:
    """Stages one after the other."""
    pairs = zip([None, *refs], refs, strict=False)
    return [stage(ref, after=before or (), does=does) for before, ref in pairs]


# --- the engine ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What a stored workflow looks like now, in plain names."""

    workflow: Workflow

    @property
    def status(self) -> str:
        return self.workflow.status.name

    @property
    def statuses(self) -> dict[str, str]:
        """Of the newest run of each top-level stage."""
        return {s.ref_id: s.status.name for s in self.workflow.top_level_stages()}

    @property
    def context(self) -> dict[str, Any]:
        """Of the whole workflow: all outputs, merged."""
        return self.workflow.get_context()

    def __getitem__(self, ref_id: str) -> StageExecution:
        found = self.workflow.stage_by_ref_id(ref_id)
        assert found is not None, f"no stage {ref_id!r}"
        return found

    def tasks(self, ref_id: str) -> list[str]:
        return [task.status.name for task in self[ref_id].tasks]

    def runs(self, ref_id: str) -> list[str]:
        """The statuses of all runs of one stage, the first run first."""
        return [s.status.name for s in self.workflow.stage_runs if s.ref_id == ref_id]

    def error(self, ref_id: str) -> str:
        """Why a stage failed, as people read it."""
        context = self[ref_id].context
        exception = context.get("exception")
        return str(exception["details"]["error"] if exception else context.get("error"))


class VirtualTime(QueueProcessor):
    """A processor that moves its clock on whenever there is nothing left to do but wait."""

    horizon = 7200.0

    def _wait(self, coordinator: Coordinator) -> float | None:
        wait = super()._wait(coordinator)
        clock = self.database.clock
        idle = not len(coordinator.flights) and not coordinator.flights.finished
        if wait and idle and wait <= self.horizon and isinstance(clock, ManualClock):
            clock.advance(wait)
            coordinator.wake()
            return 0.0
        return wait


@dataclass
class Engine:
    """Store, queue, registry, builders and processor on one database."""

    target: str | SqlEngine
    config: QueueProcessorConfig = field(default_factory=QueueProcessorConfig)
    executor: Executor | None = None
    max_attempts: int = 10
    lock_duration: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        self.store = WorkflowStore(self.target)
        self.queue = Queue(
            self.target, max_attempts=self.max_attempts, lock_duration=self.lock_duration
        )
        self.database = self.store.database
        self.orchestrator = Orchestrator(self.queue, self.store)
        self.registry = TaskRegistry()
        self.registry.register("ok", ok)
        self.registry.register("fails", fails)
        self.builders = StageDefinitionBuilderFactory()
        self.builders.clear()
        self.clock: ManualClock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.database.clock = None
        self.store.close()

    # --- time and parts ---------------------------------------------------------------------

    def stop_time(self) -> ManualClock:
        """From now on time moves only by `clock.advance`, or while there is nothing else to do."""
        self.clock = self.database.clock = ManualClock(now_ms())
        return self.clock

    def processor(self, **options: Any) -> QueueProcessor:
        kind = VirtualTime if self.clock is not None else QueueProcessor
        given = {"executor": self.executor, "config": self.config, **options}
        return kind(
            self.queue,
            store=self.store,
            task_registry=self.registry,
            builders=self.builders,
            **given,
        )

    def learn(self, *stages: StageExecution) -> None:
        """Register what these stages do."""
        for one in stages:
            for name, body in _bodies.get(one, {}).items():
                if not self.registry.has(name):
                    self.registry.register(name, body)

    def build(
        self,
        type: str,
        *,
        before: Sequence[StageExecution] = (),
        following: Sequence[StageExecution] = (),
        on_failure: Sequence[StageExecution] = (),
    ) -> None:
        """Give the stages of one type synthetic stages."""
        self.learn(*before, *following, *on_failure)
        self.builders.register(_Fixed(type, before, following, on_failure))

    # --- running ----------------------------------------------------------------------------

    def submit(self, *workflows: Workflow) -> None:
        for one in workflows:
            self.learn(*one.stages)
            self.orchestrator.start(one)

    def play(self, timeout: float = PATIENCE) -> int:
        """Play until nothing is left to do; return how many messages were handled."""
        return self.processor().process_all(timeout)

    def run(self, *stages: StageExecution, **fields: Any) -> Ran:
        """Run a workflow of these stages to its end, or until it waits for the outside."""
        made = workflow(*stages, **fields)
        self.submit(made)
        return self.go_on(made)

    def go_on(self, made: Workflow) -> Ran:
        """Play what is due; an ended workflow leaves no message behind."""
        self.play()
        ran = self.look(made)
        if ran.workflow.status.is_complete:
            assert not self.queue.has_pending_message_for_execution(made.id)
        return ran

    def look(self, made: Workflow) -> Ran:
        return Ran(self.store.retrieve(made.id))

    def status(self, made: Workflow) -> str:
        return self.store.retrieve_execution_summary(made.id).status.name

    @contextmanager
    def started(self, **options: Any) -> Iterator[QueueProcessor]:
        """A processor at work in the background."""
        processor = self.processor(**options)
        processor.start()
        try:
            yield processor
        finally:
            processor.stop(timeout=PATIENCE)


class _Fixed(StageDefinitionBuilder):
    """A builder that adds copies of given stages."""

    def __init__(
        self,
        type: str,
        before: Sequence[StageExecution],
        following: Sequence[StageExecution],
        on_failure: Sequence[StageExecution],
    ) -> None:
        self._type = type
        self._before, self._after, self._on_failure = before, following, on_failure

    @property
    def type(self) -> str:
        return self._type

    def before_stages(self, stage: StageExecution, graph: StageGraphBuilder[Any]) -> None:
        _add_copies(graph, self._before)

    def after_stages(self, stage: StageExecution, graph: StageGraphBuilder[Any]) -> None:
        _add_copies(graph, self._after)

    def on_failure_stages(self, stage: StageExecution, graph: StageGraphBuilder[Any]) -> None:
        _add_copies(graph, self._on_failure)


def _add_copies(graph: StageGraphBuilder[Any], stages: Sequence[StageExecution]) -> None:
    for one in stages:
        tasks = [
            TaskExecution.create(t.name, t.implementing_class, t.stage_start, t.stage_end)
            for t in one.tasks
        ]
        graph.add(
            StageExecution(
                ref_id=one.ref_id,
                name=one.name,
                context=dict(one.context),
                requisite_stage_ref_ids=set(one.requisite_stage_ref_ids),
                tasks=tasks,
            )
        )
