"""The site can be made of the pages, and no link or reference in them is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # ten seconds, when nothing else is running
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "docs", tmp_path]
    ran = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    drawn = (tmp_path / "guide" / "flow_control.html").read_text(encoding="utf-8")
    assert drawn.count('class="mermaid"') == 43
