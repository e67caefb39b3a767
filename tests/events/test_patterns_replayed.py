"""Every control-flow pattern, recorded: what its events add up to is what the tables say."""

from __future__ import annotations

import pytest

from stabilize import Queue, QueueProcessor
from stabilize.events import SqlEventStore, configure_event_sourcing
from tests.conftest import lend_or_skip
from tests.patterns.catalog import PATTERNS
from tests.patterns.play import Play, by_hand
from tests.patterns.tasks import registry
from tests.support.backends import Databases
from tests.support.replayed import check


@pytest.mark.parametrize("number", sorted(PATTERNS))
def test_a_pattern_is_rebuilt_from_its_events(databases: Databases, number: int) -> None:
    with lend_or_skip(databases, "sqlite-file") as lent:
        queue = Queue(lent.url)
        configure_event_sourcing(SqlEventStore(queue.database))
        processor = QueueProcessor(queue, task_registry=registry())

        by_hand(Play(PATTERNS[number], queue), lambda: processor.process_all(20))

        assert check(queue.database) > 0
        queue.close()
