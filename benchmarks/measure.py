"""One measurement in a process of its own: a JSON object in, a JSON object out."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine import (
    EventsMissing,
    MeasuredEngine,
    chain,
    fan_out,
    one_task,
    percentile,
)
from stabilize import Workflow

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: its kind says which figures come out."""

    title: str
    kind: str
    measure: Callable[[MeasuredEngine], Figures]


def _throughput(make: Callable[[], Sequence[Workflow]]) -> Callable[[MeasuredEngine], Figures]:
    def measure(engine: MeasuredEngine) -> Figures:
        warm_up(engine)
        workflows = make()
        submitted = engine.submit(workflows)
        ran = engine.run()
        engine.check(workflows)
        return {
            "workflows": len(workflows),
            "stages": sum(len(workflow.stages) for workflow in workflows),
            "submitted": submitted,
            "ran": ran,
            "commits": engine.commits,
        }

    return measure


def _latency(engine: MeasuredEngine) -> Figures:
    engine.latencies(20)
    found = engine.latencies(200)
    return {"median": statistics.median(found), "p95": percentile(found, 95)}


def _ratio(
    make: Callable[[int], Workflow], small: int, large: int
) -> Callable[[MeasuredEngine], Figures]:
    """The time per stage at two sizes, one workflow at a time, small and large in turn.

    It is the time from start to end that the store has: what a processor needs to open and close
    is left out, for it would weigh on the small ones only.
    """

    def per_stage(engine: MeasuredEngine, size: int) -> float:
        workflow = make(size)
        engine.submit([workflow])
        engine.run()
        engine.check([workflow])
        return engine.duration(workflow) / len(workflow.stages)

    def measure(engine: MeasuredEngine) -> Figures:
        warm_up(engine)
        few: list[float] = []
        many: list[float] = []
        for _ in range(3):
            few += [per_stage(engine, small) for _ in range(5)]
            many.append(per_stage(engine, large))
        at_small, at_large = statistics.median(few), statistics.median(many)
        return {"small": at_small, "large": at_large, "ratio": at_large / at_small}

    return measure


def warm_up(engine: MeasuredEngine) -> None:
    """Open connections and compile statements before the time is taken."""
    engine.submit([chain(3), fan_out(3)])
    engine.run()


CASES = {
    "one": Case(
        title="1,000 one-task workflows",
        kind="throughput",
        measure=_throughput(lambda: [one_task() for _ in range(1_000)]),
    ),
    "chains": Case(
        title="100 chains of ten stages",
        kind="throughput",
        measure=_throughput(lambda: [chain(10) for _ in range(100)]),
    ),
    "fan-out": Case(
        title="fan-out 1 → 1,000 → 1",
        kind="throughput",
        measure=_throughput(lambda: [fan_out(1_000)]),
    ),
    "latency": Case(title="one workflow, idle processor", kind="latency", measure=_latency),
    "chain-ratio": Case(
        title="chain of 50 / of 2,000", kind="ratio", measure=_ratio(chain, 50, 2_000)
    ),
    "fan-out-ratio": Case(
        title="fan-out of 10 / of 1,000", kind="ratio", measure=_ratio(fan_out, 10, 1_000)
    ),
}


def main() -> None:
    asked = json.loads(sys.argv[1])
    try:
        engine = MeasuredEngine(asked["url"], events=asked["events"])
    except EventsMissing as error:
        print(json.dumps({"missing": str(error)}))
        return
    print(json.dumps(CASES[asked["case"]].measure(engine)))


if __name__ == "__main__":
    main()
