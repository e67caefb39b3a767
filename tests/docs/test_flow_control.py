"""The page of the control-flow patterns says what their tests say."""

from __future__ import annotations

from tests.patterns.page import COMMAND, PAGE, rendered


def test_the_page_is_what_the_catalog_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == rendered(page), f"the catalog has changed: run {COMMAND}"
