"""Triggers on events: nobody changes them, archived or not, and their numbering is fenced.

The fence: each writer announces a lower bound of the numbers it may get, so that a reader can tell
up to where nothing can still come (`Backend.frontier`).
"""

from __future__ import annotations

from itertools import product

from stabilize.models.base import by_dialect

_MAINTENANCE = "events are append-only: they are changed only under event maintenance"
_GUARDED = ("stabilize_events", "stabilize_events_archive")
_VERBS = ("update", "delete")


def _sqlite(_: str) -> list[str]:
    allowed = "EXISTS (SELECT 1 FROM stabilize_event_fence WHERE id = 3)"
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb.upper()} "
        f"ON {table} WHEN NOT {allowed} "
        f"BEGIN SELECT RAISE(ABORT, '{_MAINTENANCE}'); END"
        for table, verb in product(_GUARDED, _VERBS)
    ]


def _postgresql(schema: str) -> list[str]:
    events = f"{schema}stabilize_events"
    return [
        # The marker makes it once per transaction; it and the lock are undone together when a
        # savepoint is rolled back. The key is 15 bits of table, then the highest number taken.
        f"""CREATE OR REPLACE FUNCTION {schema}stabilize_event_fence() RETURNS trigger
LANGUAGE plpgsql AS $fence$
DECLARE
  low bigint;
  marker text := 'stabilize.event_fence_' || TG_RELID;
BEGIN
  IF coalesce(current_setting(marker, true), '') <> 'on' THEN
    EXECUTE format(
      'SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM %I.%I',
      TG_TABLE_SCHEMA, 'stabilize_events_sequence_seq') INTO low;
    PERFORM pg_advisory_xact_lock_shared(((TG_RELID::bigint & 32767) << 48) | low);
    PERFORM set_config(marker, 'on', true);
  END IF;
  RETURN NULL;
END $fence$""",
        f"""CREATE OR REPLACE FUNCTION {schema}stabilize_event_guard() RETURNS trigger
LANGUAGE plpgsql AS $guard$
BEGIN
  IF coalesce(current_setting('stabilize.event_maintenance', true), '') <> 'on' THEN
    RAISE EXCEPTION '{_MAINTENANCE}';
  END IF;
  RETURN NULL;
END $guard$""",
        f"DROP TRIGGER IF EXISTS stabilize_events_fence ON {events}",
        (
            f"CREATE TRIGGER stabilize_events_fence BEFORE INSERT ON {events} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}stabilize_event_fence()"
        ),
        *(
            statement
            for table in _GUARDED
            for statement in (
                f"DROP TRIGGER IF EXISTS {table}_guard ON {schema}{table}",
                (
                    f"CREATE TRIGGER {table}_guard "
                    f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}{table} "
                    f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}stabilize_event_guard()"
                ),
            )
        ),
        (
            f"INSERT INTO {schema}stabilize_event_fence (id, value, updated_at) "
            "VALUES (2, 0, 0) ON CONFLICT DO NOTHING"
        ),
    ]


def _mysql(schema: str) -> list[str]:
    statements = []
    for table, verb in product(_GUARDED, _VERBS):
        statements += [
            f"DROP TRIGGER IF EXISTS {schema}{table}_no_{verb}",
            (
                f"CREATE TRIGGER {schema}{table}_no_{verb} BEFORE {verb.upper()} "
                f"ON {schema}{table} FOR EACH ROW BEGIN "
                "IF coalesce(@stabilize_event_maintenance, 0) <> 1 THEN "
                f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{_MAINTENANCE}'; END IF; END"
            ),
        ]
    return [
        *statements,
        f"DROP TRIGGER IF EXISTS {schema}stabilize_events_fence",
        # A row that is not there cannot be locked: without it the fence would be open, unseen. To
        # insert it here would make the lock above an exclusive one, for the table is then one
        # that the trigger writes to, and writers would wait for each other.
        (
            f"CREATE TRIGGER {schema}stabilize_events_fence BEFORE INSERT "
            f"ON {schema}stabilize_events FOR EACH ROW BEGIN DECLARE held INT DEFAULT NULL; "
            f"SELECT id INTO held FROM {schema}stabilize_event_fence "
            "WHERE id = 1 LOCK IN SHARE MODE; "
            "IF held IS NULL THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = "
            "'stabilize_event_fence has lost its row 1: insert (1, 0, 0) again'; END IF; END"
        ),
        (
            f"INSERT IGNORE INTO {schema}stabilize_event_fence (id, value, updated_at) "
            "VALUES (1, 0, 0), (2, 0, 0)"
        ),
    ]


_NO_CHANGES = tuple(
    f"DROP TRIGGER IF EXISTS {{s}}{table}_no_{verb}" for table, verb in product(_GUARDED, _VERBS)
)
_CREATE = by_dialect(sqlite=_sqlite, postgresql=_postgresql, mysql=_mysql)
_DROP = by_dialect(
    sqlite=_NO_CHANGES,
    postgresql=(
        "DROP TRIGGER IF EXISTS stabilize_events_fence ON {s}stabilize_events",
        *(f"DROP TRIGGER IF EXISTS {table}_guard ON {{s}}{table}" for table in _GUARDED),
        "DROP FUNCTION IF EXISTS {s}stabilize_event_fence()",
        "DROP FUNCTION IF EXISTS {s}stabilize_event_guard()",
    ),
    mysql=(*_NO_CHANGES, "DROP TRIGGER IF EXISTS {s}stabilize_events_fence"),
)


def create_guards(dialect: str, schema: str = "") -> list[str]:
    """The statements that make fence and guard; `schema` is a prefix with its dot, or empty."""
    return _CREATE[dialect](schema)


def drop_guards(dialect: str, schema: str = "") -> list[str]:
    """The statements that remove them, whether they are there or not."""
    return [statement.format(s=schema) for statement in _DROP[dialect]]
