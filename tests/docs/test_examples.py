"""Every example runs by itself and says what it is there to say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAYS = {
    "hello": "The workflow succeeded.\nHello, Stabilize!\n",
    "embedded": (
        "the payment was refused: 0 orders, workflow stored: False\n"
        "order-2 SUCCEEDED: one chair, packed\n"
    ),
    "parallel": "4f2a: 312 passed, 0 findings\nSUCCEEDED, overlapped: True\n",
    "routing": (
        "reviewing draft 1 (remark: none)\n"
        "reviewing draft 2 (remark: too long, round 1)\n"
        "reviewing draft 3 (remark: too long, round 2)\n"
        "SUCCEEDED after 3 reviews\n"
        "published draft 3 (remark: too long, round 2)\n"
    ),
    "approval": "stage 'approve' is SUSPENDED\nSUCCEEDED: Ada approved, 120 paid\n",
    "transactional": "SUCCEEDED\nTERMINAL\nAda has 30, Alan has 70\n",
}
ELSEWHERE: set[str] = set()
"""Examples that have a test of their own in another file."""


@pytest.mark.parametrize("name", SAYS)
def test_the_example_ends_by_itself_and_says(name: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", ROOT / "examples" / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, SAYS[name], "")


def test_every_example_has_its_test() -> None:
    there = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert there == SAYS.keys() | ELSEWHERE
