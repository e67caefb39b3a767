"""A small token game to compare the engine with: nets of splits and joins without loops.

It knows nothing of the engine and is as plain as it can be: an edge has a list of tokens, a stage
looks at its edges, and whoever can do something does it, in the order of the definition.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """A stage: `after` its edges; `join` and `split` by name; `chosen` the branches that hold.

    `ends`: ok, skips (passes LIVE on), stops (HALT), or fails.
    """

    ref: str
    after: tuple[str, ...] = ()
    join: str = "AND"
    needs: int = 0
    split: str = "AND"
    chosen: frozenset[str] = frozenset()
    default: str | None = None
    ends: str = "ok"


@dataclass
class Outcome:
    """How a net ends, and how the runs of each stage did."""

    status: str = "SUCCEEDED"
    runs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Failed(Exception):
    """The workflow ends here: who failed."""


class Simulator:
    """Plays one net. Threads are lists of tokens that belong together: a tuple names one."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.after = {n.ref: [m for m in nodes if n.ref in m.after] for n in nodes}
        self.came: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        self.fired: dict[tuple[str, str], int] = defaultdict(int)
        self.outcome = Outcome()

    def play(self) -> Outcome:
        try:
            for node in self.nodes:
                if not node.after:
                    self._run(node, "")
        except Failed:
            self.outcome.status = "TERMINAL"
        return self.outcome

    def _run(self, node: Node, thread: str) -> None:
        """One run, and all that comes of it."""
        ends = {"ok": "SUCCEEDED", "skips": "SKIPPED", "stops": "STOPPED", "fails": "TERMINAL"}
        branches = [following.ref for following in self.after[node.ref]]
        live = self._chosen(node, branches)
        if node.ends in ("ok", "skips") and branches and not live:
            self.outcome.runs[node.ref].append("TERMINAL")
            raise Failed
        self.outcome.runs[node.ref].append(ends[node.ends])
        if node.ends == "fails":
            raise Failed
        for following in self.after[node.ref]:
            kind = "LIVE" if following.ref in live else "DEAD"
            self._arrive(following, node.ref, "HALT" if node.ends == "stops" else kind, thread)

    def _chosen(self, node: Node, branches: list[str]) -> set[str]:
        holding = [ref for ref in branches if ref in node.chosen]
        if node.split == "AND":
            return set(branches)
        if not holding:
            return {node.default} if node.default in branches else set()
        return set(holding) if node.split == "OR" else {min(holding)}

    def _pass(self, node: Node, kind: str, thread: str) -> None:
        """The stage does not run."""
        self.outcome.runs[node.ref].append("SKIPPED" if kind == "DEAD" else "NOT_STARTED")
        for following in self.after[node.ref]:
            self._arrive(following, node.ref, kind, thread)

    def _arrive(self, node: Node, edge: str, kind: str, thread: str) -> None:
        waits_for_all = node.join in ("AND", "OR")
        if kind == "HALT" and not waits_for_all:
            kind = "DEAD"
        here = (node.ref, thread)
        came = self.came[here]
        came[edge] = kind
        complete = len(came) == len(node.after)
        live = sum(1 for kind_of_edge in came.values() if kind_of_edge == "LIVE")
        if waits_for_all:
            if not complete:
                return
            if "HALT" in came.values():
                self._pass(node, "HALT", thread)
            elif live:
                self._run(node, thread)
            else:
                self._pass(node, "DEAD", thread)
            return
        if node.join in ("XOR", "MULTI_MERGE"):
            if kind == "LIVE":
                self.fired[here] += 1
                if self.fired[here] > 1 and node.join == "XOR":
                    self._fail(node, thread)
                    return
                again = self.fired[here] > 1
                number = len(self.outcome.runs[node.ref]) + 1
                self._run(node, f"{thread}{node.ref}{number}/" if again else thread)
            elif complete and not self.fired[here]:
                self._pass(node, "DEAD", thread)
            return
        if self.fired[here]:
            return
        if live >= node.needs:
            self.fired[here] += 1
            self._run(node, thread)
        elif complete and not live:
            self._pass(node, "DEAD", thread)
        elif live and live + len(node.after) - len(came) < node.needs:
            self.fired[here] += 1
            self._fail(node, thread)

    def _fail(self, node: Node, thread: str) -> None:
        """The join cannot do what it is to do: that is a failure of its stage."""
        if node.ends != "stops":
            self.outcome.runs[node.ref].append("TERMINAL")
            raise Failed
        self.outcome.runs[node.ref].append("STOPPED")
        for following in self.after[node.ref]:
            self._arrive(following, node.ref, "HALT", thread)
