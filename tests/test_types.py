"""The strict codec, and the one source of time and of ids."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilize import ManualClock, PayloadError, new_id
from stabilize.clock import from_ms, now_ms
from stabilize.types import encode, plain

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES)
def test_what_json_has_is_copied_as_it_is(value: Any) -> None:
    import json

    copied = plain(value, "x")

    assert copied == value
    assert json.loads(encode(copied)) == value


def test_a_copy_shares_nothing_with_the_original() -> None:
    given_value = {"a": [{"b": 1}]}
    copied = plain(given_value, "x")
    given_value["a"][0]["b"] = 2

    assert copied == {"a": [{"b": 1}]}


@pytest.mark.parametrize(
    ("value", "copied"),
    [((1, 2), [1, 2]), ({3, 1, 2}, [1, 2, 3]), (frozenset({"b", "a"}), ["a", "b"]), ({1: 2}, None)],
)
def test_tuples_and_sets_become_lists(value: Any, copied: Any) -> None:
    if copied is None:
        with pytest.raises(PayloadError, match="key 1 of type int"):
            plain(value, "x")
    else:
        assert plain(value, "x") == copied


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, float("nan")]}, r"x\.a\[1\] is nan"),
        ({"a": {"b": float("-inf")}}, r"x\.a\.b is -inf"),
        (["ok", "a\x00b"], r"x\[1\] holds a NUL"),
        ({"ü\x00": 1}, "NUL"),
        ({"a": "\udfff"}, r"x\.a holds a lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({"a": b"x"}, r"x\.a is a bytes"),
        ({"a": datetime(2024, 1, 1, tzinfo=UTC)}, r"x\.a is a datetime"),
        ({"a": {1.5: 1}}, r"x\.a has the key 1\.5"),
    ],
)
def test_the_message_names_the_path_of_the_culprit(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        plain(value, "x")


def test_depth_and_size_are_bounded() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert plain(deep, "x") == deep
    with pytest.raises(PayloadError, match="deeper than 200"):
        plain([deep], "x")
    with pytest.raises(PayloadError, match=r"12 bytes.*limit is 11"):
        plain("x" * 10, "x", limit=11)
    assert plain("x" * 10, "x", limit=12) == "x" * 10


def test_ids_rise_and_never_repeat_across_threads() -> None:
    made: list[list[str]] = []

    def make() -> None:
        made.append([new_id() for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(ids == sorted(ids) for ids in made)
    everything = [id for ids in made for id in ids]
    assert len(set(everything)) == len(everything) == 8000
    assert {len(id) for id in everything} == {26}


def test_milliseconds_become_an_aware_instant() -> None:
    assert from_ms(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert from_ms(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert abs(from_ms(now_ms()).timestamp() * 1000 - now_ms()) < 5000


def test_a_manual_clock_moves_only_when_it_is_told() -> None:
    clock, told = ManualClock(1000), list[int]()
    clock.on_advance(lambda: told.append(clock.now_ms()))

    clock.advance(1.5)

    assert (clock.now_ms(), told) == (2500, [2500])
