"""What a workflow's definition must satisfy before it may run: every stage, one fault at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.dag.names import suggest
from stabilize.dag.nodes import StageNode
from stabilize.dag.topological import MAX_NAMES, follow_to_circle, validate_dag
from stabilize.status import JoinType, SplitType, SyntheticStageOwner, WorkflowStatus

STATUS_NAMES = tuple(status.name for status in WorkflowStatus)
KINDS = {
    "join_type": JoinType,
    "split_type": SplitType,
    "synthetic_stage_owner": SyntheticStageOwner,
}
STATUSES_BEFORE_THE_START = ("NOT_STARTED", "SKIPPED")
OPTIONS = {
    "on_branch_failure": ("fail", "dead", "arrive"),
    "join_rest": ("block", "cancel"),
    "join_scope": ("general",),
    "end": ("terminate",),
}


_FITS = {
    "join_rest": ("DISCRIMINATOR", "N_OF_M"),
    "join_scope": ("AND", "OR"),
    "join_keep": ("AND", "OR"),
}
"""The joins that an option changes as it says."""


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_OF_GROUPS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "count": (_is_count, "a number from 0 up"),
    "join_threshold": (_is_count, "a number from 0 up"),
    "count_from_context": (_is_text, "the context key of a number"),
    "collection_from_context": (_is_text, "the context key of a list"),
    "item_context_key": (_is_text, "the context key that each item is put under"),
    "complete_when": (_is_text, "a condition as text"),
    "sync_on_complete": (_is_flag, "True or False"),
    "allow_dynamic": (_is_flag, "True or False"),
    "cancel_remaining": (_is_flag, "True or False"),
}
"""What the fields of `mi_config` have to be, and what to write."""


class InvalidStageGraphError(ValueError):
    """The stages mean nothing together; the message begins with the kind of fault."""


def validate_stage_graph(stages: Iterable[StageNode]) -> None:
    """Check the top-level stages of a workflow, in time linear in stages and edges.

    Raises `InvalidStageGraphError` with `bad_option` (a value that is no member of its enum),
    `empty_ref`, `duplicate_ref`, `unreachable_join` (more
    branches wanted than there are), `self_edge` or `unknown_ref` at the head of its message, then
    `CircularDependencyError`, then `InvalidStageGraphError` with `bad_condition`,
    `unknown_branch`, `unknown_milestone`, `bad_milestone_status`, `bad_option` or
    `unreachable_join` (milestones that wait for each other), in this order.
    """
    stages = list(stages)
    for stage in stages:
        _check_kinds(stage)
    graph = _Graph.of([stage for stage in stages if stage.parent_stage_id is None])
    _check(graph, _empty_ref, _duplicate_ref, _unreachable_threshold, _self_edge, _unknown_ref)
    validate_dag(graph.stages)
    _check(graph, _bad_condition, _unknown_branch, _unknown_milestone)
    _check(graph, _bad_milestone_status, _bad_option, _bad_group)
    _check_mutual_waits(graph)


@dataclass(frozen=True, kw_only=True)
class _Graph:
    stages: Sequence[StageNode]
    by_ref: Mapping[str, StageNode]
    count_of: Mapping[str, int]
    downstream: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, stages: Sequence[StageNode]) -> _Graph:
        downstream: dict[str, list[str]] = {stage.ref_id: [] for stage in stages}
        for stage in stages:
            for ref in stage.requisite_stage_ref_ids:
                downstream.setdefault(ref, []).append(stage.ref_id)
        by_ref = {stage.ref_id: stage for stage in stages}
        counts = Counter(stage.ref_id for stage in stages)
        return cls(stages=stages, by_ref=by_ref, count_of=counts, downstream=downstream)


_Check = Callable[[_Graph, StageNode], Iterator[str]]


def _check(graph: _Graph, *checks: _Check) -> None:
    for check in checks:
        for stage in graph.stages:
            for fault in check(graph, stage):
                raise InvalidStageGraphError(fault)


def _check_kinds(stage: StageNode) -> None:
    """Refuse what is no member of an enum: every other check counts on it, of all stages."""
    for option, kind in KINDS.items():
        value = getattr(stage, option, None)
        if value is not None and not isinstance(value, kind):
            fix = suggest(value, list(kind.__members__), "write one of these")
            raise InvalidStageGraphError(
                f"bad_option: stage {stage.ref_id!r} has {option}={value!r}, which is no "
                f"{kind.__name__} ({', '.join(kind.__members__)}): {fix}"
            )


def _empty_ref(_: _Graph, stage: StageNode) -> Iterator[str]:
    if not stage.ref_id or not stage.ref_id.strip():
        yield f"empty_ref: the stage named {stage.name!r} has no ref_id: give it one of its own"


def _duplicate_ref(graph: _Graph, stage: StageNode) -> Iterator[str]:
    if graph.count_of[stage.ref_id] > 1:
        names = ", ".join(repr(s.name) for s in graph.stages if s.ref_id == stage.ref_id)
        yield (
            f"duplicate_ref: {stage.ref_id!r} is the ref_id of {graph.count_of[stage.ref_id]} "
            f"stages (named {names}): give each a ref_id of its own"
        )


def _unreachable_threshold(_: _Graph, stage: StageNode) -> Iterator[str]:
    branches = len(stage.requisite_stage_ref_ids)
    if stage.join_type.name == "N_OF_M" and stage.join_threshold > branches:
        yield (
            f"unreachable_join: stage {stage.ref_id!r} waits for {stage.join_threshold} branches "
            f"but requires only {branches}: lower join_threshold or add to requisite_stage_ref_ids"
        )


def _self_edge(_: _Graph, stage: StageNode) -> Iterator[str]:
    if stage.ref_id in stage.requisite_stage_ref_ids:
        yield (
            f"self_edge: stage {stage.ref_id!r} requires itself: take it out of its "
            "requisite_stage_ref_ids (a loop is a jump_to, not a requisite)"
        )


def _unknown_ref(graph: _Graph, stage: StageNode) -> Iterator[str]:
    for ref in sorted(ref for ref in stage.requisite_stage_ref_ids if ref not in graph.by_ref):
        yield (
            f"unknown_ref: stage {stage.ref_id!r} requires {ref!r}, which is no stage of this "
            f"workflow: {suggest(ref, graph.by_ref, 'add it, or take it out')}"
        )


def _bad_condition(_: _Graph, stage: StageNode) -> Iterator[str]:
    for where, condition in _conditions(stage):
        try:
            compile_expression(condition)  # type: ignore[arg-type]  # it refuses other types
        except ExpressionError as error:
            yield (
                f"bad_condition: stage {stage.ref_id!r}, {where}: {error}; write names, literals, "
                "comparisons, arithmetic, and, or, not"
            )
    enabled = stage.context.get("stageEnabled")
    if not _is_conditional(enabled) and not isinstance(enabled, bool | None):
        yield (
            f"bad_condition: stage {stage.ref_id!r}, stageEnabled: {enabled!r} is no condition; "
            'write True, False or {"type": "expression", "expression": "..."}'
        )


def _conditions(stage: StageNode) -> Iterator[tuple[str, object]]:
    for ref, condition in (stage.split_conditions or {}).items():
        yield f"split condition for {ref!r}", condition
    if complete_when := getattr(stage.mi_config, "complete_when", None):
        yield "complete_when", complete_when
    enabled = stage.context.get("stageEnabled")
    if _is_conditional(enabled):
        yield "stageEnabled", enabled["expression"]


def _is_conditional(enabled: object) -> TypeGuard[Mapping[str, object]]:
    return (
        isinstance(enabled, Mapping)
        and enabled.get("type") == "expression"
        and "expression" in enabled
    )


def _unknown_branch(graph: _Graph, stage: StageNode) -> Iterator[str]:
    conditions = stage.split_conditions or {}
    named = [*conditions, *filter(None, [stage.split_default])]
    downstream = dict.fromkeys(graph.downstream[stage.ref_id]) if named else {}
    for ref in filter(lambda ref: ref not in downstream, named):
        what = "a condition" if ref in conditions else "its split_default"
        fix = suggest(ref, downstream, f"after it come {', '.join(downstream) or 'no stages'}")
        if ref in graph.by_ref:
            fix = f"add {stage.ref_id!r} to the requisites of {ref!r}, or drop it here"
        yield (
            f"unknown_branch: the split of stage {stage.ref_id!r} has {what} for {ref!r}, which "
            f"does not come directly after it: {fix}"
        )


def _unknown_milestone(graph: _Graph, stage: StageNode) -> Iterator[str]:
    ref, status = stage.milestone_ref_id, stage.milestone_status
    if ref and ref not in graph.by_ref:
        yield (
            f"unknown_milestone: stage {stage.ref_id!r} waits for milestone {ref!r}, which is no "
            f"stage of this workflow: {suggest(ref, graph.by_ref, 'add it, or name another')}"
        )
    if status and not ref:
        yield (
            f"unknown_milestone: stage {stage.ref_id!r} has milestone_status={status!r} but no "
            "milestone_ref_id: name the stage to watch"
        )


def _bad_milestone_status(_: _Graph, stage: StageNode) -> Iterator[str]:
    ref, status = stage.milestone_ref_id, stage.milestone_status
    if ref and status not in STATUS_NAMES:
        yield (
            f"bad_milestone_status: stage {stage.ref_id!r} waits for {ref!r} to be {status!r}, "
            f"no status: {suggest(status, STATUS_NAMES, 'write ' + ', '.join(STATUS_NAMES))}"
        )


def _bad_option(_: _Graph, stage: StageNode) -> Iterator[str]:
    for option, allowed in OPTIONS.items():
        value = getattr(stage, option)
        if value is not None and value not in allowed:
            fix = suggest(value, allowed, f"write {', '.join(map(repr, allowed))} or None")
            yield f"bad_option: stage {stage.ref_id!r} has {option}={value!r}: {fix}"
    for option, joins in _FITS.items():
        join = stage.join_type.name
        if getattr(stage, option) and join not in joins:
            yield (
                f"bad_option: stage {stage.ref_id!r} has {option} with JoinType.{join}: it is for "
                f"{' and '.join(joins)}; drop it, or join otherwise"
            )
    if stage.join_rest and stage.join_type.name == "N_OF_M" and not stage.join_threshold:
        yield (
            f"bad_option: stage {stage.ref_id!r} waits for all its branches (join_threshold=0), so "
            "that none comes after it has begun: drop join_rest, or set join_threshold"
        )
    count = stage.split_count
    if count is None and stage.split_type.name == "THREADS":
        yield f"bad_option: stage {stage.ref_id!r} splits into threads: say how many (split_count)"
    if not (
        count is None or (isinstance(count, str) and count) or (type(count) is int and count >= 0)
    ):
        yield (
            f"bad_option: stage {stage.ref_id!r} has split_count={count!r}: write a number from "
            "0 up, or the context key of one"
        )


def _bad_group(_: _Graph, stage: StageNode) -> Iterator[str]:
    config = stage.mi_config
    if config is None:
        return
    for option, (is_right, remedy) in _OF_GROUPS.items():
        value = getattr(config, option)
        if not is_right(value):
            yield (
                f"bad_option: the instances of stage {stage.ref_id!r} have {option}={value!r}: "
                f"write {remedy}"
            )
            return
    grows = config.allow_dynamic or config.count_from_context or config.collection_from_context
    if not grows and config.join_threshold > config.count:
        yield (
            f"unreachable_join: stage {stage.ref_id!r} waits for {config.join_threshold} of its "
            f"instances but has only {config.count}: lower join_threshold, or raise count"
        )


def _check_mutual_waits(graph: _Graph) -> None:
    """Refuse stages that wait for one another, through milestones and requisites, for ever.

    Let every stage start that can: as many requisites as its join needs have started, and so has
    the stage that its milestone watches. What is left could start only by a jump.
    """
    watched = {
        stage.ref_id: stage.milestone_ref_id
        for stage in graph.stages
        if stage.milestone_ref_id and stage.milestone_status not in STATUSES_BEFORE_THE_START
    }
    watchers: dict[str, list[str]] = {}
    for ref, milestone in watched.items():
        watchers.setdefault(milestone, []).append(ref)
    missing = {stage.ref_id: _branches_needed(stage) for stage in graph.stages}
    waiting = set(graph.by_ref)
    reached = list(graph.by_ref) if watched else []
    while reached:
        ref = reached.pop()
        if ref in waiting and missing[ref] <= 0 and watched.get(ref) not in waiting:
            waiting.remove(ref)
            for follower in graph.downstream[ref]:
                missing[follower] -= 1
            reached += [*graph.downstream[ref], *watchers.get(ref, ())]
    if watched and waiting:
        raise InvalidStageGraphError(_mutual_wait(graph, watched, waiting))


def _branches_needed(stage: StageNode) -> int:
    branches = len(stage.requisite_stage_ref_ids)
    match stage.join_type.name:
        case "XOR" | "MULTI_MERGE" | "DISCRIMINATOR":
            return min(1, branches)
        case "N_OF_M":
            return stage.join_threshold or branches
    return branches


def _mutual_wait(graph: _Graph, watched: Mapping[str, str], waiting: Collection[str]) -> str:
    def awaited(ref: str) -> str:
        if watched.get(ref) in waiting:
            return watched[ref]
        return min(r for r in graph.by_ref[ref].requisite_stage_ref_ids if r in waiting)

    circle = follow_to_circle(next(ref for ref in watched if ref in waiting), awaited)
    steps = "; ".join(f"{ref!r} waits for {awaited(ref)!r}" for ref in circle[:MAX_NAMES])
    watcher = next(ref for ref in circle if watched.get(ref) in waiting)
    return (
        f"unreachable_join: stage {watcher!r} and its milestone {watched[watcher]!r} wait for each "
        f"other for ever ({steps}): watch a stage that can start without {watcher!r}"
    )
