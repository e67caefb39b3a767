"""The tests of the engine once more, recorded: what events add up to is what the tables say."""

# ruff: noqa: F403
from __future__ import annotations

from collections.abc import Iterator

import pytest

from stabilize.events import SqlEventStore, configure_event_sourcing
from tests.conftest import lend_or_skip
from tests.engine.test_cancel import *
from tests.engine.test_failure_flags import *
from tests.engine.test_joins import *
from tests.engine.test_pause import *
from tests.engine.test_restart import *
from tests.engine.test_results import *
from tests.engine.test_retries import *
from tests.engine.test_signals import *
from tests.engine.test_timeouts import *
from tests.support.backends import Databases
from tests.support.builders import Engine
from tests.support.replayed import check


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    """An engine with event sourcing; after the test its workflows are rebuilt and compared."""
    with lend_or_skip(databases, "sqlite-file") as lent, Engine(lent.url) as engine:
        configure_event_sourcing(SqlEventStore(engine.database))
        yield engine
        check(engine.database)
