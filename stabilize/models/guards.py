"""Triggers on the events: nobody changes them, and their numbering is fenced (DDL per dialect).

`events.md` explains the fence: each writer announces a lower bound of the numbers it may get, so
that a reader can tell up to where nothing can still come.
"""

from __future__ import annotations

_MAINTENANCE = "events are append-only: they are changed only under event maintenance"


def _sqlite(_: str) -> list[str]:
    allowed = "EXISTS (SELECT 1 FROM stabilize_event_fence WHERE id = 3)"
    return [
        f"CREATE TRIGGER IF NOT EXISTS stabilize_events_no_{verb} BEFORE {verb.upper()} "
        f"ON stabilize_events WHEN NOT {allowed} "
        f"BEGIN SELECT RAISE(ABORT, '{_MAINTENANCE}'); END"
        for verb in ("update", "delete")
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
        f"DROP TRIGGER IF EXISTS stabilize_events_guard ON {events}",
        (
            "CREATE TRIGGER stabilize_events_guard "
            f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {events} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}stabilize_event_guard()"
        ),
        (
            f"INSERT INTO {schema}stabilize_event_fence (id, value, updated_at) "
            "VALUES (2, 0, 0) ON CONFLICT DO NOTHING"
        ),
    ]


def _mysql(schema: str) -> list[str]:
    statements = []
    for verb in ("update", "delete"):
        statements += [
            f"DROP TRIGGER IF EXISTS {schema}stabilize_events_no_{verb}",
            (
                f"CREATE TRIGGER {schema}stabilize_events_no_{verb} BEFORE {verb.upper()} "
                f"ON {schema}stabilize_events FOR EACH ROW BEGIN "
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


_CREATE = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
}


def create_guards(dialect: str, schema: str = "") -> list[str]:
    """The statements that make fence and guard; `schema` is a prefix with its dot, or empty."""
    return _CREATE[dialect](schema)


def drop_guards(dialect: str, schema: str = "") -> list[str]:
    """The statements that remove them, whether they are there or not."""
    if dialect == "postgresql":
        return [
            f"DROP TRIGGER IF EXISTS stabilize_events_fence ON {schema}stabilize_events",
            f"DROP TRIGGER IF EXISTS stabilize_events_guard ON {schema}stabilize_events",
            f"DROP FUNCTION IF EXISTS {schema}stabilize_event_fence()",
            f"DROP FUNCTION IF EXISTS {schema}stabilize_event_guard()",
        ]
    names = ["stabilize_events_no_update", "stabilize_events_no_delete"]
    if dialect != "sqlite":
        names.append("stabilize_events_fence")
    return [f"DROP TRIGGER IF EXISTS {schema}{name}" for name in names]
