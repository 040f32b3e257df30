"""Whether every statement that a test carried out finds its rows by an index: what scans a table is quick in a test, and grows with
the business."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, LiteralString

import psycopg
import pytest
from sqlalchemy import TextClause

from dev.paths import ROOT
from servers.runtime import connection
from servers.runtime.connection import Connection
from servers.runtime.sql import Statement

_seen: dict[str, set[str]] = {}
"""The statements of each database that were not looked at yet."""
_good: Final[set[str]] = set()
SMALL: Final = frozenset({"claims", "heads", "members", "outbox", "reconciliation_progress", "stripe_event_cursor"})
"""Tables of a few rows each, however long the business goes on; the outbox is empty most of the time."""

WHOLE: Final = ("WITH mirrored AS (",)
"""How statements begin that add a whole table up: Stripe's balance against all of its lines, once in a round of reconciliation."""


def watch(patch: pytest.MonkeyPatch) -> None:
    """Note every statement of a server's own code, not what tests look with."""
    parse, send = connection._as_the_driver_takes_it, Connection.send

    def parsed(statement: TextClause) -> LiteralString:
        text = parse(statement)
        method: FrameType | None = sys._getframe(1)
        while method is not None and "self" not in method.f_locals:  # a comprehension
            method = method.f_back
        assert method is not None
        _note(method.f_locals["self"], text, method.f_back)
        return text

    def sent(self: Connection, *statements: Statement) -> Any:
        for text, _ in statements:
            _note(self, text, sys._getframe(1))
        return send(self, *statements)

    patch.setattr(connection, "_as_the_driver_takes_it", parsed)
    patch.setattr(Connection, "send", sent)


def _note(conn: Connection, text: str, caller: FrameType | None) -> None:
    while caller is not None and caller.f_code.co_filename == connection.__file__:
        caller = caller.f_back
    if text not in _good and caller is not None and Path(caller.f_code.co_filename).is_relative_to(ROOT / "servers"):
        _seen.setdefault(str(conn._pooled.engine.url.database), set()).add(text)


async def scans(url: str, database: str) -> list[str]:
    """Return the statements of a database, carried out since the last look, that do not go by an index."""
    found = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(
            "SET enable_seqscan = off; SET enable_mergejoin = off; SET enable_hashjoin = off; SET search_path = public, jobs"
        )
        for text in _seen.pop(database, set()):
            if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", text) or text.strip().startswith(WHOLE):
                continue
            cursor = await conn.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_numbered(text)}", prepare=False)
            row = await cursor.fetchone()
            assert row is not None
            bad = sorted({what async for what in _bad(conn, row[0][0]["Plan"])})
            if bad:
                found.append(f"{', '.join(bad)}: {' '.join(text.split())}")
            else:
                _good.add(text)
    return found


def _numbered(text: str) -> str:
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match.group(1) or f"#{len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return re.sub(r"%(?:\((\w+)\))?s", number, text).replace("%%", "%")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _bad(conn: psycopg.AsyncConnection[Any], plan: dict[str, Any]) -> AsyncIterator[str]:
    for node in _nodes(plan):
        table = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and table not in SMALL:
            yield f"{table} is scanned"
        elif "Index Name" in node and table not in SMALL:
            first = await _first_column(conn, node["Index Name"])
            if first and not re.search(rf"\b{first}\b", node.get("Index Cond", "")):
                yield f"{node['Index Name']} is walked through"


async def _first_column(conn: psycopg.AsyncConnection[Any], index: str) -> str:
    """Return the column that an index begins with, or nothing for one of some rows only."""
    cursor = await conn.execute(
        "SELECT CASE WHEN indpred IS NULL THEN pg_get_indexdef(indexrelid, 1, true) ELSE '' END FROM pg_index"
        " WHERE indexrelid = %s::regclass",
        (index,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0]).strip('"')
