"""A process that forks does not share its connections with the child."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes.fleet import ROOT
from tests.support.backends import BackendUnderTest


@pytest.mark.parametrize("on", ["url", "engine"])
def test_parent_and_forked_child_work_on_connections_of_their_own(
    shared: BackendUnderTest, on: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.processes.forking", shared.url, on],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reports = {found["who"]: found for found in map(json.loads, done.stdout.splitlines())}
    assert set(reports) == {"parent", "child", "parent afterwards"}, done.stderr
    for found in reports.values():
        assert found["shared"] == 0
        assert found["statuses"] == ["SUCCEEDED"] * 20
    assert len({found["id"] for found in reports.values()}) == 3
