"""A stage's own context over what it inherits."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest

from stabilize.tasks.context import InheritingContext


class Inherited:
    """What is inherited, and how often it was read."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.reads = 0

    def __call__(self) -> dict[str, Any]:
        self.reads += 1
        return dict(self.values)


def test_the_own_value_wins_without_a_look_at_what_is_inherited() -> None:
    inherited = Inherited(a=1, b=1)
    context = InheritingContext({"a": 2}, inherited, "s")

    assert (context["a"], context.get("a"), "a" in context) == (2, 2, True)
    assert inherited.reads == 0


def test_what_is_inherited_is_read_once() -> None:
    inherited = Inherited(b=1)
    context = InheritingContext({"a": 2}, inherited, "s")

    assert (context["b"], context.get("c", 9), "c" in context, len(context)) == (1, 9, False, 2)
    assert inherited.reads == 1


def test_it_is_a_dict_in_every_respect() -> None:
    def make() -> InheritingContext:
        return InheritingContext({"a": 2}, Inherited(a=1, b=[1]), "s")

    plain = {"a": 2, "b": [1]}
    assert make() == plain
    assert dict(make()) == {**make()} == make().copy() == plain
    assert sorted(make()) == sorted(make().keys()) == ["a", "b"]
    assert list(make().values()) == [plain[key] for key in make()]
    assert dict(make().items()) == plain
    assert make() | {"c": 1} == {**plain, "c": 1}
    assert bool(make())
    assert not bool(InheritingContext({}, Inherited(), "s"))
    assert repr(make()) in (repr(plain), repr({"b": [1], "a": 2}))
    assert pickle.loads(pickle.dumps(make())) == plain  # noqa: S301
    with pytest.raises(KeyError):
        make()["nothing"]


def test_lists_add_up() -> None:
    context = InheritingContext({"l": [2, 3]}, Inherited(l=[1, 2]), "s")

    assert context["l"] == [1, 2, 3]


def _pop(context: InheritingContext) -> None:
    context.pop("a")


def _change(context: InheritingContext) -> None:
    context["x"] = 1


def _delete(context: InheritingContext) -> None:
    del context["a"]


@pytest.mark.parametrize(
    "change",
    [
        _change,
        _delete,
        _pop,
        lambda c: c.update(x=1),
        lambda c: c.setdefault("x", 1),
        lambda c: c.popitem(),
        lambda c: c.clear(),
        lambda c: c.__ior__({"x": 1}),
    ],
)
def test_every_change_in_place_is_warned_of_once(
    change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    context = InheritingContext({"a": 1, "b": 2}, Inherited(), "stage 's'")
    with caplog.at_level(logging.WARNING, logger="stabilize"):
        change(context)
        context["y"] = 1

    assert [record.message.split(":")[0] for record in caplog.records] == ["stage 's'"]


def test_reading_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    context = InheritingContext({"a": 1}, Inherited(b=1), "s")
    with caplog.at_level(logging.WARNING, logger="stabilize"):
        context.setdefault("a", 5)
        context.get("b")

    assert caplog.records == []


def test_what_others_inherit_as_well_cannot_be_changed_through_a_context() -> None:
    shared = {"a": {"deep": [1]}, "l": [{"x": 1}], "s": "text"}

    def context(**own: Any) -> InheritingContext:
        return InheritingContext(own, lambda: shared, "s", shared=True)

    context()["a"]["deep"].append(2)
    context().get("a")["deep"].append(2)
    context(l=[{"y": 2}])["l"][0]["x"] = 2
    for value in context().values():
        if isinstance(value, dict):
            value.clear()
    dict(context())["a"]["deep"].append(2)
    context().pop("a")["deep"].append(2)
    context().setdefault("a", None)["deep"].append(2)

    assert shared == {"a": {"deep": [1]}, "l": [{"x": 1}], "s": "text"}
    kept = context()
    kept["a"]["deep"].append(2)
    assert kept["a"] == {"deep": [1, 2]}
