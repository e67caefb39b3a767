"""Processes die around each commit: `python -m tests.events.dying URL TARGET SHAPE EVERY FIRST`.

Places are before and after each commit, in the database and in the event store TARGET: first those
of the thread that plays, then those of the one that copies. For each place (or every EVERY-th, from
the FIRST on) a process is forked that starts a workflow, plays it and kills itself there; another
one plays what is left. In the end the events are compared with the tables, and with TARGET. It
prints how many processes died and how many workflows were compared.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import configure_mappers

from stabilize import (
    Database,
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
from stabilize.events import Event, SqlEventStore, SqliteEventStore, configure_event_sourcing
from tests.crash.shapes import AtOnce
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
        turns = stage.context.get("turns", 0)
        if does == "jump" and turns < 2:
            return TaskResult.jump_to("a", context={"turns": turns + 1})
        return TaskResult.success(outputs={stage.ref_id: 1, "turns": turns}, context={"done": True})


def stage(ref: str, *after: str, does: str = "", tasks: int = 1, **fields: Any) -> StageExecution:
    return StageExecution(
        ref_id=ref,
        requisite_stage_ref_ids=set(after),
        context={"does": does, **fields.pop("context", {})},
        tasks=[TaskExecution.create(f"t{n}", "body") for n in range(tasks)],
        **fields,
    )


_OR = {"split_type": SplitType.OR, "split_conditions": {"b": "1 == 1", "c": "1 == 2"}}
THREADS = ("MainThread", "stabilize-relay")
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


def _play(url: str, target: str, made: Workflow | None, thread: str, deadly: int) -> None:
    queue, store = Queue(url, lock_duration=timedelta(milliseconds=50)), SqliteEventStore(target)
    configure_event_sourcing(store)
    registry = TaskRegistry()
    registry.register("body", Body)
    passed = itertools.count(1)

    def watch(database: Database) -> None:
        dialect = database.engine.dialect
        commit = dialect.do_commit

        def watched(connection: Any) -> None:
            for step in (lambda: None, lambda: commit(connection)):
                step()
                if threading.current_thread().name == thread and next(passed) == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)

        dialect.do_commit = watched  # type: ignore[method-assign, assignment]

    watch(queue.database)
    watch(store.database)
    if made is not None:
        Orchestrator(queue).start(made)
    QueueProcessor(queue, task_registry=registry, executor=AtOnce()).process_all(20)


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


def main(url: str, target: str, shape: str, every: str, first: str) -> None:
    kept = Database.at(url)  # so that no child has to load the driver
    configure_mappers()
    deaths = 0
    for thread in THREADS:
        for place in itertools.count(int(first), int(every)):
            made = Workflow.create("dying", shape, SHAPES[shape]())
            status = _forked(partial(_play, url, target, made, thread, place))
            if status == 0:
                break
            assert status == -signal.SIGKILL, status
            assert _forked(partial(_play, url, target, None, "", 0)) == 0
            deaths += 1
    here, there = SqlEventStore(kept), SqliteEventStore(target)
    assert _all(here) == _all(there)
    compared = check(here.database)
    assert check(here.database, there) == compared
    print(deaths, compared)


def _all(store: SqlEventStore) -> list[Event]:
    return [replace(event, sequence=0) for event in store.get_events_since(0, 10**6)]


if __name__ == "__main__":
    main(*sys.argv[1:])
