"""Why each stage of a workflow that is not running is not, in words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from stabilize.handlers.children import CHILD
from stabilize.handlers.closing import error_of
from stabilize.models import Claim, StageExecution, Token, Workflow
from stabilize.models.triggers import Signal
from stabilize.net import is_active
from stabilize.status import StagePhase, TokenKind, WorkflowStatus
from stabilize.store import WorkflowStore

S = WorkflowStatus
_PARTS_NAMED = 3
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
    error = workflow.status.is_halt and workflow.context.get("error")
    return str(error or "see its stages")


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
        self.tokens: dict[str, dict[str, TokenKind]] = defaultdict(dict)
        rows = session.execute(
            select(Token.downstream_ref_id, Token.upstream_ref_id, Token.kind).where(
                Token.workflow_id == workflow.id, Token.closed.is_(False)
            )
        )
        for target, source, kind in rows:
            self.tokens[target][source] = kind
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
                return (
                    "it was passed over: no branch to it was taken, its condition did not hold, "
                    "its time was past, or it was withdrawn before it began"
                )
            case S.CANCELED if stage.start_time is None:
                return "it was withdrawn before it began"
            case S.CANCELED:
                return "it was withdrawn while it was under way"
            case S.NOT_STARTED:
                return self._not_started(stage)
        return "it has ended" if stage.status is S.SUCCEEDED else error_of(stage)

    def _running(self, stage: StageExecution) -> str:
        parts = self.parts[stage.id]
        told = [f"{part.ref_id!r}: {self.why(part)}" for part in parts[:_PARTS_NAMED]]
        if len(parts) > _PARTS_NAMED:
            told.append(f"and {len(parts) - _PARTS_NAMED} more of its parts are under way")
        if CHILD in stage.delivered:
            told.append(f"it waits for its child workflow {stage.delivered[CHILD]}")
        return "; ".join(["it is running", *told])

    def _not_started(self, stage: StageExecution) -> str:
        if stage.phase is StagePhase.ENDED:
            if self.workflow.status.is_complete:
                return "a branch before it failed or was stopped, or the workflow ended first"
            return "a branch before it failed or was stopped, so it never starts"
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
        came = self.tokens.get(stage.ref_id, {})
        told = [f"{ref!r} {_KINDS[kind]}" for ref, kind in sorted(came.items())]
        missing = sorted(stage.requisite_stage_ref_ids - came.keys())
        open_ones = [f"{ref!r} ({self.newest[ref].status.name})" for ref in missing]
        if open_ones:
            told.append(f"it waits for {', '.join(open_ones)}")
        return "; ".join(told) or "nothing has come yet"
