"""Splits: which outgoing edges of a stage that ended get a live token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stabilize.dag.expressions import ExpressionError, compile_expression
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


Names = Mapping[str, Any]


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
