"""SQL as statements that are parsed once."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import TextClause
from sqlalchemy import text as parse


@lru_cache(maxsize=4096)
def text(statement: str) -> TextClause:
    """Return a statement. SQLAlchemy looks for its placeholders, and makes the key of its compiled form, once for each text instead
    of each time that it is carried out; what it returns is never changed."""
    return parse(statement)
