"""Column types that differ by database, and the one strict JSON codec of the library."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from stabilize.errors import PayloadError

MAX_DEPTH = 200
MAX_PAYLOAD_BYTES = 1_048_576

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def plain(value: object, where: str, *, limit: int = MAX_PAYLOAD_BYTES) -> Any:
    """Return a copy of `value` made of what every database can hold as JSON.

    Tuples become lists, sets sorted lists. NaN, infinities, NUL characters, lone surrogates,
    keys that are not strings, other types, more than 200 levels or more than `limit` bytes raise
    `PayloadError` with the path of the culprit below `where`.
    """
    copied = _copy(value, where, 0)
    size = len(_encoder.encode(copied).encode("utf-8"))
    if size > limit:
        raise PayloadError(
            f"{where} has {size} bytes as JSON, the limit is {limit}: store it "
            "elsewhere and keep a reference"
        )
    return copied


def _copy(value: object, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise PayloadError(f"{where} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return _text(value, where)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PayloadError(f"{where} is {value}, which JSON does not have")
        return value
    if isinstance(value, Mapping):
        return {
            _key(key, where): _copy(item, f"{where}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_copy(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        items = [_copy(item, f"{where}{{}}", depth + 1) for item in value]
        return sorted(items, key=_encoder.encode)
    raise PayloadError(
        f"{where} is a {type(value).__name__}, which JSON does not have: convert it to text, "
        "numbers, lists or dicts first"
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise PayloadError(f"{where} has the key {key!r} of type {type(key).__name__}: use text")
    return _text(key, f"the key {key!r} of {where}")


def _text(value: str, where: str) -> str:
    if "\x00" in value:
        raise PayloadError(f"{where} holds a NUL character, which PostgreSQL refuses in JSON")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PayloadError(f"{where} holds a lone surrogate: {error.reason}") from error
    return value


def encode(value: object) -> str:
    """Encode what `plain` has let through."""
    return _encoder.encode(value) if value else _EMPTY.get(type(value)) or _encoder.encode(value)


_EMPTY: dict[type, str] = {dict: "{}", list: "[]"}


_MYSQL = ("mysql", "mariadb")
_BYTEWISE = "utf8mb4_bin"
_TEXT = Text().with_variant(mysql.LONGTEXT(collation=_BYTEWISE), *_MYSQL)


class Json(TypeDecorator[Any]):
    """JSONB on PostgreSQL, text elsewhere."""

    impl = _TEXT.with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return encode(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, (str, bytes)) and dialect.name != "postgresql":
            return {} if value == "{}" else json.loads(value)
        return value


class DefinitionJson(Json):
    """What the definition of a stage says: the conditions of a split are asked in their order."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return super().process_bind_param(value and in_order(value), dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        found = super().process_result_value(value, dialect)
        return found and from_order(found)


def in_order(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The definition with its conditions as pairs: JSONB forgets the order of an object's keys."""
    conditions = definition.get("split_conditions")
    if not isinstance(conditions, Mapping):
        return definition
    return {**definition, "split_conditions": [list(pair) for pair in conditions.items()]}


def from_order(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `in_order` was given."""
    conditions = definition.get("split_conditions")
    if not isinstance(conditions, list):
        return definition
    return {**definition, "split_conditions": dict(conditions)}


class UtcDateTime(TypeDecorator[datetime]):
    """An instant with microseconds: aware in, UTC out. A naive one is refused, not guessed."""

    impl = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: use datetime.now(UTC) or the like")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        instant: datetime = value
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class StringSet(TypeDecorator[set[str]]):
    """A set of short strings, kept as a sorted JSON array."""

    impl = _TEXT
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> str | None:
        return None if value is None else encode(sorted(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> set[str] | None:
        return None if value is None else set(json.loads(value))


class Identifier(TypeDecorator[str]):
    """An id or a ref: compared byte by byte on every database."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 64) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        bytewise = mysql.VARCHAR(self.length, collation=_BYTEWISE)
        return String(self.length).with_variant(bytewise, *_MYSQL)


BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A number the database assigns: 64 bits, the row id on SQLite."""


class Structured(Json):
    """A small value class with `to_dict` and `from_dict`, kept as JSON."""

    cache_ok = True

    def __init__(self, value_class: Any) -> None:
        super().__init__()
        self.value_class = value_class

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        raw = value.to_dict() if isinstance(value, self.value_class) else value
        return super().process_bind_param(raw, dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        raw = super().process_result_value(value, dialect)
        return None if raw is None else self.value_class.from_dict(raw)

    def __repr__(self) -> str:
        return "Json()"


UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
"""What a constructor leaves out: it does not undo what the `definition` given to it says."""


class Setting:
    """One key of an entity's `definition`, read and written like an attribute of the entity.

    What a definition says and no query asks for shares one JSON column; this gives each key its
    name, type and default. `load` and `dump` convert from and to JSON; `dump` raises `TypeError`
    with what to write instead. What a `factory` makes is live: changing it in place before the
    entity is stored changes the definition.
    """

    def __init__(
        self,
        default: Any = None,
        *,
        factory: type[Any] | None = None,
        load: Callable[[Any], Any] | None = None,
        dump: Callable[[Any], Any] | None = None,
    ) -> None:
        self._default, self._factory, self._load, self._dump = default, factory, load, dump
        self._left_out = None if default is None or dump is None else dump(default)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return UNSET
        definition = instance.__dict__.get("definition")  # where it is: read all the time
        if definition is None:
            definition = instance.definition
        raw = definition.get(self._name)
        if raw is None:
            if self._factory is None:
                return self._default
            raw = definition[self._name] = self._factory()
        return raw if self._load is None else self._load(raw)

    def __set__(self, instance: Any, value: Any) -> None:
        if value is UNSET:
            return
        definition = dict(instance.definition or {})
        definition.pop(self._name, None)
        if value is not None and value != self._default:
            raw = value if self._dump is None else self._dumped(instance, value)
            if raw != self._left_out:
                definition[self._name] = raw
        instance.definition = definition

    def _dumped(self, instance: Any, value: Any) -> Any:
        assert self._dump is not None
        try:
            return self._dump(value)
        except TypeError as error:
            name = f"stage {getattr(instance, 'ref_id', '')!r}: {self._name}={value!r}"
            raise TypeError(f"{name}: {error}") from None


setting: Any = Setting
"""Declares a `Setting`; the annotation beside it says what it holds."""
