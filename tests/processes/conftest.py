"""What the tests with several processes ask for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lend_or_skip
from tests.processes.fleet import Fleet
from tests.support.backends import BACKENDS, BackendUnderTest, Databases

SHARED = [name for name, trait in BACKENDS.items() if "multi_process" in trait.capabilities]


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, databases: Databases) -> Iterator[BackendUnderTest]:
    """A database that processes can share, on each backend that has such."""
    with lend_or_skip(databases, request.param) as lent:
        yield lent


@pytest.fixture
def fleet_on(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes a fleet on a URL; all of it is gone after the test."""
    made: list[Fleet] = []

    def make(url: str, **settings: Any) -> Fleet:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Fleet(url, folder, **settings))
        return made[-1]

    yield make
    for fleet in made:
        fleet.__exit__(None, None, None)


@pytest.fixture
def rng() -> random.Random:
    """Chance, by a seed that is printed; `STABILIZE_SEED` repeats it."""
    seed = int(os.environ.get("STABILIZE_SEED", random.SystemRandom().randrange(10**9)))
    print(f"STABILIZE_SEED={seed}")
    return random.Random(seed)
