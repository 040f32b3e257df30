"""SQL as statements that are parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, LiteralString

from sqlalchemy import TextClause
from sqlalchemy import text as parse

Statement = tuple[LiteralString, tuple[Any, ...] | Mapping[str, Any]]
"""SQL as the driver takes it, with the values of its placeholders."""
Closing = list[Statement]
"""Statements whose answers nobody reads: they are sent in one go with the COMMIT, which is not carried out where one fails."""


@lru_cache(maxsize=4096)
def text(statement: str) -> TextClause:
    """Return a statement. SQLAlchemy looks for its placeholders, and makes the key of its compiled form, once for each text instead
    of each time that it is carried out; what it returns is never changed."""
    return parse(statement)
