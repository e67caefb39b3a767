"""A new, empty database for each measurement."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.support.admin import Admin

_NAME = f"stabilize_benchmark_{os.getpid()}"


@contextmanager
def fresh(url: str | None) -> Iterator[str]:
    """Lend a database beside the one at `url`: a new one on its server, a new file in its folder.

    Without a URL it is a SQLite file in the system's temporary folder.
    """
    parsed = make_url(url or f"sqlite:///{Path(tempfile.gettempdir()) / 'any.db'}")
    if parsed.get_backend_name() == "sqlite":
        folder = Path(parsed.database or ".").resolve().parent
        with tempfile.TemporaryDirectory(prefix=_NAME, dir=folder) as place:
            yield f"sqlite:///{Path(place) / 'benchmark.db'}"
        return
    admin = Admin(str(url))
    admin.drop([_NAME])
    try:
        yield admin.create(_NAME)
    finally:
        admin.drop([_NAME])
