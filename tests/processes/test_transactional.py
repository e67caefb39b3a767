"""A transactional task takes effect exactly once, whenever its process is killed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import func, select

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    StageExecution,
    TaskExecution,
    Workflow,
    WorkflowStatus,
)
from tests.crash.shapes import Log, ledger
from tests.processes.fleet import Fleet, eventually
from tests.processes.worker import registry_for
from tests.support.backends import BackendUnderTest

FULL = bool(os.environ.get("STABILIZE_FULL"))


def charges(number: int) -> Workflow:
    return Workflow.create(
        "shop",
        f"order {number}",
        [
            StageExecution(
                ref_id=f"s{n}",
                requisite_stage_ref_ids={f"s{n - 1}"} if n else set(),
                tasks=[TaskExecution.create("charge", "charge")],
            )
            for n in range(3)
        ],
    )


def test_rows_of_a_transactional_task_are_there_exactly_once_after_kills_at_random_moments(
    shared: BackendUnderTest, fleet_on: Callable[..., Fleet], rng: random.Random
) -> None:
    """50 kills on SQLite, 8 on a server; 50 on each with `STABILIZE_FULL=1`."""
    kills = 50 if FULL or "server" not in shared.capabilities else 8
    ledger.create(shared.engine())
    fleet = fleet_on(shared.url, lease=0.5)
    stages = 0
    for number in range(kills):
        for _ in range(4):
            fleet.orchestrator.start(charges(number))
            stages += 3
        begun = len(fleet.log.counts())
        fleet.start()
        eventually(lambda: len(fleet.log.counts()) > begun or fleet.open() == 0, 20, "it begins")  # noqa: B023
        time.sleep(rng.uniform(0, 0.06))  # any moment is meant
        fleet.kill(fleet.pids[0])
    fleet.start()
    fleet.wait_for_the_end(60)

    assert set(fleet.statuses().values()) == {WorkflowStatus.SUCCEEDED}
    with fleet.queue.database.reading() as session:
        rows = select(func.count()).select_from(ledger)
        times = session.scalars(rows.group_by(ledger.c.workflow_id, ledger.c.ref_id)).all()
    again = sum(fleet.log.counts().values()) - stages
    print(f"{kills} kills, {stages} stages, {again} bodies rolled back and run again")
    assert list(times) == [1] * stages
    ledger.drop(shared.engine())


def test_process_all_waits_for_what_a_transactional_task_has_put_out(
    backend: BackendUnderTest, tmp_path: Path
) -> None:
    queue = Queue(backend.url)
    ledger.create(backend.engine())
    orchestrator = Orchestrator(queue)
    workflows = [charges(number) for number in range(10)]
    processor = QueueProcessor(queue, task_registry=registry_for(Log(tmp_path / "bodies")))
    for workflow in workflows:  # one at a time: nothing else keeps it busy
        orchestrator.start(workflow)
        processor.process_all(20)
        assert orchestrator.get_execution(workflow.id).status is WorkflowStatus.SUCCEEDED
    ledger.drop(backend.engine())
