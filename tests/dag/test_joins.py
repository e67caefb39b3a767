"""What the tokens before a stage decide."""

from __future__ import annotations

import pytest

from stabilize.dag.joins import (
    JoinRule,
    Tally,
    absorbs_failure,
    counts_as,
    decide,
    gives_way,
    is_put_off,
    resets,
    to_be_closed,
)
from stabilize.dag.marking import Kept
from stabilize.status import JoinType, TokenKind

KINDS = {"l": TokenKind.LIVE, "d": TokenKind.DEAD, "f": TokenKind.FAILED, "h": TokenKind.HALT}
DISCRIMINATOR = JoinRule(type=JoinType.DISCRIMINATOR)


def _n_of_m(threshold: int) -> JoinRule:
    return JoinRule(type=JoinType.N_OF_M, threshold=threshold)


def verdicts(rule: JoinRule, tokens: str, edges: int = 3) -> list[str]:
    """What the join says after each token; each comes on the next edge, as it counts there."""
    tally = Tally(edges=edges)
    said = []
    for place, letter in enumerate(tokens):
        tally.add(f"e{place}", counts_as(KINDS[letter], rule))
        decision = decide(tally, rule)
        said.append(decision.verdict.value)
        if said[-1] == "fire":
            tally.fired += 1
        if decision.passes is not None:
            said[-1] += f" {decision.passes}"
    return said


@pytest.mark.parametrize("kind", [JoinType.AND, JoinType.OR])
@pytest.mark.parametrize(
    ("tokens", "last"),
    [
        ("l", "wait"),
        ("ll", "wait"),
        ("lll", "fire"),
        ("ldl", "fire"),
        ("ddl", "fire"),
        ("ddd", "pass DEAD"),
        ("lhl", "pass HALT"),
        ("hhh", "pass HALT"),
        ("dhd", "pass HALT"),
        ("lfl", "pass FAILED"),
        ("fhd", "pass FAILED"),
        ("dd", "wait"),
        ("lh", "wait"),
    ],
)
def test_a_join_that_waits_for_all_fires_on_live_and_dead_ones(
    kind: JoinType, tokens: str, last: str
) -> None:
    assert verdicts(JoinRule(type=kind), tokens)[-1] == last


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("lll", ["fire", "wait", "wait"]),
        ("dl", ["wait", "fire"]),
        ("hfl", ["wait", "wait", "fire"]),
        ("dhd", ["wait", "wait", "pass DEAD"]),
        ("dhf", ["wait", "wait", "fail"]),
    ],
)
def test_a_discriminator_fires_on_the_first_live_one(tokens: str, said: list[str]) -> None:
    assert verdicts(DISCRIMINATOR, tokens) == said


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("lll", ["wait", "fire", "wait"]),
        ("ldl", ["wait", "wait", "fire"]),
        ("lfl", ["wait", "wait", "fire"]),
        ("ldh", ["wait", "wait", "fail"]),
        ("ddl", ["wait", "wait", "fail"]),
        ("dhd", ["wait", "wait", "pass DEAD"]),
        ("ddf", ["wait", "wait", "fail"]),
        ("fdl", ["wait", "fail", "fail"]),
    ],
)
def test_two_of_three_fires_at_the_second_or_fails_when_it_cannot_come(
    tokens: str, said: list[str]
) -> None:
    assert verdicts(_n_of_m(2), tokens) == said


def test_a_counting_join_that_fails_names_what_was_lost() -> None:
    tally = Tally(edges=3)
    for edge, kind in (("a", "l"), ("b", "d"), ("c", "d")):
        tally.add(edge, KINDS[kind])

    reason = decide(tally, _n_of_m(2)).reason

    assert "2 live branches are needed" in reason
    assert "'b', 'c'" in reason
    assert "'a'" not in reason


def test_a_counting_join_says_which_of_the_lost_have_failed() -> None:
    tally = Tally(edges=2)
    tally.add("a", counts_as(TokenKind.FAILED, DISCRIMINATOR))
    tally.add("b", counts_as(TokenKind.HALT, DISCRIMINATOR))

    assert decide(tally, DISCRIMINATOR).reason == (
        "1 live branch is needed and can no longer come: 0 came, lost are 'a' (failed), 'b'"
    )


def test_a_threshold_of_zero_is_an_and_join() -> None:
    assert verdicts(_n_of_m(0), "lll") == ["wait", "wait", "fire"]
    assert verdicts(_n_of_m(0), "lhl")[-1] == "pass HALT"


def test_a_multi_merge_fires_for_each_live_one() -> None:
    rule = JoinRule(type=JoinType.MULTI_MERGE)

    assert verdicts(rule, "lld") == ["fire", "fire", "wait"]
    assert verdicts(rule, "ddd")[-1] == "pass DEAD"
    assert verdicts(rule, "hdd")[-1] == "pass DEAD"


def test_a_simple_merge_refuses_a_second_live_one_and_names_both() -> None:
    rule = JoinRule(type=JoinType.XOR)

    assert verdicts(rule, "dld") == ["wait", "fire", "wait"]
    tally = Tally(edges=2)
    tally.add("left", TokenKind.LIVE)
    tally.fired = 1
    tally.add("right", TokenKind.LIVE)
    decision = decide(tally, rule)
    assert decision.verdict.value == "fail"
    assert "'left' and 'right'" in decision.reason


@pytest.mark.parametrize(
    ("rule", "absorbs"),
    [
        (JoinRule(), False),
        (JoinRule(type=JoinType.OR), False),
        (JoinRule(type=JoinType.XOR), False),
        (JoinRule(type=JoinType.MULTI_MERGE), False),
        (DISCRIMINATOR, True),
        (_n_of_m(2), True),
        (_n_of_m(0), False),
        (JoinRule(on_failure="dead"), True),
        (JoinRule(on_failure="arrive"), True),
        (JoinRule(type=JoinType.DISCRIMINATOR, on_failure="fail"), False),
    ],
)
def test_a_failure_ends_at_joins_that_count_and_where_the_definition_says(
    rule: JoinRule, absorbs: bool
) -> None:
    assert absorbs_failure(rule) is absorbs


def test_a_failure_may_count_as_an_arrival() -> None:
    assert counts_as(TokenKind.FAILED, JoinRule(on_failure="arrive")) is TokenKind.LIVE
    assert verdicts(JoinRule(on_failure="arrive"), "fff")[-1] == "fire"


def test_a_join_is_ready_for_its_next_round_when_every_edge_has_come() -> None:
    tally = Tally(edges=2)
    tally.add("a", TokenKind.LIVE)
    assert not resets(tally, DISCRIMINATOR)
    tally.add("b", TokenKind.DEAD)
    assert resets(tally, DISCRIMINATOR)


def test_a_round_that_blocks_ends_with_the_tokens_taken_or_those_that_came_first() -> None:
    came = [("a", "d", 1), ("b", "l", 1), ("a", "l", 2), ("b", "l", 2), ("c", "l", 1)]
    tokens = [Kept(edge, KINDS[kind], "", number) for edge, kind, number in came]
    tokens[3] = tokens[3]._replace(consumer_id="first 1")

    assert to_be_closed(tokens) == [tokens[3], tokens[0], tokens[4]]


# --- what was there before a jump ---------------------------------------------------------------

XOR = JoinRule(type=JoinType.XOR)


def offered(rule: JoinRule, tokens: str, edges: int = 3) -> Tally:
    """What lies before a join after tokens were offered to it again, each on the next edge."""
    tally = Tally(edges=edges)
    for place, letter in enumerate(tokens):
        tally.add(f"e{place}", counts_as(KINDS[letter], rule))
    return tally


@pytest.mark.parametrize("rule", [XOR, DISCRIMINATOR, _n_of_m(1)])
def test_a_join_that_has_enough_of_old_waits_for_a_live_one_or_for_all(rule: JoinRule) -> None:
    assert is_put_off(offered(rule, "l"), rule, TokenKind.LIVE, again=True)
    assert is_put_off(offered(rule, "ld"), rule, TokenKind.DEAD, again=False)
    assert not is_put_off(offered(rule, "ll"), rule, TokenKind.LIVE, again=False)
    assert not is_put_off(offered(rule, "ldd"), rule, TokenKind.DEAD, again=False)


def test_a_join_that_has_not_enough_or_has_started_decides_as_ever() -> None:
    assert not is_put_off(offered(_n_of_m(2), "ld"), _n_of_m(2), TokenKind.DEAD, again=False)
    started = offered(DISCRIMINATOR, "l")
    started.fired = 1
    assert not is_put_off(started, DISCRIMINATOR, TokenKind.DEAD, again=False)


@pytest.mark.parametrize("rule", [JoinRule(), JoinRule(type=JoinType.MULTI_MERGE)])
def test_a_join_that_needs_all_and_one_that_takes_each_are_not_put_off(rule: JoinRule) -> None:
    assert not is_put_off(offered(rule, "l"), rule, TokenKind.LIVE, again=True)


def test_at_a_simple_merge_an_old_token_gives_way_to_a_new_one() -> None:
    tally = offered(XOR, "l")
    assert gives_way(tally, XOR)

    tally.deaden()
    tally.add("e1", TokenKind.LIVE)

    assert decide(tally, XOR).verdict.value == "fire"
    assert tally.lost == ["e0"]


def test_a_jump_to_a_merge_is_an_arrival_that_has_started_it_and_no_edge() -> None:
    tally = Tally(edges=2)
    tally.add_start("elsewhere")

    assert (tally.missing, decide(tally, XOR).verdict.value) == (2, "wait")
    tally.add("a", TokenKind.LIVE)
    assert "'elsewhere' and 'a'" in decide(tally, XOR).reason
    assert decide(tally, DISCRIMINATOR).verdict.value == "wait"
