"""Returned fees and settlement delays on real Postgres, with two writers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from servers.audit.invariants import SETTLEMENT, WALLETS
from servers.kernel.clock import ManualClock, SystemClock
from servers.kernel.ids import new_id
from servers.kernel.money import Money
from servers.runtime.db import Database
from servers.wallets import store
from servers.wallets.domain import PLATFORM, AccountKind, Verdict
from servers.wallets.facts import CaptureFact, RefundCreatedFact, RefundFailedFact, SettlementFact
from servers.wallets.writer import Writer
from tests.support.ledger import CHAIN_KEYS
from tests.support.postgres import TestPostgres, opened

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = SystemClock()


@dataclass(frozen=True)
class Ledger:
    """Two writers at work on one database, by a clock that is moved by hand."""

    db: Database
    clock: ManualClock
    one: Writer
    two: Writer

    async def both(self, fact: CaptureFact | RefundCreatedFact | RefundFailedFact | SettlementFact) -> set[Verdict]:
        """Tell both writers of a fact at once, several times over."""
        posted = await asyncio.gather(*(writer.post_fact(fact) for writer in (self.one, self.two) * 3))
        return {one.verdicts[0][0] for one in posted}

    async def own(self, merchant: str) -> tuple[int, int]:
        """Return a merchant's pending and available money."""
        async with self.db.read() as conn:
            held = {account.kind: account.balance for account in await store.accounts_of_owner(conn, merchant)}
        return held[AccountKind.MERCHANT_PENDING], held[AccountKind.MERCHANT_AVAILABLE]

    async def fees(self) -> int:
        """Return what the platform kept."""
        async with self.db.read() as conn:
            held = {account.kind: account.balance for account in await store.accounts_of_owner(conn, PLATFORM)}
        return held[AccountKind.PLATFORM_FEES]


@pytest.fixture
async def ledger(postgres: TestPostgres) -> AsyncIterator[Ledger]:
    """Return a ledger; at its end the books are right."""
    clock = ManualClock(NOW)
    db = await opened(postgres.url(postgres.copy("wallets"), "wallets"), "wallets", clock)
    writers = [Writer(db, keys=CHAIN_KEYS, queue_max=2000, batch_max=100) for _ in range(2)]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    yield Ledger(db, clock, *writers)
    async with db.read() as conn:
        for check in (*WALLETS, *SETTLEMENT):
            assert (await conn.execute(text(check.broken))).all() == [], check.title
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await db.dispose()


def usd(amount: int) -> Money:
    """Return cents."""
    return Money(amount_minor=amount, currency="USD")


def capture_of(merchant: str, *, delay: timedelta | None = None) -> CaptureFact:
    """Return a capture of 1000 with a fee of 100 that refunds return."""
    return CaptureFact(
        capture_id=new_id("cap", clock=IDS),
        payment_id=new_id("pay", clock=IDS),
        merchant_id=merchant,
        amount=usd(1000),
        fee=usd(100),
        capture_time=NOW,
        settlement_delay=delay,
        fee_returnable=True,
    )


def refund_of(amount: int, returned: int, *captures: CaptureFact) -> RefundCreatedFact:
    """Return a refund with what it returns of the fee."""
    return RefundCreatedFact(
        refund_id=new_id("ref", clock=IDS),
        amount=usd(amount),
        captures=captures,
        create_time=NOW,
        fee_returned_minor=returned,
    )


def failure_of(refund: RefundCreatedFact) -> RefundFailedFact:
    """Return the failure of a refund."""
    return RefundFailedFact(
        refund_id=refund.refund_id, merchant_id=refund.captures[0].merchant_id, fail_time=NOW + timedelta(hours=1)
    )


async def test_a_full_refund_is_paid_by_the_payment_and_its_fee_and_fails_into_the_same(ledger: Ledger) -> None:
    capture = capture_of(merchant := new_id("mer", clock=IDS))
    refund = refund_of(1000, 100, capture)
    # The refund arrives before the capture's own event: it books the capture first.
    assert await ledger.both(refund) == {Verdict.CREATED, Verdict.EXISTS}
    assert await ledger.both(capture) == {Verdict.EXISTS}
    assert (await ledger.own(merchant), await ledger.fees()) == ((0, 0), 0)
    assert await ledger.both(failure_of(refund)) == {Verdict.CREATED, Verdict.EXISTS}
    assert (await ledger.own(merchant), await ledger.fees()) == ((900, 0), 100)


async def test_a_fee_of_settled_money_is_returned_to_what_is_available(ledger: Ledger) -> None:
    capture = capture_of(merchant := new_id("mer", clock=IDS))
    await ledger.both(capture)
    settlement = SettlementFact(capture_id=capture.capture_id, merchant_id=merchant, currency="USD", settle_time=NOW)
    await ledger.both(settlement)
    refund = refund_of(500, 50, capture)
    await ledger.both(refund)
    assert (await ledger.own(merchant), await ledger.fees()) == ((0, 450), 50)
    await ledger.both(failure_of(refund))
    assert (await ledger.own(merchant), await ledger.fees()) == ((0, 900), 100)


async def test_a_fee_that_was_returned_before_the_settlement_is_taken_back_after_it(ledger: Ledger) -> None:
    capture = capture_of(merchant := new_id("mer", clock=IDS))
    refund = refund_of(1000, 100, capture)
    await ledger.both(refund)
    await ledger.both(
        SettlementFact(capture_id=capture.capture_id, merchant_id=merchant, currency="USD", settle_time=NOW)
    )
    assert await ledger.own(merchant) == (0, 0)
    await ledger.both(failure_of(refund))
    assert (await ledger.own(merchant), await ledger.fees()) == ((0, 900), 100)


async def test_a_refund_that_was_tried_again_before_the_ledger_heard_of_the_failure_returns_the_fee_once(
    ledger: Ledger,
) -> None:
    capture = capture_of(merchant := new_id("mer", clock=IDS))
    first, second = refund_of(1000, 100, capture), refund_of(1000, 100, capture)
    await ledger.both(first)
    await ledger.both(second)  # its lot is empty: its fee and its money are the available balance's
    assert await ledger.own(merchant) == (0, -900)
    await ledger.both(failure_of(first))
    assert (await ledger.own(merchant), await ledger.fees()) == ((900, -900), 0)


@pytest.mark.parametrize("round_", range(3))
async def test_refunds_failures_and_a_settlement_at_once_keep_fees_and_lots_right(ledger: Ledger, round_: int) -> None:
    merchant = new_id("mer", clock=IDS)
    captures = (capture_of(merchant), capture_of(merchant))
    refunds = [refund_of(200, 20, *captures) for _ in range(10)]
    settlement = SettlementFact(
        capture_id=captures[round_ % 2].capture_id, merchant_id=merchant, currency="USD", settle_time=NOW
    )
    await ledger.both(refunds[0])
    await asyncio.gather(ledger.both(settlement), *(ledger.both(refund) for refund in refunds))
    assert (sum(await ledger.own(merchant)), await ledger.fees()) == (0, 0)
    await asyncio.gather(*(ledger.both(failure_of(refund)) for refund in refunds[::2]))
    assert (sum(await ledger.own(merchant)), await ledger.fees()) == (900, 100)


async def test_each_capture_is_pending_for_its_own_delay(ledger: Ledger) -> None:
    merchant = new_id("mer", clock=IDS)
    delays = (timedelta(0), timedelta(days=7), None)
    captures = [capture_of(merchant, delay=delay) for delay in delays]
    for capture in captures:
        await ledger.both(capture)
    pending = []
    for days in (0, 2, 5):
        ledger.clock.advance(timedelta(days=days))
        await asyncio.gather(ledger.one.settle_due(), ledger.two.settle_due())
        pending.append((await ledger.own(merchant))[0])
    # At once; after the ledger's own two days; after seven.
    assert pending == [1800, 900, 0]
