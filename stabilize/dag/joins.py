"""Joins: what the tokens at rest before a stage decide, as pure functions over counts.

The patterns and their numbers (WCP) are those of Russell, ter Hofstede, van der Aalst and Mulyar,
*Workflow Control-Flow Patterns: A Revised View*, BPM-06-22, 2006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

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

    @property
    def needed(self) -> int:
        """How many live branches start the stage, for the joins that count."""
        return 1 if self.type is JoinType.DISCRIMINATOR else max(self.threshold, 1)

    @property
    def matches_threads(self) -> bool:
        """Tokens of different threads wait apart, unless the join is there to unite them."""
        return not (self.keep or self.rest == "block" or self.asks_for_quiet)

    @property
    def asks_for_quiet(self) -> bool:
        """What the join does depends on whether anything can still come, from anywhere."""
        return self.type is JoinType.THREADS or self.scope == "general"


def counts_as(kind: TokenKind, rule: JoinRule) -> TokenKind:
    """What a token of `kind` is to a join with this rule."""
    waits_for_all = rule.type in (JoinType.AND, JoinType.OR) or _is_and(rule)
    if kind is HALT:
        return HALT if waits_for_all else DEAD
    if kind is FAILED:
        counting = rule.type in (JoinType.DISCRIMINATOR, JoinType.N_OF_M)
        default = "dead" if counting and not _is_and(rule) else "fail"
        return {"fail": FAILED, "dead": DEAD, "arrive": LIVE}[rule.on_failure or default]
    return kind


def absorbs_failure(rule: JoinRule) -> bool:
    """Say whether a failed branch stops at this join instead of failing the workflow."""
    return counts_as(FAILED, rule) is not FAILED


def _is_and(rule: JoinRule) -> bool:
    return rule.type is JoinType.N_OF_M and rule.threshold == 0


_RANK = (LIVE, FAILED, HALT, DEAD)


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
    counts: dict[TokenKind, int] = field(default_factory=lambda: dict.fromkeys(_RANK, 0))

    def add(self, edge: str, kind: TokenKind, count: int = 1, *, consumed: int = 0) -> None:
        """Count `count` more tokens on `edge`, of which `consumed` have started the stage."""
        known = self.best.get(edge)
        if known is None or _RANK.index(kind) < _RANK.index(known):
            if known is not None:
                self.counts[known] -= 1
            self.best[edge] = kind
            self.counts[kind] += 1
        self.fired += consumed
        if kind is LIVE:
            self.arrivals += count
            self.came_live.append(edge)

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
    """Fire at the n-th live arrival; fail once that many can no longer come (WCP-9, 30)."""
    if _is_and(rule):
        return and_join(tally, rule)
    if tally.fired:
        return WAIT
    if tally.live >= rule.needed:
        return FIRE
    if tally.live + tally.missing >= rule.needed or (tally.missing and not tally.live):
        return WAIT
    if not tally.live:
        return _nothing_came(tally)
    lost = ", ".join(repr(edge) for edge in tally.lost)
    return Decision(
        Verdict.FAIL,
        reason=f"{rule.needed} live branches are needed and can no longer come: "
        f"{tally.live} came, lost are {lost}",
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
    if rule.type in (JoinType.AND, JoinType.OR) or _is_and(rule):
        return True
    return tally.missing == 0
