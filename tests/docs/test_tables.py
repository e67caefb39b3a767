"""The reference of tables has every table and every column, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from stabilize import metadata

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"


def documented() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        table, rows = part.split("\n", 1)
        cells = re.findall(r"^\| (`[^|]*) \|", rows, re.MULTILINE)
        found[table] = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    return found


def test_every_table_and_column_is_described() -> None:
    there = {
        table.name: sorted(column.name for column in table.columns)
        for table in metadata.sorted_tables
    }
    assert {table: sorted(columns) for table, columns in documented().items()} == there
