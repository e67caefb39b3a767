"""Reducers: how a joining stage combines what several branches put out under one key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Reducer = Callable[[Sequence[Any]], Any]


def _collect(values: Sequence[Any]) -> list[Any]:
    collected: list[Any] = []
    for value in values:
        collected.extend(value if isinstance(value, list) else [value])
    return collected


def _present(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _merge(values: Sequence[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in values:
        merged.update(value)
    return merged


_BUILT_IN: dict[str, Reducer] = {
    "collect": _collect,
    "append": _collect,
    "extend": lambda values: _collect(_present(values)),
    "sum": lambda values: sum(_present(values)),
    "max": lambda values: max(_present(values), default=None),
    "min": lambda values: min(_present(values), default=None),
    "merge": _merge,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}
_registered: dict[str, Reducer] = {}


def register_reducer(name: str, reducer: Reducer) -> None:
    """Let `name` stand for a function from the branches' values to one value."""
    _registered[name] = reducer


def get_reducer(name: str) -> Reducer | None:
    """The reducer called `name`: one that was registered, else a built-in one, else None."""
    return _registered.get(name) or _BUILT_IN.get(name)


def reset_reducers() -> None:
    """Forget every reducer that was registered."""
    _registered.clear()


def unknown_reducer(reducers: Mapping[str, str]) -> str | None:
    """What is wrong with `reducers` that name one nobody registered; None: all are known."""
    for key, name in reducers.items():
        if get_reducer(name) is None:
            known = ", ".join(sorted({*_registered, *_BUILT_IN}))
            return (
                f"output_reducers: {name!r} for {key!r} is no reducer. Known: {known}. "
                "Register yours with register_reducer in every worker"
            )
    return None


def apply_output_reducers(
    reducers: Mapping[str, str], branch_outputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Combine, key by key, what the branches that set it put out.

    Raises `ValueError` naming a reducer that nobody registered.
    """
    unknown = unknown_reducer(reducers)
    if unknown is not None:
        raise ValueError(unknown)
    combined: dict[str, Any] = {}
    for key, name in reducers.items():
        reducer = get_reducer(name)
        assert reducer is not None
        values = [outputs[key] for outputs in branch_outputs if key in outputs]
        if values:
            combined[key] = reducer(values)
    return combined
