"""How often stages and tasks run, how they end, and how long they take."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from stabilize.events.base import Event
from stabilize.events.projections.base import Projection, SeenEvents

_SMALL = 20


class _Rates:
    """What counts and durations come to; rates are percentages of what ended well or badly."""

    success_count: int
    failure_count: int
    durations: list[int]

    def _rate(self, count: int) -> float:
        ended = self.success_count + self.failure_count
        return 100.0 * count / ended if ended else 0.0

    @property
    def success_rate(self) -> float:
        return self._rate(self.success_count)

    @property
    def failure_rate(self) -> float:
        return self._rate(self.failure_count)

    @property
    def avg_duration_ms(self) -> float:
        return sum(self.durations) / len(self.durations) if self.durations else 0.0

    @property
    def median_duration_ms(self) -> float:
        return float(median(self.durations)) if self.durations else 0.0

    @property
    def p95_duration_ms(self) -> float:
        """The 95th percentile; below 20 durations the longest."""
        if not self.durations:
            return 0.0
        ordered = sorted(self.durations)
        if len(ordered) < _SMALL:
            return float(ordered[-1])
        return float(ordered[int(len(ordered) * 0.95)])

    @property
    def min_duration_ms(self) -> int:
        return min(self.durations, default=0)

    @property
    def max_duration_ms(self) -> int:
        return max(self.durations, default=0)


@dataclass
class StageMetrics(_Rates):
    """The stages of one type; durations in milliseconds."""

    stage_type: str
    execution_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    skip_count: int = 0
    durations: list[int] = field(default_factory=list)


@dataclass
class TaskMetrics(_Rates):
    """The tasks of one name; durations in milliseconds."""

    task_name: str
    implementing_class: str = ""
    execution_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    retry_count: int = 0
    durations: list[int] = field(default_factory=list)


_COUNTERS = {
    "started": "execution_count",
    "completed": "success_count",
    "failed": "failure_count",
    "skipped": "skip_count",
    "retried": "retry_count",
}


class StageMetricsProjection(Projection):
    """Metrics by stage type and by task name, from the events of any number of workflows."""

    def __init__(self) -> None:
        self._stages: dict[str, StageMetrics] = {}
        self._tasks: dict[str, TaskMetrics] = {}
        self._seen = SeenEvents()

    @property
    def name(self) -> str:
        return "stage-metrics"

    def apply(self, event: Event) -> None:
        entity, _, verb = event.event_type.value.partition(".")
        counter = _COUNTERS.get(verb)
        if entity not in ("stage", "task") or counter is None or not self._seen.is_new(event):
            return
        data = event.data
        metrics: StageMetrics | TaskMetrics
        if entity == "stage":
            key = str(data.get("type") or "")
            metrics = self._stages.setdefault(key, StageMetrics(key))
        else:
            key = str(data.get("name") or "")
            metrics = self._tasks.setdefault(key, TaskMetrics(key))
            metrics.implementing_class = data.get("implementing_class", metrics.implementing_class)
        setattr(metrics, counter, getattr(metrics, counter) + 1)
        if verb == "completed" and data.get("duration_ms") is not None:
            metrics.durations.append(int(data["duration_ms"]))

    def get_state(self) -> dict[str, StageMetrics]:
        """The metrics by stage type; a copy."""
        return deepcopy(self._stages)

    def get_task_state(self) -> dict[str, TaskMetrics]:
        """The metrics by task name; a copy."""
        return deepcopy(self._tasks)

    def get_metrics_for_type(self, stage_type: str) -> StageMetrics | None:
        return deepcopy(self._stages.get(stage_type))

    def get_task_metrics_for_name(self, task_name: str) -> TaskMetrics | None:
        return deepcopy(self._tasks.get(task_name))

    def get_top_slowest_stages(self, n: int = 10) -> list[tuple[str, float]]:
        """The `n` stage types that take longest on average, in milliseconds."""
        return _top({k: m.avg_duration_ms for k, m in self._stages.items() if m.durations}, n)

    def get_top_failing_stages(self, n: int = 10) -> list[tuple[str, float]]:
        """The `n` stage types that fail most, with their rates in percent."""
        return _top({k: m.failure_rate for k, m in self._stages.items() if m.failure_count}, n)

    def reset(self) -> None:
        self._stages.clear()
        self._tasks.clear()
        self._seen = SeenEvents()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "stages": {key: asdict(metrics) for key, metrics in self._stages.items()},
            "tasks": {key: asdict(metrics) for key, metrics in self._tasks.items()},
        }


def _top(values: dict[str, float], n: int) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:n]
