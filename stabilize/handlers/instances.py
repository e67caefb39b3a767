"""Multiple instances: one stage, many runs at once, and when that is enough (WCP-12 to 15, 34-36).

A stage with `mi_config` is a group: its own tasks run in its instances, which are synthetic stages
of it. What the group counts stands in one row, so that an ending costs the same in a group of ten
and of ten thousand; instances are made, and withdrawn, a bounded number in a turn.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.handlers.base import Handler
from stabilize.handlers.closing import (
    COUNTS,
    at_once,
    error_of,
    instance_ref,
    withdraw,
    withdraw_instances,
)
from stabilize.handlers.context import names_for
from stabilize.handlers.flow import Arrival, put
from stabilize.handlers.lifecycle import complete_if_idle, end_workflow, finish_stage
from stabilize.handlers.runs import activate, add_run, unstarted
from stabilize.handlers.signal import run_under_way
from stabilize.models import MultiInstanceConfig, StageExecution
from stabilize.net import BEYOND, Net
from stabilize.queue.messages import (
    AddMultiInstance,
    CancelMultiInstance,
    CompleteMultiInstance,
    FailStage,
    InstanceEnded,
    SpawnInstances,
    WithdrawInstances,
)
from stabilize.status import StagePhase, SyntheticStageOwner, TokenKind, WorkflowStatus
from stabilize.turn import Turn
from stabilize.types import MAX_PAYLOAD_BYTES, encode
from stabilize.work import MessageRefused

S = WorkflowStatus
ROWS_MADE = 100
"""Instances are made so many rows, stages and tasks, by one message: 50 of one task each. A group
of 10,000 is many turns, and others move on beside it."""
ADDED_EARLY = 1_000
"""So many are kept that were added before a group has made its own; more of them wait in line."""
_EARLY = "_mi_added"
_LOOK_AGAIN_MS = 1_000


def open_group(turn: Turn, net: Net, stage: StageExecution, config: MultiInstanceConfig) -> None:
    """Count the instances the group is to have, and begin to make them."""
    try:
        wanted = _wanted(turn, net, stage, config) + len(stage.delivered.get(_EARLY, ()))
    except ValueError as error:
        turn.push(FailStage.of(stage, error=str(error)))
        return
    counts = {
        "wanted": wanted,
        "created": 0,
        "done": 0,
        "succeeded": 0,
        "failed": 0,
        "lost": 0,
        "truths": {},
    }
    turn.set(stage, phase=StagePhase.TASKS, delivered={**stage.delivered, COUNTS: counts})
    if wanted == 0 and not config.allow_dynamic:
        finish_stage(turn, net, stage, S.SUCCEEDED)
    else:
        turn.push(SpawnInstances.of(stage))


def _wanted(turn: Turn, net: Net, stage: StageExecution, config: MultiInstanceConfig) -> int:
    if config.collection_from_context:
        return len(_collection(turn, net, stage, config.collection_from_context))
    key = config.count_from_context
    count = names_for(turn, stage).get(key) if key else config.count
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(
            f"count_from_context={key!r} gives {count!r}, it has to be a whole number of instances"
        )
    return count


def _collection(turn: Turn, net: Net, stage: StageExecution, key: str) -> list[Any]:
    """The items of a group: what its upstream put out stands still, so it may be read again."""
    items = net.collections.get(stage.id)
    if items is None:
        items = names_for(turn, stage).get(key)
        if not isinstance(items, list):
            raise ValueError(
                f"collection_from_context={key!r} is {type(items).__name__}, it has to be a list"
            )
        net.collections[stage.id] = items
    return items


class SpawnInstancesHandler(Handler[SpawnInstances]):
    """Make the next batch of instances; after the last, see whether they are enough already."""

    def handle(self, message: SpawnInstances, turn: Turn) -> None:
        net, stage = turn.net(message), turn.stage(message)
        config = stage.mi_config
        if stage.status is not S.RUNNING or config is None:
            return
        counts = dict(stage.delivered[COUNTS])
        until = min(counts["wanted"], counts["created"] + at_once(net, stage, ROWS_MADE))
        for index in range(counts["created"], until):
            _spawn(turn, net, stage, index, _own_of(turn, net, stage, config, index))
        counts["created"] = until
        turn.set(stage, delivered={**stage.delivered, COUNTS: counts})
        if until < counts["wanted"]:
            turn.push_later(SpawnInstances.of(stage))
            return
        net.collections.pop(stage.id, None)
        if config.sync_on_complete:
            _settle(turn, net, stage, config, counts)
        else:
            finish_stage(turn, net, stage, S.SUCCEEDED)


def _own_of(
    turn: Turn, net: Net, stage: StageExecution, config: MultiInstanceConfig, index: int
) -> dict[str, Any]:
    """What one instance gets of its own: its item, or what it was added with."""
    early = stage.delivered.get(_EARLY, ())
    place = index - (stage.delivered[COUNTS]["wanted"] - len(early))
    if place >= 0:
        own: dict[str, Any] = early[place]
        return own
    key = config.collection_from_context
    return {config.item_context_key: _collection(turn, net, stage, key)[index]} if key else {}


def _spawn(
    turn: Turn, net: Net, group: StageExecution, index: int, context: dict[str, Any]
) -> None:
    config = group.mi_config
    assert config is not None
    left_out = ("stageTimeoutMs", config.collection_from_context)
    run = StageExecution(
        workflow_id=group.workflow_id,
        ref_id=instance_ref(group, index),
        position=group.position if group.position >= BEYOND else group.position + BEYOND,
        type=group.type,
        name=f"{group.name or group.ref_id} [{index}]",
        context={
            "_mi_parent_ref_id": group.ref_id,
            **{k: v for k, v in group.context.items() if k not in left_out},
            **context,
            "_mi_instance_index": index,
        },
        parent_stage_id=group.id,
        synthetic_stage_owner=SyntheticStageOwner.INSTANCE,
        definition={"planned": True},
    )
    add_run(turn, net, run, unstarted(net.tasks_of(group), run))
    activate(turn, net, run, thread=group.thread)


class AddMultiInstanceHandler(Handler[AddMultiInstance]):
    """Add one instance to a group that has not ended; of a stage before it, to the group."""

    def handle(self, message: AddMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        stage = _group_of(turn, net, run_under_way(turn, net, turn.stage(message)))
        config = _config_of(stage)
        if not config.allow_dynamic:
            raise MessageRefused(f"{_named(stage)} takes no more instances: set allow_dynamic=True")
        if stage.status.is_complete:
            raise MessageRefused(f"{_named(stage)} is closed ({stage.status}): nothing is added")
        counts = stage.delivered.get(COUNTS)
        early = stage.delivered.get(_EARLY, [])
        if counts is not None and counts["created"] == counts["wanted"]:
            _spawn(turn, net, stage, counts["wanted"], message.instance_context)
            counts = {**counts, "created": counts["created"] + 1, "wanted": counts["wanted"] + 1}
            turn.set(stage, delivered={**stage.delivered, COUNTS: counts})
        elif len(early) < ADDED_EARLY:
            kept = {**stage.delivered, _EARLY: [*early, message.instance_context]}
            if counts is not None:
                kept[COUNTS] = {**counts, "wanted": counts["wanted"] + 1}
            turn.set(stage, delivered=kept)
        else:
            turn.again(message, _LOOK_AGAIN_MS)


def _named(group: StageExecution) -> str:
    return f"group {group.ref_id!r} of workflow {group.workflow_id}"


def _config_of(stage: StageExecution) -> MultiInstanceConfig:
    if stage.mi_config is None:
        raise MessageRefused(
            f"stage {stage.ref_id!r} of workflow {stage.workflow_id} is no group: give it mi_config"
        )
    return stage.mi_config


def _group_of(turn: Turn, net: Net, stage: StageExecution) -> StageExecution:
    """The stage itself, or the dynamic group that `MultiInstanceBuilder` put behind it."""
    if stage.mi_config is None:
        for ref_id, position in net.downstream.get(stage.ref_id, {}).items():
            group = turn.reader.newest(net, ref_id, position)
            if group is not None and group.mi_config is not None and group.mi_config.allow_dynamic:
                return group
    return stage


class InstanceEndedHandler(Handler[InstanceEnded]):
    """Count an instance that has ended; the group is over when that is enough, or hopeless."""

    def handle(self, message: InstanceEnded, turn: Turn) -> None:
        net, group = turn.net(message), turn.stage(message)
        config = group.mi_config
        instance = turn.reader.stage(net, message.instance_id)
        if config is None or instance is None:
            return
        if not config.sync_on_complete:
            if instance.status is S.TERMINAL:
                error = f"instance {instance.ref_id!r} failed: {error_of(instance)}"
                turn.set(net.workflow, context={**net.workflow.context, "error": error})
                end_workflow(turn, net, S.TERMINAL, error=error)  # no join absorbs it
            return
        if group.status is not S.RUNNING:
            return
        counts = _counted(config, group.delivered[COUNTS], instance)
        turn.set(group, delivered={**group.delivered, COUNTS: counts})
        _settle(turn, net, group, config, counts)


def _settle(
    turn: Turn, net: Net, group: StageExecution, config: MultiInstanceConfig, counts: dict[str, Any]
) -> None:
    """End the group if its instances have come to something."""
    try:
        status = _verdict(config, counts)
    except ExpressionError as error:
        turn.push(FailStage.of(group, error=f"complete_when: {error}"))
        return
    if status is None:
        return
    if config.cancel_remaining or status is S.TERMINAL:
        withdraw_instances(turn, net, group, unstarted=S.SKIPPED)
    _collect(turn, net, group)
    if status is S.TERMINAL:
        needed = config.complete_when or f"{config.join_threshold or counts['wanted']} to succeed"
        why = (
            f"{counts['succeeded']} of {counts['wanted']} instances succeeded and "
            f"{counts['lost']} did not: the group needs {needed}"
        )
        turn.set(group, context={**group.context, "error": why})
        finish_stage(turn, net, group, group.failure_status(), error=why)
    else:
        finish_stage(turn, net, group, status)


def _counted(
    config: MultiInstanceConfig, counts: dict[str, Any], instance: StageExecution
) -> dict[str, Any]:
    truths = dict(counts["truths"])
    for name in compile_expression(config.complete_when).names if config.complete_when else ():
        if instance.outputs.get(name):
            truths[name] = truths.get(name, 0) + 1
    lost = instance.status.is_halt or "withdrawn" in instance.definition
    failed = lost and instance.status is not S.CANCELED
    return {
        **counts,
        "done": counts["done"] + 1,
        "succeeded": counts["succeeded"] + (not lost),
        "failed": counts["failed"] + failed,
        "lost": counts["lost"] + lost,
        "truths": truths,
    }


def _verdict(config: MultiInstanceConfig, counts: dict[str, Any]) -> WorkflowStatus | None:
    is_open = counts["created"] < counts["wanted"] and not config.cancel_remaining
    if config.complete_when:
        condition = compile_expression(config.complete_when)
        known = {**counts["truths"], **{k: v for k, v in counts.items() if k != "truths"}}
        if condition.evaluate({**dict.fromkeys(condition.names, 0), **known}):
            return None if is_open else S.SUCCEEDED
    elif config.join_threshold and counts["succeeded"] >= config.join_threshold:
        return None if is_open else S.SUCCEEDED
    if counts["done"] < counts["wanted"]:
        hopeless = counts["wanted"] - counts["lost"] < config.join_threshold
        return S.TERMINAL if hopeless and not config.allow_dynamic else None
    if counts["succeeded"] < config.join_threshold or config.complete_when:
        return None if config.allow_dynamic else S.TERMINAL  # more instances may still be added
    return S.TERMINAL if counts["failed"] and not config.join_threshold else S.SUCCEEDED


def _collect(turn: Turn, net: Net, group: StageExecution) -> None:
    """What the instances put out becomes the group's: one list, in the order of the instances.

    A list too large for a payload is not made: the instances have their outputs themselves.
    """
    rows = turn.read(
        select(StageExecution.outputs)
        .where(
            StageExecution.parent_stage_id == group.id,
            StageExecution.synthetic_stage_owner == SyntheticStageOwner.INSTANCE,
            StageExecution.phase == StagePhase.ENDED,
        )
        .order_by(func.length(StageExecution.ref_id), StageExecution.ref_id)
        .execution_options(yield_per=ROWS_MADE)
    )
    found: list[Any] = []
    size = 0
    for (outputs,) in rows:
        if outputs:
            found.append(outputs)
            size += len(encode(outputs))
        if size > MAX_PAYLOAD_BYTES:
            rows.close()
            reason = f"they have more than {MAX_PAYLOAD_BYTES} bytes: read them from the instances"
            turn.set(group, outputs={**group.outputs, "instances_left_out": reason})
            return
    if found:
        turn.set(group, outputs={**group.outputs, "instances": found})


class WithdrawInstancesHandler(Handler[WithdrawInstances]):
    """Go on withdrawing the instances of a group that has ended."""

    def handle(self, message: WithdrawInstances, turn: Turn) -> None:
        net, group = turn.net(message), turn.stage(message)
        withdraw_instances(turn, net, group, start=message.start, unstarted=message.status)
        complete_if_idle(turn, net)


class CompleteMultiInstanceHandler(Handler[CompleteMultiInstance]):
    """Withdraw what is unfinished and go on with the outputs so far."""

    def handle(self, message: CompleteMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        group = run_under_way(turn, net, turn.stage(message))
        _config_of(group)
        if group.status is not S.RUNNING:
            return
        withdraw_instances(turn, net, group, unstarted=S.SKIPPED)
        _collect(turn, net, group)
        finish_stage(turn, net, group, S.SUCCEEDED)


class CancelMultiInstanceHandler(Handler[CancelMultiInstance]):
    """Withdraw what is unfinished; the branch of the group brings nothing."""

    def handle(self, message: CancelMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        group = run_under_way(turn, net, turn.stage(message))
        _config_of(group)
        if group.status.is_complete:
            withdraw_instances(turn, net, group, unstarted=S.SKIPPED)
            complete_if_idle(turn, net)
            return
        if group.status is not S.RUNNING:
            return
        withdraw(turn, net, group)
        dead = [
            Arrival(group, ref_id, TokenKind.DEAD, group.thread)
            for ref_id in net.downstream.get(group.ref_id, ())
        ]
        put(turn, net, dead)
        complete_if_idle(turn, net)
