"""The order of stages: layers, ends and cycles of the graph that their requisites draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from stabilize.dag.nodes import Node

MAX_NAMES = 20

N = TypeVar("N", bound=Node)
T = TypeVar("T", bound=Hashable)


class CircularDependencyError(Exception):
    """Stages require one another in a circle: `stages`, each before the one it leads to."""

    def __init__(self, message: str, stages: Iterable[Node] = ()) -> None:
        super().__init__(message)
        self.stages = list(stages)


def topological_sort(
    stages: Iterable[N], stage_filter: Callable[[N], bool] | None = None
) -> list[N]:
    """Return the stages that pass the filter (none: the top-level ones), requisites first.

    Layer by layer, and within a layer in the order given, so that the result depends on nothing
    else. A requisite that is not among them counts as met. Raises `CircularDependencyError`.
    """
    return list(chain.from_iterable(_layers(list(filter(stage_filter or _is_top_level, stages)))))


def topological_sort_all_stages(stages: Iterable[N]) -> list[N]:
    """Return all stages, synthetic ones too, as `topological_sort` does."""
    return topological_sort(stages, lambda _: True)


def get_execution_layers(stages: Iterable[N]) -> list[list[N]]:
    """Return the top-level stages in layers: each requires stages of earlier layers only.

    Raises `CircularDependencyError`.
    """
    return _layers(list(filter(_is_top_level, stages)))


def validate_dag(stages: Iterable[Node]) -> None:
    """Raise `CircularDependencyError` if top-level stages require one another in a circle."""
    get_execution_layers(stages)


def find_initial_stages(stages: Iterable[N]) -> list[N]:
    """Return the top-level stages that require nothing, in the order given."""
    return [s for s in stages if _is_top_level(s) and not s.requisite_stage_ref_ids]


def find_terminal_stages(stages: Iterable[N]) -> list[N]:
    """Return the top-level stages that no other one requires, in the order given."""
    top_level = list(filter(_is_top_level, stages))
    required = set(chain.from_iterable(stage.requisite_stage_ref_ids for stage in top_level))
    return [stage for stage in top_level if stage.ref_id not in required]


def _is_top_level(stage: Node) -> bool:
    return stage.parent_stage_id is None


def _layers(stages: Sequence[N]) -> list[list[N]]:
    """Sort by Kahn's algorithm (1962), in time linear in stages and edges."""
    requisites = _requisite_positions(stages)
    missing = [len(positions) for positions in requisites]
    followers: list[list[int]] = [[] for _ in stages]
    for position, required in enumerate(requisites):
        for requisite in required:
            followers[requisite].append(position)

    layer_of = [0] * len(stages)
    ready = deque(position for position, count in enumerate(missing) if not count)
    while ready:
        position = ready.popleft()
        for follower in followers[position]:
            layer_of[follower] = max(layer_of[follower], layer_of[position] + 1)
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    if any(missing):
        raise _circle(stages, requisites, missing)

    layers: list[list[N]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for position, stage in enumerate(stages):
        layers[layer_of[position]].append(stage)
    return layers


def _requisite_positions(stages: Sequence[Node]) -> list[list[int]]:
    position_of = {stage.ref_id: position for position, stage in enumerate(stages)}
    return [
        sorted({position_of[ref] for ref in stage.requisite_stage_ref_ids if ref in position_of})
        for stage in stages
    ]


def _circle(
    stages: Sequence[Node], requisites: list[list[int]], missing: list[int]
) -> CircularDependencyError:
    first = next(position for position, count in enumerate(missing) if count)
    circle = follow_to_circle(
        first, lambda position: next(r for r in requisites[position] if missing[r])
    )[::-1]
    start = circle.index(min(circle))
    circle = circle[start:] + circle[:start]
    names = [stages[position].ref_id for position in [*circle, circle[0]]]
    if len(names) > MAX_NAMES:
        names[MAX_NAMES - 1 : -1] = [f"({len(names) - MAX_NAMES} more)"]
    return CircularDependencyError(
        f"stages require one another in a circle: {' -> '.join(names)}; take one of these "
        "requisites away (a loop is a jump_to, not a requisite)",
        [stages[position] for position in circle],
    )


def reach(starts: Iterable[T], following: Callable[[T], Iterable[T]]) -> set[T]:
    """Return everything that one comes to from `starts`, themselves included."""
    found = set(starts)
    waiting = list(found)
    while waiting:
        further = set(following(waiting.pop())) - found
        found |= further
        waiting.extend(further)
    return found


def follow_to_circle(start: T, following: Callable[[T], T]) -> list[T]:
    """Go on from `start` until something comes a second time; return what lies between."""
    seen: dict[T, int] = {}
    while start not in seen:
        seen[start] = len(seen)
        start = following(start)
    return list(seen)[seen[start] :]


def __getattr__(name: str) -> Any:
    """The check of a whole definition, where programs import it from too."""
    if name in ("InvalidStageGraphError", "validate_stage_graph"):
        from stabilize.dag import validation  # noqa: PLC0415  # it imports this module

        return getattr(validation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
