"""Splits: which outgoing edges of a stage that ended get a live token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import Any, Self

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.dag.nodes import StageNode
from stabilize.status import SplitType


class NoBranchError(ValueError):
    """A split found no branch to take."""


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How one stage splits; `conditions` are asked in their order."""

    type: SplitType = SplitType.AND
    conditions: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    count: int | str | None = None

    @classmethod
    def of(cls, stage: StageNode) -> Self:
        return cls(
            type=stage.split_type,
            conditions=stage.split_conditions or {},
            default=stage.split_default,
            count=stage.split_count,
        )


Names = Mapping[str, Any]
Deal = Mapping[str, int]
"""How many live tokens each edge gets."""

MAX_CONDITIONS = 10


def _holds(condition: str, branch: str, names: Names) -> bool:
    try:
        return bool(compile_expression(condition).evaluate(names))
    except ExpressionError as error:
        raise ExpressionError(f"the condition of branch {branch!r} failed: {error}") from error


def _none_of(rule: SplitRule, edges: Sequence[str]) -> NoBranchError:
    tried = "; ".join(f"{branch}: {text}" for branch, text in rule.conditions.items())
    return NoBranchError(
        f"no branch was chosen of {', '.join(edges)} ({tried}): give split_default= one of them"
    )


def and_split(rule: SplitRule, edges: Sequence[str], names: Names) -> dict[str, int]:
    """Every branch (WCP-2)."""
    return dict.fromkeys(edges, 1)


def or_split(rule: SplitRule, edges: Sequence[str], names: Names) -> dict[str, int]:
    """Every branch whose condition holds, and those without one (WCP-6)."""
    chosen = {
        edge: int(edge not in rule.conditions or _holds(rule.conditions[edge], edge, names))
        for edge in edges
    }
    if edges and not any(chosen.values()):
        if rule.default is None:
            raise _none_of(rule, edges)
        chosen[rule.default] = 1
    return chosen


def xor_split(rule: SplitRule, edges: Sequence[str], names: Names) -> dict[str, int]:
    """The first branch whose condition holds, else the default (WCP-4)."""
    chosen = dict.fromkeys(edges, 0)
    if not edges:
        return chosen
    for edge, condition in rule.conditions.items():
        if _holds(condition, edge, names):
            chosen[edge] = 1
            return chosen
    if rule.default is None:
        raise _none_of(rule, edges)
    chosen[rule.default] = 1
    return chosen


def thread_split(rule: SplitRule, edges: Sequence[str], names: Names) -> dict[str, int]:
    """So many tokens on each edge (WCP-42)."""
    count = names.get(rule.count) if isinstance(rule.count, str) else rule.count
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise NoBranchError(
            f"split_count={rule.count!r} gives {count!r}: it has to be a whole number of threads"
        )
    return dict.fromkeys(edges, count)


SPLITS: dict[SplitType, Callable[[SplitRule, Sequence[str], Names], dict[str, int]]] = {
    SplitType.AND: and_split,
    SplitType.OR: or_split,
    SplitType.XOR: xor_split,
    SplitType.THREADS: thread_split,
}


def split(rule: SplitRule, edges: Sequence[str], names: Names) -> dict[str, int]:
    """How many live tokens each outgoing edge gets; none means a dead one.

    Raises `NoBranchError` when no branch is left to take, `ExpressionError` when a condition fails.
    """
    return SPLITS[rule.type](rule, edges, names)


def deals(rule: SplitRule, edges: Sequence[str], counts: Iterable[int]) -> list[Deal | None]:
    """Every way in which a split may turn out, None: it fails.

    A condition may hold or not, unless it reads no names. `counts`: what a `count` that is the key
    of one may stand for.
    """
    found: dict[tuple[int, ...], Deal | None] = {}
    for conditions in _truths(rule):
        for count in counts if isinstance(rule.count, str) else [0]:
            try:
                deal = split(replace(rule, conditions=conditions), edges, {str(rule.count): count})
                found[tuple(deal.values())] = deal
            except (NoBranchError, ExpressionError):
                found[()] = None
    return list(found.values())


def has_many_conditions(rule: SplitRule) -> bool:
    """Say whether `deals` leaves some out, because they would be too many."""
    return rule.type is SplitType.OR and len(_open_conditions(rule)) > MAX_CONDITIONS


def _truths(rule: SplitRule) -> Iterator[Mapping[str, str]]:
    edges = _open_conditions(rule)
    sizes: Iterable[int] = range(len(edges) + 1)
    if rule.type is SplitType.XOR:
        sizes = (0, 1)  # of those that hold only the first counts
    elif has_many_conditions(rule):
        sizes = (0, 1, 2, len(edges))
    for true in chain.from_iterable(combinations(edges, size) for size in sizes):
        yield {**rule.conditions, **{edge: str(edge in true) for edge in edges}}


def _open_conditions(rule: SplitRule) -> list[str]:
    return [edge for edge, text in rule.conditions.items() if compile_expression(text).names]
