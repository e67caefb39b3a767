"""State: what a stage waits for beside the stages before it."""

from __future__ import annotations

from stabilize import JoinType, Signal, Timer
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
    16,
    "Deferred choice",
    condition="one choice among branches, made by what happens first outside",
    say='`deferred_choice_group="g"`, `trigger=Signal("x")` or `Timer("30m")`',
    happens="the first trigger that comes chooses; the other branches are withdrawn",
    meanwhile=(Step({"offer": OK}, (signal("declined", "declined", {"why": "too dear"}),)),),
    runs={
        "offer": OK,
        "accepted": SKIPPED,
        "declined": OK,
        "expired": SKIPPED,
        "ship": SKIPPED,
        "close": OK,
        "count": OK,
    },
)
def deferred_choice() -> Stages:
    """Not the workflow chooses but the world: all branches are on offer, and what comes first, an
    answer or the end of the hour, decides. Without a trigger, the first stage to begin does."""
    return [
        stage("offer"),
        stage(
            "accepted",
            after="offer",
            deferred_choice_group="answer",
            trigger=Signal("accepted"),
        ),
        stage(
            "declined",
            after="offer",
            deferred_choice_group="answer",
            trigger=Signal("declined"),
        ),
        stage("expired", after="offer", deferred_choice_group="answer", trigger=Timer("1h")),
        stage("ship", after="accepted"),
        stage("close", after="ship declined expired", join_type=JoinType.XOR),
        stage("count", after="ship declined expired"),
    ]


@pattern(
    17,
    "Interleaved parallel routing",
    condition="a partial order of activities, of which no two run at the same time",
    say='`mutex_key="k"`, and requisites for the order',
    happens="the order is kept, and never do two stages of the key run at once",
    runs={"begin": OK, "boot": OK, "measure": OK, "flash": OK, "verify": OK, "end": OK},
    apart=(("boot",), ("measure",), ("flash",), ("verify",)),
    ordered=(("boot", "measure"), ("flash", "verify")),
)
def interleaved_parallel_routing() -> Stages:
    """Two sequences share one test bench. Each keeps its order, and between two steps of the one
    there may be a step of the other."""
    return [
        stage("begin"),
        stage("boot", after="begin", mutex_key="bench"),
        stage("measure", after="boot", mutex_key="bench"),
        stage("flash", after="begin", mutex_key="bench"),
        stage("verify", after="flash", mutex_key="bench"),
        stage("end", after="measure verify"),
    ]


@pattern(
    18,
    "Milestone",
    condition="the stage is enabled only while the milestone holds",
    say='`milestone_ref_id="ref"`, `milestone_status="SUCCEEDED"`',
    happens="the stage waits for that status, begins only while it lasts, else is `SKIPPED`",
    meanwhile=(
        Step({"prepare": SUSPENDED, "bid": UNTOUCHED}, (signal("prepare"),)),
        Step({"auction": SUSPENDED, "bid": OK}, (signal("auction"),)),
    ),
    runs={"prepare": OK, "auction": OK, "bid": OK, "late_bid": SKIPPED, "settle": OK},
)
def milestone() -> Stages:
    """Something can be done only while something else is in a certain state: there can be bids as
    long as the auction is on. A bid that comes later is passed over, and the rest goes on."""
    return [
        stage("prepare", does="waits"),
        stage("auction", after="prepare", does="waits"),
        stage("bid", milestone_ref_id="auction", milestone_status="SUSPENDED"),
        stage(
            "late_bid",
            after="auction",
            milestone_ref_id="auction",
            milestone_status="SUSPENDED",
        ),
        stage("settle", after="bid late_bid"),
    ]


@pattern(
    39,
    "Critical section",
    condition="two or more connected sub-graphs, of which one runs at a time",
    say='`section="m"` on the stages of each sub-graph',
    happens="a sub-graph holds the section from its first start to its last end",
    runs={
        "begin": OK,
        "read_a": OK,
        "add_a": OK,
        "tax_a": OK,
        "write_a": OK,
        "read_b": OK,
        "add_b": OK,
        "write_b": OK,
        "mail": OK,
        "end": OK,
    },
    apart=(("read_a", "add_a", "tax_a", "write_a"), ("read_b", "add_b", "write_b")),
)
def critical_section() -> Stages:
    """Between the reading and the writing of the ledger nobody else may come in. Unlike a mutex,
    which is free between two stages, a section is held over several, even if they run side by side.
    """
    return [
        stage("begin"),
        stage("read_a", after="begin", section="ledger"),
        stage("add_a", after="read_a", section="ledger"),
        stage("tax_a", after="read_a", section="ledger"),
        stage("write_a", after="add_a tax_a", section="ledger"),
        stage("read_b", after="begin", section="ledger"),
        stage("add_b", after="read_b", section="ledger"),
        stage("write_b", after="add_b", section="ledger"),
        stage("mail", after="begin"),
        stage("end", after="write_a write_b mail"),
    ]


@pattern(
    40,
    "Interleaved routing",
    condition="each activity runs once, in any order, and no two at the same time",
    say='`mutex_key="k"`',
    happens="each once, in any order, never two at once",
    runs={"begin": OK, "ann": OK, "bob": OK, "cleo": OK, "end": OK},
    apart=(("ann",), ("bob",), ("cleo",)),
)
def interleaved_routing() -> Stages:
    """Everybody speaks once, and there is one microphone."""
    return [
        stage("begin"),
        stage("ann", after="begin", mutex_key="microphone"),
        stage("bob", after="begin", mutex_key="microphone"),
        stage("cleo", after="begin", mutex_key="microphone"),
        stage("end", after="ann bob cleo"),
    ]
