"""Plays one pattern, whoever does the work, and looks at what has come of it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from sqlalchemy import func, select

from stabilize import Orchestrator, Queue, StageExecution, Workflow, WorkflowStore
from stabilize.models import Claim
from stabilize.queue.messages import MESSAGE_TYPES
from tests.patterns.catalog import Pattern, Runs, Step

PATIENCE = 30.0
_EMPTY: Runs = ()


@dataclass
class Play:
    """One run of a pattern on a database."""

    pattern: Pattern
    queue: Queue
    skew_ms: int = 0
    """How far the clocks of those who do the work may be apart."""
    workflow: Workflow = field(init=False)

    def __post_init__(self) -> None:
        self.store = WorkflowStore(self.queue.database)
        self.orchestrator = Orchestrator(self.queue, self.store)
        self._locks = tempfile.TemporaryDirectory()
        stages = self.pattern.stages()
        for stage in stages:
            if stage.mutex_key:  # it finds out whether it really is
                stage.tasks[0].implementing_class = "alone"
        self.workflow = Workflow.create(
            "patterns", self.pattern.name, stages, context={"locks": self._locks.name}
        )

    def begin(self) -> None:
        self.orchestrator.start(self.workflow)

    def steps(self) -> Iterator[tuple[Callable[[], bool], Callable[[], None]]]:
        """What has to be so, and what is done then; at the end, that the workflow has ended."""
        for step in self.pattern.meanwhile:
            yield partial(self.is_at, step), partial(self.do, step)
        yield self.has_ended, lambda: None

    # --- on the way -------------------------------------------------------------------------

    def look(self) -> Workflow:
        return self.store.retrieve(self.workflow.id)

    def is_at(self, step: Step) -> bool:
        runs = runs_of(self.look())
        return all(sorted(runs.get(ref, _EMPTY)) == sorted(r) for ref, r in step.when.items())

    def do(self, step: Step) -> None:
        names = {
            **MESSAGE_TYPES,
            "workflow": self.workflow,
            "orchestrator": self.orchestrator,
            "queue": self.queue,
            "now": {stage.ref_id: stage for stage in self.look().stages}.__getitem__,
        }
        for line in step.lines:
            eval(line, names)  # noqa: S307  # lines of the catalog: what the guide shows

    def has_ended(self) -> bool:
        ids = [self.workflow.id, *self._children()]
        ended = [self.store.retrieve_execution_summary(id).status.is_complete for id in ids]
        return all(ended) and not any(map(self.queue.has_pending_message_for_execution, ids))

    def has_messages(self) -> bool:
        return self.queue.has_pending_message_for_execution(self.workflow.id)

    # --- at the end -------------------------------------------------------------------------

    def check(self) -> None:
        """Everything the pattern promises, and that nothing is left lying about."""
        workflow = self.look()
        runs = runs_of(workflow)
        for ref_id, expected in self.pattern.runs.items():
            assert sorted(runs[ref_id]) == sorted(expected), f"{ref_id}: {self.tell()}"
        assert workflow.status.name == self.pattern.status, self.tell()
        assert set(runs) == set(self.pattern.runs), self.tell()
        self._check_times(workflow)
        put_out = workflow.get_context()
        for key, value in self.pattern.outputs.items():
            assert put_out.get(key) == value, f"{key}: {put_out}"
        for stage in workflow.stage_runs:
            assert stage.status.is_complete or stage.status.name == "NOT_STARTED", self.tell()
        self._check_children()
        with self.queue.database.reading() as session:
            held = session.scalar(
                select(func.count())
                .select_from(Claim)
                .where(Claim.scope == self.workflow.id, Claim.kind != "choice")
            )
        assert held == 0, "a right is still held"

    def _check_times(self, workflow: Workflow) -> None:
        spans = _spans(workflow)
        for first, then in self.pattern.ordered:
            late = f"{then} began before {first} had ended"
            assert spans[first][1] <= spans[then][0] + self.skew_ms, late
        groups = sorted(
            (min(spans[ref][0] for ref in refs), max(spans[ref][1] for ref in refs), refs)
            for refs in self.pattern.apart
        )
        for (_, end, one), (start, _, other) in pairwise(groups):
            at_once = f"{one} and {other} were under way at the same time"
            assert end <= start + self.skew_ms, at_once

    def _check_children(self) -> None:
        """A child ends as its parent does."""
        for id in self._children():
            child = self.store.retrieve_execution_summary(id)
            assert child.status.name == self.pattern.status, f"the child is {child.status}"

    def _children(self) -> Sequence[str]:
        with self.queue.database.reading() as session:
            return session.scalars(
                select(Workflow.id).where(Workflow.parent_workflow_id == self.workflow.id)
            ).all()

    def tell(self) -> str:
        """What the workflow looks like, for the reader of a failure."""
        workflow = self.look()
        errors = {s.ref_id: s.context["error"] for s in workflow.stages if "error" in s.context}
        waiting = {s.ref_id: s.waits_for for s in workflow.stages if s.waits_for}
        return (
            f"{workflow.status.name} {runs_of(workflow)} errors={errors} waiting={waiting} "
            f"messages={self.has_messages()} {workflow.context.get('error', '')}"
        )


def runs_of(workflow: Workflow) -> Mapping[str, Runs]:
    """The statuses of all runs of each stage, the first run first."""
    runs: dict[str, list[str]] = defaultdict(list)
    for stage in workflow.stage_runs:
        runs[stage.ref_id].append(stage.status.name)
    return {ref_id: tuple(statuses) for ref_id, statuses in runs.items()}


def _spans(workflow: Workflow) -> Mapping[str, tuple[int, int]]:
    def span(stage: StageExecution) -> tuple[int, int]:
        assert stage.start_time is not None
        assert stage.end_time is not None
        return stage.start_time, stage.end_time

    return {s.ref_id: span(s) for s in workflow.stages if s.start_time and s.end_time}


def by_hand(play: Play, process_all: Callable[[], object]) -> None:
    """Play in this thread: whenever nothing is left to do, the next step is due."""
    play.begin()
    for is_due, act in play.steps():
        process_all()
        assert is_due(), play.tell()
        act()
    play.check()


def by_others(play: Play, disturb: Callable[[], None] = lambda: None) -> None:
    """Have others do the work; each step is taken once it is due."""
    play.begin()
    disturb()
    tick = threading.Event()
    for is_due, act in play.steps():
        end = time.monotonic() + PATIENCE
        while not is_due():
            assert time.monotonic() < end, play.tell()
            tick.wait(0.01)
        act()
        disturb()
    play.check()
