"""The rows of tokens: put on edges, marked with the run that took them, closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from sqlalchemy import and_, bindparam, case, func, select, update

from stabilize.dag.joins import to_be_closed
from stabilize.models import StageExecution, Token
from stabilize.net import Net
from stabilize.status import TokenKind
from stabilize.turn import Turn

_OPEN = and_(
    Token.workflow_id == bindparam("b_workflow"),
    Token.downstream_ref_id == bindparam("b_ref"),
    Token.thread == bindparam("b_thread"),
    Token.closed.is_(False),
)
_TABLE: Any = Token.__table__
_CONSUME = (
    update(_TABLE)
    .where(_OPEN)
    .values(
        consumer_id=case(
            (
                and_(Token.kind == TokenKind.LIVE, Token.consumer_id.is_(None)),
                bindparam("b_consumer"),
            ),
            else_=Token.consumer_id,
        )
    )
)
_CONSUME_ALL = (
    update(_TABLE)
    .where(_OPEN)
    .values(
        consumer_id=case(
            (Token.kind == TokenKind.LIVE, bindparam("b_consumer")), else_=Token.consumer_id
        ),
        closed=True,
    )
)
_CLOSE = update(_TABLE).where(_OPEN).values(closed=True)
_ONE = and_(
    Token.workflow_id == bindparam("b_workflow"),
    Token.source_id == bindparam("b_source"),
    Token.downstream_ref_id == bindparam("b_ref"),
    Token.ordinal == bindparam("b_ordinal"),
)
_CONSUME_ONE = update(_TABLE).where(_ONE).values(consumer_id=bindparam("b_consumer"), closed=True)
_CLOSE_ONE = update(_TABLE).where(_ONE).values(closed=True)
_MARK = update(_TABLE).where(_ONE).values(consumer_id=bindparam("b_consumer"))
_TAKE_OVER = (
    update(_TABLE)
    .where(
        Token.workflow_id == bindparam("b_workflow"),
        Token.downstream_ref_id == bindparam("b_ref"),
        Token.consumer_id == bindparam("b_old"),
    )
    .values(consumer_id=bindparam("b_consumer"))
)
_DEADEN = (
    update(_TABLE)
    .where(
        Token.workflow_id == bindparam("b_workflow"),
        Token.downstream_ref_id == bindparam("b_ref"),
    )
    .values(kind=TokenKind.DEAD)
)
DISCARD = (
    update(_TABLE)
    .where(
        Token.workflow_id == bindparam("b_workflow"),
        Token.downstream_ref_id == bindparam("b_ref"),
        Token.closed.is_(False),
    )
    .values(closed=True)
)
"""What lies before a stage counts no more."""


@dataclass(frozen=True)
class Arrival:
    """A token on its way: from a run, along an edge, in a thread."""

    source: StageExecution
    ref_id: str
    kind: TokenKind
    thread: str
    ordinal: int = 0


def write_token(
    turn: Turn,
    arrival: Arrival,
    kind: TokenKind,
    *,
    consumer_id: str | None = None,
    closed: bool = False,
) -> None:
    """Put a token on its edge."""
    turn.add_token(
        source_id=arrival.source.id,
        downstream_ref_id=arrival.ref_id,
        ordinal=arrival.ordinal,
        workflow_id=arrival.source.workflow_id,
        upstream_ref_id=arrival.source.ref_id,
        thread=arrival.thread,
        generation=arrival.source.generation,
        kind=kind,
        consumer_id=consumer_id,
        closed=closed,
    )


def mark_taken(turn: Turn, arrival: Arrival, run: StageExecution) -> None:
    """Say which run one token started; it goes on counting until the join is reset."""
    turn.run_later(_MARK, {**_one(run, arrival.source.id, arrival.ordinal), "b_consumer": run.id})


def take_all(turn: Turn, run: StageExecution, thread: str, *, closing: bool) -> None:
    """Say which run the live tokens of one thread started."""
    statement = _CONSUME_ALL if closing else _CONSUME
    turn.run_later(statement, {**_scope(run, thread), "b_consumer": run.id})


def discard_tokens(turn: Turn, net: Net, ref_id: str) -> None:
    """What lies before a stage is of an earlier round: it counts no more."""
    net.tallies.pop(ref_id, None)
    turn.run_later(DISCARD, {"b_workflow": net.workflow.id, "b_ref": ref_id})


def take_over(turn: Turn, old: StageExecution, run: StageExecution) -> None:
    """What started one run has started another in its place."""
    where = {"b_workflow": old.workflow_id, "b_ref": old.ref_id, "b_old": old.id}
    turn.run_later(_TAKE_OVER, {**where, "b_consumer": run.id})


def close_all(turn: Turn, target: StageExecution, thread: str) -> None:
    """What lies before a join in one thread no longer counts."""
    turn.run_later(_CLOSE, _scope(target, thread))


def deaden(turn: Turn, net: Net, target: StageExecution, thread: str, below: bool) -> None:
    """Make dead what rests before a join in one thread, or as well in those below it."""
    if target.ref_id not in net.tallies:
        turn.write_rows()
    if not any(tally.best for tally in turn.reader.tallies(net, target.ref_id).values()):
        return
    make_dead(turn, target, thread, below=below)
    _forget_tally(turn, net, target)


def make_dead(turn: Turn, target: StageExecution, thread: str, *, below: bool = False) -> None:
    """Write dead what rests before a join; what is counted of it is for the caller to mend."""
    threads = Token.thread.startswith(thread) if below else Token.thread == thread
    rest = (Token.closed.is_(False), Token.consumer_id.is_(None), threads)
    where = {"b_workflow": target.workflow_id, "b_ref": target.ref_id}
    turn.run_later(_DEADEN.where(*rest), where)


def _scope(target: StageExecution, thread: str) -> dict[str, Any]:
    return {
        "b_workflow": target.workflow_id,
        "b_ref": target.ref_id,
        "b_thread": thread,
    }


def _one(target: StageExecution, source_id: str, ordinal: int) -> dict[str, Any]:
    return {
        "b_workflow": target.workflow_id,
        "b_source": source_id,
        "b_ref": target.ref_id,
        "b_ordinal": ordinal,
    }


# --- joins that keep tokens apart, whatever their threads ---------------------------------------


def kept_tokens(turn: Turn, net: Net, target: StageExecution) -> Sequence[Any]:
    """The tokens that lie before a join, of all threads, those of earlier runs first.

    Before a join that blocks it is those that came first.
    """
    query = select(
        Token.source_id,
        Token.ordinal,
        Token.upstream_ref_id,
        Token.kind,
        Token.thread,
        Token.consumer_id,
    ).where(
        Token.workflow_id == net.workflow.id,
        Token.downstream_ref_id == target.ref_id,
        Token.closed.is_(False),
    )
    blocks = net.rule_of(target).rest == "block"
    order = attrgetter("ordinal") if blocks else attrgetter("source_id", "ordinal")
    return sorted(turn.read(query).all(), key=order)


def numbered(turn: Turn, arrival: Arrival) -> Arrival:
    """The same token, numbered by when it comes before its join, whichever run it is of."""
    last = select(func.max(Token.ordinal)).where(
        Token.workflow_id == arrival.source.workflow_id,
        Token.downstream_ref_id == arrival.ref_id,
    )
    return replace(arrival, ordinal=(turn.read(last).scalar() or 0) + 1)


def take(
    turn: Turn,
    net: Net,
    target: StageExecution,
    tokens: Iterable[Any],
    run: StageExecution | None,
    *,
    closing: bool = True,
) -> None:
    """Say which run these tokens started, if any, and close them; what is left counts anew."""
    for token in tokens:
        one = _one(target, token.source_id, token.ordinal)
        if run is not None and (token.kind is TokenKind.LIVE or not closing):
            statement = _CONSUME_ONE if closing else _MARK
            turn.run_later(statement, {**one, "b_consumer": run.id})
        else:
            turn.run_later(_CLOSE_ONE, one)
    _forget_tally(turn, net, target)


def close_round(turn: Turn, net: Net, target: StageExecution) -> None:
    """Close one token of each edge: what came after it counts from now on."""
    for token in to_be_closed(kept_tokens(turn, net, target)):
        turn.run_later(_CLOSE_ONE, _one(target, token.source_id, token.ordinal))
    _forget_tally(turn, net, target)


def _forget_tally(turn: Turn, net: Net, target: StageExecution) -> None:
    turn.write_rows()
    net.tallies.pop(target.ref_id, None)
    net.tokens_known = False
