"""Our migrations make exactly the tables of the models, on every database, and take them back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Integer, MetaData, Table, UniqueConstraint, inspect, text

from stabilize import Database, SchemaError, SqliteWorkflowStore, metadata, migrate
from stabilize.backends import backend_for
from stabilize.models.base import REVISION
from tests.support.backends import BackendUnderTest
from tests.support.builders import Engine as WorkflowEngine
from tests.support.builders import ok, stage

ROOT = Path(__file__).parents[2]
OURS = {table.name for table in metadata.sorted_tables}
_TRIGGERS = {
    "sqlite": "SELECT name || sql FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT trigger_name || event_manipulation || action_statement"
    " FROM information_schema.triggers",
    "mysql": "SELECT concat(trigger_name, event_manipulation, action_statement)"
    " FROM information_schema.triggers WHERE trigger_schema = database()",
}


def reflected(engine: Engine, kind: str, schema: str | None = None) -> dict[str, Any]:
    """All there is of ours in a database, by name."""
    inspector = inspect(engine)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names(schema=schema):
        if table == migrate.VERSION_TABLE:
            continue
        columns = inspector.get_columns(table, schema=schema)
        found[table] = {
            "columns": [{**column, "type": repr(column["type"])} for column in columns],
            "key": inspector.get_pk_constraint(table, schema=schema),
            "indexes": _sorted(inspector.get_indexes(table, schema=schema)),
            "unique": _sorted(inspector.get_unique_constraints(table, schema=schema)),
            "references": _sorted(inspector.get_foreign_keys(table, schema=schema)),
            "options": inspector.get_table_options(table, schema=schema),
        }
    for view in inspector.get_view_names(schema=schema):
        found[view] = inspector.get_view_definition(view, schema=schema)
    with engine.connect() as connection:
        found["triggers"] = sorted(connection.scalars(text(_TRIGGERS[kind])))
    return found


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: str(item["name"]))


def head() -> str:
    config = Config()
    config.set_main_option("script_location", str(migrate.scripts()))
    found = ScriptDirectory.from_config(config).get_current_head()
    assert found is not None
    return found


def test_upgrade_makes_the_tables_and_downgrade_removes_them(
    empty_backend: BackendUnderTest,
) -> None:
    url = empty_backend.url
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == head()
    migrate.check(url)
    migrate.upgrade(url)
    migrate.downgrade(url, "base")
    assert migrate.current(url) is None
    assert inspect(empty_backend.engine()).get_table_names() == [migrate.VERSION_TABLE]


def test_the_migrations_and_the_models_make_the_same(empty_backend: BackendUnderTest) -> None:
    engine = empty_backend.engine()
    migrate.upgrade(empty_backend.url)
    migrated = reflected(engine, empty_backend.kind)
    assert migrated.keys() >= OURS
    migrate.downgrade(empty_backend.url, "base")
    metadata.create_all(engine)
    assert reflected(engine, empty_backend.kind) == migrated


def test_workflows_run_on_migrated_tables(empty_backend: BackendUnderTest) -> None:
    migrate.upgrade(empty_backend.url)
    with WorkflowEngine(empty_backend.url) as engine:
        assert engine.run(stage("a", does=ok), stage("b", after="a", does=ok)).status == "SUCCEEDED"


def test_an_engine_of_the_application_will_do(empty_backend: BackendUnderTest) -> None:
    engine = empty_backend.engine()
    migrate.upgrade(engine)
    assert migrate.current(engine) == head()
    with engine.connect() as connection:
        migrate.check(connection)


def test_a_failed_upgrade_leaves_nothing(
    empty_backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty_backend.kind == "mysql":
        pytest.skip("its DDL is not transactional")
    with empty_backend.engine().begin() as connection:
        connection.execute(text("CREATE TABLE stabilize_tasks (id INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(empty_backend.url)
    assert migrate.current(empty_backend.url) is None
    assert inspect(empty_backend.engine()).get_table_names() == ["stabilize_tasks"]


def test_check_names_the_differences(empty_backend: BackendUnderTest) -> None:
    with pytest.raises(SchemaError, match="at revision None, this code needs"):
        migrate.check(empty_backend.url)
    migrate.upgrade(empty_backend.url)
    with empty_backend.engine().begin() as connection:
        connection.execute(text("ALTER TABLE stabilize_tasks ADD COLUMN colour INTEGER"))
        connection.execute(text("CREATE TABLE stabilize_extra (id INTEGER)"))
        connection.execute(text("CREATE TABLE tasks (id INTEGER)"))
    with pytest.raises(SchemaError) as caught:
        migrate.check(empty_backend.url)
    assert "remove_column stabilize_tasks.colour" in str(caught.value)
    assert "remove_table stabilize_extra" in str(caught.value)
    assert "remove_table tasks" not in str(caught.value)


def test_tables_newer_than_the_code_are_refused(empty_backend: BackendUnderTest) -> None:
    migrate.upgrade(empty_backend.url)
    with empty_backend.engine().begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    for verb in (migrate.upgrade, migrate.check, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(SchemaError, match=r"9999.*newer than the code"):
            verb(empty_backend.url)
    assert inspect(empty_backend.engine()).get_table_names() != [migrate.VERSION_TABLE]


def test_the_tables_can_have_a_schema_of_their_own(empty_backend: BackendUnderTest) -> None:
    if "schemas" not in empty_backend.capabilities:
        pytest.skip("it has no schemas")
    engine = empty_backend.engine()
    migrate.upgrade(engine, schema="flows")
    assert migrate.current(engine, schema="flows") == head()
    assert migrate.current(engine) is None
    migrate.check(engine, schema="flows")
    assert inspect(engine).get_table_names() == []
    assert set(inspect(engine).get_table_names(schema="flows")) == OURS | {migrate.VERSION_TABLE}

    translated = engine.execution_options(schema_translate_map={None: "flows"})
    assert migrate.current(translated) == head()
    migrate.check(translated)
    migrate.downgrade(translated, "base")
    assert inspect(engine).get_table_names(schema="flows") == [migrate.VERSION_TABLE]


def test_workflows_run_in_a_schema_of_their_own(empty_backend: BackendUnderTest) -> None:
    if "schemas" not in empty_backend.capabilities:
        pytest.skip("it has no schemas")
    engine = empty_backend.engine()
    migrate.upgrade(engine, schema="flows")
    translated = engine.execution_options(schema_translate_map={None: "flows"})
    with WorkflowEngine(translated) as flows:
        assert flows.run(stage("a", does=ok)).status == "SUCCEEDED"


def test_the_code_knows_the_newest_migration() -> None:
    assert int(head()) == REVISION


def test_a_schema_two_versions_ahead_is_refused_and_the_next_one_is_not(
    empty_backend: BackendUnderTest,
) -> None:
    engine = empty_backend.engine()
    migrate.upgrade(engine)
    for number, refused in ((REVISION + 1, False), (REVISION + 2, True)):
        with engine.begin() as connection:
            connection.execute(
                text(f"UPDATE {migrate.VERSION_TABLE} SET version_num='{number:04d}'")
            )
        database = Database(engine, backend_for(engine.dialect.name)(), owned=False)
        if refused:
            with pytest.raises(SchemaError, match="install a newer stabilize"):
                database.require_tables()
        else:
            database.require_tables()


def test_the_file_of_a_busy_database_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'busy.db'}"
    store = SqliteWorkflowStore(url, create_tables=False)
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one()
    migrate.upgrade(url)
    with store.database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


# --- beside an application's own history --------------------------------------------------------

_ENVIRONMENT = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

import stabilize
from stabilize import migrate

own = MetaData()
Table("orders", own, Column("id", Integer, primary_key=True), Column("price", Integer))
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    {before}
    context.configure(
        connection=connection,
        target_metadata={targets},
        include_object=migrate.include_object,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
"""
_REVISION = """
import sqlalchemy as sa
from alembic import op

{imports}
revision = "a1"
down_revision = None


def upgrade():
    {ours}
    op.create_table("orders", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade():
    op.drop_table("orders")
"""
_TEMPLATE = """
import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
"""


@contextmanager
def application(
    folder: Path, url: str, *, before: str = "", ours: str = "", targets: str = "own"
) -> Iterator[Config]:
    """An application's own Alembic environment, with one revision that makes its table."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(
        _ENVIRONMENT.replace("{before}", before).replace("{targets}", targets)
    )
    imports = "from stabilize import migrate" if ours else ""
    (folder / "versions" / "a1.py").write_text(_REVISION.format(imports=imports, ours=ours))
    (folder / "script.py.mako").write_text(_TEMPLATE)
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    yield config


@pytest.mark.parametrize("targets", ["own", "[own, stabilize.metadata]"])
def test_an_applications_autogenerate_leaves_our_tables_alone(
    empty_backend: BackendUnderTest, tmp_path: Path, targets: str
) -> None:
    from alembic import command

    migrate.upgrade(empty_backend.url)
    with application(tmp_path / "app", empty_backend.url, targets=targets) as config:
        command.upgrade(config, "head")
        script = command.revision(config, "price", autogenerate=True, rev_id="a2")
    assert not isinstance(script, list)
    assert script is not None
    written = Path(script.path).read_text()
    assert "op.add_column('orders'" in written
    assert "stabilize" not in written
    migrate.check(empty_backend.url)


@pytest.mark.parametrize(
    ("before", "ours"),
    [
        ("migrate.upgrade(connection); connection.commit()", ""),
        ("", "migrate.upgrade(op.get_bind())"),
    ],
    ids=["in env.py", "in a revision"],
)
def test_an_application_can_run_our_migrations_from_its_own(
    empty_backend: BackendUnderTest, tmp_path: Path, before: str, ours: str
) -> None:
    from alembic import command

    app = application(tmp_path / "app", empty_backend.url, before=before, ours=ours)
    with app as config:
        command.upgrade(config, "head")
    there = set(inspect(empty_backend.engine()).get_table_names())
    assert there == OURS | {"orders", "alembic_version", migrate.VERSION_TABLE}
    migrate.check(empty_backend.url)


def test_an_application_can_refer_to_our_tables() -> None:
    own = MetaData()
    orders = Table("orders", own, Column("id", Integer, primary_key=True))
    index = UniqueConstraint(orders.c.id)
    assert migrate.include_object(orders, "orders", "table", False, None)
    assert migrate.include_object(index, None, "unique_constraint", False, None)
    for table in metadata.sorted_tables:
        assert not migrate.include_object(table, table.name, "table", True, None)
        assert not migrate.include_object(table.c[0], table.c[0].name, "column", True, None)
    assert not migrate.include_object(None, migrate.VERSION_TABLE, "table", True, None)


# --- the command --------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stabilize.migrate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_goes_up_checks_and_goes_down(tmp_path: Path) -> None:
    url = f"--url=sqlite:///{tmp_path / 'app.db'}"
    assert run("current", url).stdout == "There are no tables.\n"
    assert run("upgrade", url).stdout == f"The tables are at revision {head()}.\n"
    assert run("check", url).stdout == "The tables are what this version needs.\n"
    assert run("downgrade", "base", "--yes", url).stdout == "There are no tables.\n"
    assert run("check", url).returncode == 1


def test_the_command_says_what_is_wrong_and_no_password() -> None:
    ran = run("upgrade", "--url=oracle://me:secret@host/db")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: no backend for the database 'oracle'")
    assert "secret" not in ran.stderr


def test_the_command_explains_itself() -> None:
    shown = run("--help").stdout
    assert all(verb in shown for verb in ("upgrade", "downgrade", "current", "check"))
