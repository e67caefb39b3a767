"""Parts of a workflow that hold what the others need while they wait for them."""

from __future__ import annotations

from stabilize import Fault
from tests.patterns.unsound.case import Shows, Unsound, stage

RIGHTS = (
    Unsound(
        name="two resources taken in opposite order",
        source="K. van Hee, A. Serebrenik, N. Sidorova and M. Voorhoeve, Soundness of Resource-"
        "Constrained Workflow Nets, ICATPN 2005, LNCS 3536",
        shape="one part takes the first resource and then needs the second, the other part takes "
        "them the other way round",
        here="resources are sections",
        stages=lambda: [
            stage("start"),
            stage("a_first", "start", section="crane"),
            stage("a_both", "a_first", section="truck"),
            stage("a_last", "a_first a_both", section="crane"),
            stage("b_first", "start", section="truck"),
            stage("b_both", "b_first", section="crane"),
            stage("b_last", "b_first b_both", section="truck"),
        ],
        shows=(Shows(fault=Fault.DEADLOCK, stage="a_both", path="start a_first b_first"),),
    ),
    Unsound(
        name="a resource held while its next user is waited for",
        source="G. Juhás, A. Juhásová and T. Kováčik, Deadlocks and Livelocks in Resource "
        "Constrained Workflow Nets, CEUR-WS 3167, 2022",
        shape="what holds the only resource waits for one that needs it",
        here="the resource is a section",
        stages=lambda: [
            stage("start"),
            stage("open", "start", section="ledger"),
            stage("post", "start", section="ledger"),
            stage("confirm", "post"),
            stage("close", "open confirm", section="ledger"),
        ],
        shows=(Shows(fault=Fault.DEADLOCK, stage="post", path="start open"),),
    ),
)
