from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stabilize.dag.reducers import (
    apply_output_reducers,
    get_reducer,
    register_reducer,
    reset_reducers,
)


@pytest.fixture(autouse=True)
def _own_reducers() -> Iterator[None]:
    yield
    reset_reducers()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("collect", [1, [2, 3], None], [1, 2, 3, None]),
        ("append", [1, [2]], [1, 2]),
        ("extend", [1, None, [2]], [1, 2]),
        ("sum", [1, None, 2], 3),
        ("max", [1, None, 2], 2),
        ("min", [1, None, 2], 1),
        ("max", [None], None),
        ("min", [None], None),
        ("merge", [{"a": 1, "b": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ("first", [1, 2], 1),
        ("last", [1, 2], 2),
    ],
)
def test_a_built_in_reducer_combines_the_branches(
    name: str, values: list[Any], expected: Any
) -> None:
    assert apply_output_reducers({"k": name}, [{"k": value} for value in values]) == {"k": expected}


def test_a_branch_that_did_not_set_the_key_does_not_count() -> None:
    assert apply_output_reducers({"k": "sum"}, [{"k": 1}, {}, {"other": 5}]) == {"k": 1}


def test_a_registered_reducer_goes_before_a_built_in_one_of_its_name() -> None:
    register_reducer("sum", lambda values: "mine")
    assert apply_output_reducers({"k": "sum"}, [{"k": 1}]) == {"k": "mine"}


def test_an_unknown_reducer_is_named_with_those_there_are() -> None:
    assert get_reducer("median") is None
    with pytest.raises(ValueError, match=r"'median' for 'k' is no reducer\. Known: append"):
        apply_output_reducers({"k": "median"}, [{"k": 1}])
