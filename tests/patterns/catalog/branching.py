"""Splits and merges: branches that are chosen, come more than once, or multiply."""

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
    6,
    "Multi-choice",
    condition="the mechanism that chooses knows all the data it needs; one branch or more",
    say="`SplitType.OR`, `split_conditions`",
    happens="every branch whose condition holds, and those without one; the others are `SKIPPED`",
    runs={"sign_up": OK, "trial": SKIPPED, "invite": OK, "bill": OK, "welcome": OK},
)
def multi_choice() -> Stages:
    """Any number of branches, each by a condition of its own. A branch without a condition is
    always taken."""
    return [
        stage(
            "sign_up",
            does="puts",
            context={"puts": {"plan": "team", "seats": 5}},
            split_type=SplitType.OR,
            split_conditions={
                "trial": "plan == 'trial'",
                "invite": "seats > 1",
                "bill": "plan == 'team'",
            },
        ),
        stage("trial", after="sign_up"),
        stage("invite", after="sign_up"),
        stage("bill", after="sign_up"),
        stage("welcome", after="sign_up"),
    ]


@pattern(
    7,
    "Structured synchronizing merge",
    condition="one multi-choice before it; the merge waits for the branches that it activated",
    say="`JoinType.OR`",
    happens="the stage begins when every branch that was chosen has come",
    meanwhile=(
        Step({"spelling": OK, "links": SUSPENDED, "publish": UNTOUCHED}, (signal("links"),)),
    ),
    runs={"read": OK, "spelling": OK, "links": OK, "images": SKIPPED, "publish": OK},
)
def structured_synchronizing_merge() -> Stages:
    """The branches of a multi-choice become one again: those that were chosen are waited for, the
    others are not."""
    return [
        stage(
            "read",
            does="puts",
            context={"puts": {"faults": ["spelling", "links"]}},
            split_type=SplitType.OR,
            split_conditions={
                "spelling": "'spelling' in faults",
                "links": "'links' in faults",
                "images": "'images' in faults",
            },
        ),
        stage("spelling", after="read"),
        stage("links", after="read", does="waits"),
        stage("images", after="read"),
        stage("publish", after="spelling links images", join_type=JoinType.OR),
    ]


@pattern(
    8,
    "Multi-merge",
    condition="it is not related to one particular split; each arrival goes on by itself",
    say="`JoinType.MULTI_MERGE`",
    happens="each arrival is a run of the stage, and of everything after it",
    runs={
        "begin": OK,
        "north": OK,
        "south": OK,
        "west": OK,
        "convert": OK * 3,
        "store": OK * 3,
        "index": OK * 3,
        "report": OK * 3,
    },
)
def multi_merge() -> Stages:
    """Several branches share what follows without waiting for each other. Each goes through it by
    itself; a join further down matches only what belongs together."""
    return [
        stage("begin"),
        stage("north", after="begin"),
        stage("south", after="begin"),
        stage("west", after="begin"),
        stage("convert", after="north south west", join_type=JoinType.MULTI_MERGE),
        stage("store", after="convert"),
        stage("index", after="convert"),
        stage("report", after="store index"),
    ]


@pattern(
    33,
    "Generalized AND-join",
    condition="a branch may come again before the others have come: nothing is lost",
    say="`JoinType.AND`, `join_keep=True`",
    happens="surplus arrivals are kept; the stage runs as often as every branch has come",
    runs={
        "wheel_1": OK,
        "wheel_2": OK,
        "wheels": OK * 2,
        "frame_1": OK,
        "frame_2": OK,
        "frames": OK * 2,
        "assemble": OK * 2,
        "paint": OK * 2,
    },
)
def generalized_and_join() -> Stages:
    """Parts that come in any order are put together as soon as there is one of each."""
    return [
        stage("wheel_1"),
        stage("wheel_2"),
        stage("wheels", after="wheel_1 wheel_2", join_type=JoinType.MULTI_MERGE),
        stage("frame_1"),
        stage("frame_2"),
        stage("frames", after="frame_1 frame_2", join_type=JoinType.MULTI_MERGE),
        stage("assemble", after="wheels frames", join_keep=True),
        stage("paint", after="assemble"),
    ]


@pattern(
    37,
    "Acyclic synchronizing merge",
    condition="no loop leads through it; it need not be paired with one split",
    say="`JoinType.OR`, anywhere in the graph",
    happens="each branch brings something or is known to bring nothing; then the stage begins",
    meanwhile=(Step({"fix": SUSPENDED, "answer": UNTOUCHED}, (signal("fix"),)),),
    runs={
        "ticket": OK,
        "reproduce": OK,
        "refund": SKIPPED,
        "fix": OK,
        "answer": OK,
        "close": OK,
    },
)
def acyclic_synchronizing_merge() -> Stages:
    """Branches of several choices meet. A branch that was not taken sends word of it, so the merge
    knows what is still to come, however the choices are nested."""
    return [
        stage(
            "ticket",
            does="puts",
            context={"puts": {"severity": 3, "billing": False}},
            split_type=SplitType.OR,
            split_conditions={"reproduce": "severity > 1", "refund": "billing"},
        ),
        stage(
            "reproduce",
            after="ticket",
            split_type=SplitType.XOR,
            split_conditions={"fix": "severity > 2", "answer": "severity <= 2"},
        ),
        stage("refund", after="ticket"),
        stage("fix", after="reproduce", does="waits"),
        stage("answer", after="reproduce refund fix", join_type=JoinType.OR),
        stage("close", after="answer"),
    ]


@pattern(
    38,
    "General synchronizing merge",
    condition="it goes when no more can come, through loops and merges as well",
    say='`JoinType.OR`, `join_scope="general"`',
    happens="the stage begins when no token anywhere can still reach it",
    meanwhile=(
        Step(
            {
                "translate": OK * 2,
                "polish": OK * 3,
                "legal": SUSPENDED,
                "release": UNTOUCHED,
            },
            (signal("legal"),),
        ),
    ),
    runs={
        "english": OK,
        "german": OK,
        "translate": OK * 2,
        "polish": OK * 3,
        "legal": OK,
        "release": OK,
        "announce": OK,
    },
)
def general_synchronizing_merge() -> Stages:
    """Some branches come more than once, or go round in a loop for as long as they like. The merge
    begins once, when all of that is over."""
    return [
        stage("english"),
        stage("german"),
        stage("translate", after="english german", join_type=JoinType.MULTI_MERGE),
        stage("polish", after="english", does="jumps", context={"to": "polish", "times": 3}),
        stage("legal", does="waits"),
        stage(
            "release",
            after="translate polish legal",
            join_type=JoinType.OR,
            join_scope="general",
        ),
        stage("announce", after="release"),
    ]


@pattern(
    41,
    "Thread merge",
    condition="the number of threads is known when the process is designed",
    say="`JoinType.THREADS`, `join_threshold=n` on one branch",
    happens="every n arrivals make one run",
    runs={"unload": OK, "weigh": OK * 6, "label": OK * 6, "stack": OK * 2, "store": OK * 2},
)
def thread_merge() -> Stages:
    """So many of a kind become one: six crates are weighed and labelled one by one and then
    stacked in threes."""
    return [
        stage("unload", split_type=SplitType.THREADS, split_count=6),
        stage("weigh", after="unload"),
        stage("label", after="weigh"),
        stage("stack", after="label", join_type=JoinType.THREADS, join_threshold=3),
        stage("store", after="stack"),
    ]


@pattern(
    42,
    "Thread split",
    condition="the number of threads is known when the split is reached",
    say='`SplitType.THREADS`, `split_count=n` or `"key"`',
    happens="n tokens on the branch, n runs of each stage on it",
    runs={"receive": OK, "scan": OK * 3, "file": OK * 3},
)
def thread_split() -> Stages:
    """The same branch several times over, and the number is read from what the stage put out."""
    return [
        stage(
            "receive",
            does="puts",
            context={"puts": {"pages": 3}},
            split_type=SplitType.THREADS,
            split_count="pages",
        ),
        stage("scan", after="receive"),
        stage("file", after="scan"),
    ]
