"""Processes share the work of one database, and what one of them leaves behind is finished.

The tests below run in a small version. The full one, for which the figures of the README were
taken, runs with `STABILIZE_FULL=1 pytest -n0 --timeout 900 tests/processes/test_sharing.py`: 200
workflows and 40 kills, a workflow of 1,500 stages, 10,000 workflows waiting.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from stabilize import Orchestrator, StageExecution, TaskExecution, Workflow, WorkflowStatus
from stabilize.models import DeadLetter
from tests.processes.fleet import Fleet, eventually
from tests.processes.random_workflows import Expected, build, draw, expect
from tests.support.backends import BackendUnderTest

FULL = bool(os.environ.get("STABILIZE_FULL"))
WORKFLOWS, KILLS = (200, 40) if FULL else (24, 4)
WIDE = 1_500 if FULL else 400
WAITING = 10_000 if FULL else 600
FleetOn = Callable[..., Fleet]


def chain(length: int, **context: Any) -> Workflow:
    """Stages one after another."""
    return Workflow.create(
        "sharing",
        f"chain of {length}",
        [
            StageExecution(
                ref_id=f"s{n}",
                requisite_stage_ref_ids={f"s{n - 1}"} if n else set(),
                context=dict(context),
                tasks=[TaskExecution.create("body", "body")],
            )
            for n in range(length)
        ],
    )


def wide(width: int) -> Workflow:
    """One stage, many beside each other, one."""
    middle = [
        StageExecution(
            ref_id=f"m{n}",
            requisite_stage_ref_ids={"first"},
            tasks=[TaskExecution.create("body", "body")],
        )
        for n in range(width - 2)
    ]
    ends = [
        StageExecution(ref_id="first", tasks=[TaskExecution.create("body", "body")]),
        StageExecution(
            ref_id="last",
            requisite_stage_ref_ids={stage.ref_id for stage in middle},
            tasks=[TaskExecution.create("body", "body")],
        ),
    ]
    return Workflow.create("sharing", f"wide {width}", [*ends, *middle])


def start_all(orchestrator: Orchestrator, workflows: list[Workflow]) -> None:
    """Start them in a few transactions."""
    database = orchestrator.queue.database
    for begin in range(0, len(workflows), 100):
        with database.turns.connect() as connection:
            database.backend.begin(connection)
            for workflow in workflows[begin : begin + 100]:
                orchestrator.start(workflow, session=connection)
            connection.commit()


def times(fleet: Fleet, column: Any) -> dict[str, int]:
    """When the workflows began or ended, in ms."""
    with fleet.queue.database.reading() as session:
        rows = session.execute(select(Workflow.id, column).where(column.is_not(None)))
        return {id: int(at) for id, at in rows}


def test_two_processes_share_the_work_and_one_finishes_it_when_the_other_is_killed(
    shared: BackendUnderTest, fleet_on: FleetOn
) -> None:
    fleet = fleet_on(shared.url, lease=0.6)
    workflows = [chain(6, ms=15) for _ in range(24)]
    start_all(fleet.orchestrator, workflows)
    fleet.start(2)
    first, second = fleet.pids
    eventually(
        lambda: len(fleet.log.counts()) > 40 and bool(fleet.held_by(first)), 20, "work is shared"
    )
    held = fleet.kill(first)
    fleet.wait_for_the_end(30)

    assert set(fleet.statuses().values()) == {WorkflowStatus.SUCCEEDED}
    counts = fleet.log.counts().values()
    assert len(counts) == 24 * 6
    assert sum(counts) - len(counts) <= held
    assert fleet.retire()[second] > 0


@pytest.mark.timeout(600 if FULL else 120)
def test_workflows_of_random_shape_end_as_they_must_whoever_is_killed(
    shared: BackendUnderTest, fleet_on: FleetOn, rng: random.Random
) -> None:
    fleet = fleet_on(shared.url, lease=1.5)
    graphs = [draw(rng) for _ in range(WORKFLOWS)]
    workflows = [build(nodes) for nodes in graphs]
    expected = {w.id: expect(nodes) for w, nodes in zip(workflows, graphs, strict=True)}
    began = time.monotonic()
    fleet.start(4)
    fleet.wait_for_workers()
    waiting, held, killed = list(workflows), [], 0
    while killed < KILLS or waiting:
        share, waiting = waiting[: WORKFLOWS // 10], waiting[WORKFLOWS // 10 :]
        start_all(fleet.orchestrator, share)
        for _ in range(max(1, KILLS // 10)):
            time.sleep(rng.uniform(0.0, 0.3))  # the moment of a kill is meant to be any
            if killed < KILLS:
                held.append(fleet.kill(rng.choice(fleet.pids)))
                killed += 1
                fleet.start()
    fleet.wait_for_the_end(240)
    print(
        f"{WORKFLOWS} workflows, {killed} kills of workers holding {sum(held)} messages: "
        f"{time.monotonic() - began:.1f} s"
    )

    check_statuses(fleet, expected)
    check_executions(fleet, expected, sum(held) + killed, killed)


def check_statuses(fleet: Fleet, expected: dict[str, Expected]) -> None:
    wrong = {
        id: (status, expected[id].statuses)
        for id, status in fleet.statuses().items()
        if status not in expected[id].statuses
    }
    assert not wrong
    with fleet.queue.database.reading() as session:
        assert session.scalars(select(DeadLetter.reason)).all() == []


def check_executions(
    fleet: Fleet, expected: dict[str, Expected], explained: int, kills: int
) -> None:
    """A kill explains one more execution of what its worker held, and of what it just committed."""
    counts = fleet.log.counts()
    extra = {
        (id, name): count - expected[id].executions.get(name, 0)
        for (id, name, _), count in counts.items()
    }
    assert all(n <= kills for n in extra.values())
    assert sum(n for n in extra.values() if n > 0) <= explained
    for id, status in fleet.statuses().items():
        if status is WorkflowStatus.SUCCEEDED:
            ran = {name: counts.get((id, name, "execute"), 0) for name in expected[id].executions}
            missing = {name: n for name, n in expected[id].executions.items() if ran[name] < n}
            assert not missing, f"workflow {id}: {ran}, expected {expected[id].executions}"
    print(f"{sum(n for n in extra.values() if n > 0)} bodies ran once more")


def test_each_of_four_processes_takes_its_share_of_the_turns(
    shared: BackendUnderTest, fleet_on: FleetOn
) -> None:
    fleet = fleet_on(shared.url, lease=10.0)
    fleet.start(4)
    fleet.wait_for_workers()
    start_all(fleet.orchestrator, [chain(6) for _ in range(WORKFLOWS * 4)])
    fleet.wait_for_the_end(120)
    turns = fleet.retire()
    shares = [count / sum(turns.values()) for count in turns.values()]
    print("turns:", list(turns.values()), "shares:", [f"{share:.0%}" for share in shares])
    assert min(shares) >= 0.15 or "skip_locked" in shared.capabilities


@pytest.mark.timeout(600 if FULL else 120)
@pytest.mark.parametrize("shape", ["wide", "chain"])
def test_small_workflows_end_long_before_a_large_one_they_were_started_beside(
    shared: BackendUnderTest, fleet_on: FleetOn, shape: str
) -> None:
    fleet = fleet_on(shared.url, lease=30.0)
    large = wide(WIDE) if shape == "wide" else chain(WIDE)
    small = [chain(3) for _ in range(20)]
    fleet.start(4)
    fleet.wait_for_workers()
    start_all(fleet.orchestrator, [large, *small])
    fleet.wait_for_the_end(300)

    ends = times(fleet, Workflow.end_time)
    begin = min(times(fleet, Workflow.start_time).values())
    took = (ends[large.id] - begin) / 1000
    last = (max(ends[workflow.id] for workflow in small) - begin) / 1000
    print(f"{shape} of {WIDE}: {took:.2f} s, the last of 20 small ones after {last:.2f} s")
    assert set(fleet.statuses().values()) == {WorkflowStatus.SUCCEEDED}
    assert last < (took / 2 if FULL else took)


@pytest.mark.timeout(900 if FULL else 120)
def test_the_first_of_many_waiting_workflows_end_at_once_and_the_rest_steadily(
    shared: BackendUnderTest, fleet_on: FleetOn
) -> None:
    fleet = fleet_on(shared.url, lease=30.0)
    start_all(fleet.orchestrator, [chain(3) for _ in range(WAITING)])
    fleet.start(4)
    fleet.wait_for_the_end(600)

    ends = sorted(times(fleet, Workflow.end_time).values())
    begin = min(times(fleet, Workflow.start_time).values())
    seconds = [(end - begin) / 1000 for end in ends]
    tenths = [seconds[len(seconds) * n // 10 - 1] for n in range(1, 11)]
    gaps = [b - a for a, b in zip([0.0, *tenths], tenths, strict=False)]
    print(
        f"{WAITING} workflows: ten after {seconds[9]:.2f} s, all after {seconds[-1]:.1f} s, "
        f"tenths: {[f'{gap:.2f}' for gap in gaps]}"
    )
    assert seconds[9] < max(1.0, seconds[-1] / 3)  # breadth first it would be almost all of it
    assert max(gaps) < 3 * statistics.median(gaps) + 0.5
