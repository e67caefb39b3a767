"""Branches that run at the same time, and merges that count on one of them only."""

from __future__ import annotations

from stabilize import Fault, JoinType
from tests.patterns.unsound.case import (
    MULTI_MERGE,
    XOR,
    Shows,
    Unsound,
    either,
    stage,
    xor,
)

FAILS = "the second branch to reach the merge is an error"

MERGES = (
    Unsound(
        name="a fork before a merge",
        source="W. Sadiq and M. Orlowska, Analyzing Process Models Using Graph Reduction "
        "Techniques, Information Systems 25(2), 2000: the conflict called lack of synchronization",
        shape="concurrent paths that a fork opened end in a merge",
        here=FAILS,
        stages=lambda: [
            stage("fork"),
            stage("left", "fork"),
            stage("right", "fork"),
            stage("merge", "left right", **XOR),
            stage("end", "merge"),
        ],
        shows=(Shows(fault=Fault.MERGED_TWICE, stage="merge", path="fork left right"),),
    ),
    Unsound(
        name="a fork before a merge that lets all pass",
        source="J. Koehler and J. Vanhatalo, Process Anti-Patterns: How to Avoid the Common Traps "
        "of Business Process Modeling, IBM, 2007: lack of synchronization through fork-merge",
        shape="parallel branches are merged, and what follows runs once for each",
        here="a multi-merge does so by intent: a warning",
        stages=lambda: [
            stage("fork"),
            stage("left", "fork"),
            stage("right", "fork"),
            stage("merge", "left right", **MULTI_MERGE),
            stage("bill", "merge"),
        ],
        shows=(Shows(fault=Fault.REPEATED, stage="merge", path="fork left right"),),
    ),
    Unsound(
        name="an inclusive split before an exclusive join",
        source="J. Mendling and others, Faulty EPCs in the SAP Reference Model, BPM 2006, LNCS "
        "4102: connectors that do not match",
        shape="an OR split whose branches end in an XOR join",
        here=FAILS,
        stages=lambda: [
            stage("split", **either("stock", "order", default="order")),
            stage("stock", "split"),
            stage("order", "split"),
            stage("join", "stock order", **XOR),
        ],
        shows=(
            Shows(
                fault=Fault.MERGED_TWICE,
                stage="join",
                path="split stock order",
                given="to_stock to_order",
            ),
        ),
    ),
    Unsound(
        name="several starts before an exclusive join",
        source="J. Mendling, H. Verbeek, B. van Dongen, W. van der Aalst and G. Neumann, Detection "
        "and Prediction of Errors in EPCs of the SAP Reference Model, Data & Knowledge Engineering "
        "64(1), 2008",
        shape="start events, of which more than one may happen, end in an XOR join",
        here=FAILS,
        stages=lambda: [
            stage("request"),
            stage("plan"),
            stage("create", "request plan", **XOR),
        ],
        shows=(Shows(fault=Fault.MERGED_TWICE, stage="create", path="request plan"),),
    ),
    Unsound(
        name="a path with a handle",
        source="C. Favre, An Efficient Approach to Detect Lack of Synchronization in Acyclic "
        "Workflow Graphs, ZEUS 2010",
        shape="two paths lead from a split that may take both to one exclusive merge",
        here=FAILS,
        stages=lambda: [
            stage("split", **either("merge", "detour", default="merge")),
            stage("detour", "split", **xor("merge", default="stop")),
            stage("stop", "detour"),
            stage("merge", "split detour", **XOR),
        ],
        shows=(
            Shows(
                fault=Fault.MERGED_TWICE,
                stage="merge",
                path="split detour",
                given="to_merge to_detour",
            ),
        ),
    ),
    Unsound(
        name="a choice improperly nested in a fork",
        source="R. Liu and A. Kumar, An Analysis and Taxonomy of Unstructured Workflows, BPM 2005, "
        "LNCS 3649: improper nesting",
        shape="a branch of a choice is merged with a branch that runs beside the choice",
        here=FAILS,
        stages=lambda: [
            stage("fork"),
            stage("beside", "fork"),
            stage("choice", "fork", **xor("one", default="other")),
            stage("one", "choice"),
            stage("other", "choice"),
            stage("merge", "beside one", **XOR),
            stage("join", "merge other", join_type=JoinType.OR),
        ],
        shows=(
            Shows(
                fault=Fault.MERGED_TWICE,
                stage="merge",
                path="fork beside choice one",
                given="to_one",
            ),
        ),
    ),
)
