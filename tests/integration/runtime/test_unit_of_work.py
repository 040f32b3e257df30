"""A unit of work: its first statement travels with BEGIN, and is part of the transaction all the same, however it ends."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from servers.runtime.connection import Connection
from tests.integration.runtime.test_lane import rows
from tests.support.postgres import MakeDatabase


async def see(conn: Connection, event_id: str) -> None:
    """Write an inbox row."""
    await conn.execute(text("INSERT INTO inbox VALUES ('uow', :id, now())"), {"id": event_id})


async def test_the_first_statement_is_undone_with_the_rest(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    with pytest.raises(ZeroDivisionError):
        async with db.uow() as uow:
            await see(uow.conn, "a")
            await see(uow.conn, "b")
            raise ZeroDivisionError
    assert await rows(db) == []


async def test_the_first_statement_sees_nothing_of_others_until_they_commit(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    async with db.uow() as uow, db.uow() as other:
        await see(uow.conn, "a")
        assert (await other.conn.execute(text("SELECT count(*) FROM inbox"))).scalar_one() == 0
        # One transaction each, begun by the statement before.
        began = text("SELECT now(), pg_backend_pid()")
        assert (await uow.conn.execute(began)).one() != (await other.conn.execute(began)).one()
    assert await rows(db) == ["a"]


async def test_a_first_statement_that_fails_leaves_its_connection_usable(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    for _ in range(12):  # more than the pool has connections
        async with db.uow() as uow:
            with pytest.raises(DBAPIError, match="division by zero"):
                await uow.conn.execute(text("SELECT 1 / 0"))
            await uow.conn.rollback()
    async with db.uow() as uow:
        await see(uow.conn, "a")
    for _ in range(12):
        with pytest.raises(IntegrityError):
            async with db.uow() as uow:
                await see(uow.conn, "a")
    assert await rows(db) == ["a"]


async def test_a_first_statement_that_is_cancelled_leaves_nothing(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")

    async def slow() -> None:
        async with db.uow() as uow:
            await uow.conn.execute(
                text("WITH s AS (SELECT pg_sleep(2)) INSERT INTO inbox SELECT 'uow', 'x', now() FROM s")
            )

    for number in range(24):
        task = asyncio.create_task(slow())
        # At once, while BEGIN is on its way, and while the statement runs.
        await asyncio.sleep(number / 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with db.uow() as uow:
            await see(uow.conn, f"{number:02}")
    assert await rows(db) == [f"{number:02}" for number in range(24)]


async def test_a_first_statement_on_a_broken_connection_is_told_as_such(make_database: MakeDatabase) -> None:
    db = await make_database("wallets")
    async with db.read() as conn:
        async with db.uow() as uow:
            pid = (await uow.conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DBAPIError) as failed:
            async with db.uow() as uow:
                await see(uow.conn, "a")
    assert failed.value.connection_invalidated
    async with db.uow() as uow:
        await see(uow.conn, "b")
    assert await rows(db) == ["b"]
