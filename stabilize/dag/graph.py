"""Builds a small graph of stages: what a stage builder fills in."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

S = TypeVar("S", bound=Any)
"""Stages: with a `ref_id` and a set `requisite_stage_ref_ids`."""


class StageGraphBuilder(Generic[S]):
    """Stages and the edges between them, in the order they were added."""

    def __init__(self) -> None:
        self.stages: list[S] = []

    @property
    def last_stage(self) -> S | None:
        return self.stages[-1] if self.stages else None

    def is_empty(self) -> bool:
        return not self.stages

    def add(self, stage: S) -> S:
        """Add a stage that depends on nothing yet."""
        self.stages.append(stage)
        return stage

    def append(self, stage: S) -> S:
        """Add a stage that runs after the one added last."""
        last = self.last_stage
        self.add(stage)
        if last is not None:
            self.connect(last, stage)
        return stage

    def connect(self, upstream: S, downstream: S) -> None:
        """Let `downstream` wait for `upstream`."""
        downstream.requisite_stage_ref_ids.add(upstream.ref_id)

    def build(self) -> list[S]:
        return list(self.stages)
