"""What a pattern of the catalog is, and how one is written down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stabilize import StageExecution, TaskExecution
from stabilize.queue.messages import StageLevel

Stages = list[StageExecution]
Runs = tuple[str, ...]
"""The statuses of all runs of a stage, in any order."""

OK: Runs = ("SUCCEEDED",)
SKIPPED: Runs = ("SKIPPED",)
CANCELED: Runs = ("CANCELED",)
FAILED: Runs = ("TERMINAL",)
SUSPENDED: Runs = ("SUSPENDED",)
RUNNING: Runs = ("RUNNING",)
UNTOUCHED: Runs = ("NOT_STARTED",)


def stage(ref_id: str, after: str = "", does: str = "ok", **fields: Any) -> StageExecution:
    """A stage with one task; `after` are the stages it waits for, separated by spaces."""
    return StageExecution(
        ref_id=ref_id,
        requisite_stage_ref_ids=set(after.split()),
        tasks=[TaskExecution.create(does, does)],
        **fields,
    )


@dataclass(frozen=True)
class Step:
    """Once the runs of these stages are as said, these lines are carried out.

    A line is Python: the tests evaluate what the guide shows. It may use `workflow`,
    `orchestrator`, `queue` and `now(ref_id)`, which is the newest run of a stage.
    """

    when: Mapping[str, Runs]
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One pattern.

    `purpose`: what it is for. `condition`: when it may be used. `say`: the words that make it.
    `happens`: what comes of them.
    `runs`: how all runs of each stage end. `apart`: groups of stages whose spans do not overlap.
    `ordered`: pairs of which the first ends before the second begins. `outputs`: what the workflow
    puts out, among other things.
    """

    number: int
    name: str
    purpose: str
    condition: str
    say: str
    happens: str
    stages: Callable[[], Stages]
    runs: Mapping[str, Runs]
    status: str = "SUCCEEDED"
    meanwhile: tuple[Step, ...] = ()
    apart: tuple[tuple[str, ...], ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"wcp_{self.number:02}_{self.name.lower().replace(' ', '_').replace('-', '_')}"


def pattern(number: int, name: str, **fields: Any) -> Callable[[Callable[[], Stages]], Pattern]:
    """Make a pattern of the function that defines its stages and says what they are for."""

    def make(stages: Callable[[], Stages]) -> Pattern:
        purpose = " ".join((inspect.getdoc(stages) or "").split())
        return Pattern(number=number, name=name, purpose=purpose, stages=stages, **fields)

    return make


# --- what is done meanwhile ---------------------------------------------------------------------

CANCEL_ALL = 'orchestrator.cancel(workflow, "Ada", "not wanted any more")'


def signal(ref_id: str, name: str = "go", data: object = None, *, persistent: bool = True) -> str:
    """Send a signal to a stage."""
    arguments = [f'workflow, now("{ref_id}").id, "{name}"']
    arguments += [] if data is None else [repr(data).replace("'", '"')]
    arguments += [] if persistent else ["persistent=False"]
    return f"orchestrator.signal({', '.join(arguments)})"


def cancel(ref_id: str) -> str:
    """Withdraw one stage."""
    return f'orchestrator.cancel_stage(now("{ref_id}"))'


def to_region(region: str) -> str:
    """Withdraw every stage of a region."""
    return f'queue.push(CancelRegion(execution_id=workflow.id, region="{region}"))'


def to_group(kind: type[StageLevel], ref_id: str) -> str:
    """Say something to a group of instances."""
    return f'queue.push({kind.__name__}.of(now("{ref_id}")))'


def instances(ref_id: str, *ends: Runs) -> dict[str, Runs]:
    """The runs of the instances of a stage."""
    return {f"{ref_id}#1[{index}]": end for index, end in enumerate(ends)}
