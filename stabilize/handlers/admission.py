"""What a stage may have to wait for before it begins: triggers, milestones, rights.

Mutex: WCP-17 and 40. Section: WCP-39. Milestone: WCP-18. Deferred choice: WCP-16. All of it is
within one workflow, whose lock the turn holds, so that looking and claiming cannot be torn apart.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, insert, select

from stabilize.dag.gates import (
    Obstacle,
    PassOver,
    Wait,
    choice,
    choice_key,
    milestone,
    right,
)
from stabilize.handlers.expiry import is_past
from stabilize.models import Claim, StageExecution
from stabilize.net import GATES, Net, is_active
from stabilize.queue.messages import CancelStage, StartStage
from stabilize.status import StagePhase, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
_TRIGGERED = "_triggered"
"""Stands in what was delivered to a run once its trigger has come."""


def is_gated(stage: StageExecution) -> bool:
    """Say whether the definition makes the stage wait for anything but its tokens."""
    definition = stage.definition
    return bool(definition) and not GATES.isdisjoint(definition)


def admit(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    """Take every right the stage needs to begin, or say what is in its way and take none."""
    for gate in (_choice, _past, _trigger, _milestone, _mutex, _section):
        obstacle = gate(turn, net, stage)
        if obstacle is not None:
            _yield_mutex(turn, net, stage, obstacle)
            return obstacle
    if stage.mutex_key is not None:
        _claim(turn, stage, "mutex", stage.mutex_key, stage.id)
    if stage.section is not None:
        _claim(turn, stage, "section", stage.section, _component(turn, net, stage))
    if stage.deferred_choice_group is not None:
        _choose(turn, net, stage, stage.deferred_choice_group)
    return None


def pull_trigger(turn: Turn, net: Net, stage: StageExecution) -> None:
    """The trigger of the stage has come: its choice, if it is not made yet, falls on it now.

    Not if it comes too late for the stage, as it may when the workflow is paused.
    """
    if _TRIGGERED in stage.delivered:
        return
    turn.set(stage, delivered={**stage.delivered, _TRIGGERED: True})
    group = stage.deferred_choice_group
    is_late = is_past(stage.start_time_expiry, turn)
    if group is not None and not is_late and _choice(turn, net, stage) is None:
        _choose(turn, net, stage, group)


def _yield_mutex(turn: Turn, net: Net, stage: StageExecution, obstacle: Obstacle) -> None:
    """The stage may have been called as the next for a mutex that it cannot use: call another."""
    key = stage.mutex_key
    if key is None or obstacle == Wait(f"mutex:{key}"):
        return
    if _owner(turn, stage, "mutex", key) is None:
        call(turn, net, f"mutex:{key}", first_only=True)


def leave(turn: Turn, net: Net, stage: StageExecution) -> None:
    """Give back what an ended run held, and call those who wait for it."""
    if stage.mutex_key is not None:
        _release(turn, stage, "mutex", stage.mutex_key, stage.id)
        call(turn, net, f"mutex:{stage.mutex_key}", first_only=True)
    if stage.section is not None and not _section_is_open(turn, net, stage):
        _release(turn, stage, "section", stage.section, _component(turn, net, stage))
        call(turn, net, f"section:{stage.section}")
    announce(turn, net, stage)


def announce(turn: Turn, net: Net, stage: StageExecution) -> None:
    """The status of a stage has changed: call those for whom it is a milestone, whatever they
    wait for: it may be past."""
    if stage.definition.get("watched"):
        for other in waiting_runs(turn, net):
            if other.milestone_ref_id == stage.ref_id:
                _try_again(turn, other)


def call(turn: Turn, net: Net, key: str, *, first_only: bool = False) -> None:
    """Have the stages that wait for `key` try again, in the order they came."""
    waiting = [stage for stage in waiting_runs(turn, net) if stage.waits_for == key]
    for stage in waiting[:1] if first_only else waiting:
        _try_again(turn, stage)


def _try_again(turn: Turn, stage: StageExecution) -> None:
    if not waits_for_trigger(stage):  # which it still does, and was offered already
        turn.set(stage, waits_for=None)  # it may go on: it is no part of a deadlock now
    turn.push(StartStage.of(stage))


def waits_for_trigger(stage: StageExecution) -> bool:
    return stage.waits_for == f"trigger:{stage.ref_id}"


def waiting_runs(turn: Turn, net: Net) -> list[StageExecution]:
    """The runs that have their tokens and wait for something else, in the order they came."""
    if net.has_groups or not net.is_complete:
        query = select(StageExecution.id).where(
            StageExecution.workflow_id == net.workflow.id,
            StageExecution.waits_for.is_not(None),
        )
        ids = turn.read(query).scalars()
        turn.reader.stages({net.workflow.id: net}, [id for id in ids if id not in net.stages])
    waiting = [s for s in net.stages.values() if s.waits_for is not None and is_active(s)]
    return sorted(waiting, key=lambda stage: (stage.waiting_since or 0, stage.position))


# --- the gates ------------------------------------------------------------------------------


def _choice(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    group = stage.deferred_choice_group
    if group is None:
        return None
    chosen = _owner(turn, stage, "choice", choice_key(group, stage.thread))
    return choice(group, chosen, stage.id)


def _past(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    obstacle = _milestone(turn, net, stage)
    return obstacle if isinstance(obstacle, PassOver) else None


def _trigger(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    waits = stage.trigger is not None and _TRIGGERED not in stage.delivered
    return Wait(f"trigger:{stage.ref_id}") if waits else None


def _milestone(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    ref_id = stage.milestone_ref_id
    if ref_id is None or stage.milestone_status is None:
        return None
    run, wanted = turn.reader.newest(net, ref_id), WorkflowStatus[stage.milestone_status]
    status = None if run is None else run.status
    others = [r.status for r in net.stages.values() if r.ref_id == ref_id and is_active(r)]
    ended = run is not None and run.phase is StagePhase.ENDED and not others
    return milestone(ref_id, wanted, wanted if wanted in others else status, has_ended=ended)


def _mutex(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    key = stage.mutex_key
    if key is None:
        return None
    return right("mutex", key, _owner(turn, stage, "mutex", key), stage.id)


def _section(turn: Turn, net: Net, stage: StageExecution) -> Obstacle | None:
    name = stage.section
    if name is None:
        return None
    owner = _owner(turn, stage, "section", name)
    return None if owner is None else right("section", name, owner, _component(turn, net, stage))


# --- rights ---------------------------------------------------------------------------------


def _owner(turn: Turn, stage: StageExecution, kind: str, key: str) -> str | None:
    return turn.connection.scalar(
        select(Claim.owner).where(
            Claim.scope == stage.workflow_id, Claim.kind == kind, Claim.key == key
        )
    )


def _claim(turn: Turn, stage: StageExecution, kind: str, key: str, owner: str) -> None:
    if _owner(turn, stage, kind, key) == owner:
        return
    turn.connection.execute(
        insert(Claim.__table__),  # type: ignore[arg-type]
        {
            "scope": stage.workflow_id,
            "kind": kind,
            "claim_key": key,
            "owner": owner,
            "created_at": turn.now,
        },
    )


def _release(turn: Turn, stage: StageExecution, kind: str, key: str, owner: str) -> None:
    turn.connection.execute(
        delete(Claim).where(
            Claim.scope == stage.workflow_id,
            Claim.kind == kind,
            Claim.key == key,
            Claim.owner == owner,
        )
    )


def _choose(turn: Turn, net: Net, stage: StageExecution, group: str) -> None:
    _claim(turn, stage, "choice", choice_key(group, stage.thread), stage.id)
    for other in waiting_runs(turn, net):
        offered = other.deferred_choice_group == group and other.thread == stage.thread
        if offered and other is not stage:
            reason = f"the choice {group!r} fell on {stage.ref_id!r}"
            turn.push(CancelStage.of(other, user="system", reason=reason))


def leave_sections(turn: Turn, net: Net, but: Collection[str]) -> None:
    """The workflow has ended in the midst of sections: they are free, but for these."""
    if net.has_gates:
        turn.connection.execute(
            delete(Claim).where(
                Claim.scope == net.workflow.id, Claim.kind == "section", Claim.key.not_in(but)
            )
        )


def forget_choices(turn: Turn, runs: list[StageExecution]) -> None:
    """The part these runs belong to is opened again: its choices are open too."""
    owners = [run.id for run in runs if run.deferred_choice_group is not None]
    if owners:
        turn.connection.execute(
            delete(Claim).where(Claim.kind == "choice", Claim.owner.in_(owners))
        )


# --- sections -------------------------------------------------------------------------------


def _members(turn: Turn, net: Net, stage: StageExecution) -> list[StageExecution]:
    """The stages of the same section that hang together with `stage`, itself included."""
    turn.reader.everything(net)
    found = {stage.ref_id}
    waiting = [stage.ref_id]
    while waiting:
        ref_id = waiting.pop()
        around = {*net.downstream.get(ref_id, ()), *net.upstream.get(ref_id, ())}
        for other in around - found:
            if net.newest[other].section == stage.section:
                found.add(other)
                waiting.append(other)
    return [net.newest[ref_id] for ref_id in sorted(found)]


def _component(turn: Turn, net: Net, stage: StageExecution) -> str:
    return _members(turn, net, stage)[0].ref_id


def _section_is_open(turn: Turn, net: Net, stage: StageExecution) -> bool:
    members = _members(turn, net, stage)
    if any(member.phase is not StagePhase.ENDED for member in members):
        return True
    refs = {member.ref_id for member in members}
    return any(is_active(run) and run.ref_id in refs for run in net.stages.values())


def settle_sections(
    turn: Turn,
    net: Net,
    refs: Collection[str],
    target: StageExecution,
    source: StageExecution | None,
) -> None:
    """The stages `refs` are opened again: who was in a section and jumps within it stays in it, and
    one that nobody is in any more is free."""
    if not net.has_gates:
        return
    seen: set[str] = set()
    for ref_id in refs:
        stage = net.newest[ref_id]
        if stage.section is None or ref_id in seen:
            continue
        members = {member.ref_id for member in _members(turn, net, stage)}
        seen |= members
        owner = min(members)
        if target.ref_id in members and source is not None and source.ref_id in members:
            _claim(turn, stage, "section", stage.section, owner)
        elif not any(is_active(r) and r.ref_id in members for r in net.stages.values()) and all(
            ref in refs or net.newest[ref].phase is StagePhase.WAITING for ref in members
        ):
            _release(turn, stage, "section", stage.section, owner)
            call(turn, net, f"section:{stage.section}")
