"""What events cost and what they bring: `python -m benchmarks.events [URL]`.

Recording against not recording, appending in batches, replaying, and rebuilding from snapshots.
Without a URL it uses a new SQLite file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stabilize import (
    Database,
    Orchestrator,
    Queue,
    QueueProcessor,
    StageExecution,
    Task,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
)
from stabilize.events import (
    Event,
    EventReplayer,
    EventType,
    SnapshotPolicy,
    SnapshotStore,
    SqlEventStore,
    configure_event_recorder,
    create_stage_event,
    create_task_event,
    create_workflow_event,
    reset_event_recorder,
)

WORKFLOWS = 1_000
ROUNDS = 3
BATCH = 1_000
APPENDED = 50_000
LOOPS = 20_000


class Noop(Task):
    def execute(self, stage: StageExecution) -> TaskResult:
        return TaskResult.success()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def play(database: Database) -> float:
    """Seconds for 1,000 workflows of one stage with one task, submitted beforehand."""
    queue = Queue(database)
    orchestrator, registry = Orchestrator(queue), TaskRegistry()
    registry.register("noop", Noop)
    with database.writing() as connection:
        for _ in range(WORKFLOWS):
            stage = StageExecution(ref_id="1", tasks=[TaskExecution.create("t", "noop")])
            orchestrator.start(Workflow.create("bench", "one", [stage]), session=connection)
    processor = QueueProcessor(queue, task_registry=registry)
    return seconds(lambda: processor.process_all(600))


def recording(database: Database) -> None:
    without, recorded = [], []
    for _ in range(ROUNDS):
        reset_event_recorder()
        without.append(play(database))
        configure_event_recorder(SqlEventStore(database))
        recorded.append(play(database))
    reset_event_recorder()
    share = 1 - min(without) / min(recorded)
    print(
        f"recording: {WORKFLOWS / min(without):,.0f} workflows/s without, "
        f"{WORKFLOWS / min(recorded):,.0f} with, costs {share:.0%} of the throughput"
    )


def appending(store: SqlEventStore) -> None:
    batches = [
        [create_task_event(EventType.CUSTOM, f"t{n}", "w", {"n": i}) for i in range(BATCH)]
        for n in range(APPENDED // BATCH)
    ]
    spent = seconds(lambda: [store.append_batch(batch) for batch in batches])
    print(f"appending in batches of {BATCH}: {APPENDED / spent:,.0f} events/s")


def loops(store: SqlEventStore, workflow_id: str) -> list[Event]:
    """A workflow that has gone round and round: many events, a small state."""
    events = [
        create_workflow_event(EventType.WORKFLOW_CREATED, workflow_id, {"name": "loops"}),
        create_workflow_event(EventType.WORKFLOW_STARTED, workflow_id, {"context": {}}),
        create_stage_event(EventType.STAGE_STARTED, "s", workflow_id, {"type": "loop"}),
        create_task_event(EventType.TASK_STARTED, "t", workflow_id, {"stage_id": "s"}),
    ]
    for n in range(LOOPS):
        data = {"context": {"round": n}}
        events.append(create_stage_event(EventType.CONTEXT_UPDATED, "s", workflow_id, data))
    for start in range(0, len(events), BATCH):
        store.append_batch(events[start : start + BATCH])
    return events


def replaying(store: SqlEventStore) -> None:
    count = len(loops(store, "loops"))
    snapshots = SnapshotStore(store, SnapshotPolicy(every_n_events=500))
    plain, short = EventReplayer(store), EventReplayer(store, snapshots)
    spent = min(seconds(lambda: plain.rebuild_workflow_state("loops")) for _ in range(ROUNDS))
    print(f"replaying: {count / spent:,.0f} events/s")
    at = store.get_events_for_workflow("loops")[-500].sequence
    result = plain.rebuild("loops", at)
    snapshots.create_workflow_snapshot(
        result.final_state, "loops", result.last_version, result.last_sequence
    )
    assert short.rebuild_workflow_state("loops") == plain.rebuild_workflow_state("loops")
    quick = min(seconds(lambda: short.rebuild_workflow_state("loops")) for _ in range(ROUNDS))
    print(
        f"rebuilding {count:,} events: {spent * 1000:.0f} ms from the beginning, "
        f"{quick * 1000:.1f} ms from a snapshot, {spent / quick:.0f} times faster"
    )


def main(url: str) -> None:
    database = Database.at(url)
    database.create_tables()
    store = SqlEventStore(database)
    recording(database)
    appending(store)
    replaying(store)
    database.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(f"sqlite:///{Path(folder) / 'bench.db'}")
