"""The database goes away in the middle of the work, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import func, select

from stabilize import Queue, QueueProcessor, WorkflowStatus
from stabilize.models import TaskExecution
from tests.processes.fleet import Fleet, eventually
from tests.processes.test_sharing import chain, start_all
from tests.processes.worker import registry_for
from tests.support.embedded import EmbeddedPostgresql


def test_a_server_that_is_stopped_and_started_again_costs_no_attempt_and_no_stage(
    own_postgresql: EmbeddedPostgresql, fleet_on: Callable[..., Fleet]
) -> None:
    """One worker that was started, and one that plays by hand, meet two outages."""
    Queue(own_postgresql.url, create_tables=True)
    fleet = fleet_on(own_postgresql.url, lease=4.0)
    start_all(fleet.orchestrator, [chain(10, ms=20) for _ in range(30)])
    by_hand = QueueProcessor(fleet.queue, task_registry=registry_for(fleet.log))
    failures: list[BaseException] = []

    def play() -> None:
        try:
            by_hand.process_all(timeout=40)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    fleet.start()
    for already in (30, 120):
        eventually(lambda: len(fleet.log.counts()) >= already, 20, "the work is under way")  # noqa: B023
        own_postgresql.kill()
        own_postgresql.restart()
    fleet.wait_for_the_end(60)
    thread.join(45)

    assert failures == []
    assert set(fleet.statuses().values()) == {WorkflowStatus.SUCCEEDED}
    assert set(fleet.log.counts().values()) == {1}
    assert len(fleet.log.counts()) == 300
    with fleet.queue.database.reading() as session:
        assert session.scalars(select(func.sum(TaskExecution.retries))).one() == 0
    assert fleet.queue.dlq_size() == 0
