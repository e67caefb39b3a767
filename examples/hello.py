"""The smallest workflow: one stage, one task, one greeting."""

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


def greet(stage: StageExecution) -> TaskResult:
    """Put a greeting out for whom the stage's context names."""
    return TaskResult.success(outputs={"greeting": f"Hello, {stage.context['name']}!"})


def main() -> None:
    store = SqliteWorkflowStore(DATABASE, create_tables=True)
    queue = SqliteQueue(DATABASE)
    registry = TaskRegistry()
    registry.register("greet", greet)

    workflow = Workflow.create(
        application="examples",
        name="hello",
        stages=[
            StageExecution(
                ref_id="greeting",
                context={"name": "Stabilize"},
                tasks=[TaskExecution.create("Greet", "greet")],
            )
        ],
    )
    Orchestrator(queue, store).start(workflow)
    QueueProcessor(queue, store=store, task_registry=registry).process_all(timeout=10)

    result = store.retrieve(workflow.id)
    print(f"The workflow {result.status.name.lower()}.")
    print(result.stages[0].outputs["greeting"])


if __name__ == "__main__":
    main()
