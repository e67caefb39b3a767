"""Drawings of a workflow, of its definition or of a run, for Mermaid and Graphviz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stabilize.dag.nodes import StageNode
from stabilize.status import WorkflowStatus

S = WorkflowStatus
COLOURS: dict[WorkflowStatus, str] = {
    S.NOT_STARTED: "#ffffff",
    S.RUNNING: "#bcd9f7",
    S.PAUSED: "#dcd3f5",
    S.SUSPENDED: "#fdeeb5",
    S.SUCCEEDED: "#c9ebc5",
    S.FAILED_CONTINUE: "#f7dcb4",
    S.TERMINAL: "#f6b9b4",
    S.CANCELED: "#d9d9d9",
    S.STOPPED: "#e9cfc0",
    S.SKIPPED: "#efefef",
}
"""Fill of a stage by the status of its newest run."""


@dataclass(frozen=True)
class _Box:
    number: int
    lines: tuple[str, ...]
    status: WorkflowStatus


def to_mermaid(stages: Sequence[StageNode], runs: Iterable[StageNode]) -> str:
    """A flowchart in the language of Mermaid."""
    boxes = _boxes(stages, runs)
    lines = ["flowchart LR"]
    for box in boxes.values():
        text = "<br/>".join(_for_mermaid(line) for line in box.lines)
        lines.append(f'    s{box.number}["{text}"]:::{box.status.name}')
    for source, target, label in _edges(stages):
        arrow = f'-->|"{_for_mermaid(label)}"|' if label else "-->"
        lines.append(f"    s{boxes[source].number} {arrow} s{boxes[target].number}")
    for status in sorted({box.status for box in boxes.values()}, key=lambda status: status.name):
        colour = COLOURS.get(status, "#ffffff")
        lines.append(f"    classDef {status.name} fill:{colour},stroke:#555,color:#222")
    return "\n".join(lines) + "\n"


def to_dot(stages: Sequence[StageNode], runs: Iterable[StageNode]) -> str:
    """A directed graph in the language of Graphviz."""
    boxes = _boxes(stages, runs)
    lines = [
        "digraph workflow {",
        "    rankdir=LR",
        '    node [shape=box, style="rounded,filled", fontname="sans-serif"]',
    ]
    for box in boxes.values():
        text = "\\n".join(_for_dot(line) for line in box.lines)
        colour = COLOURS.get(box.status, "#ffffff")
        lines.append(f'    s{box.number} [label="{text}", fillcolor="{colour}"]')
    for source, target, label in _edges(stages):
        named = f' [label="{_for_dot(label)}"]' if label else ""
        lines.append(f"    s{boxes[source].number} -> s{boxes[target].number}{named}")
    return "\n".join([*lines, "}"]) + "\n"


def _for_mermaid(text: str) -> str:
    codes: dict[str, str | int | None] = {
        "#": "#35;",
        "&": "&amp;",
        '"': "#quot;",
        "<": "&lt;",
        ">": "&gt;",
    }
    return _in_one_line(text).translate(str.maketrans(codes))


def _for_dot(text: str) -> str:
    return _in_one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _in_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _top_level(stages: Iterable[StageNode]) -> list[StageNode]:
    return [stage for stage in stages if stage.parent_stage_id is None]


def _boxes(stages: Sequence[StageNode], runs: Iterable[StageNode]) -> dict[str, _Box]:
    counted = Counter(run.ref_id for run in runs)
    return {
        stage.ref_id: _Box(number, tuple(_lines(stage, counted[stage.ref_id])), stage.status)
        for number, stage in enumerate(_top_level(stages))
    }


def _lines(stage: StageNode, runs: int) -> list[str]:
    title = stage.ref_id if stage.name in ("", stage.ref_id) else f"{stage.ref_id}: {stage.name}"
    found = (describe(stage) for describe in _NOTES)
    status = [] if stage.status is S.NOT_STARTED else [stage.status.name]
    counted = [f"{runs} runs"] if runs > 1 else []
    return [title, *(note for note in found if note), *status, *counted]


def _join(stage: StageNode) -> str:
    kind = stage.join_type.name
    if kind == "AND" and not stage.join_keep:
        return ""
    parts = [f"join {kind}"]
    if stage.join_threshold:
        parts.append(
            f"{stage.join_threshold} of {len(stage.requisite_stage_ref_ids)}"
            if kind == "N_OF_M"
            else str(stage.join_threshold)
        )
    parts += [word for word in (stage.join_rest, stage.join_scope) if word]
    return " ".join([*parts, "keep"] if stage.join_keep else parts)


def _split(stage: StageNode) -> str:
    kind = stage.split_type.name
    if kind == "AND":
        return ""
    return f"split {kind} {stage.split_count}" if kind == "THREADS" else f"split {kind}"


def _instances(stage: StageNode) -> str:
    config = stage.mi_config
    if config is None:
        return ""
    many = config.collection_from_context or config.count_from_context or config.count
    return f"instances: {many}{' or more' if config.allow_dynamic else ''}"


def _waits(stage: StageNode) -> str:
    notes = {
        "mutex": stage.mutex_key,
        "section": stage.section,
        "choice": stage.deferred_choice_group,
        "region": stage.cancel_region,
    }
    found = [f"{kind} {key}" for kind, key in notes.items() if key]
    if stage.trigger:
        found.append(str(stage.trigger))
    if stage.milestone_ref_id:
        found.append(f"while {stage.milestone_ref_id} is {stage.milestone_status}")
    return ", ".join([*found, "ends the workflow"] if stage.end else found)


_NOTES: tuple[Callable[[StageNode], str], ...] = (_join, _split, _instances, _waits)


def _edges(stages: Sequence[StageNode]) -> list[tuple[str, str, str]]:
    tops = {stage.ref_id: stage for stage in _top_level(stages)}
    return [
        (before, stage.ref_id, _label(tops[before], stage.ref_id))
        for stage in tops.values()
        for before in sorted(stage.requisite_stage_ref_ids)
    ]


def _label(source: StageNode, target: str) -> str:
    condition = (source.split_conditions or {}).get(target, "")
    if source.split_default != target:
        return condition
    return f"{condition} or else" if condition else "else"
