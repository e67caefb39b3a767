"""Killed around every commit: no event without its transition, no transition without its event."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lend_or_skip
from tests.events.dying import SHAPES
from tests.support.backends import Databases


@pytest.mark.parametrize("shape", SHAPES)
def test_wherever_a_process_dies_events_tables_and_the_other_store_agree(
    databases: Databases, tmp_path: Path, shape: str
) -> None:
    with lend_or_skip(databases, "sqlite-file") as lent:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.events.dying",
                lent.url,
                f"sqlite:///{tmp_path}/events.db",
                shape,
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    places, compared = map(int, done.stdout.split())
    assert places >= 6
    assert compared >= places - 2
