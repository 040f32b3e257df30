"""A ledger on real Postgres with two writers at work on it, as two processes would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest

from servers.runtime.db import Database
from servers.wallets import store
from servers.wallets.chain import ChainKeys
from servers.wallets.domain import Account, AccountKind, Verdict, account_id
from servers.wallets.facts import Fact
from servers.wallets.writer import Posted, Writer
from tests.support.postgres import MakeDatabase

CHAIN_KEYS: Final = ChainKeys([bytes(range(32))])


@dataclass(frozen=True, slots=True)
class TwoWriters:
    """The database and its writers; jobs go to them in turn."""

    db: Database
    writers: tuple[Writer, Writer]

    async def tell(self, fact: Fact, *, writer: int = 0) -> Verdict:
        """Book a fact by one of the writers."""
        posted: Posted = await self.writers[writer % 2].post_fact(fact)
        return posted.verdicts[0][0]

    async def together(self, *facts: Fact) -> list[Verdict]:
        """Book facts at once, in turn by each writer."""
        return list(await asyncio.gather(*(self.tell(fact, writer=number) for number, fact in enumerate(facts))))

    async def account(self, owner: str, kind: AccountKind, currency: str = "USD") -> Account:
        """Return an account."""
        async with self.db.read() as conn:
            return (await store.accounts(conn, [account_id(owner, kind, currency)]))[0]

    async def open(self, *kinds: tuple[str, AccountKind, str]) -> None:
        """Open accounts, as who makes a wallet does."""
        async with self.db.uow() as uow:
            await store.open_accounts(uow.conn, kinds, self.db.clock.now())


@pytest.fixture
async def two_writers(make_database: MakeDatabase) -> AsyncIterator[TwoWriters]:
    """Return a ledger with two writers at work."""
    db = await make_database("wallets")
    writers = (
        Writer(db, keys=CHAIN_KEYS, queue_max=2000, batch_max=100),
        Writer(db, keys=CHAIN_KEYS, queue_max=2000, batch_max=100),
    )
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    yield TwoWriters(db, writers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
