"""An engine whose every transition is recorded, and checked against its tables at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stabilize.events import SqlEventStore, configure_event_sourcing, reset_event_recorder
from stabilize.events.bus import reset_event_bus
from stabilize.events.context import clear_event_context
from stabilize.events.migrator import reset_event_migrator
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine
from tests.support.replayed import check


@pytest.fixture(autouse=True)
def _events_off_again() -> Iterator[None]:
    """What is global to a process does not outlive a test."""
    yield
    reset_event_recorder()
    reset_event_bus()
    reset_event_migrator()
    clear_event_context()


@pytest.fixture
def engine(backend: BackendUnderTest) -> Iterator[Engine]:
    """An engine with event sourcing; after the test its workflows are rebuilt and compared."""
    with Engine(backend.url) as engine:
        configure_event_sourcing(SqlEventStore(engine.database))
        yield engine
        check(engine.database)


@pytest.fixture
def events(engine: Engine) -> SqlEventStore:
    """The events of `engine`."""
    return SqlEventStore(engine.database)
