"""The 43 control-flow patterns, each played by hand and by a worker on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stabilize import Queue, QueueProcessor, QueueProcessorConfig
from tests.patterns.catalog import PATTERNS, Pattern
from tests.patterns.play import Play, by_hand, by_others
from tests.patterns.tasks import registry
from tests.support.backends import BackendUnderTest

Way = Callable[[Pattern], None]


def _processor(queue: Queue) -> QueueProcessor:
    return QueueProcessor(queue, QueueProcessorConfig(max_workers=4), task_registry=registry())


@pytest.fixture(params=["by_hand", "by_a_worker"])
def play(request: pytest.FixtureRequest, backend: BackendUnderTest) -> Iterator[Way]:
    """Plays a pattern on a database of its own."""
    queue = Queue(backend.url)
    if request.param == "by_hand":
        processor = _processor(queue)
        # the hour of a timer that is never to come lies beyond
        yield lambda pattern: by_hand(Play(pattern, queue), lambda: processor.process_all(20))
    else:
        with _processor(queue):
            yield lambda pattern: by_others(Play(pattern, queue))
    queue.close()


def _test_of(pattern: Pattern) -> Callable[[Way], None]:
    def test(play: Way) -> None:
        play(pattern)

    test.__name__ = f"test_{pattern.id}"
    test.__doc__ = f"WCP-{pattern.number}: {pattern.condition}."
    return test


globals().update({f"test_{p.id}": _test_of(p) for p in PATTERNS.values()})


def test_there_is_one_for_each_of_the_43_patterns() -> None:
    assert sorted(PATTERNS) == list(range(1, 44))
