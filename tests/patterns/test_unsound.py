"""`workflow.check()`: what it finds is there, and what it does not find is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stabilize import Fault, StageExecution
from tests.conftest import lend_or_skip
from tests.patterns.catalog import PATTERNS, Pattern
from tests.patterns.conftest import engine_at
from tests.patterns.unsound import SOUND_HERE, UNSOUND, SoundHere, Unsound
from tests.patterns.unsound.replay import Replay, replay
from tests.support.builders import Engine, workflow


@pytest.fixture(scope="module")
def engine(databases: Any) -> Iterator[Engine]:
    """One database for all: what the engine does is the same on each."""
    with lend_or_skip(databases, "sqlite-memory") as lent, engine_at(lent.url) as engine:
        yield engine


def found(*stages: StageExecution, **options: object) -> set[tuple[Fault, str | None]]:
    return {(f.kind, f.stage) for f in workflow(*stages).check(**options)}  # type: ignore[arg-type]


# --- published nets ---------------------------------------------------------------------------


def test_there_are_more_than_twenty_published_examples() -> None:
    assert len(UNSOUND) > 20
    assert len({case.name for case in UNSOUND}) == len(UNSOUND)


@pytest.mark.parametrize("case", UNSOUND, ids=lambda case: case.name)
def test_the_fault_of_a_published_net_is_named_with_its_path(case: Unsound) -> None:
    findings = workflow(*case.stages()).check()

    expected = {(show.fault, show.stage, tuple(show.path.split())) for show in case.shows}
    assert {(f.kind, f.stage, f.path) for f in findings} == expected
    for finding in findings:
        told = str(finding)
        assert repr(finding.stage) in told
        assert " -> ".join(finding.path) in told
        assert finding.remedy in told


@pytest.mark.parametrize(
    ("case", "place"),
    [(case, place) for case in UNSOUND for place in range(len(case.shows))],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_engine_runs_into_the_fault_at_the_end_of_the_path(
    engine: Engine, case: Unsound, place: int
) -> None:
    show = case.shows[place]
    findings = workflow(*case.stages()).check()
    finding = next(f for f in findings if (f.kind, f.stage) == (show.fault, show.stage))

    replay(engine, case.stages(), finding, show.given.split())


@pytest.mark.parametrize("case", SOUND_HERE, ids=lambda case: case.name)
def test_what_is_unsound_elsewhere_and_not_here_ends_properly(
    engine: Engine, case: SoundHere
) -> None:
    assert workflow(*case.stages()).check() == ()

    ran = Replay(engine, case.stages(), case.given.split()).end_all()

    assert ran.status == "SUCCEEDED"


# --- the patterns -----------------------------------------------------------------------------

WARNED: Mapping[int, set[Fault]] = {
    7: {Fault.NO_BRANCH},  # a multi-choice without a default
    8: {Fault.REPEATED},  # that is the pattern
    16: {Fault.LOOSE_JOIN},  # `count` joins the branches of a choice: it shows that they are dead
    18: {Fault.DEAD_STAGE},  # `late_bid` is there to be too late
    28: {Fault.REPEATED},  # a multi-merge brings one branch twice
    31: {Fault.REPEATED},
    33: {Fault.REPEATED},
    37: {Fault.NO_BRANCH},
    38: {Fault.REPEATED},
}
"""What the patterns do on purpose of which one is warned; of all others nothing is said."""


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda pattern: pattern.id)
def test_a_pattern_raises_no_false_alarm(pattern: Pattern) -> None:
    findings = workflow(*pattern.stages()).check()

    assert {f.kind for f in findings} == WARNED.get(pattern.number, set())
