"""Multiple instances: one stage, several runs of it at once."""

from __future__ import annotations

from stabilize import MultiInstanceConfig
from stabilize.queue.messages import (
    AddMultiInstance,
    CancelMultiInstance,
    CompleteMultiInstance,
)
from tests.patterns.catalog.pattern import (
    CANCELED,
    OK,
    SKIPPED,
    SUSPENDED,
    UNTOUCHED,
    Stages,
    Step,
    instances,
    pattern,
    signal,
    stage,
    to_group,
)

_YES, _NO = {"approved": True}, {"approved": False}


@pattern(
    12,
    "Multiple instances without synchronization",
    condition="the instances run by themselves; what follows does not wait for them",
    say="`MultiInstanceConfig(count=n, sync_on_complete=False)`",
    happens="n runs; what follows begins at once",
    meanwhile=(
        Step(
            {"log": OK, **instances("remind", *[SUSPENDED] * 3)},
            (signal("remind#1[0]"), signal("remind#1[1]"), signal("remind#1[2]")),
        ),
    ),
    runs={"remind": OK, "log": OK, **instances("remind", OK, OK, OK)},
)
def multiple_instances_without_synchronization() -> Stages:
    """The same thing is set going several times, and nobody needs to know when it is done. The
    workflow ends when the last of them has."""
    return [
        stage(
            "remind",
            does="waits",
            mi_config=MultiInstanceConfig(count=3, sync_on_complete=False),
        ),
        stage("log", after="remind"),
    ]


@pattern(
    13,
    "Multiple instances with design-time knowledge",
    condition="the number of instances is known when the process is designed",
    say="`MultiInstanceConfig(count=n)`",
    happens="n runs; what follows waits for all of them",
    meanwhile=(
        Step(
            instances("inspect", *[SUSPENDED] * 3),
            (signal("inspect#1[0]"), signal("inspect#1[2]")),
        ),
        Step(
            {"inspect#1[0]": OK, "inspect#1[2]": OK, "report": UNTOUCHED},
            (signal("inspect#1[1]"),),
        ),
    ),
    runs={"inspect": OK, "report": OK, **instances("inspect", OK, OK, OK)},
)
def multiple_instances_with_design_time_knowledge() -> Stages:
    """Three inspectors, always three, and a report when the last one is done."""
    return [
        stage("inspect", does="waits", mi_config=MultiInstanceConfig(count=3)),
        stage("report", after="inspect"),
    ]


@pattern(
    14,
    "Multiple instances with run-time knowledge",
    condition="the number of instances is known before the first of them begins",
    say='`MultiInstanceConfig(collection_from_context="items")` or `count_from_context="n"`',
    happens="one run for each item, which it finds in its context under `item_context_key`",
    runs={"list": OK, "resize": OK, "done": OK, **instances("resize", OK, OK, OK)},
    outputs={"instances": [{"echo": "a.png"}, {"echo": "b.png"}, {"echo": "c.png"}]},
)
def multiple_instances_with_run_time_knowledge() -> Stages:
    """One run for each of the things that an earlier stage found. No things: what follows goes on
    at once."""
    return [
        stage("list", does="puts", context={"puts": {"items": ["a.png", "b.png", "c.png"]}}),
        stage(
            "resize",
            after="list",
            does="echoes",
            mi_config=MultiInstanceConfig(collection_from_context="items"),
        ),
        stage("done", after="resize"),
    ]


@pattern(
    15,
    "Multiple instances without run-time knowledge",
    condition="instances may be added as long as one is running",
    say="`allow_dynamic=True`, message `AddMultiInstance`",
    happens="what follows waits for the runs that were added, too",
    meanwhile=(
        Step(instances("talk", SUSPENDED, SUSPENDED), (to_group(AddMultiInstance, "talk"),)),
        Step({"talk#1[2]": SUSPENDED}, (signal("talk#1[0]"), signal("talk#1[1]"))),
        Step(
            {"talk#1[0]": OK, "talk#1[1]": OK, "decide": UNTOUCHED},
            (signal("talk#1[2]", data={"added": True}),),
        ),
    ),
    runs={"plan": OK, "talk": OK, "decide": OK, **instances("talk", OK, OK, OK)},
    outputs={"instances": [{"added": True}]},
)
def multiple_instances_without_run_time_knowledge() -> Stages:
    """How many there will be shows only while they run: two talks are planned, and one more
    applicant is let in."""
    return [
        stage("plan", does="puts", context={"puts": {"seats": 2}}),
        stage(
            "talk",
            after="plan",
            does="waits",
            mi_config=MultiInstanceConfig(count_from_context="seats", allow_dynamic=True),
        ),
        stage("decide", after="talk"),
    ]


@pattern(
    26,
    "Cancel multiple instance activity",
    condition="all unfinished instances are withdrawn, finished ones stay",
    say="message `CancelMultiInstance`",
    happens="unfinished runs are withdrawn; the branch brings nothing",
    meanwhile=(
        Step(instances("call", *[SUSPENDED] * 3), (signal("call#1[0]"),)),
        Step({"call#1[0]": OK}, (to_group(CancelMultiInstance, "call"),)),
    ),
    runs={
        "call": CANCELED,
        "sum_up": SKIPPED,
        "file": OK,
        **instances("call", OK, CANCELED, CANCELED),
    },
)
def cancel_multiple_instance_activity() -> Stages:
    """The question has become pointless: whoever has not been asked yet is not asked, nothing is
    summed up, and the rest of the workflow goes on."""
    return [
        stage("call", does="waits", mi_config=MultiInstanceConfig(count=3)),
        stage("sum_up", after="call"),
        stage("file"),
    ]


@pattern(
    27,
    "Complete multiple instance activity",
    condition="unfinished instances are withdrawn and what follows begins",
    say="message `CompleteMultiInstance`",
    happens="unfinished runs are withdrawn; what follows gets the outputs so far",
    meanwhile=(
        Step(instances("call", *[SUSPENDED] * 3), (signal("call#1[1]", data={"vote": "yes"}),)),
        Step({"call#1[1]": OK, "sum_up": UNTOUCHED}, (to_group(CompleteMultiInstance, "call"),)),
    ),
    runs={"call": OK, "sum_up": OK, **instances("call", CANCELED, OK, CANCELED)},
    outputs={"instances": [{"vote": "yes"}]},
)
def complete_multiple_instance_activity() -> Stages:
    """Somebody decides that it is enough: the answers that have come are summed up."""
    return [
        stage("call", does="waits", mi_config=MultiInstanceConfig(count=3)),
        stage("sum_up", after="call"),
    ]


@pattern(
    34,
    "Static partial join for multiple instances",
    condition="the number of instances is known when the first begins; n of them are enough",
    say="`MultiInstanceConfig(count=m, join_threshold=n)`",
    happens="what follows begins after n of m; the others run on",
    meanwhile=(
        Step(instances("vote", *[SUSPENDED] * 3), (signal("vote#1[0]"),)),
        Step({"vote#1[0]": OK, "decide": UNTOUCHED}, (signal("vote#1[1]"),)),
        Step({"decide": OK, "vote#1[2]": SUSPENDED}, (signal("vote#1[2]"),)),
    ),
    runs={"vote": OK, "decide": OK, **instances("vote", OK, OK, OK)},
)
def static_partial_join_for_multiple_instances() -> Stages:
    """Two votes of three decide; the third is still counted as a run, but changes nothing."""
    return [
        stage("vote", does="waits", mi_config=MultiInstanceConfig(count=3, join_threshold=2)),
        stage("decide", after="vote"),
    ]


@pattern(
    35,
    "Cancelling partial join for multiple instances",
    condition="the number of instances is known when the first begins; n of them are enough",
    say="`MultiInstanceConfig(count=m, join_threshold=n, cancel_remaining=True)`",
    happens="as 34, and the others are withdrawn",
    meanwhile=(
        Step(instances("vote", *[SUSPENDED] * 3), (signal("vote#1[0]"), signal("vote#1[2]"))),
    ),
    runs={"vote": OK, "decide": OK, **instances("vote", OK, CANCELED, OK)},
)
def cancelling_partial_join_for_multiple_instances() -> Stages:
    """Two votes of three decide, and the third is not waited for by anybody."""
    return [
        stage(
            "vote",
            does="waits",
            mi_config=MultiInstanceConfig(count=3, join_threshold=2, cancel_remaining=True),
        ),
        stage("decide", after="vote"),
    ]


@pattern(
    36,
    "Dynamic partial join for multiple instances",
    condition="instances may be added; a condition is asked whenever one of them ends",
    say='`allow_dynamic=True, complete_when="approved >= 3"`',
    happens="what follows begins when the condition holds over the outputs of the group",
    meanwhile=(
        Step(
            instances("vote", SUSPENDED, SUSPENDED),
            (to_group(AddMultiInstance, "vote"), to_group(AddMultiInstance, "vote")),
        ),
        Step(
            {"vote#1[2]": SUSPENDED, "vote#1[3]": SUSPENDED},
            (
                signal("vote#1[0]", data=_YES),
                signal("vote#1[1]", data=_NO),
                signal("vote#1[2]", data=_YES),
            ),
        ),
        Step(
            {"vote#1[0]": OK, "vote#1[1]": OK, "vote#1[2]": OK, "decide": UNTOUCHED},
            (signal("vote#1[3]", data=_YES),),
        ),
    ),
    runs={"vote": OK, "decide": OK, **instances("vote", OK, OK, OK, OK)},
)
def dynamic_partial_join_for_multiple_instances() -> Stages:
    """Voters join while the vote is on, and it is over when three have approved. In the condition,
    `approved` is how many runs put out something true under that name."""
    return [
        stage(
            "vote",
            does="waits",
            mi_config=MultiInstanceConfig(
                count=2,
                allow_dynamic=True,
                complete_when="approved >= 3",
            ),
        ),
        stage("decide", after="vote"),
    ]
