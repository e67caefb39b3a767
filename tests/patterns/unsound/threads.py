"""Several threads of one workflow that do not meet, or not evenly."""

from __future__ import annotations

from stabilize import Fault, JoinType, LoopBuilder, SplitType
from tests.patterns.unsound.case import MULTI_MERGE, Shows, Unsound, stage

OWN = "each thread is joined by itself; what no other thread brings never comes"

THREADS = (
    Unsound(
        name="instances joined with what is beside them",
        source="W. van der Aalst, A. ter Hofstede, B. Kiepuszewski and A. Barros, Workflow "
        "Patterns, Distributed and Parallel Databases 14(1), 2003: multiple instances without "
        "synchronization",
        shape="instances that know nothing of each other are synchronized by an AND join",
        here=OWN,
        stages=lambda: [
            stage("start"),
            stage("clone", "start", split_type=SplitType.THREADS, split_count=2),
            stage("instance", "clone"),
            stage("beside", "start"),
            stage("join", "instance beside"),
        ],
        shows=(
            Shows(
                fault=Fault.DEADLOCK,
                stage="join",
                path="start clone instance instance beside",
            ),
        ),
    ),
    Unsound(
        name="too few threads for their merge",
        source="N. Russell, A. ter Hofstede, W. van der Aalst and N. Mulyar, Workflow Control-Flow "
        "Patterns: A Revised View, BPM-06-22, 2006: the context condition of the thread merge",
        shape="the number of threads is not what the merge was designed for",
        here="as there",
        stages=lambda: [
            stage("split", split_type=SplitType.THREADS, split_count=2),
            stage("work", "split"),
            stage("merge", "work", join_type=JoinType.THREADS, join_threshold=3),
        ],
        shows=(Shows(fault=Fault.DEADLOCK, stage="merge", path="split work work"),),
    ),
    Unsound(
        name="three in a batch of two",
        source="K. van Hee, N. Sidorova and M. Voorhoeve, Soundness and Separability of Workflow "
        "Nets in the Stepwise Refinement Approach, ICATPN 2003, LNCS 2679: k-sound for some k only",
        shape="what is sound for one number of tokens at the start leaves some of another behind",
        here="threads are merged in pairs, and there is an odd number of them",
        stages=lambda: [
            stage("split", split_type=SplitType.THREADS, split_count=3),
            stage("work", "split"),
            stage("pair", "work", join_type=JoinType.THREADS, join_threshold=2),
        ],
        shows=(Shows(fault=Fault.LEFTOVER, stage="pair", path="split work work work"),),
    ),
    Unsound(
        name="a merge that sends one too many",
        source="B. Kiepuszewski, A. ter Hofstede and W. van der Aalst, Fundamentals of Control "
        "Flow in Workflows, Acta Informatica 39(3), 2003: a workflow that is not safe",
        shape="two branches are merged without synchronization before they are joined with a third",
        here=OWN,
        stages=lambda: [
            stage("fork"),
            stage("a", "fork"),
            stage("b", "fork"),
            stage("c", "fork"),
            stage("merge", "a b", **MULTI_MERGE),
            stage("join", "merge c"),
        ],
        shows=(
            Shows(fault=Fault.REPEATED, stage="merge", path="fork a b"),
            Shows(fault=Fault.LEFTOVER, stage="join", path="fork a merge b merge c"),
        ),
    ),
    Unsound(
        name="a round that never ends",
        source="N. Russell, A. ter Hofstede, W. van der Aalst and N. Mulyar, Workflow Control-Flow "
        "Patterns: A Revised View, BPM-06-22, 2006: the reset of the blocking discriminator",
        shape="a branch comes again and again, and is blocked until the others have come as well",
        here="as there",
        stages=lambda: [
            stage("a"),
            stage("b"),
            stage("c"),
            stage("merge", "a b c", **MULTI_MERGE),
            stage("late"),
            stage("first", "merge late", join_type=JoinType.DISCRIMINATOR, join_rest="block"),
        ],
        shows=(
            Shows(fault=Fault.REPEATED, stage="merge", path="a b"),
            Shows(fault=Fault.LEFTOVER, stage="first", path="a merge b merge c merge late"),
        ),
    ),
    Unsound(
        name="a loop without an end",
        source="Classification and Analyses of Business "
        "Process Anomalies, 2009: deterministic infinite loop",
        shape="nothing that happens in the loop lets it end",
        here="the loop is bounded, and ends at its bound only",
        stages=lambda: LoopBuilder.repeat_until("1 > 2", [stage("ask")], "poll", 3),
        shows=(Shows(fault=Fault.ENDLESS_LOOP, stage="poll_condition", path="poll_entry ask"),),
    ),
)
