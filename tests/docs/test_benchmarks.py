"""The benchmarks measure what they say, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.databases import fresh
from benchmarks.engine import MeasuredEngine, chain, fan_out, percentile


def test_what_was_measured_has_really_ended() -> None:
    with fresh(None) as url:
        engine = MeasuredEngine(url)
        workflows = [chain(3), fan_out(3)]
        assert engine.submit(workflows) > 0
        with pytest.raises(AssertionError, match="not all done"):
            engine.check(workflows)
        assert engine.run() > 0
        engine.check(workflows)
        assert engine.commits > 0
        assert engine.duration(workflows[0]) > 0
        engine.store.close()


def test_the_latency_is_that_of_each_workflow() -> None:
    with fresh(None) as url:
        engine = MeasuredEngine(url)
        found = engine.latencies(3)
        assert len(found) == 3
        assert all(seconds > 0 for seconds in found)
        engine.store.close()


def test_a_database_lies_beside_the_one_named_and_is_gone_after(tmp_path: Path) -> None:
    with fresh(f"sqlite:///{tmp_path / 'mine.db'}") as url:
        MeasuredEngine(url).store.close()
        assert str(tmp_path) in url
    assert list(tmp_path.iterdir()) == []


def test_percentiles_are_within_what_was_measured() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 95) == pytest.approx(4.8)
