"""The rows of the token game: tokens on edges, signals kept, rights held."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Enum, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stabilize.models.base import PREFIX, TABLE_OPTIONS, RowBase
from stabilize.status import TokenKind
from stabilize.types import BigId, Identifier, Json


class Token(RowBase):
    """One token put on one edge.

    `source_id` is the run that made it, `consumer_id` the run that took it as its input. `closed`:
    it no longer counts for its join. A join matches tokens of one `thread`; `generation` is that
    of the run that made it. `ordinal` tells the tokens apart that one run put on one edge.
    """

    __tablename__ = PREFIX + "tokens"

    source_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    downstream_ref_id: Mapped[str] = mapped_column(Identifier(255), primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    workflow_id: Mapped[str] = mapped_column(Identifier())
    upstream_ref_id: Mapped[str] = mapped_column(Identifier(255))
    thread: Mapped[str] = mapped_column(Identifier(255))
    generation: Mapped[int] = mapped_column(Integer)
    kind: Mapped[TokenKind] = mapped_column(Enum(TokenKind, native_enum=False, length=8))
    consumer_id: Mapped[str | None] = mapped_column(Identifier())
    closed: Mapped[bool] = mapped_column(Boolean)

    __table_args__ = (
        Index(None, "workflow_id", "downstream_ref_id", "closed"),
        Index(None, "consumer_id"),
        TABLE_OPTIONS,
    )


class BufferedSignal(RowBase):
    """A persistent signal that came before anybody waited for it."""

    __tablename__ = PREFIX + "signals"

    id: Mapped[str] = mapped_column(Identifier(26), primary_key=True)
    workflow_id: Mapped[str] = mapped_column(Identifier())
    ref_id: Mapped[str] = mapped_column(Identifier(255))
    name: Mapped[str] = mapped_column(String(255))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    user: Mapped[str] = mapped_column("user_name", String(255))
    created_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(None, "workflow_id", "ref_id", "id"), TABLE_OPTIONS)


class Claim(RowBase):
    """An exclusive right: a mutex, a section, a choice or a concurrency slot, by constraint."""

    __tablename__ = PREFIX + "claims"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    scope: Mapped[str] = mapped_column(Identifier(255))
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column("claim_key", Identifier(255))
    owner: Mapped[str] = mapped_column(Identifier(255))
    created_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("scope", "kind", "claim_key"),
        Index(None, "owner"),
        TABLE_OPTIONS,
    )
