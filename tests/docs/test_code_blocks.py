"""What README and the guides show runs, and prints what they say it prints."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from stabilize import migrate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
KNOWN = {"python", "text", "sql", "console", "sh", "none", "{toctree}", "mermaid"}
"""`python` runs, `text` is what that prints, `sql` runs, `console` runs if it is a command of ours,
`none` is shown only."""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[2], match[3], text.count("\n", 0, match.start(3)))
        for match in FENCE.finditer(text)
    ]


def of(language: str) -> list[Path]:
    return [page for page in PAGES if any(b.language == language for b in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def program(page: Path) -> str:
    """The Python of a page as one program, each line where the page has it."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python":
            lines += [""] * (block.line - len(lines))
            lines += block.code.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown = {(block.language, block.line) for block in blocks(page)} - {
        (block.language, block.line) for block in blocks(page) if block.language in KNOWN
    }
    assert not unknown


@pytest.mark.parametrize("page", of("python"), ids=name)
def test_the_python_of_a_page_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    script = tmp_path / page.name
    script.write_text(program(page), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(b.code for b in blocks(page) if b.language == "text")


@pytest.mark.parametrize("page", of("sql"), ids=name)
def test_the_sql_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    migrate.upgrade(f"sqlite:///{tmp_path / 'app.db'}")
    connection = sqlite3.connect(tmp_path / "app.db")
    try:
        for block in blocks(page):
            if block.language == "sql":
                connection.executescript(block.code)
    finally:
        connection.close()


@pytest.mark.parametrize("page", of("console"), ids=name)
def test_our_commands_on_a_page_succeed(page: Path, tmp_path: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in blocks(page)
        if block.language == "console"
        for line in block.code.splitlines()
        if line.startswith("$ python -m stabilize")
    ]
    for command in commands:
        _, *arguments = shlex.split(command)
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "STABILIZE_DATABASE_URL": "sqlite:///default.db",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, f"{command}: {ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_first_shell_block_of_readme_is_two_commands() -> None:
    first = next(b for b in blocks(ROOT / "README.md") if b.language == "sh")
    set_up = "python3 -m venv .venv && "
    lines = first.code.splitlines()
    assert [line.startswith(set_up) for line in lines] == [True, True]
    assert lines[0].endswith("examples/hello.py")
    assert lines[1].endswith("pytest --quiet")
