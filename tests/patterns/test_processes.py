"""The 43 control-flow patterns, played by four processes, of which some are killed at random.

CI plays them on one database, which changes with the commit; `STABILIZE_PATTERNS=all` plays them on
every one:

    STABILIZE_PATTERNS=all pytest tests/patterns/test_wcp.py tests/patterns/test_processes.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stabilize import Queue
from tests.conftest import lend_or_skip
from tests.patterns.catalog import PATTERNS, Pattern
from tests.patterns.child import LEASE
from tests.patterns.play import Play, by_others
from tests.support.backends import BACKENDS

ROOT = Path(__file__).parent.parent.parent
SHARED = [name for name, trait in BACKENDS.items() if "multi_process" in trait.capabilities]
SKEW_MS = 50
KILLS = 2
"""At most so many for each pattern: a message that kills its worker three times is buried."""


def _chosen() -> list[str]:
    if os.environ.get("STABILIZE_PATTERNS") == "all":
        return SHARED
    commit = os.environ.get("GITHUB_SHA", "") or _head()
    return [SHARED[int(commit[:8] or "0", 16) % len(SHARED)]]


def _head() -> str:
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout


class Workers:
    """Four processes on one database; one that is killed has a successor at once."""

    def __init__(self, url: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.patterns.child", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids = [self._fork() for _ in range(4)]

    def _fork(self) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write("one more\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def kill_one(self) -> None:
        """Kill one at random, some milliseconds from now."""
        threading.Event().wait(self.chance.uniform(0, 0.03))
        victim = self.chance.randrange(len(self.pids))
        os.kill(self.pids[victim], signal.SIGKILL)
        self.pids[victim] = self._fork()

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self._server.communicate(timeout=10)


@pytest.fixture(scope="module", params=_chosen())
def shared(request: pytest.FixtureRequest, databases: Any) -> Iterator[tuple[Queue, Workers]]:
    """A database that processes share, and the processes."""
    with lend_or_skip(databases, request.param) as lent:
        seed = int(os.environ.get("STABILIZE_SEED", random.SystemRandom().randrange(10**9)))
        print(f"STABILIZE_SEED={seed}")
        workers = Workers(lent.url, seed)
        queue = Queue(lent.url, lock_duration=LEASE)
        yield queue, workers
        workers.close()
        queue.close()


@pytest.fixture(params=["undisturbed", "killed"])
def play(request: pytest.FixtureRequest, shared: tuple[Queue, Workers]) -> Any:
    """Plays a pattern by four processes."""
    queue, workers = shared

    def undisturbed(pattern: Pattern) -> None:
        by_others(Play(pattern, queue, skew_ms=SKEW_MS))

    def killed(pattern: Pattern) -> None:
        left = [workers.kill_one] * KILLS
        by_others(Play(pattern, queue, skew_ms=SKEW_MS), lambda: left.pop()() if left else None)

    return killed if request.param == "killed" else undisturbed


@pytest.mark.xdist_group("pattern processes")
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda pattern: pattern.id)
def test_four_processes_play_the_pattern(pattern: Pattern, play: Any) -> None:
    play(pattern)
