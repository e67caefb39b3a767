"""One run of a shape, and everything the database says about it afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from stabilize import Database, Orchestrator, QueueProcessor, QueueProcessorConfig, Workflow
from stabilize.models import (
    BufferedSignal,
    Claim,
    DeadLetter,
    StageExecution,
    TaskExecution,
    Token,
)
from tests.crash.shapes import (
    LEASE,
    AtOnce,
    Log,
    Shape,
    builders,
    ledger,
    queue_at,
    registry_for,
)


@dataclass
class Case:
    """One run of a shape: in a queue of its own, so that the next dies before this one is over."""

    database: str | Database
    shape: Shape
    name: str
    log: Log
    where: str = "nowhere"
    lease: timedelta = LEASE

    def __post_init__(self) -> None:
        self.queue = queue_at(self.database, self.name, self.lease)
        self.orchestrator = Orchestrator(self.queue)
        self.workflows = self.shape.make()

    def begin(self) -> None:
        """Come to the messages over which the process is to die."""
        for number in range(self.shape.crashes_in):
            self.shape.phases[number](self.orchestrator, self.workflows)
            self.process()
        self.shape.phases[self.shape.crashes_in](self.orchestrator, self.workflows)

    def finish(self) -> None:
        """Do, in this process, what is left."""
        self.process()
        for asked in self.shape.phases[self.shape.crashes_in + 1 :]:
            asked(self.orchestrator, self.workflows)
            self.process()

    def process(self) -> None:
        QueueProcessor(
            self.queue,
            QueueProcessorConfig(max_workers=4, poll_frequency_ms=5),
            task_registry=registry_for(self.queue, self.log),
            executor=AtOnce(),
            builders=builders(),
        ).process_all(timeout=10)

    # --- what is there afterwards -----------------------------------------------------------

    def bodies(self) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        mine = {workflow.id for workflow in self.workflows}
        for (workflow_id, ref_id, what), count in self.log.counts().items():
            if workflow_id in mine:
                counts[ref_id, what] += count
        return counts

    def state(self) -> dict[str, Any]:
        """Everything the database says about these workflows, but for ids, times and versions."""
        ids = [workflow.id for workflow in self.workflows]
        with self.queue.database.reading() as session:

            def rows(*columns: Any, where: Any) -> list[tuple[Any, ...]]:
                return sorted(
                    (tuple(r) for r in session.execute(select(*columns).where(where))), key=repr
                )

            return {
                "workflows": [
                    session.execute(
                        select(Workflow.status, Workflow.open_runs, Workflow.jumps).where(
                            Workflow.id == id
                        )
                    ).one()
                    for id in ids
                ],
                "stages": rows(
                    StageExecution.ref_id,
                    StageExecution.run,
                    StageExecution.generation,
                    StageExecution.latest,
                    StageExecution.status,
                    StageExecution.phase,
                    StageExecution.context,
                    StageExecution.outputs,
                    StageExecution.delivered,
                    where=StageExecution.workflow_id.in_(ids),
                ),
                "tasks": rows(
                    StageExecution.ref_id,
                    StageExecution.run,
                    TaskExecution.position,
                    TaskExecution.name,
                    TaskExecution.status,
                    TaskExecution.retries,
                    where=(StageExecution.workflow_id.in_(ids))
                    & (TaskExecution.stage_id == StageExecution.id),
                ),
                "tokens": rows(
                    Token.downstream_ref_id,
                    Token.ordinal,
                    Token.kind,
                    Token.consumer_id.is_(None),
                    Token.closed,
                    where=Token.workflow_id.in_(ids),
                ),
                "claims": rows(
                    Claim.kind, where=Claim.scope.like(f"%{ids[0]}%") | Claim.owner.in_(ids)
                ),
                "signals": rows(BufferedSignal.name, where=BufferedSignal.workflow_id.in_(ids)),
                "dead letters": rows(DeadLetter.reason, where=DeadLetter.workflow_id.in_(ids)),
                "messages": self.queue.size(),
            }

    def charges(self) -> list[int]:
        """How often each stage has its row in the user's table."""
        ids = [workflow.id for workflow in self.workflows]
        with self.queue.database.reading() as session:
            query = select(func.count()).where(ledger.c.workflow_id.in_(ids))
            return list(session.scalars(query.group_by(ledger.c.workflow_id, ledger.c.ref_id)))

    def check(self, expected: dict[str, Any]) -> None:
        """Compare with the state of a run to which nothing happened; name every difference."""
        found = self.state()
        differences = [
            f"{what}: {found[what]}\n  instead of {wanted}"
            for what, wanted in expected.items()
            if found[what] != wanted
        ]
        assert not differences, "\n".join([self.where, *differences])
        charged = self.charges()
        assert charged == [1] * len(charged), self.where
