"""The 43 control-flow patterns as data: what is run, what is done meanwhile, what has to come out.

Numbers and context conditions are those of Russell, ter Hofstede, van der Aalst and Mulyar,
*Workflow Control-Flow Patterns: A Revised View*, BPM-06-22, 2006. Nothing here depends on how fast
anything is: what has to come later waits for a signal, which is sent when the rest stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stabilize import JoinType, SplitType, StageExecution
from stabilize.models import MultiInstanceConfig
from stabilize.models.triggers import Signal, Timer
from stabilize.queue.messages import (
    AddMultiInstance,
    CancelMultiInstance,
    CancelRegion,
    CancelStage,
    CompleteMultiInstance,
    Message,
    SignalStage,
)
from stabilize.stages.loops import LoopBuilder
from tests.support.builders import stage

Stages = list[StageExecution]
Runs = tuple[str, ...]
"""The statuses of all runs of a stage, in any order."""

OK: Runs = ("SUCCEEDED",)
SKIPPED: Runs = ("SKIPPED",)
CANCELED: Runs = ("CANCELED",)
FAILED: Runs = ("TERMINAL",)
SUSPENDED: Runs = ("SUSPENDED",)
UNTOUCHED: Runs = ("NOT_STARTED",)

CANCEL_ALL = "cancel the workflow"


@dataclass(frozen=True)
class Step:
    """Once the runs of these stages are as said, these messages are sent, or all is canceled."""

    when: Mapping[str, Runs]
    sends: tuple[Callable[[Mapping[str, StageExecution]], Message] | str, ...]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One pattern.

    `runs`: how all runs of each stage end. `apart`: groups of stages whose spans do not overlap.
    `ordered`: pairs of which the first ends before the second begins. `outputs`: what the workflow
    puts out, among other things.
    """

    number: int
    name: str
    condition: str
    stages: Callable[[], Stages]
    runs: Mapping[str, Runs]
    status: str = "SUCCEEDED"
    meanwhile: tuple[Step, ...] = ()
    apart: tuple[tuple[str, ...], ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"wcp_{self.number:02}_{self.name.lower().replace(' ', '_').replace('-', '_')}"


Found = Mapping[str, StageExecution]


def signal(
    ref_id: str, name: str = "go", data: Mapping[str, Any] | None = None, *, persistent: bool = True
) -> Callable[[Found], Message]:
    """Send a signal to a stage."""
    return lambda found: SignalStage(
        execution_id=found[ref_id].workflow_id,
        stage_id=found[ref_id].id,
        signal_name=name,
        signal_data=dict(data or {}),
        persistent=persistent,
    )


def cancel(ref_id: str) -> Callable[[Found], Message]:
    """Withdraw one stage."""
    return lambda found: CancelStage.of(found[ref_id], user="tests", reason="not wanted any more")


def to_group(
    kind: type[AddMultiInstance] | type[CancelMultiInstance] | type[CompleteMultiInstance],
    ref_id: str,
    **values: Any,
) -> Callable[[Found], Message]:
    """Say something to a group of instances."""
    return lambda found: kind.of(found[ref_id], **values)


def cancel_region(region: str) -> Callable[[Found], Message]:
    """Withdraw every stage of a region."""
    return lambda found: CancelRegion(
        execution_id=next(iter(found.values())).workflow_id, region=region, user="tests"
    )


def _fork(*refs: str, **fields: Any) -> Stages:
    """A stage `s` and stages after it which wait."""
    return [stage("s"), *[stage(ref, after="s", does="waits", **fields) for ref in refs]]


def _twice(merge: str, **fields: Any) -> Stages:
    """A stage that runs twice: a multi-merge of two branches."""
    first, second = f"{merge}1", f"{merge}2"
    return [
        stage(first),
        stage(second),
        stage(merge, after=[first, second], join_type=JoinType.MULTI_MERGE, **fields),
    ]


def _nested_child(depth: int) -> Stages:
    if depth == 0:
        return [stage("leaf", does="puts", context={"puts": {"deepest": True}})]
    config = {"name": f"level {depth}", "stages": _nested_child(depth - 1)}
    return [stage("call", does="SubWorkflowTask", context={"_sub_workflow_config": config})]


def _loops() -> Stages:
    pre = LoopBuilder.while_loop("n < 3", [stage("wb", does="counts")], "w", context={"n": 0})
    post = LoopBuilder.repeat_until("k >= 2", [stage("rb", does="puts_round")], "r")
    post[0].requisite_stage_ref_ids = {pre[-1].ref_id}
    return [*pre, *post, stage("end", after=post[-1].ref_id)]


# --- basic control flow (1-5) -----------------------------------------------------------------

BASIC = (
    Pattern(
        number=1,
        name="Sequence",
        condition="an activity is enabled after another one of the same case has ended",
        stages=lambda: [stage("a"), stage("b", after="a"), stage("c", after="b")],
        runs={"a": OK, "b": OK, "c": OK},
        ordered=(("a", "b"), ("b", "c")),
    ),
    Pattern(
        number=2,
        name="Parallel split",
        condition="one thread becomes several that go on at the same time",
        stages=lambda: _fork("a", "b"),
        meanwhile=(Step({"a": SUSPENDED, "b": SUSPENDED}, (signal("a"), signal("b"))),),
        runs={"s": OK, "a": OK, "b": OK},
        ordered=(("s", "a"), ("s", "b")),
    ),
    Pattern(
        number=3,
        name="Synchronization",
        condition="each incoming branch is triggered exactly once before the reset",
        stages=lambda: [*_fork("a", "b"), stage("join", after=["a", "b"])],
        meanwhile=(
            Step({"a": SUSPENDED, "b": SUSPENDED}, (signal("a"),)),
            Step({"a": OK, "join": UNTOUCHED}, (signal("b"),)),
        ),
        runs={"s": OK, "a": OK, "b": OK, "join": OK},
        ordered=(("a", "join"), ("b", "join")),
    ),
    Pattern(
        number=4,
        name="Exclusive choice",
        condition="the mechanism that chooses knows all the data it needs and chooses one branch",
        stages=lambda: [
            stage(
                "s",
                does="puts",
                context={"puts": {"n": 3}},
                split_type=SplitType.XOR,
                split_conditions={"a": "n > 5", "b": "n > 1", "c": "n > 0"},
                split_default="d",
            ),
            *[stage(ref, after="s") for ref in "abcd"],
        ],
        runs={"s": OK, "a": SKIPPED, "b": OK, "c": SKIPPED, "d": SKIPPED},
    ),
    Pattern(
        number=5,
        name="Simple merge",
        condition="the place before the merge is safe: no two incoming branches are ever active",
        stages=lambda: [
            stage(
                "s", split_type=SplitType.XOR, split_conditions={"a": "False"}, split_default="b"
            ),
            stage("a", after="s"),
            stage("b", after="s"),
            stage("merge", after=["a", "b"], join_type=JoinType.XOR),
            stage("end", after="merge"),
        ],
        runs={"s": OK, "a": SKIPPED, "b": OK, "merge": OK, "end": OK},
    ),
)

# --- advanced branching and synchronization (6-9, 28-38, 41, 42) ------------------------------

BRANCHING = (
    Pattern(
        number=6,
        name="Multi-choice",
        condition="the mechanism that chooses knows all the data it needs; one branch or more",
        stages=lambda: [
            stage(
                "s",
                does="puts",
                context={"puts": {"kind": "fire", "hurt": 2}},
                split_type=SplitType.OR,
                split_conditions={
                    "police": "kind == 'crime'",
                    "ambulance": "hurt > 0",
                    "engine": "kind == 'fire'",
                },
            ),
            *[stage(ref, after="s") for ref in ("police", "ambulance", "engine", "log")],
        ],
        runs={"s": OK, "police": SKIPPED, "ambulance": OK, "engine": OK, "log": OK},
    ),
    Pattern(
        number=7,
        name="Structured synchronizing merge",
        condition="one multi-choice before it; the merge waits for the branches that it activated",
        stages=lambda: [
            stage(
                "s",
                split_type=SplitType.OR,
                split_conditions={"a": "True", "b": "True", "c": "False"},
            ),
            stage("a", after="s"),
            stage("b", after="s", does="waits"),
            stage("c", after="s"),
            stage("merge", after=["a", "b", "c"], join_type=JoinType.OR),
        ],
        meanwhile=(Step({"a": OK, "b": SUSPENDED, "merge": UNTOUCHED}, (signal("b"),)),),
        runs={"s": OK, "a": OK, "b": OK, "c": SKIPPED, "merge": OK},
    ),
    Pattern(
        number=8,
        name="Multi-merge",
        condition="it is not related to one particular split; each arrival goes on by itself",
        stages=lambda: [
            stage("s"),
            *[stage(ref, after="s") for ref in "abc"],
            stage("merge", after=list("abc"), join_type=JoinType.MULTI_MERGE),
            stage("d", after="merge"),
            stage("e", after="merge"),
            stage("end", after=["d", "e"]),
        ],
        runs={
            "s": OK,
            "a": OK,
            "b": OK,
            "c": OK,
            "merge": OK * 3,
            "d": OK * 3,
            "e": OK * 3,
            "end": OK * 3,
        },
    ),
    Pattern(
        number=9,
        name="Structured discriminator",
        condition="one parallel split before it; each branch comes once before the reset",
        stages=lambda: [
            stage("s"),
            stage("a", after="s"),
            stage("b", after="s", does="waits"),
            stage("c", after="s", does="fails_late"),
            stage("first", after=["a", "b", "c"], join_type=JoinType.DISCRIMINATOR),
            stage("end", after="first"),
        ],
        meanwhile=(Step({"end": OK, "b": SUSPENDED, "c": SUSPENDED}, (signal("b"), signal("c"))),),
        runs={"s": OK, "a": OK, "b": OK, "c": FAILED, "first": OK, "end": OK},
    ),
    Pattern(
        number=28,
        name="Blocking discriminator",
        condition="a branch may come again before the reset: it is held back until then",
        stages=lambda: [
            *_twice("m"),
            stage("b", does="waits"),
            stage("first", after=["m", "b"], join_type=JoinType.DISCRIMINATOR, join_rest="block"),
            stage("end", after="first"),
        ],
        meanwhile=(Step({"m": OK * 2, "end": OK, "b": SUSPENDED}, (signal("b"),)),),
        runs={"m1": OK, "m2": OK, "m": OK * 2, "b": OK, "first": OK * 2, "end": OK * 2},
    ),
    Pattern(
        number=29,
        name="Cancelling discriminator",
        condition="each branch comes at most once; the others are withdrawn",
        stages=lambda: [
            *_fork("a", "b", "c"),
            stage("d", after="c"),
            stage(
                "first", after=["a", "b", "d"], join_type=JoinType.DISCRIMINATOR, join_rest="cancel"
            ),
            stage("end", after="first"),
        ],
        meanwhile=(Step({"a": SUSPENDED, "b": SUSPENDED, "c": SUSPENDED}, (signal("a"),)),),
        runs={"s": OK, "a": OK, "b": CANCELED, "c": CANCELED, "d": SKIPPED, "first": OK, "end": OK},
    ),
    Pattern(
        number=30,
        name="Structured partial join",
        condition="one parallel split before it; each branch comes once before the reset",
        stages=lambda: [
            stage("s"),
            stage("a", after="s"),
            stage("b", after="s"),
            stage("c", after="s", does="fails_late"),
            stage("two", after=["a", "b", "c"], join_type=JoinType.N_OF_M, join_threshold=2),
            stage("end", after="two"),
        ],
        meanwhile=(Step({"end": OK, "c": SUSPENDED}, (signal("c"),)),),
        runs={"s": OK, "a": OK, "b": OK, "c": FAILED, "two": OK, "end": OK},
    ),
    Pattern(
        number=31,
        name="Blocking partial join",
        condition="a branch may come again before the reset: it is held back until then",
        stages=lambda: [
            *_twice("m"),
            *_twice("n"),
            stage("c", does="waits"),
            stage(
                "two",
                after=["m", "n", "c"],
                join_type=JoinType.N_OF_M,
                join_threshold=2,
                join_rest="block",
            ),
            stage("end", after="two"),
        ],
        meanwhile=(Step({"m": OK * 2, "n": OK * 2, "end": OK, "c": SUSPENDED}, (signal("c"),)),),
        runs={
            "m1": OK,
            "m2": OK,
            "m": OK * 2,
            "n1": OK,
            "n2": OK,
            "n": OK * 2,
            "c": OK,
            "two": OK * 2,
            "end": OK * 2,
        },
    ),
    Pattern(
        number=32,
        name="Cancelling partial join",
        condition="each branch comes at most once; the others are withdrawn",
        stages=lambda: [
            *_fork("a", "b", "c"),
            stage(
                "two",
                after=["a", "b", "c"],
                join_type=JoinType.N_OF_M,
                join_threshold=2,
                join_rest="cancel",
            ),
            stage("end", after="two"),
        ],
        meanwhile=(
            Step({"a": SUSPENDED, "b": SUSPENDED, "c": SUSPENDED}, (signal("a"),)),
            Step({"a": OK, "two": UNTOUCHED, "c": SUSPENDED}, (signal("b"),)),
        ),
        runs={"s": OK, "a": OK, "b": OK, "c": CANCELED, "two": OK, "end": OK},
    ),
    Pattern(
        number=33,
        name="Generalized AND-join",
        condition="a branch may come again before the others have come: nothing is lost",
        stages=lambda: [
            *_twice("m"),
            *_twice("n"),
            stage("join", after=["m", "n"], join_keep=True),
            stage("end", after="join"),
        ],
        runs={
            "m1": OK,
            "m2": OK,
            "m": OK * 2,
            "n1": OK,
            "n2": OK,
            "n": OK * 2,
            "join": OK * 2,
            "end": OK * 2,
        },
    ),
    Pattern(
        number=37,
        name="Acyclic synchronizing merge",
        condition="no loop leads through it; it need not be paired with one split",
        stages=lambda: [
            stage("s", split_type=SplitType.OR, split_conditions={"a": "True", "b": "False"}),
            stage(
                "a",
                after="s",
                split_type=SplitType.XOR,
                split_conditions={"c": "True", "merge": "False"},
            ),
            stage("b", after="s"),
            stage("c", after="a", does="waits"),
            stage("merge", after=["a", "b", "c"], join_type=JoinType.OR),
            stage("end", after="merge"),
        ],
        meanwhile=(Step({"c": SUSPENDED, "merge": UNTOUCHED}, (signal("c"),)),),
        runs={"s": OK, "a": OK, "b": SKIPPED, "c": OK, "merge": OK, "end": OK},
    ),
    Pattern(
        number=38,
        name="General synchronizing merge",
        condition="it goes when no more can come, through loops and merges as well",
        stages=lambda: [
            *_twice("m"),
            stage("again", after="m1", does="jumps", context={"to": "again", "times": 3}),
            stage("late", does="waits"),
            stage(
                "merge", after=["m", "again", "late"], join_type=JoinType.OR, join_scope="general"
            ),
            stage("end", after="merge"),
        ],
        meanwhile=(
            Step(
                {"m": OK * 2, "again": OK * 3, "late": SUSPENDED, "merge": UNTOUCHED},
                (signal("late"),),
            ),
        ),
        runs={"m1": OK, "m2": OK, "m": OK * 2, "again": OK * 3, "late": OK, "merge": OK, "end": OK},
    ),
    Pattern(
        number=41,
        name="Thread merge",
        condition="the number of threads is known when the process is designed",
        stages=lambda: [
            stage("s", split_type=SplitType.THREADS, split_count=6),
            stage("a", after="s"),
            stage("b", after="a"),
            stage("merge", after="b", join_type=JoinType.THREADS, join_threshold=3),
            stage("end", after="merge"),
        ],
        runs={"s": OK, "a": OK * 6, "b": OK * 6, "merge": OK * 2, "end": OK * 2},
    ),
    Pattern(
        number=42,
        name="Thread split",
        condition="the number of threads is known when the split is reached",
        stages=lambda: [
            stage(
                "s",
                does="puts",
                context={"puts": {"threads": 3}},
                split_type=SplitType.THREADS,
                split_count="threads",
            ),
            stage("a", after="s"),
            stage("b", after="a"),
        ],
        runs={"s": OK, "a": OK * 3, "b": OK * 3},
    ),
)

# --- multiple instances (12-15, 26, 27, 34-36) ------------------------------------------------


def _group(config: MultiInstanceConfig, does: str = "waits", **fields: Any) -> Stages:
    return [
        stage("s", does="puts", context={"puts": {"items": ["x", "y", "z"], "count": 2}}),
        stage("a", after="s", does=does, mi_config=config, **fields),
        stage("end", after="a"),
    ]


def _instances(*ends: Runs) -> dict[str, Runs]:
    return {f"a#1[{index}]": end for index, end in enumerate(ends)}


I0, I1, I2, I3 = (f"a#1[{index}]" for index in range(4))
_APPROVED = {"approved": True}

INSTANCES = (
    Pattern(
        number=12,
        name="Multiple instances without synchronization",
        condition="the instances run by themselves; what follows does not wait for them",
        stages=lambda: _group(MultiInstanceConfig(count=3, sync_on_complete=False)),
        meanwhile=(
            Step({"end": OK, **_instances(*[SUSPENDED] * 3)}, (signal(I0), signal(I1), signal(I2))),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK)},
    ),
    Pattern(
        number=13,
        name="Multiple instances with design-time knowledge",
        condition="the number of instances is known when the process is designed",
        stages=lambda: _group(MultiInstanceConfig(count=3)),
        meanwhile=(
            Step(_instances(*[SUSPENDED] * 3), (signal(I0), signal(I2))),
            Step({I0: OK, I2: OK, "end": UNTOUCHED}, (signal(I1),)),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK)},
    ),
    Pattern(
        number=14,
        name="Multiple instances with run-time knowledge",
        condition="the number of instances is known before the first of them begins",
        stages=lambda: _group(MultiInstanceConfig(collection_from_context="items"), "echoes"),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK)},
        outputs={"instances": [{"echo": "x"}, {"echo": "y"}, {"echo": "z"}]},
    ),
    Pattern(
        number=15,
        name="Multiple instances without run-time knowledge",
        condition="instances may be added as long as one is running",
        stages=lambda: _group(MultiInstanceConfig(count_from_context="count", allow_dynamic=True)),
        meanwhile=(
            Step(_instances(SUSPENDED, SUSPENDED), (to_group(AddMultiInstance, "a"),)),
            Step({I2: SUSPENDED}, (signal(I0), signal(I1))),
            Step({I0: OK, I1: OK, "end": UNTOUCHED}, (signal(I2, data={"added": True}),)),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK)},
        outputs={"instances": [{"added": True}]},
    ),
    Pattern(
        number=26,
        name="Cancel multiple instance activity",
        condition="all unfinished instances are withdrawn, finished ones stay",
        stages=lambda: [*_group(MultiInstanceConfig(count=3)), stage("beside")],
        meanwhile=(
            Step(_instances(*[SUSPENDED] * 3), (signal(I0),)),
            Step({I0: OK}, (to_group(CancelMultiInstance, "a"),)),
        ),
        runs={
            "s": OK,
            "a": CANCELED,
            "end": SKIPPED,
            "beside": OK,
            **_instances(OK, CANCELED, CANCELED),
        },
    ),
    Pattern(
        number=27,
        name="Complete multiple instance activity",
        condition="unfinished instances are withdrawn and what follows begins",
        stages=lambda: _group(MultiInstanceConfig(count=3)),
        meanwhile=(
            Step(_instances(*[SUSPENDED] * 3), (signal(I1, data={"n": 1}),)),
            Step({I1: OK, "end": UNTOUCHED}, (to_group(CompleteMultiInstance, "a"),)),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(CANCELED, OK, CANCELED)},
        outputs={"instances": [{"n": 1}]},
    ),
    Pattern(
        number=34,
        name="Static partial join for multiple instances",
        condition="the number of instances is known when the first begins; n of them are enough",
        stages=lambda: _group(MultiInstanceConfig(count=3, join_threshold=2)),
        meanwhile=(
            Step(_instances(*[SUSPENDED] * 3), (signal(I0),)),
            Step({I0: OK, "end": UNTOUCHED}, (signal(I1),)),
            Step({"end": OK, I2: SUSPENDED}, (signal(I2),)),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK)},
    ),
    Pattern(
        number=35,
        name="Cancelling partial join for multiple instances",
        condition="the number of instances is known when the first begins; n of them are enough",
        stages=lambda: _group(
            MultiInstanceConfig(count=3, join_threshold=2, cancel_remaining=True)
        ),
        meanwhile=(Step(_instances(*[SUSPENDED] * 3), (signal(I0), signal(I2))),),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, CANCELED, OK)},
    ),
    Pattern(
        number=36,
        name="Dynamic partial join for multiple instances",
        condition="instances may be added; a condition is asked whenever one of them ends",
        stages=lambda: _group(
            MultiInstanceConfig(count=2, allow_dynamic=True, complete_when="approved >= 3")
        ),
        meanwhile=(
            Step(
                _instances(SUSPENDED, SUSPENDED),
                (to_group(AddMultiInstance, "a"), to_group(AddMultiInstance, "a")),
            ),
            Step(
                {I2: SUSPENDED, I3: SUSPENDED},
                (
                    signal(I0, data=_APPROVED),
                    signal(I1, data={"approved": False}),
                    signal(I2, data=_APPROVED),
                ),
            ),
            Step({I0: OK, I1: OK, I2: OK, "end": UNTOUCHED}, (signal(I3, data=_APPROVED),)),
        ),
        runs={"s": OK, "a": OK, "end": OK, **_instances(OK, OK, OK, OK)},
    ),
)

# --- state-based (16-18, 39, 40) --------------------------------------------------------------

STATES = (
    Pattern(
        number=16,
        name="Deferred choice",
        condition="one choice among branches, made by what happens first outside",
        stages=lambda: [
            stage("s"),
            stage("pay", after="s", deferred_choice_group="g", trigger=Signal("paid")),
            stage("quit", after="s", deferred_choice_group="g", trigger=Signal("refused")),
            stage("late", after="s", deferred_choice_group="g", trigger=Timer("1h")),
            stage("ship", after="pay"),
            stage("merge", after=["ship", "quit", "late"], join_type=JoinType.XOR),
            stage("all", after=["ship", "quit", "late"]),
        ],
        meanwhile=(Step({"s": OK}, (signal("quit", "refused", {"why": "dear"}),)),),
        runs={
            "s": OK,
            "pay": SKIPPED,
            "quit": OK,
            "late": SKIPPED,
            "ship": SKIPPED,
            "merge": OK,
            "all": OK,
        },
    ),
    Pattern(
        number=17,
        name="Interleaved parallel routing",
        condition="a partial order of activities, of which no two run at the same time",
        stages=lambda: [
            stage("s"),
            stage("a1", after="s", does="alone", mutex_key="k"),
            stage("a2", after="a1", does="alone", mutex_key="k"),
            stage("b1", after="s", does="alone", mutex_key="k"),
            stage("b2", after="b1", does="alone", mutex_key="k"),
            stage("end", after=["a2", "b2"]),
        ],
        runs={"s": OK, "a1": OK, "a2": OK, "b1": OK, "b2": OK, "end": OK},
        apart=(("a1",), ("a2",), ("b1",), ("b2",)),
        ordered=(("a1", "a2"), ("b1", "b2")),
    ),
    Pattern(
        number=18,
        name="Milestone",
        condition="the stage is enabled only while the milestone holds",
        stages=lambda: [
            stage("s", does="waits"),
            stage("open", after="s", does="waits"),
            stage("in_time", milestone_ref_id="open", milestone_status="SUSPENDED"),
            stage("too_late", after="open", milestone_ref_id="open", milestone_status="SUSPENDED"),
            stage("end", after=["in_time", "too_late"]),
        ],
        meanwhile=(
            Step({"s": SUSPENDED, "in_time": UNTOUCHED}, (signal("s"),)),
            Step({"open": SUSPENDED, "in_time": OK}, (signal("open"),)),
        ),
        runs={"s": OK, "open": OK, "in_time": OK, "too_late": SKIPPED, "end": OK},
    ),
    Pattern(
        number=39,
        name="Critical section",
        condition="two or more connected sub-graphs, of which one runs at a time",
        stages=lambda: [
            stage("s"),
            stage("a1", after="s", section="m"),
            stage("a2", after="a1", section="m"),
            stage("a3", after="a1", section="m"),
            stage("a4", after=["a2", "a3"], section="m"),
            stage("b1", after="s", section="m"),
            stage("b2", after="b1", section="m"),
            stage("b3", after="b2", section="m"),
            stage("c", after="s"),
            stage("end", after=["a4", "b3", "c"]),
        ],
        runs={
            "s": OK,
            "a1": OK,
            "a2": OK,
            "a3": OK,
            "a4": OK,
            "b1": OK,
            "b2": OK,
            "b3": OK,
            "c": OK,
            "end": OK,
        },
        apart=(("a1", "a2", "a3", "a4"), ("b1", "b2", "b3")),
    ),
    Pattern(
        number=40,
        name="Interleaved routing",
        condition="each activity runs once, in any order, and no two at the same time",
        stages=lambda: [
            stage("s"),
            *[stage(ref, after="s", does="alone", mutex_key="k") for ref in "abc"],
            stage("end", after=list("abc")),
        ],
        runs={"s": OK, "a": OK, "b": OK, "c": OK, "end": OK},
        apart=(("a",), ("b",), ("c",)),
    ),
)

# --- cancellation, loops, triggers, ends (10, 11, 19-25, 43) ----------------------------------

REST = (
    Pattern(
        number=10,
        name="Arbitrary cycles",
        condition="loops with more than one entry or exit",
        stages=lambda: [
            stage("a"),
            stage("b", after="a"),
            stage("c", after="b", does="jumps", context={"to": "a", "times": 2}),
            stage("d", after="c", does="jumps", context={"to": "b", "times": 2}),
            stage("end", after="d"),
        ],
        runs={"a": OK * 2, "b": OK * 3, "c": OK * 3, "d": OK * 2, "end": OK},
    ),
    Pattern(
        number=11,
        name="Implicit termination",
        condition="a case ends when nothing is left to do, without one last activity",
        stages=lambda: [
            stage("s"),
            stage("a", after="s"),
            stage("b", after="s", does="waits"),
            stage("c", after="b"),
        ],
        meanwhile=(Step({"a": OK, "b": SUSPENDED}, (signal("b"),)),),
        runs={"s": OK, "a": OK, "b": OK, "c": OK},
    ),
    Pattern(
        number=19,
        name="Cancel activity",
        condition="one activity is withdrawn before or while it runs; the rest goes on",
        stages=lambda: [
            *_fork("a", "b", "c"),
            stage("d", after="c"),
            stage("end", after=["a", "b", "d"]),
        ],
        meanwhile=(
            Step({"a": SUSPENDED, "b": SUSPENDED, "c": SUSPENDED}, (cancel("a"), cancel("d"))),
            Step({"a": CANCELED, "end": UNTOUCHED}, (signal("b"), signal("c"))),
        ),
        runs={"s": OK, "a": CANCELED, "b": OK, "c": OK, "d": SKIPPED, "end": OK},
    ),
    Pattern(
        number=20,
        name="Cancel case",
        condition="a whole case is withdrawn",
        stages=lambda: [
            *_fork("a"),
            stage(
                "child",
                after="s",
                does="SubWorkflowTask",
                context={
                    "_sub_workflow_config": {"name": "child", "stages": [stage("x", does="waits")]}
                },
            ),
            stage("end", after=["a", "child"]),
        ],
        meanwhile=(Step({"a": SUSPENDED, "child": ("RUNNING",)}, (CANCEL_ALL,)),),
        status="CANCELED",
        runs={"s": OK, "a": CANCELED, "child": CANCELED, "end": CANCELED},
    ),
    Pattern(
        number=21,
        name="Structured loop",
        condition="one entry and one exit; the condition comes before or after the body",
        stages=_loops,
        runs={
            "w_condition": OK * 4,
            "wb": (*OK * 3, *SKIPPED),
            "w_loopback": OK * 4,
            "r_entry": OK * 2,
            "rb": OK * 2,
            "r_condition": OK * 2,
            "end": OK,
        },
    ),
    Pattern(
        number=22,
        name="Recursion",
        condition="a process starts itself, and there is a path on which it does not",
        stages=lambda: [*_nested_child(3), stage("end", after="call")],
        runs={"call": OK, "end": OK},
    ),
    Pattern(
        number=23,
        name="Transient trigger",
        condition="a trigger that comes when nobody waits for it is lost",
        stages=lambda: [stage("s", does="waits"), stage("a", after="s", does="waits")],
        meanwhile=(
            Step({"s": SUSPENDED}, (signal("a", data={"n": 1}, persistent=False), signal("s"))),
            Step({"a": SUSPENDED}, (signal("a", data={"n": 2}, persistent=False),)),
        ),
        runs={"s": OK, "a": OK},
        outputs={"n": 2},
    ),
    Pattern(
        number=24,
        name="Persistent trigger",
        condition="a trigger that comes early is kept until somebody waits for it",
        stages=lambda: [stage("s", does="waits"), stage("a", after="s", does="waits")],
        meanwhile=(Step({"s": SUSPENDED}, (signal("a", data={"n": 1}), signal("s"))),),
        runs={"s": OK, "a": OK},
        outputs={"n": 1},
    ),
    Pattern(
        number=25,
        name="Cancel region",
        condition="every activity of a set is withdrawn, running or not; the rest goes on",
        stages=lambda: [
            stage("s"),
            stage("a", after="s", does="waits", cancel_region="r"),
            stage("b", after="a", cancel_region="r"),
            stage("c", after="s", does="waits"),
            stage("d", after="c", cancel_region="r"),
            stage("end", after=["b", "c", "d"]),
        ],
        meanwhile=(
            Step({"a": SUSPENDED, "c": SUSPENDED}, (cancel_region("r"),)),
            Step({"a": CANCELED, "b": SKIPPED}, (signal("c"),)),
        ),
        runs={"s": OK, "a": CANCELED, "b": SKIPPED, "c": OK, "d": SKIPPED, "end": OK},
    ),
    Pattern(
        number=43,
        name="Explicit termination",
        condition="one of the ends of the process ends the whole case",
        stages=lambda: [
            *_fork("a"),
            stage("b", after="s", does="terminates"),
            stage("end", after=["a", "b"]),
        ],
        meanwhile=(Step({"a": SUSPENDED, "b": SUSPENDED}, (signal("b"),)),),
        runs={"s": OK, "a": CANCELED, "b": OK, "end": UNTOUCHED},
        outputs={"ended_by": "b"},
    ),
)


PATTERNS: Mapping[int, Pattern] = {
    pattern.number: pattern
    for pattern in sorted(
        (*BASIC, *BRANCHING, *INSTANCES, *STATES, *REST), key=lambda pattern: pattern.number
    )
}
