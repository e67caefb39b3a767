"""Joins that do not wait for all: some branches are enough."""

from __future__ import annotations

from stabilize import JoinType
from tests.patterns.catalog.pattern import (
    CANCELED,
    FAILED,
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
    9,
    "Structured discriminator",
    condition="one parallel split before it; each branch comes once before the reset",
    say="`JoinType.DISCRIMINATOR`",
    happens="the stage begins at the first arrival and takes no notice of the rest",
    meanwhile=(
        Step(
            {"reply": OK, "replica": SUSPENDED, "archive": SUSPENDED},
            (signal("replica"), signal("archive")),
        ),
    ),
    runs={"ask": OK, "cache": OK, "replica": OK, "archive": FAILED, "answer": OK, "reply": OK},
)
def structured_discriminator() -> Stages:
    """The first answer is good enough. The others still run to their ends; that one of them fails
    later changes nothing."""
    return [
        stage("ask"),
        stage("cache", after="ask"),
        stage("replica", after="ask", does="waits"),
        stage("archive", after="ask", does="fails_late"),
        stage("answer", after="cache replica archive", join_type=JoinType.DISCRIMINATOR),
        stage("reply", after="answer"),
    ]


@pattern(
    28,
    "Blocking discriminator",
    condition="a branch may come again before the reset: it is held back until then",
    say='`JoinType.DISCRIMINATOR`, `join_rest="block"`',
    happens="a second arrival on a branch waits until the others have come, then counts",
    meanwhile=(Step({"upload": OK * 2, "notify": OK, "review": SUSPENDED}, (signal("review"),)),),
    runs={
        "morning": OK,
        "evening": OK,
        "upload": OK * 2,
        "review": OK,
        "release": OK * 2,
        "notify": OK * 2,
    },
)
def blocking_discriminator() -> Stages:
    """The first of a round is enough, and whatever comes early belongs to the next round: here two
    uploads come, and the second starts nothing until the round of the first is complete."""
    return [
        stage("morning"),
        stage("evening"),
        stage("upload", after="morning evening", join_type=JoinType.MULTI_MERGE),
        stage("review", does="waits"),
        stage(
            "release",
            after="upload review",
            join_type=JoinType.DISCRIMINATOR,
            join_rest="block",
        ),
        stage("notify", after="release"),
    ]


@pattern(
    29,
    "Cancelling discriminator",
    condition="each branch comes at most once; the others are withdrawn",
    say='`JoinType.DISCRIMINATOR`, `join_rest="cancel"`',
    happens="the stage begins at the first arrival, and the other branches are withdrawn",
    meanwhile=(
        Step({"memory": SUSPENDED, "disk": SUSPENDED, "cloud": SUSPENDED}, (signal("memory"),)),
    ),
    runs={
        "search": OK,
        "memory": OK,
        "disk": CANCELED,
        "cloud": CANCELED,
        "decode": SKIPPED,
        "found": OK,
        "show": OK,
    },
)
def cancelling_discriminator() -> Stages:
    """The first answer is good enough, and the work on the others is a waste. What had begun ends
    `CANCELED`, what had not is `SKIPPED`, and the workflow succeeds."""
    return [
        stage("search"),
        stage("memory", after="search", does="waits"),
        stage("disk", after="search", does="waits"),
        stage("cloud", after="search", does="waits"),
        stage("decode", after="cloud"),
        stage(
            "found",
            after="memory disk decode",
            join_type=JoinType.DISCRIMINATOR,
            join_rest="cancel",
        ),
        stage("show", after="found"),
    ]


@pattern(
    30,
    "Structured partial join",
    condition="one parallel split before it; each branch comes once before the reset",
    say="`JoinType.N_OF_M`, `join_threshold=n`",
    happens="the stage begins at the n-th arrival; it fails at once if n can no longer come",
    meanwhile=(Step({"print": OK, "cleo": SUSPENDED}, (signal("cleo"),)),),
    runs={"submit": OK, "ann": OK, "bob": OK, "cleo": FAILED, "accept": OK, "print": OK},
)
def structured_partial_join() -> Stages:
    """Two votes of three decide. A voter who fails counts as one who says nothing."""
    return [
        stage("submit"),
        stage("ann", after="submit"),
        stage("bob", after="submit"),
        stage("cleo", after="submit", does="fails_late"),
        stage("accept", after="ann bob cleo", join_type=JoinType.N_OF_M, join_threshold=2),
        stage("print", after="accept"),
    ]


@pattern(
    31,
    "Blocking partial join",
    condition="a branch may come again before the reset: it is held back until then",
    say='`JoinType.N_OF_M`, `join_threshold=n`, `join_rest="block"`',
    happens="as 28, with n",
    meanwhile=(
        Step({"ann": OK * 2, "bob": OK * 2, "print": OK, "cleo": SUSPENDED}, (signal("cleo"),)),
    ),
    runs={
        "ann_monday": OK,
        "ann_friday": OK,
        "ann": OK * 2,
        "bob_monday": OK,
        "bob_friday": OK,
        "bob": OK * 2,
        "cleo": OK,
        "accept": OK * 2,
        "print": OK * 2,
    },
)
def blocking_partial_join() -> Stages:
    """Two votes of three decide, round after round: who votes again before the round is complete
    has voted in the next one."""
    return [
        stage("ann_monday"),
        stage("ann_friday"),
        stage("ann", after="ann_monday ann_friday", join_type=JoinType.MULTI_MERGE),
        stage("bob_monday"),
        stage("bob_friday"),
        stage("bob", after="bob_monday bob_friday", join_type=JoinType.MULTI_MERGE),
        stage("cleo", does="waits"),
        stage(
            "accept",
            after="ann bob cleo",
            join_type=JoinType.N_OF_M,
            join_threshold=2,
            join_rest="block",
        ),
        stage("print", after="accept"),
    ]


@pattern(
    32,
    "Cancelling partial join",
    condition="each branch comes at most once; the others are withdrawn",
    say='`JoinType.N_OF_M`, `join_threshold=n`, `join_rest="cancel"`',
    happens="as 29, with n",
    meanwhile=(
        Step({"ann": SUSPENDED, "bob": SUSPENDED, "cleo": SUSPENDED}, (signal("ann"),)),
        Step({"ann": OK, "accept": UNTOUCHED, "cleo": SUSPENDED}, (signal("bob"),)),
    ),
    runs={"submit": OK, "ann": OK, "bob": OK, "cleo": CANCELED, "accept": OK, "print": OK},
)
def cancelling_partial_join() -> Stages:
    """Two votes of three decide, and nobody is asked for a third one any more."""
    return [
        stage("submit"),
        stage("ann", after="submit", does="waits"),
        stage("bob", after="submit", does="waits"),
        stage("cleo", after="submit", does="waits"),
        stage(
            "accept",
            after="ann bob cleo",
            join_type=JoinType.N_OF_M,
            join_threshold=2,
            join_rest="cancel",
        ),
        stage("print", after="accept"),
    ]
