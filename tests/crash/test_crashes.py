"""A process dies at every statement and every commit; another one finishes, and nothing shows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.cases import Case
from tests.crash.shapes import SHAPES, Log
from tests.support.backends import BackendUnderTest

ROOT: Final = Path(__file__).parent.parent.parent
SAMPLED: Final = 6
"""On a server every sixth place, beginning elsewhere for each shape."""


class Server:
    """The process that starts those which die."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def play(self, **order: Any) -> dict[str, Any]:
        """Have a process play; what it said, and how it ended."""
        process, self._process = self._process or self._start(), None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        self._process = process  # not before: nobody must get the answer to another's order
        return answer

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.mark.parametrize("name", SHAPES)
def test_wherever_a_process_dies_another_one_finishes_and_nothing_shows(
    shared: BackendUnderTest, server: Server, name: str, tmp_path: Path
) -> None:
    shape, log = SHAPES[name], Log(tmp_path / "bodies")

    def play(case: Case, deadly: int) -> dict[str, Any]:
        case.begin()
        return server.play(url=shared.url, queue_name=case.name, log=str(log.path), deadly=deadly)

    whole = Case(shared.url, shape, "whole", log)
    answer = play(whole, 0)
    assert answer["status"] == 0, answer
    whole.finish()
    expected, bodies = whole.state(), whole.bodies()
    places = int(answer["said"])
    stride = 1 if shared.kind == "sqlite" else SAMPLED
    first = 1 + list(SHAPES).index(name) % stride

    crashed: list[Case] = []
    for k in itertools.count(first, stride):
        case = Case(shared.url, shape, f"place {k}", log)
        answer = play(case, k)
        case.where = f"place {k}, {answer['said']}"
        crashed.append(case)
        if answer["status"] == 0:  # how many turns there are may depend on the clock, by one or two
            assert places / 2 < int(answer["said"]) < k, f"it outlived {case.where} of {places}"
            break
        assert answer["status"] == -9, f"{case.where}: {answer}"

    for case in crashed:
        case.finish()
        case.check(expected)
        ran = case.bodies()
        assert bodies.keys() == ran.keys(), case.where
        assert all(n <= bodies[body] + 1 for body, n in ran.items()), f"{case.where}: {ran}"
