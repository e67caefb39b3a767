"""Basic control flow: the first five."""

from __future__ import annotations

from stabilize import JoinType, SplitType
from tests.patterns.catalog.pattern import (
    OK,
    SKIPPED,
    SUSPENDED,
    UNTOUCHED,
    Stages,
    Step,
    pattern,
    signal,
    stage,
)


@pattern(
    1,
    "Sequence",
    condition="an activity is enabled after another one of the same case has ended",
    say='`requisite_stage_ref_ids={"check"}`',
    happens="the stage begins when the one it names has ended",
    runs={"fetch": OK, "check": OK, "book": OK},
    ordered=(("fetch", "check"), ("check", "book")),
)
def sequence() -> Stages:
    """One step needs what the step before has done: an invoice is fetched, checked, booked."""
    return [stage("fetch"), stage("check", after="fetch"), stage("book", after="check")]


@pattern(
    2,
    "Parallel split",
    condition="one thread becomes several that go on at the same time",
    say="two stages name the same requisite",
    happens="both run at the same time",
    meanwhile=(Step({"pay": SUSPENDED, "pack": SUSPENDED}, (signal("pay"), signal("pack"))),),
    runs={"order": OK, "pay": OK, "pack": OK},
    ordered=(("order", "pay"), ("order", "pack")),
)
def parallel_split() -> Stages:
    """Steps that do not need each other need not wait for each other. Here both wait for somebody
    outside, and do so at the same time."""
    return [
        stage("order"),
        stage("pay", after="order", does="waits"),
        stage("pack", after="order", does="waits"),
    ]


@pattern(
    3,
    "Synchronization",
    condition="each incoming branch is triggered exactly once before the reset",
    say="several requisites; `JoinType.AND` is the default",
    happens="the stage begins once, when every branch has come",
    meanwhile=(
        Step({"pay": SUSPENDED, "pack": SUSPENDED}, (signal("pay"),)),
        Step({"pay": OK, "ship": UNTOUCHED}, (signal("pack"),)),
    ),
    runs={"order": OK, "pay": OK, "pack": OK, "ship": OK},
    ordered=(("pay", "ship"), ("pack", "ship")),
)
def synchronization() -> Stages:
    """What needs the results of several branches: what is shipped has been paid and packed."""
    return [
        stage("order"),
        stage("pay", after="order", does="waits"),
        stage("pack", after="order", does="waits"),
        stage("ship", after="pay pack"),
    ]


@pattern(
    4,
    "Exclusive choice",
    condition="the mechanism that chooses knows all the data it needs and chooses one branch",
    say="`SplitType.XOR`, `split_conditions` in their order, `split_default`",
    happens="the first branch whose condition holds, else the default; the others are `SKIPPED`",
    runs={"weigh": OK, "pallet": SKIPPED, "parcel": OK, "letter": SKIPPED, "pickup": SKIPPED},
)
def exclusive_choice() -> Stages:
    """One way out of several. The conditions are asked in their order, so the second need not say
    what the first has excluded. If none holds and there is no default, the stage fails."""
    return [
        stage(
            "weigh",
            does="puts",
            context={"puts": {"kg": 3}},
            split_type=SplitType.XOR,
            split_conditions={"pallet": "kg > 20", "parcel": "kg > 2", "letter": "kg > 0"},
            split_default="pickup",
        ),
        stage("pallet", after="weigh"),
        stage("parcel", after="weigh"),
        stage("letter", after="weigh"),
        stage("pickup", after="weigh"),
    ]


@pattern(
    5,
    "Simple merge",
    condition="the place before the merge is safe: no two incoming branches are ever active",
    say="`JoinType.XOR`",
    happens="the branch that comes is passed on; a second one is an error that names both",
    runs={"weigh": OK, "parcel": SKIPPED, "letter": OK, "hand_over": OK, "thank": OK},
)
def simple_merge() -> Stages:
    """The ways of a choice become one again, and nothing is waited for: only one of them comes."""
    return [
        stage(
            "weigh",
            does="puts",
            context={"puts": {"kg": 1}},
            split_type=SplitType.XOR,
            split_conditions={"parcel": "kg > 2"},
            split_default="letter",
        ),
        stage("parcel", after="weigh"),
        stage("letter", after="weigh"),
        stage("hand_over", after="parcel letter", join_type=JoinType.XOR),
        stage("thank", after="hand_over"),
    ]
