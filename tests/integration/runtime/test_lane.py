"""The lane: statements that travel together are one transaction, and its commit is never believed where it did not happen."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from servers.kernel.invariant import InvariantBroken
from servers.runtime.db import Database
from servers.runtime.sql import Statement
from tests.support.postgres import MakeDatabase


def seen(event_id: str) -> Statement:
    """Return the statement that writes an inbox row."""
    return "INSERT INTO inbox (consumer, event_id, receive_time) VALUES ('lane', %s, now())", (event_id,)


async def rows(db: Database) -> list[str]:
    """Return what is committed."""
    async with db.read() as conn:
        return list((await conn.execute(text("SELECT event_id FROM inbox ORDER BY event_id"))).scalars())


async def test_all_that_a_transaction_sends_is_committed_together(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    lane = db.lane()
    async with lane.transaction():
        await lane.conn.execute(text("INSERT INTO inbox VALUES ('lane', 'a', now())"))
        first, second = await lane.conn.send(("SELECT event_id FROM inbox", ()), ("SELECT 1 + %s", (1,)))
        assert (first, second) == ([("a",)], [(2,)])
        lane.close_with(seen("b"), seen("c"))
        assert await rows(db) == []
    assert await rows(db) == ["a", "b", "c"]
    await lane.close()


async def test_where_a_closing_statement_fails_nothing_is_committed_and_the_lane_goes_on(
    make_database: MakeDatabase,
) -> None:
    db = await make_database("wallets")
    lane = db.lane()
    with pytest.raises(IntegrityError):
        async with lane.transaction():
            await lane.conn.send(seen("a"))
            lane.close_with(seen("b"), seen("a"), seen("c"))
    assert await rows(db) == []
    async with lane.transaction():
        lane.close_with(seen("d"))
    assert await rows(db) == ["d"]
    await lane.close()


async def test_an_exception_of_the_body_undoes_what_was_sent_and_forgets_what_was_not(
    make_database: MakeDatabase,
) -> None:
    db = await make_database("wallets")
    lane = db.lane()
    with pytest.raises(ZeroDivisionError):
        async with lane.transaction():
            await lane.conn.send(seen("a"))
            lane.close_with(seen("b"))
            raise ZeroDivisionError
    async with lane.transaction():
        await lane.conn.send(seen("c"))
    assert await rows(db) == ["c"]
    await lane.close()


async def test_a_transaction_that_has_failed_unnoticed_does_not_pass_for_committed(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    lane = db.lane()
    with pytest.raises(InvariantBroken):
        async with lane.transaction():
            await lane.conn.send(seen("a"))
            with pytest.raises(DBAPIError):
                await lane.conn.execute(text("SELECT 1 / 0"))
    assert await rows(db) == []
    await lane.close()


async def test_a_connection_that_broke_is_told_as_such_and_replaced(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    lane = db.lane()
    with pytest.raises(DBAPIError) as failed:
        async with lane.transaction():
            [[(pid,)]] = await lane.conn.send(("SELECT pg_backend_pid()", ()))
            async with db.read() as conn:
                await conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            lane.close_with(seen("a"))
    assert failed.value.connection_invalidated
    async with lane.transaction():
        lane.close_with(seen("b"))
    assert await rows(db) == ["b"]
    await lane.close()
