"""A connection: what waits for the next statement is part of the transaction all the same, and what went wrong is told in time."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from servers.kernel.errors import ConcurrentUpdate
from servers.kernel.invariant import InvariantBroken
from servers.runtime.connection import Connection, transaction
from servers.runtime.db import Database
from servers.runtime.sql import text
from tests.integration.runtime.test_lane import rows
from tests.support.postgres import MakeDatabase

SEE = text("INSERT INTO inbox VALUES ('conn', :id, now())")
SEE_FIRST = text("INSERT INTO inbox VALUES ('conn', :id, now()) ON CONFLICT DO NOTHING")
SEE_NUMBERED = text("INSERT INTO inbox SELECT 'conn', :id || count(*), now() FROM inbox")
COUNT = text("SELECT count(*) AS many FROM inbox")


@pytest.fixture
async def db(make_database: MakeDatabase) -> Database:
    """Return a database with an empty inbox."""
    return await make_database("wallets")


def see(conn: Connection, *event_ids: str) -> None:
    """Write inbox rows."""
    for event_id in event_ids:
        conn.write(SEE, {"id": event_id})


async def test_the_next_statement_sees_what_was_written_before_it(db: Database) -> None:
    async with db.uow() as uow:
        see(uow.conn, "a", "b")
        assert (await uow.conn.execute(COUNT)).one().many == 2
        see(uow.conn, "c")
        assert await rows(db) == []
    assert await rows(db) == ["a", "b", "c"]


async def test_what_nobody_reads_any_more_is_written_with_the_commit(db: Database) -> None:
    async with db.uow() as uow:
        see(uow.conn, "a")
    async with transaction(db.engine) as conn:
        see(conn, "b")
    assert await rows(db) == ["a", "b"]


async def test_an_exception_undoes_what_was_written_and_forgets_what_waits(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.uow() as uow:
            see(uow.conn, "a")
            await uow.conn.execute(COUNT)
            see(uow.conn, "b")
            raise ZeroDivisionError
    async with db.uow() as uow:
        see(uow.conn, "c")
    assert await rows(db) == ["c"]


@pytest.mark.parametrize("is_read_after", [False, True])
async def test_where_not_exactly_one_row_changed_nothing_is_committed(db: Database, is_read_after: bool) -> None:
    with pytest.raises(ConcurrentUpdate):
        async with db.uow() as uow:
            see(uow.conn, "a")
            uow.conn.write(SEE_FIRST, {"id": "a"}, one_of="a")
            see(uow.conn, "c")
            if is_read_after:
                await uow.conn.execute(COUNT)
                raise AssertionError("the read ought to have told")
    assert await rows(db) == []


async def test_a_refused_write_is_told_by_the_commit_and_the_connection_works_on(db: Database) -> None:
    for _ in range(24):  # more than the pool has connections
        with pytest.raises(IntegrityError):
            async with db.uow() as uow:
                see(uow.conn, "a", "a")
    async with db.uow() as uow:
        see(uow.conn, "b")
    assert await rows(db) == ["b"]


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_savepoint_undoes_what_came_after_it_sent_or_not(db: Database, is_sent: bool) -> None:
    async with db.uow() as uow:
        see(uow.conn, "before")
        uow.conn.savepoint("here")
        see(uow.conn, "after")
        if is_sent:
            await uow.conn.execute(COUNT)
            see(uow.conn, "at last")
        await uow.conn.undo_to("here")
        see(uow.conn, "then")
    assert await rows(db) == ["before", "then"]


async def test_outside_of_a_transaction_nothing_may_wait(db: Database) -> None:
    async with db.autocommit() as conn:
        with pytest.raises(InvariantBroken):
            see(conn, "a")
    assert await rows(db) == []


async def test_the_rows_of_one_statement_are_written_in_order(db: Database) -> None:
    async with db.uow() as uow:
        await uow.conn.execute_each(SEE_NUMBERED, [{"id": "b"}, {"id": "a"}])
        await uow.conn.execute_each(SEE, [])
    assert await rows(db) == ["a1", "b0"]


async def test_a_result_of_another_number_of_rows_than_asked_for_is_never_passed_on(db: Database) -> None:
    several = text("SELECT * FROM (VALUES (1), (2)) AS v(n) WHERE n <= :most")
    async with db.read() as conn:
        assert (await conn.execute(several, {"most": 2})).scalars() == [1, 2]
        assert (await conn.execute(several, {"most": 1})).one().n == 1
        assert (await conn.execute(several, {"most": 0})).one_or_none() is None
        for wrong in (0, 2):
            with pytest.raises(InvariantBroken):
                (await conn.execute(several, {"most": wrong})).one()
        with pytest.raises(InvariantBroken):
            (await conn.execute(several, {"most": 2})).one_or_none()


async def test_where_one_connection_broke_the_others_are_looked_at_before_they_are_used(db: Database) -> None:
    opened = [await Connection.of(db.engine) for _ in range(6)]
    pids = [await conn.scalar(text("SELECT pg_backend_pid()")) for conn in opened]
    for conn in opened:
        await conn.close()
    async with transaction(db.engine) as killer:
        mine = await killer.scalar(text("SELECT pg_backend_pid()"))
        kill = text("SELECT pg_terminate_backend(pid) FROM unnest(CAST(:pids AS int[])) AS pid WHERE pid <> :mine")
        await killer.execute(kill, {"pids": pids, "mine": mine})
    failures: list[DBAPIError] = []
    for _ in range(12):
        try:
            async with db.uow() as one, db.uow() as two:
                await one.conn.execute(COUNT)
                await two.conn.execute(COUNT)
        except DBAPIError as error:
            failures.append(error)
    assert all(error.connection_invalidated for error in failures)
    assert len(failures) <= 2  # the first, and the one that was checked out beside it
