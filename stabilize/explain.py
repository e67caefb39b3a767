"""Why each stage of a workflow that is not running is not, in words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stabilize.dag.joins import JoinRule
from stabilize.handlers.children import CHILD
from stabilize.handlers.closing import error_of
from stabilize.handlers.runs import REASON
from stabilize.models import Claim, StageExecution, Token, Workflow
from stabilize.models.triggers import Signal
from stabilize.net import is_active
from stabilize.status import JoinType, StagePhase, TokenKind, WorkflowStatus
from stabilize.store import WorkflowStore

S = WorkflowStatus
_NAMED = 3
"""So many parts of a stage, or threads before it, are told; of the others, how many they are."""
_KINDS = {
    TokenKind.LIVE: "came",
    TokenKind.DEAD: "brings nothing",
    TokenKind.HALT: "was stopped",
    TokenKind.FAILED: "failed",
}


@dataclass(frozen=True, kw_only=True)
class StageReason:
    """One run of a stage, its status, and why it is so: each that is under way, else the newest."""

    ref_id: str
    status: WorkflowStatus
    why: str

    def __str__(self) -> str:
        return f"{self.ref_id} ({self.status.name}): {self.why}"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A workflow, its status, and the reasons of its stages in the order of the definition."""

    workflow_id: str
    status: WorkflowStatus
    why: str
    stages: tuple[StageReason, ...]

    def __getitem__(self, ref_id: str) -> str:
        """Why the stage is as it is, of all its runs; `KeyError` when there is no such stage."""
        found = dict.fromkeys(stage.why for stage in self.stages if stage.ref_id == ref_id)
        if not found:
            raise KeyError(ref_id)
        return "; ".join(found)

    def __str__(self) -> str:
        head = f"workflow {self.workflow_id} ({self.status.name}): {self.why}"
        return "\n".join([head, *(f"  {stage}" for stage in self.stages)])


def explain(store: WorkflowStore, workflow_id: str) -> Explanation:
    """Explain a stored workflow; `WorkflowNotFoundError` if unknown."""
    workflow = store.retrieve(workflow_id)
    with store.database.reading() as session:
        facts = _Facts(session, workflow)
        reasons = tuple(
            StageReason(ref_id=run.ref_id, status=run.status, why=facts.why(run))
            for stage in workflow.top_level_stages()
            for run in facts.under_way[stage.ref_id] or [stage]
        )
    return Explanation(
        workflow_id=workflow.id, status=workflow.status, why=_of_all(workflow), stages=reasons
    )


def _of_all(workflow: Workflow) -> str:
    match workflow.status:
        case S.NOT_STARTED:
            return "it was not started: orchestrator.start, and a processor that plays it"
        case S.PAUSED:
            return "it is paused: orchestrator.resume lets it go on"
        case S.BUFFERED:
            return "it waits for another workflow of its configuration to end"
        case S.CANCELED:
            return f"canceled by {workflow.canceled_by}: {workflow.cancellation_reason}"
    if error := workflow.status.is_halt and workflow.context.get("error"):
        return str(error)
    failed = [run for run in workflow.stage_runs if run.status is S.TERMINAL]
    if workflow.status is S.TERMINAL and failed:
        first = min(failed, key=lambda run: (run.end_time or 0, run.position))
        return f"stage {first.ref_id!r} failed: {error_of(first)}"
    return "it has ended" if workflow.status.is_complete else "see its stages"


_BROUGHT_NOTHING = {
    S.SKIPPED: "did not run",
    S.CANCELED: "was withdrawn",
    S.TERMINAL: "failed",
    S.STOPPED: "was stopped",
}
_Came = dict[str, dict[TokenKind, int]]
"""What lies before a stage in one thread: how many tokens of which kind, by edge."""


class _Facts:
    """What the tables say of one workflow beside its stages."""

    def __init__(self, session: Session, workflow: Workflow) -> None:
        self.workflow = workflow
        self.newest = {stage.ref_id: stage for stage in workflow.stages}
        self.under_way: dict[str, list[StageExecution]] = defaultdict(list)
        self.parts: dict[str, list[StageExecution]] = defaultdict(list)
        for run in filter(is_active, workflow.stage_runs):
            self.under_way[run.ref_id].append(run)
            if run.parent_stage_id is not None:
                self.parts[run.parent_stage_id].append(run)
        self.tokens: dict[str, dict[str, _Came]] = defaultdict(lambda: defaultdict(dict))
        edge = (Token.downstream_ref_id, Token.thread, Token.upstream_ref_id, Token.kind)
        rows = session.execute(
            select(*edge, func.count())
            .where(Token.workflow_id == workflow.id, Token.closed.is_(False))
            .group_by(*edge)
            .order_by(*edge)
        )
        for target, thread, source, kind, count in rows:
            apart = target in self.newest and JoinRule.of(self.newest[target]).matches_threads
            self.tokens[target][thread if apart else ""].setdefault(source, {})[kind] = count
        claims = select(Claim.kind, Claim.key, Claim.owner).where(Claim.scope == workflow.id)
        self.owners = {(kind, key): owner for kind, key, owner in session.execute(claims)}
        self.refs = {run.id: run.ref_id for run in workflow.stage_runs}

    def why(self, stage: StageExecution) -> str:
        match stage.status:
            case S.RUNNING:
                return self._running(stage)
            case S.SUSPENDED:
                return "it waits for a signal: orchestrator.signal wakes it"
            case S.PAUSED:
                return "it goes on when its workflow is resumed"
            case S.SKIPPED:
                return f"it did not run: {stage.definition.get(REASON) or self._not_taken(stage)}"
            case S.CANCELED:
                when = "before it began" if stage.start_time is None else "while it was under way"
                reason = stage.definition.get(REASON)
                return f"it was withdrawn {when}" + (f": {reason}" if reason else "")
            case S.NOT_STARTED:
                return self._not_started(stage)
        return "it has ended" if stage.status is S.SUCCEEDED else error_of(stage)

    def _running(self, stage: StageExecution) -> str:
        parts = self.parts[stage.id]
        told = [f"{part.ref_id!r}: {self.why(part)}" for part in parts[:_NAMED]]
        if len(parts) > _NAMED:
            told.append(f"and {len(parts) - _NAMED} more of its parts are under way")
        if CHILD in stage.delivered:
            told.append(f"it waits for its child workflow {stage.delivered[CHILD]}")
        return "; ".join(["it is running", *told])

    def _not_taken(self, stage: StageExecution) -> str:
        """Why a stage was passed over that did not decide so itself."""
        told = [
            f"{ref!r} {_BROUGHT_NOTHING.get(status, 'took another way')}"
            for ref, status in self._before(stage)
        ]
        return f"no branch to it was taken: {', '.join(told)}" if told else "it was passed over"

    def _before(self, stage: StageExecution) -> list[tuple[str, WorkflowStatus]]:
        """The stages whose edges lead to this one, with their statuses."""
        refs = sorted(stage.requisite_stage_ref_ids)
        return [(ref, self.newest[ref].status) for ref in refs if ref in self.newest]

    def _not_started(self, stage: StageExecution) -> str:
        if stage.phase is StagePhase.ENDED:
            halted = [
                f"{ref!r} ({status.name})"
                for ref, status in self._before(stage)
                if status.is_halt or status is S.NOT_STARTED
            ]
            if halted:
                return f"a branch before it was stopped, so it never starts: {', '.join(halted)}"
        if self.workflow.status.is_complete:
            return f"the workflow ended ({self.workflow.status.name}) before it was reached"
        if stage.waits_for is not None:
            return self._waits(stage, *stage.waits_for.split(":", 1))
        if stage.phase is StagePhase.READY and self.workflow.status is S.PAUSED:
            return "it has its tokens and starts when its workflow is resumed"
        if stage.phase is StagePhase.READY and stage.scheduled_time is not None:
            return f"it has its tokens and starts at its scheduled_time, {stage.scheduled_time}"
        if stage.phase is StagePhase.READY:
            return "it has its tokens and starts as soon as a processor plays it"
        return self._lacks(stage)

    def _waits(self, stage: StageExecution, kind: str, key: str) -> str:
        if kind == "milestone":
            mark = self.newest[key]
            return f"it waits until {key!r} is {stage.milestone_status}; it is {mark.status.name}"
        if kind != "trigger":
            owner = self.owners.get((kind, key), "nobody")
            return f"it waits for the {kind} {key!r}, which {self.refs.get(owner, owner)!r} holds"
        trigger = stage.trigger
        if isinstance(trigger, Signal):
            return f"it waits for the signal {trigger.name!r}"
        return "it waits for its timer"

    def _lacks(self, stage: StageExecution) -> str:
        """What has come and what is missing, thread by thread."""
        by_thread = list(self.tokens.get(stage.ref_id, {}).values()) or [{}]
        told = [self._lacks_in(stage, came) for came in by_thread[:_NAMED]]
        if len(by_thread) > 1:
            told = [f"thread {n}: {text}" for n, text in enumerate(told, 1)]
        if len(by_thread) > _NAMED:
            told.append(f"and {len(by_thread) - _NAMED} more threads")
        return "; ".join(told)

    def _lacks_in(self, stage: StageExecution, came: _Came) -> str:
        told = [_needs(stage)] if stage.join_type in _NEEDS or stage.join_scope else []
        for ref, kinds in came.items():
            times = [f"{_KINDS[kind]}{f' {n} times' if n > 1 else ''}" for kind, n in kinds.items()]
            told.append(f"{ref!r} {' and '.join(times)}")
        of_each = stage.join_type is JoinType.THREADS  # its one edge may bring more
        missing = [
            f"{ref!r} ({status.name})"
            for ref, status in self._before(stage)
            if of_each or ref not in came
        ]
        if missing:
            told.append(f"it waits for {', '.join(missing)}")
        return "; ".join(told) or "nothing has come yet"


_NEEDS = {
    JoinType.N_OF_M: "it needs {needed} of its {edges} branches",
    JoinType.THREADS: "it needs {needed} threads",
}


def _needs(stage: StageExecution) -> str:
    """How many tokens the join asks for, where that is not one of each edge."""
    edges = len(stage.requisite_stage_ref_ids)
    if stage.join_scope:
        return "it waits until nothing more can come"
    rule = JoinRule.of(stage)
    needed = edges if rule.waits_for_all else rule.needed
    return _NEEDS[stage.join_type].format(needed=needed, edges=edges)
