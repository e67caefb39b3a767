"""Which outgoing edges get a live token."""

from __future__ import annotations

import pytest

from stabilize.dag.expressions import ExpressionError
from stabilize.dag.splits import NoBranchError, SplitRule, split
from stabilize.status import SplitType

EDGES = ["a", "b", "c"]
CONDITIONS = {"a": "n > 1", "b": "n > 2"}


def chosen(kind: SplitType, n: object, **fields: object) -> list[str]:
    """The edges with a live token."""
    rule = SplitRule(type=kind, conditions=CONDITIONS, **fields)  # type: ignore[arg-type]
    return [edge for edge, live in split(rule, EDGES, {"n": n}).items() if live]


@pytest.mark.parametrize(("n", "edges"), [(1, ["c"]), (2, ["a", "c"]), (3, ["a", "b", "c"])])
def test_an_or_split_takes_all_that_hold_and_those_without_a_condition(
    n: int, edges: list[str]
) -> None:
    assert chosen(SplitType.OR, n) == edges


@pytest.mark.parametrize(("n", "edges"), [(3, ["a"]), (2, ["a"]), (1, ["c"])])
def test_an_xor_split_takes_the_first_that_holds_else_the_default(n: int, edges: list[str]) -> None:
    assert chosen(SplitType.XOR, n, default="c") == edges


def test_an_and_split_takes_every_branch() -> None:
    assert chosen(SplitType.AND, 0) == EDGES


def test_no_branch_and_no_default_is_an_error_that_tells_the_conditions() -> None:
    with pytest.raises(NoBranchError, match=r"a: n > 1; b: n > 2"):
        chosen(SplitType.XOR, 0)


def test_a_condition_that_fails_names_its_branch() -> None:
    with pytest.raises(ExpressionError, match="branch 'a' failed"):
        chosen(SplitType.OR, "text")


@pytest.mark.parametrize(("count", "tokens"), [(3, 3), ("n", 4), (0, 0)])
def test_a_thread_split_puts_so_many_tokens(count: int | str, tokens: int) -> None:
    rule = SplitRule(type=SplitType.THREADS, count=count)

    assert split(rule, ["a"], {"n": 4}) == {"a": tokens}


@pytest.mark.parametrize("count", [None, "missing", -1, True, "text"])
def test_a_number_of_threads_that_is_none_is_refused(count: int | str | None) -> None:
    rule = SplitRule(type=SplitType.THREADS, count=count)

    with pytest.raises(NoBranchError, match="whole number"):
        split(rule, ["a"], {"text": "x"})


@pytest.mark.parametrize("kind", [SplitType.AND, SplitType.OR, SplitType.XOR])
def test_a_stage_with_nothing_behind_it_splits_into_nothing(kind: SplitType) -> None:
    assert split(SplitRule(type=kind), [], {}) == {}
