"""Leads the engine along the path of a finding and looks whether the fault is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import select

from stabilize import Fault, Finding, StageExecution
from stabilize.models import Token
from stabilize.status import TokenKind
from tests.support.builders import Engine, Ran, workflow


class Replay:
    """One run whose stages all wait for a signal: they end in the order they are told to."""

    def __init__(self, engine: Engine, stages: list[StageExecution], given: Iterable[str]) -> None:
        self.engine = engine
        self.given = dict.fromkeys(given, True)
        self.workflow = workflow(*stages)
        engine.submit(self.workflow)
        engine.play()

    def look(self) -> Ran:
        return self.engine.look(self.workflow)

    def waiting(self) -> list[StageExecution]:
        """The runs that a signal lets go on."""
        runs = self.look().workflow.stage_runs
        return [
            run
            for run in runs
            if run.status.name == "SUSPENDED" or str(run.waits_for).startswith("trigger:")
        ]

    def end(self, ref_id: str) -> None:
        """End the first run of a stage that waits; it is an error if there is none."""
        run = next((run for run in self.waiting() if run.ref_id == ref_id), None)
        assert run is not None, f"{ref_id} does not run now: {self.look().statuses}"
        self.engine.orchestrator.signal(self.workflow, run.id, "go", self.given)
        self.engine.play()

    def follow(self, path: Iterable[str]) -> None:
        """End the stages of a path; those of a loop do so by themselves."""
        for ref_id in path:
            if self.look()[ref_id].type != "loop":
                self.end(ref_id)

    def end_all(self) -> Ran:
        for _ in range(50):
            waiting = self.waiting()
            if not waiting:
                break
            self.end(waiting[0].ref_id)
        return self.look()

    def tokens_before(self, ref_id: str) -> list[Token]:
        with self.engine.database.reading() as session:
            here = (Token.workflow_id == self.workflow.id, Token.downstream_ref_id == ref_id)
            return list(session.scalars(select(Token).where(*here)))


def _deadlock(play: Replay, stage: str) -> None:
    ran = play.end_all()
    assert ran.status == "TERMINAL"
    assert "nothing can go on" in ran.workflow.context["error"]
    assert f"{stage!r} waits for" in ran.workflow.context["error"]


def _fails(word: str) -> Callable[[Replay, str], None]:
    def look(play: Replay, stage: str) -> None:
        assert play.look().status == "TERMINAL"
        assert word in play.look().error(stage)

    return look


def _no_branch(play: Replay, stage: str) -> None:
    play.end(stage)
    _fails("NoBranchError")(play, stage)


def _repeated(play: Replay, stage: str) -> None:
    assert len(play.look().runs(stage)) > 1


def _loose(play: Replay, stage: str) -> None:
    kinds = {token.kind for token in play.tokens_before(stage)}
    assert kinds == {TokenKind.LIVE, TokenKind.DEAD}
    assert play.look().statuses[stage] == "SUSPENDED"


def _left_over(play: Replay, stage: str) -> None:
    assert play.end_all().status == "SUCCEEDED"
    left = [t for t in play.tokens_before(stage) if not t.closed and t.consumer_id is None]
    assert TokenKind.LIVE in {token.kind for token in left}


def _dead(play: Replay, stage: str) -> None:
    assert play.end_all().status == "SUCCEEDED"
    assert play.look().runs(stage) == ["SKIPPED"]


def _endless(play: Replay, stage: str) -> None:
    ran = play.end_all()
    assert ran.statuses[stage] == "FAILED_CONTINUE"
    assert ran[stage].outputs["loop_exhausted"] is True


HAPPENS: Mapping[Fault, Callable[[Replay, str], None]] = {
    Fault.DEADLOCK: _deadlock,
    Fault.MERGED_TWICE: _fails("two branches reached an XOR join"),
    Fault.TOO_FEW_BRANCHES: _fails("needed and can no longer come"),
    Fault.NO_BRANCH: _no_branch,
    Fault.REPEATED: _repeated,
    Fault.LOOSE_JOIN: _loose,
    Fault.LEFTOVER: _left_over,
    Fault.DEAD_STAGE: _dead,
    Fault.ENDLESS_LOOP: _endless,
}
"""What shows on the engine at the end of the path of each kind of finding."""


def replay(
    engine: Engine, stages: list[StageExecution], finding: Finding, given: Iterable[str]
) -> None:
    """Fail unless the engine runs into what was found."""
    assert finding.stage is not None
    play = Replay(engine, stages, given)
    play.follow(finding.path)
    HAPPENS[finding.kind](play, finding.stage)
