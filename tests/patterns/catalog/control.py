"""Loops, children, triggers, ends: going back, waiting for the outside, stopping."""

from __future__ import annotations

from stabilize import LoopBuilder
from tests.patterns.catalog.pattern import (
    CANCEL_ALL,
    CANCELED,
    OK,
    RUNNING,
    SKIPPED,
    SUSPENDED,
    UNTOUCHED,
    Stages,
    Step,
    cancel,
    pattern,
    signal,
    stage,
    to_region,
)


@pattern(
    10,
    "Arbitrary cycles",
    condition="loops with more than one entry or exit",
    say="`TaskResult.jump_to(ref_id)`",
    happens="the target and all that follows it run anew; at most `_max_jumps` (10) times",
    runs={"write": OK * 2, "set": OK * 3, "read": OK * 3, "proof": OK * 2, "print": OK},
)
def arbitrary_cycles() -> Stages:
    """A task says where to go on, as often as it takes. Here `read` goes back to `write` once, and
    `proof` back to `set` once, into the middle of the other loop."""
    return [
        stage("write"),
        stage("set", after="write"),
        stage("read", after="set", does="jumps", context={"to": "write", "times": 2}),
        stage("proof", after="read", does="jumps", context={"to": "set", "times": 2}),
        stage("print", after="proof"),
    ]


@pattern(
    11,
    "Implicit termination",
    condition="a case ends when nothing is left to do, without one last activity",
    say="nothing: it is so",
    happens="the workflow ends when no run, token, message or trigger is left",
    meanwhile=(Step({"mail": OK, "pack": SUSPENDED}, (signal("pack"),)),),
    runs={"order": OK, "mail": OK, "pack": OK, "ship": OK},
)
def implicit_termination() -> Stages:
    """Branches may end where they end; no stage has to collect them."""
    return [
        stage("order"),
        stage("mail", after="order"),
        stage("pack", after="order", does="waits"),
        stage("ship", after="pack"),
    ]


@pattern(
    19,
    "Cancel activity",
    condition="one activity is withdrawn before or while it runs; the rest goes on",
    say="`orchestrator.cancel_stage(stage)`",
    happens="the stage is withdrawn, its body told to stop; its branch brings nothing",
    meanwhile=(
        Step(
            {"music": SUSPENDED, "food": SUSPENDED, "room": SUSPENDED},
            (cancel("music"), cancel("key")),
        ),
        Step({"music": CANCELED, "invite": UNTOUCHED}, (signal("food"), signal("room"))),
    ),
    runs={
        "plan": OK,
        "music": CANCELED,
        "food": OK,
        "room": OK,
        "key": SKIPPED,
        "invite": OK,
    },
)
def cancel_activity() -> Stages:
    """One part is not wanted any more, whether it has begun (`music`) or not (`key`). What needs
    the other parts as well goes on with those."""
    return [
        stage("plan"),
        stage("music", after="plan", does="waits"),
        stage("food", after="plan", does="waits"),
        stage("room", after="plan", does="waits"),
        stage("key", after="room"),
        stage("invite", after="music food key"),
    ]


@pattern(
    20,
    "Cancel case",
    condition="a whole case is withdrawn",
    say="`orchestrator.cancel(workflow)`",
    happens="everything is withdrawn, child workflows too; the workflow ends `CANCELED`",
    meanwhile=(Step({"pack": SUSPENDED, "deliver": RUNNING}, (CANCEL_ALL,)),),
    status="CANCELED",
    runs={"order": OK, "pack": CANCELED, "deliver": CANCELED, "thank": CANCELED},
)
def cancel_case() -> Stages:
    """The customer has changed their mind, and all of it stops, the delivery that runs as a
    workflow of its own included."""
    delivery = {"name": "delivery", "stages": [stage("drive", does="waits")]}
    return [
        stage("order"),
        stage("pack", after="order", does="waits"),
        stage(
            "deliver",
            after="order",
            does="SubWorkflowTask",
            context={"_sub_workflow_config": delivery},
        ),
        stage("thank", after="pack deliver"),
    ]


@pattern(
    21,
    "Structured loop",
    condition="one entry and one exit; the condition comes before or after the body",
    say="`LoopBuilder.while_loop(...)`, `LoopBuilder.repeat_until(...)`",
    happens="every round is kept as a run of the stages of the body",
    runs={
        "pre_condition": OK * 4,
        "add": (*OK * 3, *SKIPPED),
        "pre_loopback": OK * 4,
        "post_entry": OK * 2,
        "again": OK * 2,
        "post_condition": OK * 2,
        "end": OK,
    },
)
def structured_loop() -> Stages:
    """A part is repeated while a condition holds, which is asked before each round, or until one
    does, which is asked after it. The first loop here goes round three times, the second twice."""
    pre = LoopBuilder.while_loop("n < 3", [stage("add", does="counts")], "pre", context={"n": 0})
    post = LoopBuilder.repeat_until("k >= 2", [stage("again", does="puts_round")], "post")
    post[0].requisite_stage_ref_ids = {pre[-1].ref_id}
    return [*pre, *post, stage("end", after=post[-1].ref_id)]


@pattern(
    22,
    "Recursion",
    condition="a process starts itself, and there is a path on which it does not",
    say="`SubWorkflowTask`, `_sub_workflow_config`",
    happens="the child's end wakes its parent; its outputs come back; the depth is bounded",
    runs={"call": OK, "end": OK},
)
def recursion() -> Stages:
    """A workflow contains a smaller one of its own kind, down to one that does not. Each is a
    workflow of its own in the database, with its parent's id."""
    stages = [stage("leaf", does="puts", context={"puts": {"deepest": True}})]
    for depth in (1, 2, 3):
        child = {"name": f"level {depth}", "stages": stages}
        stages = [stage("call", does="SubWorkflowTask", context={"_sub_workflow_config": child})]
    return [*stages, stage("end", after="call")]


@pattern(
    23,
    "Transient trigger",
    condition="a trigger that comes when nobody waits for it is lost",
    say="`orchestrator.signal(..., persistent=False)`",
    happens="taken if the stage waits now, else dropped; the drop is an event",
    meanwhile=(
        Step(
            {"prepare": SUSPENDED},
            (signal("ring", data={"n": 1}, persistent=False), signal("prepare")),
        ),
        Step({"ring": SUSPENDED}, (signal("ring", data={"n": 2}, persistent=False),)),
    ),
    runs={"prepare": OK, "ring": OK},
    outputs={"n": 2},
)
def transient_trigger() -> Stages:
    """Word that is worth something only at the moment: who rings before anybody listens has to
    ring again. The first of the two signals comes too early."""
    return [stage("prepare", does="waits"), stage("ring", after="prepare", does="waits")]


@pattern(
    24,
    "Persistent trigger",
    condition="a trigger that comes early is kept until somebody waits for it",
    say="`orchestrator.signal(...)`",
    happens="kept until the stage waits for it; used once",
    meanwhile=(Step({"prepare": SUSPENDED}, (signal("letter", data={"n": 1}), signal("prepare"))),),
    runs={"prepare": OK, "letter": OK},
    outputs={"n": 1},
)
def persistent_trigger() -> Stages:
    """Word that must not be lost: a letter lies in the box until somebody looks."""
    return [stage("prepare", does="waits"), stage("letter", after="prepare", does="waits")]


@pattern(
    25,
    "Cancel region",
    condition="every activity of a set is withdrawn, running or not; the rest goes on",
    say='`cancel_region="r"`, message `CancelRegion`',
    happens="every stage of the region is withdrawn; the rest decides the outcome",
    meanwhile=(
        Step({"draw": SUSPENDED, "write": SUSPENDED}, (to_region("extras"),)),
        Step({"draw": CANCELED, "colour": SKIPPED}, (signal("write"),)),
    ),
    runs={
        "begin": OK,
        "draw": CANCELED,
        "colour": SKIPPED,
        "write": OK,
        "translate": SKIPPED,
        "print": OK,
    },
)
def cancel_region() -> Stages:
    """A set of stages, which need not be connected, is given up together: the book appears without
    its extras."""
    return [
        stage("begin"),
        stage("draw", after="begin", does="waits", cancel_region="extras"),
        stage("colour", after="draw", cancel_region="extras"),
        stage("write", after="begin", does="waits"),
        stage("translate", after="write", cancel_region="extras"),
        stage("print", after="colour write translate"),
    ]


@pattern(
    43,
    "Explicit termination",
    condition="one of the ends of the process ends the whole case",
    say='`TaskResult.terminate(outputs)`, or `end="terminate"` on a stage',
    happens="the rest is withdrawn and the workflow `SUCCEEDED`",
    meanwhile=(Step({"thorough": SUSPENDED, "quick": SUSPENDED}, (signal("quick"),)),),
    runs={"search": OK, "thorough": CANCELED, "quick": OK, "compare": UNTOUCHED},
    outputs={"ended_by": "quick"},
)
def explicit_termination() -> Stages:
    """One of the branches can settle the whole: when it says so, nothing else matters any more."""
    return [
        stage("search"),
        stage("thorough", after="search", does="waits"),
        stage("quick", after="search", does="terminates"),
        stage("compare", after="thorough quick"),
    ]
