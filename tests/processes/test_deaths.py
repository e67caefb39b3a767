"""Workers that die of a task, and workers that freeze and come back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select, update

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    QueueProcessorConfig,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
    WorkflowStatus,
)
from stabilize.models import QueueMessage
from stabilize.tasks.body import current_token
from tests.processes.fleet import Fleet, eventually
from tests.support.backends import BackendUnderTest

FleetOn = Callable[..., Fleet]


def one_stage(task: str, **context: object) -> Workflow:
    return Workflow.create(
        "deaths",
        task,
        [StageExecution(ref_id="s", context=context, tasks=[TaskExecution.create(task, task)])],
    )


def two_stages(first: str, then: str, **context: object) -> Workflow:
    stages = [
        StageExecution(ref_id="s", context=context, tasks=[TaskExecution.create(first, first)]),
        StageExecution(
            ref_id="t",
            requisite_stage_ref_ids={"s"},
            tasks=[TaskExecution.create(then, then)],
        ),
    ]
    return Workflow.create("deaths", first, stages)


def test_a_task_that_kills_its_process_three_times_is_buried_and_takes_nobody_with_it(
    shared: BackendUnderTest, fleet_on: FleetOn
) -> None:
    fleet = fleet_on(shared.url, lease=0.4, max_deaths=3)
    bad = two_stages("deadly", "body")
    good = [two_stages("body", "body", ms=10) for _ in range(8)]
    for workflow in [*good[:4], bad, *good[4:]]:
        fleet.orchestrator.start(workflow)

    def all_ended() -> bool:
        fleet.replace_the_dead()
        return fleet.open() == 0

    fleet.start()
    eventually(all_ended, 40, "every workflow ends")

    statuses = fleet.statuses()
    assert statuses.pop(bad.id) is WorkflowStatus.TERMINAL
    assert set(statuses.values()) == {WorkflowStatus.SUCCEEDED}
    assert fleet.log.counts()[bad.id, "s", "execute"] == 3
    assert (bad.id, "t", "execute") not in fleet.log.counts()
    (letter,) = fleet.queue.list_dlq()
    assert (letter["reason"], letter["deaths"], letter["workflow_id"]) == ("deaths", 3, bad.id)
    stage = fleet.orchestrator.get_execution(bad.id).stage_by_ref_id("s")
    assert stage is not None
    assert stage.status is WorkflowStatus.TERMINAL
    assert "took 3 workers with it" in stage.context["exception"]["details"]["error"]
    fleet.retire()
    assert fleet.queue.size() == 0


def test_a_message_that_has_cost_a_worker_runs_alone(backend: BackendUnderTest) -> None:
    queue = Queue(backend.url)
    orchestrator = Orchestrator(queue)
    suspect, *others = [one_stage("body", suspect=n == 2) for n in (2, 0, 1, 3, 4)]
    for workflow in (*others[:2], suspect, *others[2:]):
        orchestrator.start(workflow)
    with queue.database.writing() as connection:
        connection.execute(
            update(QueueMessage).where(QueueMessage.workflow_id == suspect.id).values(deaths=1)
        )
    lock, running, beside, joined = threading.Lock(), set[str](), set[str](), threading.Event()

    def body(stage: StageExecution) -> TaskResult:
        me = stage.execution.id
        with lock:
            running.add(me)
            if suspect.id in running and len(running) > 1:
                beside.update(running - {suspect.id})
                joined.set()
        if me == suspect.id:
            joined.wait(0.3)  # time for somebody to come, if somebody may
        with lock:
            running.discard(me)
        return TaskResult.success()

    registry = TaskRegistry()
    registry.register("body", body)
    QueueProcessor(queue, task_registry=registry).process_all(10)

    assert beside == set()
    for workflow in (suspect, *others):
        assert orchestrator.get_execution(workflow.id).status is WorkflowStatus.SUCCEEDED


def begun(fleet: Fleet, workflow: Workflow) -> list[int]:
    """The processes in which the body of the first stage has begun."""
    return [
        int(what.removeprefix("pid:"))
        for (id, _, what) in fleet.log.counts()
        if id == workflow.id and what.startswith("pid:")
    ]


def expired(fleet: Fleet) -> bool:
    database = fleet.queue.database
    with database.reading() as session:
        late = select(func.count(QueueMessage.id)).where(
            QueueMessage.holder.is_not(None), QueueMessage.visible_at < database.now()
        )
        return session.execute(late).scalar_one() > 0


def test_the_late_result_of_a_frozen_process_changes_nothing(
    shared: BackendUnderTest, fleet_on: FleetOn, tmp_path: Path
) -> None:
    fleet = fleet_on(shared.url, lease=0.5)
    gate = tmp_path / "gate"
    workflow = two_stages("tired", "body", until=str(gate))
    fleet.orchestrator.start(workflow)
    fleet.start()
    frozen = fleet.pids[0]
    eventually(lambda: begun(fleet, workflow) == [frozen], 20, "the body begins")
    os.kill(frozen, signal.SIGSTOP)
    fleet.start()
    second = fleet.pids[1]
    eventually(lambda: second in begun(fleet, workflow), 20, "another process takes it over")
    gate.touch()
    fleet.wait_for_the_end(20)
    before = fleet.orchestrator.get_execution(workflow.id)

    os.kill(frozen, signal.SIGCONT)
    fleet.retire()  # in good order: what they still had to say has been said

    after = fleet.orchestrator.get_execution(workflow.id)
    assert after.status is WorkflowStatus.SUCCEEDED
    assert after.version == before.version
    (stage, _) = after.stage_runs
    assert stage.outputs == {"by": second}
    assert fleet.log.counts()[workflow.id, "t", "execute"] == 1
    assert fleet.queue.size() == 0


def test_a_process_that_froze_beyond_its_lease_goes_on_with_the_body_it_has(
    shared: BackendUnderTest, fleet_on: FleetOn, tmp_path: Path
) -> None:
    fleet = fleet_on(shared.url, lease=0.5)
    gate = tmp_path / "gate"
    workflow = two_stages("tired", "body", until=str(gate))
    fleet.orchestrator.start(workflow)
    fleet.start()
    eventually(lambda: bool(begun(fleet, workflow)), 20, "the body begins")
    os.kill(fleet.pids[0], signal.SIGSTOP)
    eventually(lambda: expired(fleet), 20, "the lease runs out")
    os.kill(fleet.pids[0], signal.SIGCONT)
    eventually(lambda: not expired(fleet), 20, "the lease is renewed")
    gate.touch()
    fleet.wait_for_the_end(20)

    assert set(fleet.statuses().values()) == {WorkflowStatus.SUCCEEDED}
    assert fleet.log.counts()[workflow.id, "s", "execute"] == 1


def test_a_body_held_by_this_process_is_not_taken_again_when_its_lease_ran_out(
    backend: BackendUnderTest,
) -> None:
    queue = Queue(backend.url)
    orchestrator = Orchestrator(queue)
    workflow = one_stage("body")
    orchestrator.start(workflow)
    began, go_on, runs = threading.Event(), threading.Event(), list[int]()

    def body(stage: StageExecution) -> TaskResult:
        runs.append(1)
        began.set()
        go_on.wait(10)
        return TaskResult.success()

    registry = TaskRegistry()
    registry.register("body", body)
    processor = QueueProcessor(
        queue, QueueProcessorConfig(poll_frequency_ms=10), task_registry=registry
    )
    with processor:
        assert began.wait(10)
        with queue.database.writing() as connection:
            connection.execute(update(QueueMessage).values(visible_at=1))

        def renewed() -> bool:
            with queue.database.reading() as session:
                return session.scalars(select(QueueMessage.visible_at)).one() > 1

        eventually(renewed, 10, "the lease is renewed")
        go_on.set()
        eventually(lambda: queue.size() == 0, 10, "the workflow ends")

    assert runs == [1]
    assert orchestrator.get_execution(workflow.id).status is WorkflowStatus.SUCCEEDED


def test_a_worker_that_was_only_cut_off_takes_back_the_death_that_was_counted(
    backend: BackendUnderTest,
) -> None:
    """The database was away for longer than a lease; then another worker was the first to look."""
    queue = Queue(backend.url, lock_duration=timedelta(seconds=0.6))
    workflow = one_stage("body")
    Orchestrator(queue).start(workflow)
    began, told = threading.Event(), threading.Event()

    def body(stage: StageExecution) -> TaskResult:
        token = current_token()
        assert token is not None
        began.set()
        if token.wait(10):
            told.set()
        return TaskResult.success()

    registry = TaskRegistry()
    registry.register("body", body)
    with QueueProcessor(queue, task_registry=registry):
        assert began.wait(10)
        with queue.database.writing() as connection:
            connection.execute(
                update(QueueMessage).values(
                    holder="another",
                    attempts=QueueMessage.attempts + 1,
                    deaths=QueueMessage.deaths + 1,
                    visible_at=QueueMessage.visible_at + 60_000,
                )
            )

        def deaths() -> int:
            with queue.database.reading() as session:
                return session.scalars(select(QueueMessage.deaths)).one()

        eventually(lambda: deaths() == 0, 10, "the death is taken back")
        assert told.wait(10)
