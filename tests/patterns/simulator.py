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
    is_racy: bool = False
    """An XOR-join came upon a second branch and the rest went on: two tokens of one thread lie on
    one edge, and which is first depends on who is faster."""
    runs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


_BEST_FIRST = ("LIVE", "FAILED", "HALT", "DEAD")


class Failed(Exception):
    """The workflow ends here."""


class Simulator:
    """Plays one net; a thread is the text that names it, and tokens meet only in their thread."""

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
        if self._is_stuck():
            self.outcome.status = "TERMINAL"
        return self.outcome

    def _is_stuck(self) -> bool:
        """Some stage has tokens and was never reached for lack of others."""
        return any(not self.outcome.runs[ref] for ref, _ in self.came)

    def _run(self, node: Node, thread: str) -> None:
        """One run, and all that comes of it."""
        branches = [following.ref for following in self.after[node.ref]]
        live = self._chosen(node, branches)
        if node.ends in ("ok", "skips") and branches and not live:
            self._end(node, "TERMINAL", thread)
        elif node.ends == "stops":
            self._end(node, "STOPPED", thread)
        elif node.ends == "fails":
            self._end(node, "TERMINAL", thread)
        else:
            self.outcome.runs[node.ref].append("SKIPPED" if node.ends == "skips" else "SUCCEEDED")
            for following in self.after[node.ref]:
                kind = "LIVE" if following.ref in live else "DEAD"
                self._arrive(following, node.ref, kind, thread)

    def _end(self, node: Node, status: str, thread: str) -> None:
        """A run that failed or stopped."""
        self.outcome.runs[node.ref].append(status)
        if status == "TERMINAL" and not self._is_absorbed(node):
            raise Failed
        for following in self.after[node.ref]:
            self._arrive(following, node.ref, "FAILED" if status == "TERMINAL" else "HALT", thread)

    def _is_absorbed(self, node: Node) -> bool:
        """Every path leads into a join that takes a failure for a branch that brings nothing."""
        following = self.after[node.ref]
        return bool(following) and all(
            other.join in ("DISCRIMINATOR", "N_OF_M") or self._is_absorbed(other)
            for other in following
        )

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
        counting = node.join in ("DISCRIMINATOR", "N_OF_M")
        if kind == "HALT" and node.join not in ("AND", "OR"):
            kind = "DEAD"
        came = self.came[node.ref, thread]
        came[edge] = min(kind, came.get(edge, "DEAD"), key=_BEST_FIRST.index)
        is_round_over = len(came) == len(node.after)
        if is_round_over:
            self.came[node.ref, thread] = {}  # what comes from now on is of the next round
        if node.join in ("AND", "OR"):
            self._all(node, came, thread)
        elif counting:
            self._some(node, came, thread)
        else:
            self._each(node, came, kind, thread)
        if is_round_over:
            self.fired[node.ref, thread] = 0

    def _all(self, node: Node, came: dict[str, str], thread: str) -> None:
        if len(came) < len(node.after):
            return
        kinds = set(came.values())
        for worse in ("FAILED", "HALT"):
            if worse in kinds:
                self._pass(node, worse, thread)
                return
        if "LIVE" in kinds:
            self._run(node, thread)
        else:
            self._pass(node, "DEAD", thread)

    def _each(self, node: Node, came: dict[str, str], kind: str, thread: str) -> None:
        here = (node.ref, thread)
        if kind == "LIVE":
            self.fired[here] += 1
            again = self.fired[here] > 1
            if again and node.join == "XOR":
                self.outcome.is_racy |= node.ends == "stops" or self._is_absorbed(node)
                self._fail(node, thread)
                return
            number = len(self.outcome.runs[node.ref]) + 1
            self._run(node, f"{thread}{node.ref}.{number}/" if again else thread)
        elif len(came) == len(node.after) and not self.fired[here]:
            self._pass(node, "FAILED" if "FAILED" in came.values() else "DEAD", thread)

    def _some(self, node: Node, came: dict[str, str], thread: str) -> None:
        here = (node.ref, thread)
        live = sum(1 for kind in came.values() if kind == "LIVE")
        missing = len(node.after) - len(came)
        if self.fired[here]:
            return
        if live >= node.needs:
            self.fired[here] += 1
            self._run(node, thread)
        elif not live and "FAILED" not in came.values():
            if not missing:
                self._pass(node, "DEAD", thread)
        elif live + missing < node.needs:
            self.fired[here] += 1
            self._fail(node, thread)

    def _fail(self, node: Node, thread: str) -> None:
        """The join cannot do what it is to do: that is a failure of its stage."""
        self._end(node, "STOPPED" if node.ends == "stops" else "TERMINAL", thread)
