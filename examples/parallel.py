"""Two stages side by side between a first and a last one; one of them is `async def`."""

from __future__ import annotations

import asyncio
import time

from stabilize import (
    Orchestrator,
    QueueProcessor,
    SqliteQueue,
    SqliteWorkflowStore,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
)

DATABASE = "sqlite:///:memory:"
SECONDS = 0.4


def check_out(stage: StageExecution) -> TaskResult:
    return TaskResult.success(outputs={"revision": "4f2a"})


def run_tests(stage: StageExecution) -> TaskResult:
    time.sleep(SECONDS)
    return TaskResult.success(outputs={"tests": "312 passed"})


async def run_linter(stage: StageExecution) -> TaskResult:
    await asyncio.sleep(SECONDS)
    return TaskResult.success(outputs={"findings": 0})


def deploy(stage: StageExecution) -> TaskResult:
    """See what all stages before this one have put out."""
    seen = stage.context
    said = f"{seen['revision']}: {seen['tests']}, {seen['findings']} findings"
    return TaskResult.success(outputs={"deployed": said})


def stage(ref_id: str, *requisites: str) -> StageExecution:
    return StageExecution(
        ref_id=ref_id,
        requisite_stage_ref_ids=set(requisites),
        tasks=[TaskExecution.create(ref_id, ref_id)],
    )


def main() -> None:
    store = SqliteWorkflowStore(DATABASE)
    queue = SqliteQueue(DATABASE)
    registry = TaskRegistry()
    for name, task in {
        "setup": check_out,
        "test": run_tests,
        "lint": run_linter,
        "deploy": deploy,
    }.items():
        registry.register(name, task)

    workflow = Workflow.create(
        application="examples",
        name="release",
        stages=[
            stage("setup"),
            stage("test", "setup"),
            stage("lint", "setup"),
            stage("deploy", "test", "lint"),
        ],
    )
    Orchestrator(queue, store).start(workflow)
    began = time.perf_counter()
    QueueProcessor(queue, store=store, task_registry=registry).process_all(timeout=10)
    took = time.perf_counter() - began

    result = store.retrieve(workflow.id)
    print(result.get_context()["deployed"])
    print(f"{result.status}, overlapped: {took < 2 * SECONDS}")


if __name__ == "__main__":
    main()
