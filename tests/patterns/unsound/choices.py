"""Branches that are chosen, and joins that count on all of them.

In a Petri net a join that waits for a branch not taken waits for ever. Here the branch says that it
brings nothing, so that an AND join starts with what came (a warning), and a join that needs a
certain number of branches fails as soon as they can no longer come.
"""

from __future__ import annotations

from stabilize import Fault, JoinType, Signal
from tests.patterns.unsound.case import (
    XOR,
    Shows,
    Stages,
    Unsound,
    either,
    n_of_m,
    stage,
    xor,
)

DEAD_PATHS = "the branch not taken is dead, not silent: the join starts, or fails at once"


def _complaints() -> Stages:
    offered = {"trigger": Signal("go")}
    return [
        stage("register"),
        stage("processing_1", "register", deferred_choice_group="1", **offered),
        stage("time_out_1", "register", deferred_choice_group="1", **offered),
        stage("processing_2", "register", deferred_choice_group="2", **offered),
        stage("time_out_2", "register", deferred_choice_group="2", **offered),
        stage("processing_ok", "processing_1 processing_2"),
        stage("processing_nok", "time_out_1 time_out_2", **XOR),
    ]


CHOICES = (
    Unsound(
        name="complaints with two time-outs",
        source="W. van der Aalst, The Application of Petri Nets to Workflow Management, Journal of "
        "Circuits, Systems and Computers 8(1), 1998: the processing of complaints",
        shape="two parallel parts are each processed or timed out; one end joins both that were "
        "processed, the other is reached from either time-out: a token gets stuck when one part "
        "is timed out, and the second end is reached twice when both are",
        here=DEAD_PATHS,
        stages=_complaints,
        shows=(
            Shows(
                fault=Fault.MERGED_TWICE,
                stage="processing_nok",
                path="register time_out_1 time_out_2",
            ),
            Shows(
                fault=Fault.LOOSE_JOIN,
                stage="processing_ok",
                path="register processing_1 time_out_2",
            ),
        ),
    ),
    Unsound(
        name="a choice before a synchronizer",
        source="W. Sadiq and M. Orlowska, Analyzing Process Models Using Graph Reduction "
        "Techniques, Information Systems 25(2), 2000: the structural conflict called deadlock",
        shape="exclusive paths that a choice opened end in a synchronizer",
        here=DEAD_PATHS,
        stages=lambda: [
            stage("choice", **xor("left", default="right")),
            stage("left", "choice"),
            stage("right", "choice"),
            stage("synchronizer", "left right"),
        ],
        shows=(Shows(fault=Fault.LOOSE_JOIN, stage="synchronizer", path="choice right"),),
    ),
    Unsound(
        name="a decision before a join",
        source="J. Koehler and J. Vanhatalo, Process Anti-Patterns: How to Avoid the Common Traps "
        "of Business Process Modeling, IBM, 2007: deadlock through a decision-join pair",
        shape="of the branches of a decision all are joined",
        here="the join names the number it needs, so it fails instead of waiting",
        stages=lambda: [
            stage("decision", **xor("rush", "normal", default="cheap")),
            stage("rush", "decision"),
            stage("normal", "decision"),
            stage("cheap", "decision"),
            stage("ship", "rush normal cheap", **n_of_m(3)),
        ],
        shows=(Shows(fault=Fault.TOO_FEW_BRANCHES, stage="ship", path="decision cheap"),),
    ),
    Unsound(
        name="an exit from a parallel structure",
        source="B. Kiepuszewski, A. ter Hofstede and C. Bussler, On Structured Workflow Modelling, "
        "CAiSE 2000, LNCS 1789: workflows that are not well-behaved",
        shape="one of two parallel branches may leave the structure before its join",
        here="the join starts with the other branch alone, and so the end is reached by both",
        stages=lambda: [
            stage("fork"),
            stage("a", "fork"),
            stage("b", "fork", **xor("join", default="leave")),
            stage("leave", "b"),
            stage("join", "a b"),
            stage("end", "join leave", **XOR),
        ],
        shows=(
            Shows(fault=Fault.MERGED_TWICE, stage="end", path="fork a b leave join"),
            Shows(fault=Fault.LOOSE_JOIN, stage="join", path="fork a b"),
        ),
    ),
    Unsound(
        name="an entry into a parallel structure",
        source="B. Kiepuszewski, A. ter Hofstede and C. Bussler, On Structured Workflow Modelling, "
        "CAiSE 2000, LNCS 1789: workflows that are not well-behaved",
        shape="a choice leads into one branch of a parallel structure from outside of it",
        here=DEAD_PATHS,
        stages=lambda: [
            stage("choice", **xor("fork", default="enter")),
            stage("fork", "choice"),
            stage("enter", "choice"),
            stage("a", "fork"),
            stage("b", "fork"),
            stage("merge", "b enter", **XOR),
            stage("join", "a merge"),
        ],
        shows=(Shows(fault=Fault.LOOSE_JOIN, stage="join", path="choice enter merge"),),
    ),
    Unsound(
        name="two choices that have to agree",
        source="J. Dehnert and W. van der Aalst, Bridging the Gap Between Business Models and "
        "Workflow Specifications, International Journal of Cooperative Information Systems 13(3), "
        "2004: relaxed sound, not sound",
        shape="two parallel choices, whose branches are synchronized in pairs: some runs end "
        "properly, those in which the choices do not agree do not",
        here="the joins name the number they need, so they fail instead of waiting",
        stages=lambda: [
            stage("start"),
            stage("goods", "start", **xor("accept", default="refuse")),
            stage("money", "start", **xor("pay", default="claim")),
            stage("accept", "goods"),
            stage("refuse", "goods"),
            stage("pay", "money"),
            stage("claim", "money"),
            stage("settled", "accept pay", **n_of_m(2)),
            stage("sent_back", "refuse claim", **n_of_m(2)),
        ],
        shows=(
            Shows(
                fault=Fault.TOO_FEW_BRANCHES,
                stage="settled",
                path="start goods money pay",
                given="to_pay",
            ),
            Shows(
                fault=Fault.TOO_FEW_BRANCHES,
                stage="sent_back",
                path="start goods refuse money",
                given="to_pay",
            ),
        ),
    ),
    Unsound(
        name="an end in the middle",
        source="D. Fahland and others, Instantaneous Soundness Checking of Industrial Business "
        "Process Models, BPM 2009, LNCS 5701: local deadlock",
        shape="a parallel join some of whose branches may end before they come to it",
        here="the join names the number it needs, so it fails instead of waiting",
        stages=lambda: [
            stage("fork"),
            stage("check", "fork", **xor("approve", default="reject")),
            stage("approve", "check"),
            stage("reject", "check"),
            stage("prepare", "fork"),
            stage("activate", "approve prepare", **n_of_m(2)),
        ],
        shows=(Shows(fault=Fault.TOO_FEW_BRANCHES, stage="activate", path="fork check prepare"),),
    ),
    Unsound(
        name="a cancellation that takes too much",
        source="M. Wynn, W. van der Aalst, A. ter Hofstede and D. Edmond, Verifying Workflows with "
        "Cancellation Regions and OR-joins: An Approach Based on Reset Nets and Reachability "
        "Analysis, BPM 2006, LNCS 4102",
        shape="a cancellation withdraws a branch for which another join waits",
        here="the join names the number it needs, so it fails instead of waiting",
        stages=lambda: [
            stage("start"),
            stage("fast", "start"),
            stage("slow", "start"),
            stage("first", "fast slow", join_type=JoinType.DISCRIMINATOR, join_rest="cancel"),
            stage("report", "first slow", **n_of_m(2)),
        ],
        shows=(Shows(fault=Fault.TOO_FEW_BRANCHES, stage="report", path="start fast first"),),
    ),
    Unsound(
        name="a gateway without a default",
        source="Object Management Group, Business Process Model and Notation 2.0, 2011: the "
        "semantics of the exclusive and of the inclusive gateway",
        shape="if no condition holds and there is no default flow, an exception is thrown",
        here="the stage that splits fails",
        stages=lambda: [
            stage("order"),
            stage("gateway", "order", **either("email", "letter")),
            stage("email", "gateway"),
            stage("letter", "gateway"),
        ],
        shows=(Shows(fault=Fault.NO_BRANCH, stage="gateway", path="order"),),
    ),
    Unsound(
        name="an activity that is never reached",
        source="Classification and Analyses of Business Process Anomalies, 2009: dead activity",
        shape="an activity behind branches that can never be taken together",
        here="it is offered in a choice that has been made before it is reached",
        stages=lambda: [
            stage("call", deferred_choice_group="contact"),
            stage("write", "call", deferred_choice_group="contact"),
            stage("answer", "write"),
        ],
        shows=(Shows(fault=Fault.DEAD_STAGE, stage="write", path="call"),),
    ),
)
