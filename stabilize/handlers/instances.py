"""Multiple instances: one stage, many runs at once, and when that is enough (WCP-12 to 15, 34-36).

A stage with `mi_config` is a group: its own tasks run in its instances, which are synthetic stages
of it. What the group counts stands in one row, so that an ending costs the same in a group of ten
and of ten thousand.
"""

from __future__ import annotations

from typing import Any

from stabilize.dag.expressions import ExpressionError, compile_expression
from stabilize.handlers.base import Handler
from stabilize.handlers.context import names_for
from stabilize.handlers.flow import Arrival, activate, add_run, put, unstarted
from stabilize.handlers.lifecycle import (
    complete_if_idle,
    end_workflow,
    finish_stage,
    withdraw,
)
from stabilize.handlers.signal import reached_run
from stabilize.models import MultiInstanceConfig, StageExecution
from stabilize.net import Net, is_active
from stabilize.queue.messages import (
    AddMultiInstance,
    CancelMultiInstance,
    CompleteMultiInstance,
    FailStage,
    InstanceEnded,
    SpawnInstances,
)
from stabilize.status import StagePhase, SyntheticStageOwner, TokenKind, WorkflowStatus
from stabilize.turn import Turn

S = WorkflowStatus
BATCH = 50
"""Instances made by one message: a group of 10,000 is many turns, and others move on beside it."""
COUNTS = "_mi"


def open_group(turn: Turn, net: Net, stage: StageExecution, config: MultiInstanceConfig) -> None:
    """Count the instances the group is to have, and begin to make them."""
    try:
        items, wanted = _wanted(turn, stage, config)
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
    turn.set(
        stage,
        phase=StagePhase.TASKS,
        delivered={**stage.delivered, COUNTS: counts, "_mi_items": items},
    )
    if wanted == 0 and not config.allow_dynamic:
        finish_stage(turn, net, stage, S.SUCCEEDED)
        return
    turn.push(SpawnInstances.of(stage))


def _wanted(
    turn: Turn, stage: StageExecution, config: MultiInstanceConfig
) -> tuple[list[Any] | None, int]:
    names = names_for(turn, stage)
    if config.collection_from_context:
        items = names.get(config.collection_from_context)
        if not isinstance(items, list):
            raise ValueError(
                f"collection_from_context={config.collection_from_context!r} is "
                f"{type(items).__name__}, it has to be a list"
            )
        return items, len(items)
    count = names.get(config.count_from_context) if config.count_from_context else config.count
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(
            f"count_from_context={config.count_from_context!r} gives {count!r}, it has to be a "
            "whole number of instances"
        )
    return None, count


class SpawnInstancesHandler(Handler[SpawnInstances]):
    """Make the next batch of instances."""

    def handle(self, message: SpawnInstances, turn: Turn) -> None:
        net, stage = turn.net(message), turn.stage(message)
        config = stage.mi_config
        if stage.status is not S.RUNNING or config is None:
            return
        counts = dict(stage.delivered[COUNTS])
        items = stage.delivered.get("_mi_items")
        until = min(counts["wanted"], counts["created"] + BATCH)
        for index in range(counts["created"], until):
            own = {} if items is None else {config.item_context_key: items[index]}
            _spawn(turn, net, stage, index, own)
        counts["created"] = until
        more = until < counts["wanted"]
        kept = stage.delivered if more else _without_items(stage.delivered)
        turn.set(stage, delivered={**kept, COUNTS: counts})
        if more:
            turn.push_later(SpawnInstances.of(stage))
        elif not config.sync_on_complete:
            finish_stage(turn, net, stage, S.SUCCEEDED)


def _without_items(delivered: dict[str, Any]) -> dict[str, Any]:
    """What a group keeps once all its instances are made: it is written at each ending."""
    return {key: value for key, value in delivered.items() if key != "_mi_items"}


def _spawn(
    turn: Turn, net: Net, group: StageExecution, index: int, context: dict[str, Any]
) -> None:
    run = StageExecution(
        workflow_id=group.workflow_id,
        ref_id=f"{group.ref_id}#{group.run}[{index}]",
        position=group.position,
        type=group.type,
        name=f"{group.name or group.ref_id} [{index}]",
        context={
            **{k: v for k, v in group.context.items() if k != "stageTimeoutMs"},
            **context,
            "_mi_instance_index": index,
            "_mi_parent_ref_id": group.ref_id,
        },
        parent_stage_id=group.id,
        synthetic_stage_owner=SyntheticStageOwner.INSTANCE,
        definition={"planned": True},
    )
    add_run(turn, net, run, unstarted(net.tasks_of(group), run))
    activate(turn, net, run, thread=group.thread)


class AddMultiInstanceHandler(Handler[AddMultiInstance]):
    """Add one instance while the group is open; later it is refused."""

    def handle(self, message: AddMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        stage = reached_run(turn, net, turn.stage(message))
        config = stage.mi_config
        if config is None or not config.allow_dynamic or stage.status is not S.RUNNING:
            return
        counts = dict(stage.delivered[COUNTS])
        _spawn(turn, net, stage, counts["wanted"], message.instance_context)
        counts["wanted"] += 1
        counts["created"] += 1
        turn.set(stage, delivered={**stage.delivered, COUNTS: counts})


class InstanceEndedHandler(Handler[InstanceEnded]):
    """Count an instance that has ended; the group is over when that is enough, or hopeless."""

    def handle(self, message: InstanceEnded, turn: Turn) -> None:
        net, group = turn.net(message), turn.stage(message)
        config = group.mi_config
        instance = turn.reader.stage(net, message.instance_id)
        if config is None or instance is None:
            return
        if group.status is not S.RUNNING:
            if instance.status is S.TERMINAL and not config.sync_on_complete:
                end_workflow(turn, net, S.TERMINAL)  # no join is there to absorb it
            return
        counts = _counted(group.delivered[COUNTS], instance)
        turn.set(group, delivered={**group.delivered, COUNTS: counts})
        try:
            status = _verdict(config, counts)
        except ExpressionError as error:
            turn.push(FailStage.of(group, error=f"complete_when: {error}"))
            return
        if status is None:
            return
        if config.cancel_remaining or status is S.TERMINAL:
            _withdraw_instances(turn, net, group)
        _collect(turn, net, group)
        finish_stage(turn, net, group, group.failure_status() if status is S.TERMINAL else status)


def _counted(counts: dict[str, Any], instance: StageExecution) -> dict[str, Any]:
    truths = dict(counts["truths"])
    for name, value in instance.outputs.items():
        if value:
            truths[name] = truths.get(name, 0) + 1
    lost = instance.status.is_halt
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
    if config.complete_when:
        condition = compile_expression(config.complete_when)
        known = {**counts["truths"], **{k: v for k, v in counts.items() if k != "truths"}}
        if condition.evaluate({**dict.fromkeys(condition.names, 0), **known}):
            return S.SUCCEEDED
    elif config.join_threshold and counts["succeeded"] >= config.join_threshold:
        return S.SUCCEEDED
    if counts["done"] < counts["wanted"]:
        hopeless = counts["wanted"] - counts["lost"] < config.join_threshold
        return S.TERMINAL if hopeless and not config.allow_dynamic else None
    if counts["succeeded"] < config.join_threshold or config.complete_when:
        return None if config.allow_dynamic else S.TERMINAL  # more instances may still be added
    return S.TERMINAL if counts["failed"] and not config.join_threshold else S.SUCCEEDED


def _withdraw_instances(turn: Turn, net: Net, group: StageExecution) -> None:
    for child in list(net.children.get(group.id, ())):
        if is_active(child):
            withdraw(turn, net, child, unstarted=S.SKIPPED)


def _collect(turn: Turn, net: Net, group: StageExecution) -> None:
    """What the instances put out becomes the group's: one list, in the order of the instances."""
    ended = [c for c in net.children.get(group.id, ()) if c.status.is_complete and c.outputs]
    ended.sort(key=lambda child: child.context.get("_mi_instance_index", 0))
    if ended:
        turn.set(group, outputs={**group.outputs, "instances": [c.outputs for c in ended]})


class CompleteMultiInstanceHandler(Handler[CompleteMultiInstance]):
    """Withdraw what is unfinished and go on with the outputs so far."""

    def handle(self, message: CompleteMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        group = reached_run(turn, net, turn.stage(message))
        if group.status is not S.RUNNING or group.mi_config is None:
            return
        _withdraw_instances(turn, net, group)
        _collect(turn, net, group)
        finish_stage(turn, net, group, S.SUCCEEDED)


class CancelMultiInstanceHandler(Handler[CancelMultiInstance]):
    """Withdraw what is unfinished; the branch of the group brings nothing."""

    def handle(self, message: CancelMultiInstance, turn: Turn) -> None:
        net = turn.net(message)
        group = reached_run(turn, net, turn.stage(message))
        if group.status is not S.RUNNING or group.mi_config is None:
            return
        withdraw(turn, net, group)
        dead = [
            Arrival(group, ref_id, TokenKind.DEAD, group.thread)
            for ref_id in net.downstream.get(group.ref_id, ())
        ]
        put(turn, net, dead)
        complete_if_idle(turn, net)
