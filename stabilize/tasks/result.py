"""What a task says when it is done, or not yet done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from stabilize.status import WorkflowStatus


@dataclass
class TaskResult:
    """The result of one execution of a task.

    `context` is merged into the stage's context, `outputs` into its outputs, on every kind of
    result. Make one with the constructors below.
    """

    status: WorkflowStatus
    context: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    target_stage_ref_id: str | None = None
    terminates: bool = False
    child: dict[str, Any] | None = None

    @classmethod
    def success(
        cls, outputs: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None
    ) -> Self:
        """Done; the next task runs, or the stage completes."""
        return cls(WorkflowStatus.SUCCEEDED, dict(context or {}), dict(outputs or {}))

    @classmethod
    def running(cls, context: Mapping[str, Any] | None = None) -> Self:
        """Not done: execute me again after my backoff, as often as it takes."""
        return cls(WorkflowStatus.RUNNING, dict(context or {}))

    @classmethod
    def terminal(cls, error: str, context: Mapping[str, Any] | None = None) -> Self:
        """Failed for good; what that means for the workflow is up to the stage's flags."""
        return cls(WorkflowStatus.TERMINAL, {**(context or {}), "error": error})

    @classmethod
    def failed_continue(
        cls,
        error: str,
        outputs: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """Failed, and everything after it runs all the same."""
        return cls(
            WorkflowStatus.FAILED_CONTINUE, {**(context or {}), "error": error}, dict(outputs or {})
        )

    @classmethod
    def skipped(cls) -> Self:
        """There was nothing to do; the next task runs."""
        return cls(WorkflowStatus.SKIPPED)

    @classmethod
    def canceled(cls, outputs: Mapping[str, Any] | None = None) -> Self:
        """Give up: the stage is canceled, and with it the workflow."""
        return cls(WorkflowStatus.CANCELED, {}, dict(outputs or {}))

    @classmethod
    def stopped(cls, outputs: Mapping[str, Any] | None = None) -> Self:
        """End this branch without failing the workflow."""
        return cls(WorkflowStatus.STOPPED, {}, dict(outputs or {}))

    @classmethod
    def suspend(cls, context: Mapping[str, Any] | None = None) -> Self:
        """Wait for a signal; then execute me again."""
        return cls(WorkflowStatus.SUSPENDED, dict(context or {}))

    @classmethod
    def redirect(cls, context: Mapping[str, Any] | None = None) -> Self:
        """Only meaningful with a target: see `jump_to`."""
        return cls(WorkflowStatus.REDIRECT, dict(context or {}))

    @classmethod
    def jump_to(
        cls,
        target_stage_ref_id: str,
        context: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Go on at another stage, which gets `context`; it and what follows it run anew."""
        return cls(
            WorkflowStatus.REDIRECT, dict(context or {}), dict(outputs or {}), target_stage_ref_id
        )

    @classmethod
    def terminate(cls, outputs: Mapping[str, Any] | None = None) -> Self:
        """Done, and so is the whole workflow: what still runs is withdrawn (WCP-43)."""
        return cls(WorkflowStatus.SUCCEEDED, {}, dict(outputs or {}), terminates=True)

    @classmethod
    def start_child(cls, definition: Mapping[str, Any]) -> Self:
        """Run a child workflow; the task is done when the child is (see `SubWorkflowTask`)."""
        return cls(WorkflowStatus.RUNNING, child=dict(definition))

    @classmethod
    def builder(cls, status: WorkflowStatus) -> TaskResultBuilder:
        return TaskResultBuilder(status)

    def merge_outputs(self, other: TaskResult) -> TaskResult:
        """A new result with this status and both sets of values; those of `other` win."""
        return TaskResult(
            self.status, {**self.context, **other.context}, {**self.outputs, **other.outputs}
        )


class TaskResultBuilder:
    """Builds a `TaskResult` step by step."""

    def __init__(self, status: WorkflowStatus) -> None:
        self._result = TaskResult(status)

    def context(self, values: Mapping[str, Any]) -> Self:
        self._result.context = dict(values)
        return self

    def outputs(self, values: Mapping[str, Any]) -> Self:
        self._result.outputs = dict(values)
        return self

    def add_context(self, key: str, value: Any) -> Self:
        self._result.context[key] = value
        return self

    def add_output(self, key: str, value: Any) -> Self:
        self._result.outputs[key] = value
        return self

    def build(self) -> TaskResult:
        return self._result
