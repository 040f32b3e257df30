"""SQL as statements that are parsed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, LiteralString, Protocol

from sqlalchemy import TextClause
from sqlalchemy import text as parse

Values = tuple[Any, ...] | Mapping[str, Any]
Statement = tuple[LiteralString, Values]
"""SQL as the driver takes it, with the values of its placeholders."""
Closing = list[Statement]
"""Statements whose answers nobody reads: they are sent in one go with the COMMIT, which is not carried out where one fails."""


class Row(Protocol):
    """A row as `Connection.execute` returns it: a tuple whose columns have names."""

    def __getattr__(self, column: str) -> Any: ...
    def __getitem__(self, place: int) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


@lru_cache(maxsize=4096)
def text(statement: str) -> TextClause:
    """Return a statement. SQLAlchemy looks for its placeholders, and makes the key of its compiled form, once for each text instead
    of each time that it is carried out; what it returns is never changed."""
    return parse(statement)
