"""An engine on each backend in turn, with the bodies of the patterns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.patterns.tasks import BODIES
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine


@pytest.fixture
def engine(backend: BackendUnderTest) -> Iterator[Engine]:
    with Engine(backend.url) as engine:
        for body in BODIES:
            if not engine.registry.has(body.__name__):
                engine.registry.register(body.__name__, body)
        yield engine
