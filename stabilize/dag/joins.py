"""Joins: what the tokens at rest before a stage decide, as pure functions over counts.

The patterns and their numbers (WCP) are those of Russell, ter Hofstede, van der Aalst and Mulyar,
*Workflow Control-Flow Patterns: A Revised View*, BPM-06-22, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, Self, TypeVar

from stabilize.dag.nodes import StageNode
from stabilize.status import JoinType, TokenKind

LIVE, DEAD, FAILED, HALT = TokenKind.LIVE, TokenKind.DEAD, TokenKind.FAILED, TokenKind.HALT


class Verdict(Enum):
    WAIT = "wait"
    FIRE = "fire"
    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """What a join decides: wait, fire, pass a kind on without running, or fail with a reason."""

    verdict: Verdict
    passes: TokenKind | None = None
    reason: str = ""


WAIT = Decision(Verdict.WAIT)
FIRE = Decision(Verdict.FIRE)


@dataclass(frozen=True, kw_only=True)
class JoinRule:
    """How one stage joins."""

    type: JoinType = JoinType.AND
    threshold: int = 0
    keep: bool = False
    rest: str | None = None
    scope: str | None = None
    on_failure: str | None = None

    @classmethod
    def of(cls, stage: StageNode) -> Self:
        return cls(
            type=stage.join_type,
            threshold=stage.join_threshold,
            keep=stage.join_keep,
            rest=stage.join_rest,
            scope=stage.join_scope,
            on_failure=stage.on_branch_failure,
        )

    @property
    def needed(self) -> int:
        """How many live branches start the stage, for the joins that count."""
        return 1 if self.type is JoinType.DISCRIMINATOR else max(self.threshold, 1)

    @property
    def waits_for_all(self) -> bool:
        """Say whether each edge has to have come; a threshold of zero means all of them."""
        return self.type in (JoinType.AND, JoinType.OR) or (
            self.type is JoinType.N_OF_M and self.threshold == 0
        )

    @property
    def counts_live(self) -> bool:
        """Say whether the stage starts at so many live branches, whatever the others bring."""
        return self.type in (JoinType.DISCRIMINATOR, JoinType.N_OF_M) and not self.waits_for_all

    @property
    def starts_early(self) -> bool:
        """Say whether the stage may start before each edge has come."""
        return self.counts_live or self.type in (JoinType.XOR, JoinType.MULTI_MERGE)

    @property
    def branch_failure(self) -> str:
        """What a failed branch is: it fails the workflow, is dead, or counts as arrived."""
        return self.on_failure or ("dead" if self.counts_live else "fail")

    @property
    def matches_threads(self) -> bool:
        """Tokens of different threads wait apart, unless the join is there to unite them."""
        return not (self.keep or self.rest == "block" or self.asks_for_quiet)

    @property
    def asks_for_quiet(self) -> bool:
        """What the join does depends on whether anything can still come, from anywhere."""
        return self.type is JoinType.THREADS or self.scope == "general"


def counts_as(kind: TokenKind, rule: JoinRule) -> TokenKind:
    """What a token of `kind` is to a join with this rule.

    A join that counts looks only for live ones, and keeps a failed one apart from a dead one to say
    what it lost.
    """
    if kind is HALT:
        return HALT if rule.waits_for_all else DEAD
    if kind is FAILED:
        dead = FAILED if rule.counts_live else DEAD
        return {"fail": FAILED, "dead": dead, "arrive": LIVE}[rule.branch_failure]
    return kind


def absorbs_failure(rule: JoinRule) -> bool:
    """Say whether a failed branch stops at this join instead of failing the workflow."""
    return rule.branch_failure != "fail"


def failure_is_absorbed(
    ref_id: str, joins_after: Callable[[str], Iterable[tuple[str, JoinRule]]]
) -> bool:
    """Say whether every path from a stage ends in a join that absorbs its failure."""
    seen = {ref_id}
    waiting = [ref_id]
    while waiting:
        following = list(joins_after(waiting.pop()))
        if not following:
            return False
        for next_ref, rule in following:
            if not absorbs_failure(rule) and next_ref not in seen:
                seen.add(next_ref)
                waiting.append(next_ref)
    return True


RANK = (LIVE, FAILED, HALT, DEAD)


@dataclass
class Tally:
    """The tokens that lie before one join, in one thread, counted as they come.

    `live`, `dead`, `failed` and `halt` count edges by the best that came on them, `arrivals` the
    live tokens themselves. `fired` counts the starts since the join was last reset. `quiet`: no
    token can come any more but through the join itself.
    """

    edges: int
    best: dict[str, TokenKind] = field(default_factory=dict)
    arrivals: int = 0
    fired: int = 0
    quiet: bool = False
    came_live: list[str] = field(default_factory=list)
    counts: dict[TokenKind, int] = field(default_factory=lambda: dict.fromkeys(RANK, 0))

    def add(self, edge: str, kind: TokenKind, count: int = 1, *, consumed: int = 0) -> None:
        """Count `count` more tokens on `edge`, of which `consumed` have started the stage."""
        known = self.best.get(edge)
        if known is None or RANK.index(kind) < RANK.index(known):
            if known is not None:
                self.counts[known] -= 1
            self.best[edge] = kind
            self.counts[kind] += 1
        self.fired += consumed
        if kind is LIVE:
            self.arrivals += count
            self.came_live.append(edge)

    def add_start(self, source: str, count: int = 1) -> None:
        """Count a start by a jump from a stage from which no edge leads here."""
        self.fired += count
        self.arrivals += count
        self.came_live.append(source)

    def deaden(self) -> None:
        """Let all that has come be dead: it is of a branch that was withdrawn."""
        self.best = dict.fromkeys(self.best, DEAD)
        self.counts = {**dict.fromkeys(RANK, 0), DEAD: len(self.best)}
        self.arrivals = 0
        self.came_live.clear()

    def copy(self) -> Self:
        return replace(
            self,
            best=dict(self.best),
            came_live=list(self.came_live),
            counts=dict(self.counts),
        )

    @property
    def live(self) -> int:
        return self.counts[LIVE]

    @property
    def failed(self) -> int:
        return self.counts[FAILED]

    @property
    def halt(self) -> int:
        return self.counts[HALT]

    @property
    def lost(self) -> list[str]:
        """The edges that brought nothing."""
        return [edge for edge, kind in self.best.items() if kind is not LIVE]

    @property
    def missing(self) -> int:
        """How many edges have brought nothing yet."""
        return self.edges - len(self.best)


def _nothing_came(tally: Tally) -> Decision:
    """Every edge has come and none was live: pass on what that amounts to."""
    if tally.failed:
        return Decision(Verdict.PASS, FAILED)
    return Decision(Verdict.PASS, HALT if tally.halt else DEAD)


def and_join(tally: Tally, rule: JoinRule) -> Decision:
    """Fire once each edge has a token and one of them is live (WCP-3, 7, 33, 37, 38)."""
    if tally.missing and not tally.quiet:
        return WAIT
    if tally.failed or tally.halt or not tally.live:
        return _nothing_came(tally)
    return FIRE


def xor_join(tally: Tally, rule: JoinRule) -> Decision:
    """Pass the one live branch on; a second one is a fault of the definition (WCP-5)."""
    if tally.arrivals <= tally.fired:
        return WAIT if tally.fired or tally.missing else _nothing_came(tally)
    if tally.arrivals == 1:
        return FIRE
    first, second = tally.came_live[0], tally.came_live[-1]
    return Decision(
        Verdict.FAIL,
        reason=f"two branches reached an XOR join: {first!r} and {second!r}. "
        "Use JoinType.MULTI_MERGE to run once for each, or an XOR split before it",
    )


def multi_merge(tally: Tally, rule: JoinRule) -> Decision:
    """Fire for each live arrival (WCP-8)."""
    if tally.arrivals > tally.fired:
        return FIRE
    return WAIT if tally.fired or tally.missing else _nothing_came(tally)


def counting_join(tally: Tally, rule: JoinRule) -> Decision:
    """Fire at the n-th live arrival; fail once that many can no longer come (WCP-9, 30).

    If none came live and none failed, nobody wanted the stage: it is passed over.
    """
    if rule.waits_for_all:
        return and_join(tally, rule)
    if tally.fired:
        return WAIT
    if tally.live >= rule.needed:
        return FIRE
    if tally.live + tally.missing >= rule.needed:
        return WAIT
    if not tally.live and not tally.failed:
        return WAIT if tally.missing else _nothing_came(tally)
    lost = ", ".join(
        f"{edge!r} (failed)" if tally.best[edge] is FAILED else repr(edge) for edge in tally.lost
    )
    needed = "1 live branch is" if rule.needed == 1 else f"{rule.needed} live branches are"
    return Decision(
        Verdict.FAIL,
        reason=f"{needed} needed and can no longer come: {tally.live} came, lost are {lost}",
    )


def thread_merge(tally: Tally, rule: JoinRule) -> Decision:
    """Fire for every `threshold` live arrivals of the edge (WCP-41)."""
    if tally.arrivals >= rule.needed:
        return FIRE
    return _nothing_came(tally) if tally.quiet and not tally.arrivals else WAIT


JOINS: dict[JoinType, Callable[[Tally, JoinRule], Decision]] = {
    JoinType.AND: and_join,
    JoinType.OR: and_join,
    JoinType.XOR: xor_join,
    JoinType.MULTI_MERGE: multi_merge,
    JoinType.DISCRIMINATOR: counting_join,
    JoinType.N_OF_M: counting_join,
    JoinType.THREADS: thread_merge,
}


def decide(tally: Tally, rule: JoinRule) -> Decision:
    """What the join does now; ask again after each firing until it says wait."""
    return JOINS[rule.type](tally, rule)


def resets(tally: Tally, rule: JoinRule) -> bool:
    """Say whether a join that has fired is ready for its next round: every edge has come."""
    return rule.waits_for_all or tally.missing == 0


# --- what was there before a jump ---------------------------------------------------------------


def is_put_off(tally: Tally, rule: JoinRule, kind: TokenKind, *, again: bool) -> bool:
    """Say whether a join does not decide yet, since it has enough only by what was there before.

    A token that is offered to it `again` starts nothing by itself. The join waits for a live one of
    this round, or until each edge has come: else a jump to another branch would lead to what it
    comes from. A multi-merge, which starts for each by itself, is offered only what is to start it.
    """
    if not rule.starts_early or rule.type is JoinType.MULTI_MERGE:
        return False
    has_enough = not tally.fired and tally.live >= rule.needed
    return again or (has_enough and kind is not LIVE and tally.missing > 0)


def gives_way(tally: Tally, rule: JoinRule) -> bool:
    """Say whether what rests before a simple merge, offered to it again, yields to a live token."""
    return rule.type is JoinType.XOR and tally.arrivals > tally.fired


# --- joins that keep tokens, whatever their threads ----------------------------------------------


class Kept(Protocol):
    """A token that lies before a join which keeps them."""

    @property
    def upstream_ref_id(self) -> str: ...
    @property
    def kind(self) -> TokenKind: ...
    @property
    def consumer_id(self) -> str | None: ...


K = TypeVar("K", bound=Kept)


def to_be_taken(tokens: Sequence[K], rule: JoinRule) -> Sequence[K]:
    """What one start of a join with this rule takes of the tokens before it, best ones first.

    `tokens`: in the order in which they came.
    """
    tokens = sorted(tokens, key=lambda token: RANK.index(token.kind))
    live = [token for token in tokens if token.kind is LIVE]
    if rule.type is JoinType.THREADS:
        return live[: rule.needed] or tokens
    if rule.rest == "block":
        free = [token for token in live or tokens if token.consumer_id is None]
        return one_of_each(free)
    return tokens if rule.asks_for_quiet else one_of_each(tokens)


def to_be_closed(tokens: Iterable[K]) -> Sequence[K]:
    """What ends with a round of a join that blocks: of each edge the one taken, else the first.

    `tokens`: in the order in which they came.
    """
    return one_of_each(sorted(tokens, key=lambda token: token.consumer_id is None))


def one_of_each(tokens: Iterable[K]) -> Sequence[K]:
    """The first token of each edge."""
    firsts: dict[str, K] = {}
    for token in tokens:
        firsts.setdefault(token.upstream_ref_id, token)
    return list(firsts.values())


# --- threads ------------------------------------------------------------------------------------


def branch_of(position: int, thread: str, number: int | str) -> str:
    """A thread of its own for what follows one of several firings of the stage at `position`."""
    return f"{thread}{position}.{number}/"


def parent_of(thread: str) -> str:
    """The thread that `thread` branched off from."""
    head, _, _ = thread.rstrip("/").rpartition("/")
    return f"{head}/" if head else ""
