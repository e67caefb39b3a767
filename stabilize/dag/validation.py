"""What a workflow's definition must satisfy before it may run.

Every check is linear in stages and edges and raises at the first fault, saying which stage, why,
and what to write instead.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.dag.topological import Node, validate_dag

STATUS_NAMES = (
    "NOT_STARTED",
    "RUNNING",
    "PAUSED",
    "SUSPENDED",
    "SUCCEEDED",
    "FAILED_CONTINUE",
    "TERMINAL",
    "CANCELED",
    "REDIRECT",
    "STOPPED",
    "SKIPPED",
    "BUFFERED",
)
OPTIONS = {
    "on_branch_failure": ("fail", "dead", "arrive"),
    "join_rest": ("block", "cancel"),
    "join_scope": ("general",),
    "end": ("terminate",),
}


class InvalidStageGraphError(ValueError):
    """The stages cannot mean anything together; the message begins with the kind of fault."""


class Named(Protocol):
    """A member of an enum, of which only the name counts."""

    @property
    def name(self) -> str: ...


class StageNode(Node, Protocol):
    """What the checks read of a stage."""

    @property
    def name(self) -> str: ...
    @property
    def context(self) -> Mapping[str, object]: ...
    @property
    def join_type(self) -> Named: ...
    @property
    def join_threshold(self) -> int: ...
    @property
    def split_type(self) -> Named: ...
    @property
    def split_conditions(self) -> Mapping[str, str]: ...
    @property
    def split_default(self) -> str | None: ...
    @property
    def split_count(self) -> int | str | None: ...
    @property
    def milestone_ref_id(self) -> str | None: ...
    @property
    def milestone_status(self) -> str | None: ...
    @property
    def mi_config(self) -> object: ...


def validate_stage_graph(stages: Iterable[StageNode]) -> None:
    """Check the top-level stages of a workflow; what follows is the order of the checks.

    Raises `InvalidStageGraphError` with `empty_ref`, `duplicate_ref`, `unreachable_join` (more
    branches wanted than there are), `self_edge` or `unknown_ref` at the head of its message, then
    `CircularDependencyError`, then `InvalidStageGraphError` with `bad_condition`,
    `unknown_branch`, `unknown_milestone`, `bad_milestone_status`, `bad_option` or
    `unreachable_join` (milestones that wait for each other).
    """
    graph = _Graph.of([stage for stage in stages if stage.parent_stage_id is None])
    for check in _CHECKS:
        check(graph)


@dataclass(frozen=True, kw_only=True)
class _Graph:
    stages: Sequence[StageNode]
    by_ref: Mapping[str, StageNode]
    downstream: Mapping[str, list[str]]

    @classmethod
    def of(cls, stages: Sequence[StageNode]) -> _Graph:
        downstream: dict[str, list[str]] = {stage.ref_id: [] for stage in stages}
        for stage in stages:
            for ref in stage.requisite_stage_ref_ids:
                downstream.setdefault(ref, []).append(stage.ref_id)
        by_ref = {stage.ref_id: stage for stage in stages}
        return cls(stages=stages, by_ref=by_ref, downstream=downstream)


def _suggest(wrong: object, known: Collection[str], otherwise: str) -> str:
    """Say which known name was probably meant, else what to do."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(str(wrong).lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}?" if close else otherwise


def _refs_are_given(graph: _Graph) -> None:
    for stage in graph.stages:
        if not stage.ref_id or not stage.ref_id.strip():
            raise InvalidStageGraphError(
                f"empty_ref: a stage (name {stage.name!r}) has no ref_id: "
                "give it one that no other stage of the workflow has"
            )


def _refs_are_unique(graph: _Graph) -> None:
    if len(graph.by_ref) == len(graph.stages):
        return
    ref, count = Counter(stage.ref_id for stage in graph.stages).most_common(1)[0]
    names = ", ".join(repr(stage.name) for stage in graph.stages if stage.ref_id == ref)
    raise InvalidStageGraphError(
        f"duplicate_ref: {ref!r} is the ref_id of {count} stages (names {names}): "
        "give each stage a ref_id of its own"
    )


def _thresholds_are_reachable(graph: _Graph) -> None:
    for stage in graph.stages:
        branches = len(stage.requisite_stage_ref_ids)
        if stage.join_type.name == "N_OF_M" and stage.join_threshold > branches:
            raise InvalidStageGraphError(
                f"unreachable_join: stage {stage.ref_id!r} waits for {stage.join_threshold} "
                f"branches (N_OF_M) but requires only {branches}: lower join_threshold "
                "or add to requisite_stage_ref_ids"
            )


def _no_stage_requires_itself(graph: _Graph) -> None:
    for stage in graph.stages:
        if stage.ref_id in stage.requisite_stage_ref_ids:
            raise InvalidStageGraphError(
                f"self_edge: stage {stage.ref_id!r} requires itself: "
                "take it out of its requisite_stage_ref_ids (a loop is a jump_to)"
            )


def _requisites_exist(graph: _Graph) -> None:
    for stage in graph.stages:
        for ref in sorted(stage.requisite_stage_ref_ids):
            if ref not in graph.by_ref:
                fix = _suggest(ref, graph.by_ref, "add it, or take it out of the requisites")
                raise InvalidStageGraphError(
                    f"unknown_ref: stage {stage.ref_id!r} requires {ref!r}, which is no stage "
                    f"of this workflow: {fix}"
                )


def _is_acyclic(graph: _Graph) -> None:
    validate_dag(graph.stages)


def _conditions_parse(graph: _Graph) -> None:
    for stage in graph.stages:
        for where, condition in _conditions(stage):
            try:
                compile_expression(condition)  # type: ignore[arg-type]  # it refuses other types
            except ExpressionError as error:
                raise InvalidStageGraphError(
                    f"bad_condition: stage {stage.ref_id!r}, {where}: {error}; write names, "
                    "literals, comparisons, arithmetic, and, or, not"
                ) from error


def _conditions(stage: StageNode) -> Iterator[tuple[str, object]]:
    for ref, condition in stage.split_conditions.items():
        yield f"split condition for {ref!r}", condition
    complete_when = getattr(stage.mi_config, "complete_when", None)
    if complete_when:
        yield "complete_when", complete_when
    match stage.context.get("stageEnabled"):
        case None | bool():
            return
        case {"type": "expression", "expression": condition}:
            yield "stageEnabled", condition
        case other:
            raise InvalidStageGraphError(
                f"bad_condition: stage {stage.ref_id!r}, stageEnabled: {other!r} is no condition: "
                'write True, False or {"type": "expression", "expression": "..."}'
            )


def _branches_are_downstream(graph: _Graph) -> None:
    for stage in graph.stages:
        named = [*stage.split_conditions, *filter(None, [stage.split_default])]
        if not named:
            continue
        downstream = graph.downstream[stage.ref_id]
        for ref in named:
            if ref not in downstream:
                raise _unknown_branch(graph, stage, ref, downstream)


def _unknown_branch(
    graph: _Graph, stage: StageNode, ref: str, downstream: Sequence[str]
) -> InvalidStageGraphError:
    what = "a condition" if ref in stage.split_conditions else "split_default"
    after = ", ".join(map(repr, downstream[:10])) or "nothing"
    fix = _suggest(ref, downstream, f"{after} comes directly after it")
    if ref in graph.by_ref:
        fix = f"add {stage.ref_id!r} to the requisite_stage_ref_ids of {ref!r}, or drop it here"
    return InvalidStageGraphError(
        f"unknown_branch: the split of stage {stage.ref_id!r} has {what} for {ref!r}, "
        f"which does not come directly after it: {fix}"
    )
