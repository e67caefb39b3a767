"""The reference names everything that is public, and every field that defines a stage."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import stabilize
from stabilize import MultiInstanceConfig, StageExecution, events
from stabilize.types import Setting

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.rst"
TEXT = PAGE.read_text(encoding="utf-8")
KEPT_BY_THE_ENGINE = {"loop", "planned"}


def named(package: str) -> set[str]:
    return set(re.findall(rf"^\.\. \w+:: {package}\.(\w+)(?:\(.*)?$", TEXT, re.MULTILINE))


def fields_of(name: str) -> set[str]:
    _, _, rest = TEXT.partition(f".. autoclass:: stabilize.{name}")
    return set(re.findall(r"^   :param (\w+):", rest.partition("\n.. ")[0], re.MULTILINE))


def test_every_public_name_is_documented() -> None:
    assert named("stabilize") >= set(stabilize.__all__) - {"__version__"}
    assert named("stabilize.events") >= set(events.__all__)


def test_every_field_that_defines_a_stage_is_documented() -> None:
    settings = {name for name, value in vars(StageExecution).items() if isinstance(value, Setting)}
    columns = {"ref_id", "name", "type", "context", "tasks", "requisite_stage_ref_ids"}
    assert fields_of("StageExecution") == columns | settings - KEPT_BY_THE_ENGINE


def test_every_field_of_a_group_of_instances_is_documented() -> None:
    assert fields_of("MultiInstanceConfig") == {field.name for field in fields(MultiInstanceConfig)}
