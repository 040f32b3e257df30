"""Calls of other servers that end with their callers, in the middle of what they do: whatever they had begun is undone, their
connection works on, and the repeat, under the ids that the caller made, does it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from paymesh.wallets.v1 import ledger_pb2
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool

from servers.kernel.clock import SystemClock
from servers.kernel.ids import new_id
from servers.runtime.db import Database
from servers.runtime.policy import policies_of
from servers.wallets import store
from servers.wallets.domain import AccountKind
from servers.wallets.service import LedgerService
from tests.support.ledger import TwoWriters

CLOCK = SystemClock()
A = ledger_pb2.Account


def asked(*owners: str) -> ledger_pb2.CreateAccountsRequest:
    """Return a request for an account of each."""
    accounts = [A(owner_id=owner, kind=A.MERCHANT_AVAILABLE, currency="USD") for owner in owners]
    return ledger_pb2.CreateAccountsRequest(accounts=accounts)


def merchants(number: int) -> list[str]:
    """Return that many ids."""
    return [new_id("mer", clock=CLOCK) for _ in range(number)]


async def opened(db: Database, owners: list[str]) -> int:
    """Return how many accounts these have."""
    statement = text("SELECT count(*) FROM accounts WHERE owner_id = ANY(:owners)")
    async with db.read() as conn:
        return int((await conn.execute(statement, {"owners": owners})).scalar_one())


async def check_healthy(db: Database) -> None:
    """No connection is lost to the pool or stands in a transaction, and each of them works."""
    pool = db.engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    busy = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND (state LIKE 'idle in transaction%' OR wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(5):
        while True:
            async with db.read() as conn:
                left = (await conn.execute(busy)).scalar_one()
            if not left and pool.checkedout() <= 1:  # the presence of the process is one
                return
            await asyncio.sleep(0.01)


def test_these_calls_end_with_their_callers() -> None:
    policies = policies_of([ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"]])
    torn = {name.rpartition("/")[2] for name, policy in policies.items() if policy.repeatable}
    assert torn == {"CreateAccounts", "PostTransfers", "PostFact"}


async def cut(task: asyncio.Task[ledger_pb2.CreateAccountsResponse], *, times: int) -> None:
    """Cancel a call: its deadline passes, and its caller hangs up besides."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_accounts_that_wait_for_another_transaction_are_not_opened_by_half(
    two_writers: TwoWriters, times: int
) -> None:
    db, (held, *free) = two_writers.db, merchants(3)
    ledger = LedgerService(db, two_writers.writers[0])
    async with db.uow() as other:
        await store.open_accounts(other.conn, [(held, AccountKind.MERCHANT_AVAILABLE, "USD")], CLOCK.now())
        task = asyncio.create_task(ledger.CreateAccounts(asked(*free, held), None))
        done, _ = await asyncio.wait({task}, timeout=0.2)
        assert not done
        await cut(task, times=times)
        assert task.cancelled()
    await check_healthy(db)
    assert await opened(db, free) == 0
    again = await ledger.CreateAccounts(asked(*free, held), None)
    assert [result.verdict for result in again.results] == [ledger_pb2.CREATED, ledger_pb2.CREATED, ledger_pb2.EXISTS]


@pytest.mark.parametrize("times", [1, 2])
async def test_accounts_that_are_cut_anywhere_are_opened_whole_or_not_at_all(
    two_writers: TwoWriters, times: int
) -> None:
    db, ledger = two_writers.db, LedgerService(two_writers.db, two_writers.writers[0])
    ends = set()
    for turns in range(0, 60, 2):
        owners = merchants(3)
        task = asyncio.create_task(ledger.CreateAccounts(asked(*owners), None))
        for _ in range(turns):
            await asyncio.sleep(0)
            if turns > 20:
                await asyncio.sleep(0.0002)
        await cut(task, times=times)
        made = await opened(db, owners)
        assert made in (0, 3)
        ends.add((task.cancelled(), made))
        again = await ledger.CreateAccounts(asked(*owners), None)
        assert len({result.verdict for result in again.results}) == 1
        assert await opened(db, owners) == 3
    assert {(True, 0), (False, 3)} <= ends, "some are cut, some are through"
    await check_healthy(db)
