"""Where a workflow may have come to: the runs under way, the tokens at rest, the rights held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from stabilize.dag.joins import Tally
from stabilize.dag.splits import Deal
from stabilize.dag.withdrawal import lies_in
from stabilize.status import TokenKind, WorkflowStatus


class Run(NamedTuple):
    """A run under way. TERMINAL: its join has failed it, and it has yet to end."""

    ref_id: str
    thread: str
    number: int
    status: WorkflowStatus = WorkflowStatus.NOT_STARTED

    @property
    def id(self) -> str:
        return f"{self.ref_id} {self.number}"


class Kept(NamedTuple):
    """A token that lies before a join which keeps them.

    `number`: that of the run it is of, or before a join that blocks its place on its edge.
    """

    upstream_ref_id: str
    kind: TokenKind
    thread: str
    number: int
    consumer_id: str | None = None


def numbered(tokens: Iterable[Kept]) -> list[Kept]:
    """The same tokens, in their order, with the place that each has on its edge."""
    places: Counter[str] = Counter()
    placed = []
    for token in tokens:
        places[token.upstream_ref_id] += 1
        placed.append(token._replace(number=places[token.upstream_ref_id]))
    return placed


class Arrival(NamedTuple):
    """A token on its way."""

    source: Run
    ref_id: str
    kind: TokenKind
    thread: str


class Move(NamedTuple):
    """What a run may do next: take a status on. `deal`: what its split does, None: it fails."""

    run: Run
    status: WorkflowStatus
    deal: Deal | None = None


@dataclass
class Marking:
    """A state of the token game. `trail` links the stages that began, from the last one.

    `runs`: how many of each stage there were, and in which `threads`.
    """

    active: dict[Run, None] = field(default_factory=dict)
    tallies: dict[str, dict[str, Tally]] = field(default_factory=dict)
    kept: dict[str, list[Kept]] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)
    statuses: dict[str, WorkflowStatus] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    threads: set[tuple[str, str]] = field(default_factory=set)
    trail: tuple[Any, str] | None = None
    has_failed: bool = False
    is_terminated: bool = False

    def copy(self) -> Marking:
        return replace(
            self,
            active=dict(self.active),
            tallies={ref: _copies(tallies) for ref, tallies in self.tallies.items() if tallies},
            kept={ref: list(tokens) for ref, tokens in self.kept.items() if tokens},
            claims=dict(self.claims),
            statuses=dict(self.statuses),
            runs=dict(self.runs),
            threads=set(self.threads),
        )

    def deaden(self, ref_id: str, thread: str, below: bool) -> None:
        """Make dead what rests before a join in one thread, or as well in those below it."""
        for name, tally in self.tallies.get(ref_id, {}).items():
            if lies_in(name, thread, below):
                tally.deaden()
        self.kept[ref_id] = [
            token._replace(kind=TokenKind.DEAD)
            if token.consumer_id is None and lies_in(token.thread, thread, below)
            else token
            for token in self.kept.pop(ref_id, ())
        ]

    def key(self, counted: Collection[str]) -> Hashable:
        """What decides all that can follow; `counted`: the stages whose number of runs does."""
        tallies = ((r, name, t) for r, by in self.tallies.items() for name, t in by.items())
        return (
            frozenset(self.active),
            frozenset(
                (ref, thread, frozenset(t.best), *t.counts.values(), t.arrivals, t.fired)
                for ref, thread, t in tallies
            ),
            frozenset(
                (r, frozenset(Counter(kept).items())) for r, kept in self.kept.items() if kept
            ),
            frozenset(self.claims.items()),
            frozenset(self.statuses.items()),
            frozenset((ref, self.runs[ref]) for ref in counted if ref in self.runs),
            frozenset(ran for ran in self.threads if ran[0] in counted),
            self.has_failed,
        )


def _copies(tallies: dict[str, Tally]) -> dict[str, Tally]:
    return {thread: tally.copy() for thread, tally in tallies.items()}


def remove(tokens: list[Kept], picked: Sequence[Kept]) -> None:
    """Take some of the tokens away, or all of them."""
    for token in tuple(picked):
        tokens.remove(token)
