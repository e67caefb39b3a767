"""What the tests about crashes ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import lend_or_skip
from tests.crash.shapes import ledger
from tests.support.backends import BackendUnderTest, Databases


@pytest.fixture(params=["sqlite-file", "postgresql", "mariadb"])
def shared(request: pytest.FixtureRequest, databases: Databases) -> Iterator[BackendUnderTest]:
    """A database that processes can share, with a table of the user's."""
    with lend_or_skip(databases, request.param) as lent:
        engine = lent.engine()
        ledger.create(engine)
        yield lent
        ledger.drop(engine)
