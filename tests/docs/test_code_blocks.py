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
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
KNOWN = {
    *("python", "python alone", "py", "text", "sql", "console", "sh", "none"),
    *("mermaid", "{toctree}"),
}
"""`python` runs, all of a page as one program; `python alone` is a program of its own; `text` is
what the program before it prints. `sql` runs, `console` runs if it is a command of ours, `py` and
`none` are shown only."""
PLAY_EACH = """
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    print(end="\\f")
"""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[2].strip(), match[3], text.count("\n", 0, match.start(3)))
        for match in FENCE.finditer(text)
    ]


@dataclass
class Program:
    """Python of a page, each line where the page has it, and what it has to print."""

    code: str = ""
    printed: str = ""

    def add(self, block: Block) -> None:
        self.code += "\n" * (block.line - self.code.count("\n")) + block.code


def programs(page: Path) -> list[Program]:
    current = whole = Program()
    found = [whole]
    for block in blocks(page):
        match block.language:
            case "python":
                current = whole
                current.add(block)
            case "python alone":
                current = Program()
                current.add(block)
                found.append(current)
            case "text":
                current.printed += block.code
    return [program for program in found if program.code]


def of(language: str) -> list[Path]:
    return [page for page in PAGES if any(b.language == language for b in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown = [(b.language, b.line) for b in blocks(page) if b.language not in KNOWN]
    assert not unknown


@pytest.mark.parametrize("page", list(filter(programs, PAGES)), ids=name)
def test_the_python_of_a_page_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    expected = programs(page)
    scripts = [tmp_path / f"{page.stem}-{number}.py" for number in range(len(expected))]
    for script, program in zip(scripts, expected, strict=True):
        script.write_text(program.code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", PLAY_EACH, *scripts],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\f") == [*(program.printed for program in expected), ""]


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
