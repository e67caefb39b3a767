"""The one seam between databases: whatever differs and SQLAlchemy does not already hide."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Self

from sqlalchemy import Connection, Engine, create_engine, func, select, union_all
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from stabilize.clock import chance
from stabilize.errors import ConfigurationError
from stabilize.models import ArchivedEvent, EventRecord

_LAST = union_all(
    *(select(func.max(kind.sequence).label("sequence")) for kind in (EventRecord, ArchivedEvent))
).subquery()
LAST_SEQUENCE = select(func.coalesce(func.max(_LAST.c.sequence), 0))


class Backend:
    """What a database can do and how; subclasses are found by dialect name."""

    dialects: ClassVar[tuple[str, ...]] = ()
    can_notify: ClassVar[bool] = False
    """Another process can be woken by the database."""
    needs_savepoints: ClassVar[bool] = True
    """A failed statement spoils the transaction unless a SAVEPOINT is around it."""
    fences_events: ClassVar[bool] = False
    """Events can become visible in another order than that of their numbers."""
    in_memory: bool = False
    """The database lives as long as a connection to it does."""
    turn_options: ClassVar[dict[str, Any]] = {"isolation_level": "READ COMMITTED"}
    poll_options: ClassVar[dict[str, Any]] = {"isolation_level": "AUTOCOMMIT"}

    # --- connecting -------------------------------------------------------------------------

    @classmethod
    def url(cls, text: str | URL) -> URL:
        """Normalise a URL a user wrote."""
        return make_url(text)

    @classmethod
    def create_engine(cls, url: URL) -> Engine:
        """Make the engine for a URL, with what this library needs of it."""
        return create_engine(url, pool_pre_ping=True, pool_recycle=1800)

    @classmethod
    def of(cls, identity: str) -> Self:
        """The backend of the database that `identity` names."""
        return cls()

    @classmethod
    def check_engine(cls, engine: Engine) -> None:
        """Raise `ConfigurationError` when a user's engine cannot carry turns."""

    @classmethod
    def identity(cls, engine: Engine) -> str:
        """Name the database behind `engine`, however its URL is spelled."""
        url = engine.url
        host = url.host or url.query.get("host") or "localhost"
        return f"{url.get_backend_name()}://{host}:{url.port or ''}/{url.database or ''}"

    # --- transactions -----------------------------------------------------------------------

    def open_turns(self, connection: Connection) -> None:
        """Prepare a connection that will play turns."""

    def begin(self, connection: Connection, deadline: float | None = None) -> None:
        """Begin a transaction that writes; until `deadline` (monotonic) wait for its lock."""
        connection.begin()

    def after_commit(self, others: bool) -> None:
        """Let `others` (processes) at the lock this one has just given back."""

    def altering(self, connection: Connection) -> AbstractContextManager[None]:
        """What a migration of the tables needs around its transaction."""
        return nullcontext()

    def cut(self, engine: Engine, connection: Any) -> None:
        """End what another thread does on a driver's connection, and undo it."""

    def is_trouble(self, error: BaseException) -> bool:
        """Say whether `error` is the database's own trouble: lock, connection, deadlock, disk."""
        return isinstance(error, DBAPIError) and error.connection_invalidated

    # --- statements -------------------------------------------------------------------------

    def now(self) -> ColumnElement[int]:
        """The database's clock, in milliseconds since the epoch, fixed within a statement."""
        raise NotImplementedError(f"{type(self).__name__} has no clock expression")

    def take_hint(self) -> tuple[str, str] | None:
        """An index hint (text, dialect) for the statement that takes due messages."""
        return None

    def frontier(self, connection: Connection, known: int = 0) -> int:
        """The event sequence up to which nothing can still come; 0 when there are no events.

        `connection` is in a READ COMMITTED transaction of its own that ends right after this.
        `known` was the frontier once: if it is the last number still, it is the frontier still.
        """
        return int(connection.execute(LAST_SEQUENCE).scalar_one())

    def order_events(self, connection: Connection) -> None:
        """Let nobody else append events until this transaction ends."""

    @contextmanager
    def maintaining_events(self, connection: Connection) -> Iterator[None]:
        """Inside, and in this transaction only, events may be changed and deleted."""
        raise NotImplementedError(f"{type(self).__name__} does not guard events")

    # --- waking -----------------------------------------------------------------------------

    def notify(self, engine: Engine, channel: str, sender: str) -> None:
        """Wake other processes that listen on `channel`; in a transaction of its own."""

    def listen(
        self,
        engine: Engine,
        channel: str,
        on_wake: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Call `on_wake` with the sender of each wake-up until `stopped()`."""


_backends: dict[str, type[Backend]] = {}


def register_backend(backend: type[Backend]) -> type[Backend]:
    """Make `backend` the one for its dialects; use it as a decorator."""
    for dialect in backend.dialects:
        _backends[dialect] = backend
    return backend


def backend_for(dialect: str) -> type[Backend]:
    """Find the backend class for a SQLAlchemy dialect name."""
    try:
        return _backends[dialect]
    except KeyError:
        known = ", ".join(sorted(_backends))
        raise ConfigurationError(
            f"no backend for the database {dialect!r}: use one of {known}"
        ) from None


def pause_within(seconds: float) -> None:
    """Sleep for a random part of `seconds`, so that waiters do not march in step."""
    time.sleep(chance() * seconds)


@contextmanager
def rolled_back_on_error(connection: Connection) -> Iterator[None]:
    """Leave no transaction open behind an error: SQLite's would lock the file for all."""
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
