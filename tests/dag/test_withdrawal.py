"""How far a join reaches that withdraws its other branches."""

from __future__ import annotations

from stabilize.dag.withdrawal import Withdrawal, lies_in, withdrawal

ABOVE = {"merge": ["w"], "w": ["s"], "s": [], "inner": ["here", "slow"], "here": [], "slow": ["t"]}
ABOVE["t"] = []


def found(*branches: str, begun: set[str]) -> Withdrawal:
    return withdrawal(
        branches,
        has_begun=lambda ref, below: ref in begun,
        merges_threads=lambda ref: ref == "merge",
        upstream=ABOVE.__getitem__,
    )


def test_a_branch_is_followed_to_where_it_has_begun() -> None:
    lost = found("inner", begun={"here", "slow", "t"})

    assert lost == Withdrawal(
        begun={"here": False, "slow": False},
        ahead={"inner": False},
    )


def test_above_a_merge_of_threads_those_below_count_and_before_it_too() -> None:
    lost = found("merge", begun={"w"})

    assert lost == Withdrawal(begun={"w": True}, ahead={"merge": True})


def test_what_has_not_begun_at_all_is_ahead() -> None:
    assert found("inner", begun=set()).ahead.keys() == {"inner", "here", "slow", "t"}


def test_a_thread_lies_in_itself_and_in_those_above_it() -> None:
    assert lies_in("1.0/", "1.0/", below=False)
    assert lies_in("1.0/2.1/", "1.0/", below=True)
    assert not lies_in("1.0/2.1/", "1.0/", below=False)
    assert not lies_in("1.1/", "1.0/", below=True)
