"""A task that runs another workflow and brings its outputs back (WCP-22)."""

from __future__ import annotations

from stabilize.models.definition import SUB_WORKFLOW
from stabilize.models.stage import StageExecution
from stabilize.tasks.interface import Task
from stabilize.tasks.result import TaskResult

MAX_DEPTH = 10


class SubWorkflowTask(Task):
    """Runs the child workflow that the stage's context defines and waits for its end.

    `_sub_workflow_config`: `application`, `name`, `stages` (stages or plain values), `context`.
    Outputs: `sub_workflow_id`, `sub_workflow_status`, `sub_workflow_outputs`. A child may start
    children of its own, `_max_recursion_depth` (10) deep. Canceling the parent cancels the child.
    """

    aliases = ("subWorkflow", "sub_workflow", "childWorkflow")

    def execute(self, stage: StageExecution) -> TaskResult:
        config = stage.settings.get(SUB_WORKFLOW)
        if not isinstance(config, dict) or not config.get("stages"):
            return TaskResult.terminal(
                f"stage {stage.ref_id!r} has no {SUB_WORKFLOW} with stages in its context"
            )
        deepest = int(stage.settings.get("_max_recursion_depth", MAX_DEPTH))
        if stage.execution.depth >= deepest:
            return TaskResult.terminal(f"child workflows are nested deeper than {deepest}")
        return TaskResult.start_child(config)
