"""The order of stages."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilize.dag.topological import (
    CircularDependencyError,
    find_initial_stages,
    find_terminal_stages,
    get_execution_layers,
    topological_sort,
    topological_sort_all_stages,
    validate_dag,
)


@dataclass(eq=False)
class Stage:
    ref_id: str
    requisite_stage_ref_ids: set[str] = field(default_factory=set)
    parent_stage_id: str | None = None


def stage(ref_id: str, *after: str, parent: str | None = None) -> Stage:
    return Stage(ref_id, set(after), parent)


def refs(stages: Iterable[Stage]) -> list[str]:
    return [stage.ref_id for stage in stages]


def circle_of(*stages: Stage) -> tuple[list[str], str]:
    with pytest.raises(CircularDependencyError) as caught:
        validate_dag(stages)
    return [stage.ref_id for stage in caught.value.stages], str(caught.value)


def test_requisites_come_before_what_requires_them() -> None:
    stages = [stage("d", "b", "c"), stage("c", "a"), stage("b", "a"), stage("a")]

    assert refs(topological_sort(stages)) == ["a", "c", "b", "d"]


def test_stages_that_wait_equally_long_keep_the_order_given() -> None:
    stages = [stage("z"), stage("y"), stage("b", "y"), stage("a", "z"), stage("x")]

    assert refs(topological_sort(stages)) == ["z", "y", "x", "b", "a"]


def test_a_stage_is_in_the_layer_after_its_latest_requisite() -> None:
    stages = [stage("a"), stage("b", "a"), stage("c", "b", "a"), stage("d"), stage("e", "d", "c")]

    assert [refs(layer) for layer in get_execution_layers(stages)] == [
        ["a", "d"],
        ["b"],
        ["c"],
        ["e"],
    ]


def test_without_a_filter_only_top_level_stages_are_sorted() -> None:
    stages = [stage("b", "a"), stage("before-b", parent="b"), stage("a")]

    assert refs(topological_sort(stages)) == ["a", "b"]
    assert [refs(layer) for layer in get_execution_layers(stages)] == [["a"], ["b"]]


def test_a_filter_says_which_stages_are_sorted_and_the_others_count_as_met() -> None:
    stages = [stage("c", "b"), stage("b", "a"), stage("a"), stage("d", "c")]

    assert refs(topological_sort(stages, lambda s: s.ref_id != "b")) == ["c", "a", "d"]


def test_all_stages_includes_the_synthetic_ones() -> None:
    stages = [stage("y", "x", parent="a"), stage("x", parent="a"), stage("a")]

    assert refs(topological_sort_all_stages(stages)) == ["x", "a", "y"]


def test_no_stages_have_an_empty_order() -> None:
    assert topological_sort([]) == []
    assert get_execution_layers([]) == []
    assert find_initial_stages([]) == []
    assert find_terminal_stages([]) == []


def test_initial_stages_require_nothing_and_terminal_stages_are_required_by_nothing() -> None:
    stages = [
        stage("d", "b"),
        stage("b", "a"),
        stage("a"),
        stage("c"),
        stage("of-d", "d", parent="d"),
        stage("of-a", parent="a"),
    ]

    assert refs(find_initial_stages(stages)) == ["a", "c"]
    assert refs(find_terminal_stages(stages)) == ["d", "c"]


def test_a_circle_is_named_in_the_order_of_its_flow() -> None:
    circle, message = circle_of(stage("c", "b"), stage("a", "c"), stage("b", "a"), stage("x"))

    assert circle == ["c", "a", "b"]
    assert "c -> a -> b -> c" in message


def test_a_circle_is_named_without_what_leads_to_it_or_follows_it() -> None:
    circle, message = circle_of(
        stage("after", "b"), stage("a", "b", "start"), stage("b", "a"), stage("start")
    )

    assert circle == ["a", "b"]
    assert "a -> b -> a" in message


def test_a_stage_that_requires_itself_is_a_circle() -> None:
    circle, message = circle_of(stage("a", "a"))

    assert circle == ["a"]
    assert "a -> a" in message


def test_a_long_circle_is_kept_whole_but_its_message_is_short() -> None:
    circle, message = circle_of(*(stage(f"s{i}", f"s{(i - 1) % 5000}") for i in range(5000)))

    assert circle == [f"s{i}" for i in range(5000)]
    assert "s0 -> s1 -> " in message
    assert "more) -> s0;" in message
    assert len(message) < 400


def test_a_circle_among_synthetic_stages_is_seen_when_they_are_sorted() -> None:
    stages = [stage("a"), stage("x", "y", parent="a"), stage("y", "x", parent="a")]

    validate_dag(stages)
    with pytest.raises(CircularDependencyError, match="x -> y -> x"):
        topological_sort_all_stages(stages)


def test_a_circular_dependency_error_crosses_processes() -> None:
    with pytest.raises(CircularDependencyError) as caught:
        validate_dag([stage("a", "a")])

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own bytes

    assert str(copy) == str(caught.value)
    assert refs(copy.stages) == ["a"]


@pytest.mark.parametrize("backwards", [False, True])
def test_ten_thousand_stages_are_sorted_without_recursion(backwards: bool) -> None:
    chain = [stage("s0"), *(stage(f"s{i}", f"s{i - 1}") for i in range(1, 10_000))]
    given_order = chain[::-1] if backwards else chain

    assert topological_sort(given_order) == chain
    assert len(get_execution_layers(given_order)) == 10_000


def test_a_fan_out_and_in_of_ten_thousand_has_three_layers() -> None:
    middle = [stage(f"m{i}", "a") for i in range(10_000)]
    stages = [stage("z", *refs(middle)), *middle, stage("a")]

    assert [len(layer) for layer in get_execution_layers(stages)] == [1, 10_000, 1]


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool) -> list[Stage]:
    size = draw(st.integers(0, 12))
    stages = []
    for number in range(size):
        others = st.integers(0, (number if acyclic else size) - 1)
        after = draw(st.sets(others, max_size=4)) if number or not acyclic else set()
        stages.append(stage(f"s{number}", *(f"s{other}" for other in after)))
    return draw(st.permutations(stages))


@given(graphs(acyclic=True))
def test_every_acyclic_graph_is_sorted_with_each_stage_in_its_first_possible_layer(
    stages: list[Stage],
) -> None:
    layers = get_execution_layers(stages)

    layer_of = {stage.ref_id: number for number, layer in enumerate(layers) for stage in layer}
    assert sorted(layer_of) == sorted(refs(stages))
    for each in stages:
        before = [layer_of[ref] for ref in each.requisite_stage_ref_ids]
        assert layer_of[each.ref_id] == max(before, default=-1) + 1
    for layer in layers:
        assert layer == [each for each in stages if each in layer]
    assert topological_sort(stages) == [each for layer in layers for each in layer]


@given(graphs(acyclic=False))
def test_any_graph_is_either_sorted_or_shown_a_true_circle(stages: list[Stage]) -> None:
    try:
        order = topological_sort(stages)
    except CircularDependencyError as error:
        circle = list(error.stages)
        for before, after in zip(circle, circle[1:] + circle[:1], strict=True):
            assert before.ref_id in after.requisite_stage_ref_ids
    else:
        position = {each.ref_id: number for number, each in enumerate(order)}
        assert all(
            position[ref] < position[each.ref_id]
            for each in stages
            for ref in each.requisite_stage_ref_ids
        )
