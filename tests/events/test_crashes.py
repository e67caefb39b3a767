"""Killed around every commit: no event without its transition, no transition without its event."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lend_or_skip
from tests.events.dying import SHAPES
from tests.support.backends import BACKENDS, Databases

FULL = bool(os.environ.get("STABILIZE_FULL"))
SHARED = [name for name, trait in BACKENDS.items() if "multi_process" in trait.capabilities]
SAMPLED = 8
"""On a server every eighth place, each shape from another on; all with `STABILIZE_FULL=1`."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SHARED)
def test_wherever_a_process_dies_events_tables_and_the_other_store_agree(
    databases: Databases, tmp_path: Path, name: str, shape: str
) -> None:
    with lend_or_skip(databases, name) as lent:
        every = SAMPLED if "server" in lent.capabilities and not FULL else 1
        first = 1 + list(SHAPES).index(shape) % every
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.events.dying",
                lent.url,
                f"sqlite:///{tmp_path}/events.db",
                shape,
                str(every),
                str(first),
            ],
            capture_output=True,
            text=True,
            timeout=600 if FULL else 110,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    deaths, compared = map(int, done.stdout.split())
    print(f"{deaths} processes died, {compared} workflows compared")
    assert deaths >= 8 // every
    assert compared >= deaths + 1  # those that outlived theirs too, not one that had not started
