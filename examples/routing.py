"""A loop: a check that does not pass sends the workflow back to an earlier stage."""

from __future__ import annotations

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


def write(stage: StageExecution) -> TaskResult:
    """Write a draft; each round takes the remark of the last review into account."""
    round_number = stage.context.get("round", 1)
    remark = stage.context.get("remark", "none")
    return TaskResult.success(outputs={"draft": f"draft {round_number} (remark: {remark})"})


def review(stage: StageExecution) -> TaskResult:
    """Let the third draft pass."""
    round_number = stage.context.get("round", 1)
    print(f"reviewing {stage.context['draft']}")
    if round_number == 3:
        return TaskResult.success()
    return TaskResult.jump_to(
        "write", context={"round": round_number + 1, "remark": f"too long, round {round_number}"}
    )


def publish(stage: StageExecution) -> TaskResult:
    return TaskResult.success(outputs={"published": stage.context["draft"]})


def main() -> None:
    store = SqliteWorkflowStore(DATABASE)
    queue = SqliteQueue(DATABASE)
    registry = TaskRegistry()
    registry.register("write", write)
    registry.register("review", review)
    registry.register("publish", publish)

    stages = []
    before: set[str] = set()
    for ref_id in ("write", "review", "publish"):
        stages.append(
            StageExecution(
                ref_id=ref_id,
                requisite_stage_ref_ids=before,
                tasks=[TaskExecution.create(ref_id, ref_id)],
            )
        )
        before = {ref_id}
    workflow = Workflow.create(application="examples", name="article", stages=stages)
    Orchestrator(queue, store).start(workflow)
    QueueProcessor(queue, store=store, task_registry=registry).process_all(timeout=10)

    result = store.retrieve(workflow.id)
    runs = [run for run in result.stage_runs if run.ref_id == "review"]
    print(f"{result.status} after {len(runs)} reviews")
    print(f"published {result.get_context()['published']}")


if __name__ == "__main__":
    main()
