"""What holds for every file of SQLite, ours and the user's."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from stabilize import ConfigurationError, Database, SqliteWorkflowStore


def pragmas(database: Database, *names: str) -> list[object]:
    """What a connection for turns says of itself."""
    with database.turns.connect() as connection:
        database.backend.open_turns(connection)
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]


def test_turns_write_ahead_with_full_sync_and_keep_references(tmp_path: Path) -> None:
    store = SqliteWorkflowStore(f"sqlite:///{tmp_path}/ours.db")

    found = pragmas(store.database, "journal_mode", "synchronous", "foreign_keys")

    assert found == ["wal", 2, 1]


def test_a_file_that_somebody_is_writing_to_is_made_ours_when_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several processes that begin with a new file at once do this to each other."""
    path = tmp_path / "shared.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (id)")
        other.execute("BEGIN IMMEDIATE")
        paused: list[float] = []

        def pause(seconds: float) -> None:
            paused.append(seconds)
            other.execute("COMMIT")

        monkeypatch.setattr("stabilize.backends.sqlite.pause_within", pause)

        assert pragmas(Database.at(f"sqlite:///{path}"), "journal_mode") == ["wal"]
    assert len(paused) == 1


def test_turns_on_the_users_engine_sync_fully_too_and_leave_it_as_it_was(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/theirs.db")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA synchronous=OFF")

    assert pragmas(Database.at(engine), "synchronous", "foreign_keys") == [2, 1]
    engine.dispose()


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    SqliteWorkflowStore(f"sqlite:///{path}")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"folder .*/nowhere .*create it first"):
        SqliteWorkflowStore(f"sqlite:///{tmp_path}/nowhere/new.db")
