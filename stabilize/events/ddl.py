"""The statements beside the tables, for migrations (see `stabilize.models.ddl`)."""

from __future__ import annotations

from stabilize.models.ddl import create_statements, drop_statements

__all__ = ["create_statements", "drop_statements"]
