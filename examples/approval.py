"""A stage that waits for a person: it suspends, and a signal wakes it.

While it waits, nothing is held but a row: the processor has nothing to do and may be stopped.
"""

from __future__ import annotations

from stabilize import (
    Orchestrator,
    QueueProcessor,
    SqliteQueue,
    SqliteWorkflowStore,
    StageExecution,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
)

DATABASE = "sqlite:///:memory:"


class Approval(Task):
    """Wait for somebody to decide."""

    def execute(self, stage: StageExecution) -> TaskResult:
        decision = stage.context.get("_signal_name")
        if decision is None:
            return TaskResult.suspend()
        by = stage.context["_signal_data"]["by"]
        if decision == "approved":
            return TaskResult.success(outputs={"approved_by": by})
        return TaskResult.terminal(f"refused by {by}")


def pay(stage: StageExecution) -> TaskResult:
    return TaskResult.success(outputs={"paid": stage.context["amount"]})


def main() -> None:
    store = SqliteWorkflowStore(DATABASE)
    queue = SqliteQueue(DATABASE)
    registry = TaskRegistry()
    registry.register("approval", Approval)
    registry.register("pay", pay)
    orchestrator = Orchestrator(queue, store)
    processor = QueueProcessor(queue, store=store, task_registry=registry)

    workflow = Workflow.create(
        application="examples",
        name="invoice",
        stages=[
            StageExecution(
                ref_id="approve", tasks=[TaskExecution.create("Ask for approval", "approval")]
            ),
            StageExecution(
                ref_id="pay",
                context={"amount": 120},
                requisite_stage_ref_ids={"approve"},
                tasks=[TaskExecution.create("Pay", "pay")],
            ),
        ],
    )
    orchestrator.start(workflow)
    processor.process_all(timeout=10)
    waiting = store.retrieve(workflow.id).stages[0]
    print(f"stage {waiting.ref_id!r} is {waiting.status}")

    orchestrator.signal(workflow, waiting.id, "approved", {"by": "Ada"})
    processor.process_all(timeout=10)
    result = store.retrieve(workflow.id)
    seen = result.get_context()
    print(f"{result.status}: {seen['approved_by']} approved, {seen['paid']} paid")


if __name__ == "__main__":
    main()
