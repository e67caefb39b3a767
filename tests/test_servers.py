"""The databases the other tests stand on."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from stabilize.models import metadata
from tests.conftest import lend_or_skip
from tests.support.admin import PREFIX, STALE_SECONDS, Admin, is_stale
from tests.support.backends import BACKENDS, BackendUnderTest, Databases
from tests.support.containers import docker_answers
from tests.support.embedded import EmbeddedPostgresql
from tests.support.run import Run, required_kinds
from tests.support.servers import Server

ROOT = Path(__file__).parent.parent

shelf = MetaData()
books = Table("books", shelf, Column("id", Integer, primary_key=True), Column("title", String(50)))


genres = Table(
    "genres", shelf, Column("id", Integer, primary_key=True), Column("title", String(50))
)


@event.listens_for(shelf, "after_create")
def _fill(_: MetaData, connection: Connection, **__: object) -> None:
    connection.execute(insert(genres), [{"id": 1, "title": "Novels"}])


@pytest.fixture
def shelves(run: Run, tmp_path: Path) -> Iterator[Databases]:
    """Databases with a table of this file's, apart from those of the other tests."""
    own = Run.join(run.ticket, worker=f"{run.worker}_shelves")
    databases = Databases(own, shelf, tmp_path)
    yield databases
    databases.close()


@pytest.fixture(params=[name for name in BACKENDS if "server" in BACKENDS[name].capabilities])
def admin(request: pytest.FixtureRequest, databases: Databases, run: Run) -> Admin:
    """The right to make databases on each server in turn."""
    with lend_or_skip(databases, request.param):
        return Admin(run.server(BACKENDS[request.param].kind).url)


def test_a_backend_answers_and_has_our_tables_without_a_row(backend: BackendUnderTest) -> None:
    with backend.engine().connect() as connection:
        assert connection.scalar(select(1)) == 1
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())
        for table in metadata.sorted_tables:
            if table.name != "stabilize_event_fence":  # the mark of its numbering comes with it
                assert connection.scalar(select(func.count()).select_from(table)) == 0


def test_an_empty_backend_has_no_table(empty_backend: BackendUnderTest) -> None:
    assert inspect(empty_backend.engine()).get_table_names() == []


@pytest.mark.parametrize("name", BACKENDS)
def test_a_row_of_one_test_is_gone_in_the_next(shelves: Databases, name: str) -> None:
    with lend_or_skip(shelves, name) as first, first.engine().begin() as connection:
        connection.execute(insert(books), [{"title": "Momo"}])

    with lend_or_skip(shelves, name) as second, second.engine().connect() as connection:
        assert connection.scalar(select(func.count()).select_from(books)) == 0


@pytest.mark.parametrize("change", [delete(genres), insert(genres).values(id=9, title="Poems")])
@pytest.mark.parametrize("name", BACKENDS)
def test_rows_that_come_with_the_tables_are_there_again_in_the_next(
    shelves: Databases, name: str, change: Executable
) -> None:
    with lend_or_skip(shelves, name) as first, first.engine().begin() as connection:
        connection.execute(change)

    with lend_or_skip(shelves, name) as second, second.engine().connect() as connection:
        assert connection.execute(select(genres)).all() == [(1, "Novels")]


@pytest.mark.parametrize("name", BACKENDS)
def test_events_of_one_test_are_gone_in_the_next_though_nobody_else_may_delete_them(
    databases: Databases, name: str
) -> None:
    table = metadata.tables["stabilize_events"]
    samples: dict[type, object] = {str: "x", int: 1, datetime: datetime(2026, 1, 1, tzinfo=UTC)}
    row = {
        column.name: samples[getattr(column.type, "impl", column.type).python_type]
        for column in table.columns
        if not column.nullable and not column.primary_key
    }
    with lend_or_skip(databases, name) as first:
        with first.engine().begin() as connection:
            connection.execute(insert(table), [row])
        with pytest.raises(DBAPIError), first.engine().begin() as connection:
            connection.execute(delete(table))

    with lend_or_skip(databases, name) as second, second.engine().connect() as connection:
        assert connection.scalar(select(func.count()).select_from(table)) == 0


@pytest.mark.parametrize("name", BACKENDS)
def test_a_table_of_one_test_is_gone_in_the_next(shelves: Databases, name: str) -> None:
    with lend_or_skip(shelves, name) as first, first.engine().begin() as connection:
        connection.execute(text("CREATE TABLE loans (id INTEGER)"))

    with lend_or_skip(shelves, name) as second:
        assert inspect(second.engine()).get_table_names() == ["books", "genres"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_table_that_one_test_dropped_is_there_in_the_next(shelves: Databases, name: str) -> None:
    with lend_or_skip(shelves, name) as first, first.engine().begin() as connection:
        connection.execute(text("DROP TABLE books"))

    with lend_or_skip(shelves, name) as second:
        assert inspect(second.engine()).get_table_names() == ["books", "genres"]


def test_a_schema_of_one_test_is_gone_in_the_next(shelves: Databases) -> None:
    with lend_or_skip(shelves, "postgresql") as first, first.engine().begin() as connection:
        connection.execute(text("CREATE SCHEMA annex"))
        connection.execute(text("CREATE TABLE annex.loans (id INTEGER)"))

    with lend_or_skip(shelves, "postgresql") as second:
        assert "annex" not in inspect(second.engine()).get_schema_names()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_lock_that_a_test_left_behind_does_not_hold_the_next_one_up(
    shelves: Databases, name: str
) -> None:
    with lend_or_skip(shelves, name) as first:
        forgotten = first.engine().raw_connection()
        forgotten.detach()  # or the engine would close it
        cursor = forgotten.cursor()
        cursor.execute("INSERT INTO books VALUES (1, 'Momo')")
        cursor.execute("SELECT id FROM books")

    with lend_or_skip(shelves, name) as second, second.engine().begin() as connection:
        assert connection.scalar(select(func.count()).select_from(books)) == 0
        connection.execute(insert(books), [{"title": "Krabat"}])
    forgotten.close()


def test_two_tests_do_not_share_a_memory(shelves: Databases) -> None:
    with shelves.lend("sqlite-memory") as one, shelves.lend("sqlite-memory") as other:
        with one.engine().begin() as connection:
            connection.execute(insert(books), [{"title": "Momo"}])

        with one.engine().connect() as connection:
            assert connection.scalar(select(func.count()).select_from(books)) == 1
        with other.engine().connect() as connection:
            assert connection.scalar(select(func.count()).select_from(books)) == 0


@pytest.mark.parametrize(
    ("age", "stale"), [(STALE_SECONDS + 1, True), (STALE_SECONDS - 1, False), (0, False)]
)
def test_a_database_is_stale_by_the_time_in_its_name(age: int, stale: bool) -> None:
    now = 1_800_000_000
    assert is_stale(f"{PREFIX}_{now - age}_0a1b2c3d_gw0_7", now) is stale


@pytest.mark.parametrize("name", ["stabilize", "stabilize_test", f"{PREFIX}_data", "postgres"])
def test_a_database_of_another_name_is_never_stale(name: str) -> None:
    assert not is_stale(name, 1_800_000_000)


def test_what_a_killed_run_left_hours_ago_is_dropped(admin: Admin) -> None:
    made = int(time.time())
    young = f"{PREFIX}_{made}_{secrets.token_hex(4)}_main_0"
    old = f"{PREFIX}_{made - STALE_SECONDS - 60}_{secrets.token_hex(4)}_main_0"
    admin.create(young)
    admin.create(old)

    admin.drop_stale()

    names = admin.names()
    admin.drop([young])
    assert old not in names
    assert young in names


def test_the_databases_of_a_run_are_dropped_with_it_even_when_in_use(admin: Admin) -> None:
    name = f"{PREFIX}_{int(time.time())}_{secrets.token_hex(4)}"
    url = admin.create(f"{name}_gw1_0")
    user = BackendUnderTest(name="", kind=admin.kind, url=url, capabilities=frozenset())
    with user.engine().connect() as connection:
        connection.execute(select(1))

        admin.drop_run(name)

        assert f"{name}_gw1_0" not in admin.names()
        connection.invalidate()
    user.dispose()


def test_a_docker_client_without_an_engine_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert not docker_answers()


@pytest.mark.skipif(os.name != "posix", reason="stands in for the engine on a unix socket")
def test_an_engine_that_says_nothing_is_given_up_within_two_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/mute.sock")
        mute.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
        before = time.monotonic()

        assert not docker_answers()

        assert time.monotonic() - before < 2


def test_a_missing_server_is_a_skip_that_says_what_to_set(tmp_path: Path) -> None:
    done = run_pytest("mariadb", tmp_path)

    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "set STABILIZE_TEST_MYSQL_URL" in done.stdout


@pytest.mark.parametrize("word", ["mysql", "postgresql, mariadb"])
def test_a_missing_server_is_a_failure_where_it_is_required(tmp_path: Path, word: str) -> None:
    done = run_pytest("mariadb", tmp_path, STABILIZE_REQUIRE=word)

    assert done.returncode == 1, done.stdout
    assert "required here: no MariaDB or MySQL server" in done.stdout


def test_a_server_that_was_named_and_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    url = "mysql+pymysql://root:secret@127.0.0.1:1/mysql"
    done = run_pytest("mariadb", tmp_path, STABILIZE_TEST_MYSQL_URL=url)

    assert done.returncode == 1, done.stdout
    assert "the server of STABILIZE_TEST_MYSQL_URL cannot be used" in done.stdout
    assert "secret" not in done.stdout


def test_sqlite_needs_no_server_and_starts_none(tmp_path: Path) -> None:
    done = run_pytest("sqlite-file", tmp_path, STABILIZE_REQUIRE="postgresql,mysql")

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert list(tmp_path.glob("stz-pg-*")) == []


def test_an_unknown_word_in_the_requirements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABILIZE_REQUIRE", "mysql,oracle")

    with pytest.raises(ValueError, match="STABILIZE_REQUIRE names oracle"):
        required_kinds()


def test_a_server_is_looked_for_once_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Server(kind="mysql", url="mysql+pymysql://nobody@127.0.0.1/mysql")
    searches = iter([found])
    monkeypatch.setattr("tests.support.run.find_server", lambda kind, owner: next(searches))
    run = Run.begin()
    try:
        assert run.server("mysql") == found
        assert Run.join(run.ticket, worker="gw0").server("mysql") == found
    finally:
        run.forget()


def test_a_killed_postgresql_comes_back_with_what_was_committed(
    own_postgresql: EmbeddedPostgresql,
) -> None:
    server = BackendUnderTest(
        name="own", kind="postgresql", url=own_postgresql.url, capabilities=frozenset()
    )
    engine = server.engine()
    shelf.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(books), [{"title": "Momo"}])

    own_postgresql.kill()
    with pytest.raises(DBAPIError), engine.connect() as connection:
        connection.scalar(select(1))
    own_postgresql.restart()

    with engine.connect() as connection:
        assert connection.scalar(select(books.c.title)) == "Momo"
    server.dispose()


@pytest.mark.skipif(os.name != "posix", reason="the watcher is a shell script")
def test_an_embedded_postgresql_does_not_outlive_a_killed_owner(
    own_postgresql: EmbeddedPostgresql,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    assert (folder / "postmaster.pid").exists()

    owner.kill()
    owner.communicate()

    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()


_OWNER = """
import os, time
from tests.support.embedded import EmbeddedPostgresql
print(EmbeddedPostgresql(os.getpid()).folder, flush=True)
time.sleep(60)
"""


def run_pytest(backend: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test of this file on one backend where neither a server nor Docker is to be had."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("STABILIZE_", "PYTEST_", "DOCKER_"))
    }
    test = test_a_backend_answers_and_has_our_tables_without_a_row.__name__
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--numprocesses=0", "-p", "no:cacheprovider"),
            f"tests/test_servers.py::{test}[{backend}]",
        ],
        cwd=ROOT,
        env={
            **kept,
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "TMPDIR": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
