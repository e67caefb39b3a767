"""A process dies at every statement and every commit; another one finishes, and nothing shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import func, select

from stabilize import Orchestrator, QueueProcessor, QueueProcessorConfig, Workflow
from stabilize.models import (
    BufferedSignal,
    Claim,
    DeadLetter,
    StageExecution,
    TaskExecution,
    Token,
)
from tests.crash.shapes import (
    SHAPES,
    AtOnce,
    Log,
    Shape,
    builders,
    ledger,
    queue_at,
    registry_for,
)
from tests.support.backends import BackendUnderTest

ROOT: Final = Path(__file__).parent.parent.parent
STRIDE: Final = {"sqlite": 1}
SAMPLED: Final = 6
"""On a server every sixth place, beginning elsewhere for each shape."""


class Server:
    """The process that starts those which die."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def play(self, **order: Any) -> dict[str, Any]:
        """Have a process play; what it said, and how it ended."""
        process, self._process = self._process or self._start(), None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        self._process = process  # not before: nobody must get the answer to another's order
        return answer

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@dataclass
class Case:
    """One run of a shape: in a queue of its own, so that the next dies before this one is over."""

    backend: BackendUnderTest
    shape: Shape
    name: str
    log: Log
    where: str = "nowhere"

    def __post_init__(self) -> None:
        self.queue = queue_at(self.backend.url, self.name)
        self.orchestrator = Orchestrator(self.queue)
        self.workflows = self.shape.make()

    def begin(self) -> None:
        """Come to the messages over which the process is to die."""
        for number in range(self.shape.crashes_in):
            self.shape.phases[number](self.orchestrator, self.workflows)
            self._process()
        self.shape.phases[self.shape.crashes_in](self.orchestrator, self.workflows)

    def finish(self) -> None:
        """Do, in this process, what is left."""
        self._process()
        for asked in self.shape.phases[self.shape.crashes_in + 1 :]:
            asked(self.orchestrator, self.workflows)
            self._process()

    def _process(self) -> None:
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
                return sorted((tuple(r) for r in session.execute(select(*columns).where(where))),
                              key=repr)

            return {
                "workflows": [
                    session.execute(
                        select(Workflow.status, Workflow.open_runs, Workflow.jumps)
                        .where(Workflow.id == id)
                    ).one()
                    for id in ids
                ],
                "stages": rows(
                    StageExecution.ref_id, StageExecution.run, StageExecution.generation,
                    StageExecution.latest, StageExecution.status, StageExecution.phase,
                    StageExecution.context, StageExecution.outputs, StageExecution.delivered,
                    where=StageExecution.workflow_id.in_(ids),
                ),
                "tasks": rows(
                    StageExecution.ref_id, StageExecution.run, TaskExecution.position,
                    TaskExecution.name, TaskExecution.status, TaskExecution.retries,
                    where=(StageExecution.workflow_id.in_(ids))
                    & (TaskExecution.stage_id == StageExecution.id),
                ),
                "tokens": rows(
                    Token.downstream_ref_id, Token.ordinal, Token.kind,
                    Token.consumer_id.is_(None), Token.closed,
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


@pytest.fixture(params=["sqlite-file", "postgresql", "mariadb"])
def shared(request: pytest.FixtureRequest, databases: Any) -> Iterator[BackendUnderTest]:
    """A database that processes can share, with a table of the user's."""
    from tests.conftest import lend_or_skip

    with lend_or_skip(databases, request.param) as lent:
        engine = lent.engine()
        ledger.create(engine)
        yield lent
        ledger.drop(engine)


@pytest.mark.parametrize("name", SHAPES)
def test_wherever_a_process_dies_another_one_finishes_and_nothing_shows(
    shared: BackendUnderTest, server: Server, name: str, tmp_path: Path
) -> None:
    shape, log = SHAPES[name], Log(tmp_path / "bodies")

    def play(case: Case, deadly: int) -> dict[str, Any]:
        case.begin()
        return server.play(
            url=shared.url, queue_name=case.name, log=str(log.path), deadly=deadly
        )

    whole = Case(shared, shape, "whole", log)
    answer = play(whole, 0)
    assert answer["status"] == 0, answer
    whole.finish()
    expected, bodies = whole.state(), whole.bodies()
    places = int(answer["said"])
    stride = 1 if shared.kind == "sqlite" else SAMPLED
    first = 1 + list(SHAPES).index(name) % stride

    crashed: dict[int, Case] = {}
    for k in range(first, places + 1, stride):
        case = crashed[k] = Case(shared, shape, f"place {k}", log)
        answer = play(case, k)
        case.where = f"place {k} of {places}, {answer['said']}"
        assert answer["status"] == -9, f"the process outlived {case.where}: {answer}"

    for case in crashed.values():
        case.finish()
        assert case.state() == expected, case.where
        assert not [n for n in case.charges() if n != 1], case.where
        ran = case.bodies()
        assert bodies.keys() == ran.keys(), case.where
        assert all(n <= bodies[body] + 1 for body, n in ran.items()), f"{case.where}: {ran}"
