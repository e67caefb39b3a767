"""Nets that count as unsound in the literature and end properly here."""

from __future__ import annotations

from stabilize import JoinType, SplitType
from tests.patterns.unsound.case import OR, SoundHere, either, stage

SOUND_HERE = (
    SoundHere(
        name="a discriminator that leaves lazy activities behind",
        source="F. Puhlmann and M. Weske, Investigations on Soundness Regarding Lazy Activities, "
        "BPM 2006, LNCS 4102: lazy sound, not sound",
        here="the workflow ends when the late branches have ended too, and what they bring is "
        "taken by the reset of the join",
        stages=lambda: [
            stage("ask"),
            stage("a", "ask"),
            stage("b", "ask"),
            stage("c", "ask"),
            stage("first", "a b c", join_type=JoinType.DISCRIMINATOR),
            stage("answer", "first"),
        ],
    ),
    SoundHere(
        name="more than one token at the start",
        source="K. van Hee, N. Sidorova and M. Voorhoeve, Soundness and Separability of Workflow "
        "Nets in the Stepwise Refinement Approach, ICATPN 2003, LNCS 2679: sound for one token, "
        "not for two, whose branches mix",
        here="tokens of different threads never meet at a join",
        stages=lambda: [
            stage("split", split_type=SplitType.THREADS, split_count=2),
            stage("fork", "split"),
            stage("a", "fork"),
            stage("b", "fork"),
            stage("join", "a b"),
        ],
    ),
    SoundHere(
        name="an inclusive split before a join that waits for all",
        source="J. Mendling and others, Faulty EPCs in the SAP Reference Model, BPM 2006, LNCS "
        "4102: connectors that do not match",
        here="with an OR join it is the synchronizing merge, however many branches are taken",
        stages=lambda: [
            stage("split", **either("a", "b", default="b")),
            stage("a", "split"),
            stage("b", "split"),
            stage("join", "a b", **OR),
        ],
        given="to_a to_b",
    ),
)
