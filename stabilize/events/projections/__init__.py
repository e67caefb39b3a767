"""Projections: views that events add up to, in memory or in tables of your own."""

from stabilize.events.projections.base import Projection
from stabilize.events.projections.metrics import (
    StageMetrics,
    StageMetricsProjection,
    TaskMetrics,
)
from stabilize.events.projections.tables import TableProjection, TableProjectionRunner
from stabilize.events.projections.timeline import (
    TimelineEntry,
    WorkflowTimeline,
    WorkflowTimelineProjection,
)

__all__ = [
    "Projection",
    "StageMetrics",
    "StageMetricsProjection",
    "TableProjection",
    "TableProjectionRunner",
    "TaskMetrics",
    "TimelineEntry",
    "WorkflowTimeline",
    "WorkflowTimelineProjection",
]
