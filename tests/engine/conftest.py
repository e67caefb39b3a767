"""An engine on each backend in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine


@pytest.fixture
def engine(backend: BackendUnderTest) -> Iterator[Engine]:
    """Everything needed to run workflows on a database that this test has to itself."""
    with Engine(backend.url) as engine:
        yield engine
