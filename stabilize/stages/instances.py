"""Several instances of something after a stage (WCP-12 to 15, 34, 35), as stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stabilize.models.stage import StageExecution
from stabilize.models.values import MultiInstanceConfig
from stabilize.status import JoinType


class MultiInstanceBuilder:
    """Makes the stages that follow `parent`, each an instance, and the join behind them.

    An instance has no tasks of its own: they come from the builder of its type (`instance_type`,
    else that of the parent). What goes on hangs on the last stage, `<parent>_mi_join`; without
    `sync_on_complete` there is none. Where the number is known now, the instances are stages of the
    definition; else they are the instances of one stage, `<parent>_instances`, made when it starts.
    """

    @staticmethod
    def create_fixed(
        parent: StageExecution,
        count: int,
        instance_type: str = "",
        instance_name_prefix: str = "Instance",
        sync_on_complete: bool = True,
        join_threshold: int = 0,
        cancel_remaining: bool = False,
        instance_contexts: Sequence[dict[str, Any]] | None = None,
    ) -> list[StageExecution]:
        """`count` instances; `join_threshold` of them are enough, or all of them when it is 0."""
        contexts = [{}] * count if instance_contexts is None else instance_contexts
        if count < 0 or len(contexts) != count:
            raise ValueError(
                f"stage {parent.ref_id!r}: {count} instances cannot be made with {len(contexts)} "
                "contexts: give one to each"
            )
        made = [
            StageExecution(
                ref_id=f"{parent.ref_id}_instance_{index}",
                type=instance_type or parent.type,
                name=f"{instance_name_prefix} [{index}]",
                context={
                    **context,
                    "_mi_parent_ref_id": parent.ref_id,
                    "_mi_instance_index": index,
                },
                requisite_stage_ref_ids={parent.ref_id},
            )
            for index, context in enumerate(contexts)
        ]
        if not sync_on_complete:
            return made
        join = _join(parent, {stage.ref_id for stage in made} or {parent.ref_id})
        if join_threshold:
            join.join_type, join.join_threshold = JoinType.N_OF_M, join_threshold
            join.join_rest = "cancel" if cancel_remaining else None
        return [*made, join]

    @staticmethod
    def create_from_context(
        parent: StageExecution,
        count_key: str,
        instance_type: str = "",
        instance_name_prefix: str = "Instance",
        sync_on_complete: bool = True,
        join_threshold: int = 0,
        cancel_remaining: bool = False,
    ) -> list[StageExecution]:
        """As many as `count_key` says, in the parent's context or in what it puts out."""
        if count_key in parent.context:
            return MultiInstanceBuilder.create_fixed(
                parent,
                parent.context[count_key],
                instance_type,
                instance_name_prefix,
                sync_on_complete,
                join_threshold,
                cancel_remaining,
            )
        config = MultiInstanceConfig(
            count_from_context=count_key,
            sync_on_complete=sync_on_complete,
            join_threshold=join_threshold,
            cancel_remaining=cancel_remaining,
        )
        return _group(parent, config, instance_type, instance_name_prefix)

    @staticmethod
    def create_from_collection(
        parent: StageExecution,
        collection_key: str,
        instance_type: str = "",
        instance_name_prefix: str = "Instance",
        sync_on_complete: bool = True,
        join_threshold: int = 0,
        cancel_remaining: bool = False,
        item_context_key: str = "item",
    ) -> list[StageExecution]:
        """One for each item of a list in the parent's context, or in what it puts out."""
        items = parent.context.get(collection_key)
        if items is not None:
            return MultiInstanceBuilder.create_fixed(
                parent,
                len(items),
                instance_type,
                instance_name_prefix,
                sync_on_complete,
                join_threshold,
                cancel_remaining,
                [{item_context_key: item} for item in items],
            )
        config = MultiInstanceConfig(
            collection_from_context=collection_key,
            item_context_key=item_context_key,
            sync_on_complete=sync_on_complete,
            join_threshold=join_threshold,
            cancel_remaining=cancel_remaining,
        )
        return _group(parent, config, instance_type, instance_name_prefix)

    @staticmethod
    def create_dynamic(
        parent: StageExecution,
        instance_type: str = "",
        instance_name_prefix: str = "Instance",
        initial_count: int = 0,
    ) -> list[StageExecution]:
        """`initial_count`, and those added by `AddMultiInstance` until all of them have ended.

        The message is for the parent or for `<parent>_instances`; the join waits for added ones.
        """
        config = MultiInstanceConfig(count=initial_count, allow_dynamic=True)
        return _group(parent, config, instance_type, instance_name_prefix)


def _group(
    parent: StageExecution, config: MultiInstanceConfig, instance_type: str, prefix: str
) -> list[StageExecution]:
    group = StageExecution(
        ref_id=f"{parent.ref_id}_instances",
        type=instance_type or parent.type,
        name=prefix,
        context={"_mi_parent_ref_id": parent.ref_id},
        requisite_stage_ref_ids={parent.ref_id},
        mi_config=config,
    )
    return [group, _join(parent, {group.ref_id})] if config.sync_on_complete else [group]


def _join(parent: StageExecution, requisites: set[str]) -> StageExecution:
    return StageExecution(
        ref_id=f"{parent.ref_id}_mi_join",
        type="noop",
        name=f"Join of {parent.name or parent.ref_id}",
        requisite_stage_ref_ids=requisites,
    )
