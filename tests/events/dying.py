"""Processes that die around each commit: `python -m tests.events.dying URL TARGET SHAPE`.

For each place a process is forked that starts a workflow, plays it and kills itself there; another
one plays what is left. In the end the events are compared with the tables, here and in TARGET. It
prints how many places there were.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    SplitType,
    StageExecution,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    TransientError,
    Workflow,
)
from stabilize.events import SqlEventStore, SqliteEventStore, configure_event_sourcing
from tests.support.replayed import check


class Body(Task):
    """Does what the context of its stage says."""

    def execute(self, stage: StageExecution) -> TaskResult:
        does = stage.context.get("does")
        if does == "fail":
            return TaskResult.terminal("as it was told")
        if does == "retry" and stage.context.get("tries", 0) < 2:
            tries = stage.context.get("tries", 0) + 1
            raise TransientError("busy", retry_after=0, context_update={"tries": tries})
        if does == "jump" and stage.context.get("_jump_count", 0) < 2:
            return TaskResult.jump_to("a")
        return TaskResult.success(outputs={stage.ref_id: 1}, context={"done": True})


def stage(ref: str, *after: str, does: str = "", tasks: int = 1, **fields: Any) -> StageExecution:
    return StageExecution(
        ref_id=ref,
        requisite_stage_ref_ids=set(after),
        context={"does": does, **fields.pop("context", {})},
        tasks=[TaskExecution.create(f"t{n}", "body") for n in range(tasks)],
        **fields,
    )


_OR = {"split_type": SplitType.OR, "split_conditions": {"b": "1 == 1", "c": "1 == 2"}}
SHAPES: dict[str, Callable[[], list[StageExecution]]] = {
    "one": lambda: [stage("a")],
    "tasks": lambda: [stage("a", tasks=3)],
    "chain": lambda: [stage("a"), stage("b", "a"), stage("c", "b")],
    "diamond": lambda: [stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c")],
    "split": lambda: [stage("a", **_OR), stage("b", "a"), stage("c", "a"), stage("d", "b", "c")],
    "failure": lambda: [stage("a"), stage("b", "a", does="fail", tasks=2), stage("c", "b")],
    "goes on": lambda: [
        stage("a", does="fail", context={"continuePipelineOnFailure": True}),
        stage("b", "a"),
    ],
    "retries": lambda: [stage("a", does="retry"), stage("b", "a")],
    "loop": lambda: [stage("a"), stage("b", "a", does="jump")],
    "skipped": lambda: [stage("a", context={"stageEnabled": False}), stage("b", "a")],
}


def _play(url: str, target: str, deadly: int, made: Workflow | None) -> None:
    queue = Queue(url, lock_duration=timedelta(milliseconds=150))
    configure_event_sourcing(SqliteEventStore(target))
    registry = TaskRegistry()
    registry.register("body", Body)
    commit = queue.database.engine.dialect.do_commit
    passed = 0

    def watched(connection: Any) -> None:
        nonlocal passed
        for step in (lambda: None, lambda: commit(connection)):
            step()
            passed += 1
            if passed == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    queue.database.engine.dialect.do_commit = watched  # type: ignore[method-assign, assignment]
    if made is not None:
        Orchestrator(queue).start(made)
    QueueProcessor(queue, task_registry=registry).process_all(20)


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(url: str, target: str, shape: str) -> None:
    deadly = 0
    while True:
        deadly += 1
        made = Workflow.create("dying", shape, SHAPES[shape]())
        status = _forked(lambda n=deadly, w=made: _play(url, target, n, w))  # type: ignore[misc]
        if status == 0:
            break
        assert status == -signal.SIGKILL, status
        assert _forked(lambda: _play(url, target, 0, None)) == 0
    here, there = SqlEventStore(url), SqliteEventStore(target)
    assert [e.event_id for e in here.get_events_since(0, 10**6)] == [
        e.event_id for e in there.get_events_since(0, 10**6)
    ]
    compared = check(here.database)
    assert check(here.database, there) == compared
    print(deadly - 1, compared)


if __name__ == "__main__":
    main(*sys.argv[1:])
