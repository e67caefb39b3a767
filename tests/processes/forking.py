"""Forks in the middle of its work: `python -m tests.processes.forking URL`.

Prints what parent and child found out, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import sys

from sqlalchemy import Engine, create_engine

from stabilize import (
    Database,
    Orchestrator,
    Queue,
    QueueProcessor,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
    new_id,
)


def connections(engine: Engine, count: int) -> list[object]:
    """What `count` connections of the pool stand on."""
    opened = [engine.connect() for _ in range(count)]
    found: list[object] = [one.connection.driver_connection for one in opened]
    for one in opened:
        one.close()
    return found


def work(target: str | Engine, name: str) -> list[str]:
    """Run a few workflows in a queue of its own; their statuses."""
    queue = Queue(target, table_name=name)
    registry = TaskRegistry()
    registry.register("body", lambda stage: TaskResult.success({"from": stage.context.get("x")}))
    orchestrator = Orchestrator(queue)
    ids = []
    for _ in range(20):
        stages = [
            StageExecution(
                ref_id=str(n),
                requisite_stage_ref_ids={str(n - 1)} if n else set(),
                tasks=[TaskExecution.create("body", "body")],
            )
            for n in range(3)
        ]
        workflow = Workflow.create("fork", "fork", stages)
        orchestrator.start(workflow)
        ids.append(workflow.id)
    QueueProcessor(queue, task_registry=registry).process_all(20)
    return [orchestrator.get_execution(id).status.name for id in ids]


def report(who: str, **found: object) -> None:
    os.write(1, (json.dumps({"who": who, **found}) + "\n").encode())


def main(url: str, on: str) -> None:
    target = url if on == "url" else create_engine(url)
    database = Database.at(target)
    work(target, "before")
    old = connections(database.engine, 3)
    child = os.fork()
    if child == 0:
        try:
            shared = [one for one in connections(database.engine, 3) if one in old]
            report("child", shared=len(shared), statuses=work(target, "child"), id=new_id())
        finally:
            os._exit(0)
    report("parent", shared=0, statuses=work(target, "parent"), id=new_id())
    os.waitpid(child, 0)
    # The child's end has not cut off what the parent goes on with.
    report("parent afterwards", shared=0, statuses=work(target, "after"), id=new_id())


if __name__ == "__main__":
    main(*sys.argv[1:])
