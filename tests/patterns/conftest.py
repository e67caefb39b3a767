"""An engine on each backend in turn, with the bodies of the patterns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.patterns.tasks import BODIES
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine


@contextmanager
def engine_at(url: str) -> Iterator[Engine]:
    """An engine with the bodies of the patterns, beside those that it has itself."""
    with Engine(url) as engine:
        for body in BODIES:
            if not engine.registry.has(body.__name__):
                engine.registry.register(body.__name__, body)
        yield engine


@pytest.fixture
def engine(backend: BackendUnderTest) -> Iterator[Engine]:
    with engine_at(backend.url) as engine:
        yield engine
