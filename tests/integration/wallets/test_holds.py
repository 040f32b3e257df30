"""Wallets' holds on real Postgres, with two writers at once: what is spent was there, and what ends, ends once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from servers.wallets.domain import PLATFORM, AccountKind, Verdict
from servers.wallets.facts import CaptureFact
from servers.wallets.wallet_facts import WalletHoldFact
from tests.support.ledger import TwoWriters
from tests.support.wallet_books import ANN, KINDS, MERCHANT, capture_of, hold_of, refund_of, top_up, usd, void_of

WALLET = AccountKind.CUSTOMER_WALLET


@pytest.fixture
async def ledger(two_writers: TwoWriters) -> TwoWriters:
    """Return a ledger in which Ann has 100.00 dollars."""
    await two_writers.open(*KINDS[:2])
    verdicts = await two_writers.together(*[top_up("first", 10_000)] * 8)
    assert sorted(v.value for v in verdicts) == ["CREATED"] + ["EXISTS"] * 7
    return two_writers


def living(name: str, amount: int, ledger: TwoWriters, **more: int) -> WalletHoldFact:
    """Return a hold that ends in an hour, or as said."""
    left = timedelta(**more) or timedelta(hours=1)
    return hold_of(name, amount, expire_time=ledger.db.clock.now() + left)


async def test_64_spends_of_the_whole_wallet_take_it_once(ledger: TwoWriters) -> None:
    captures = [capture_of(living(str(n), 10_000, ledger), str(n), 10_000, 100) for n in range(64)]
    verdicts = await ledger.together(*captures)
    assert verdicts.count(Verdict.CREATED) == 1
    assert verdicts.count(Verdict.INSUFFICIENT_FUNDS) == 63
    assert (await ledger.account(ANN, WALLET)).balance == 0
    assert (await ledger.account(MERCHANT, AccountKind.MERCHANT_PENDING)).balance == 9900
    # A late duplicate of a refused one cannot succeed, even where there is money again.
    await ledger.tell(top_up("second", 10_000))
    again = await ledger.together(*captures)
    assert again.count(Verdict.EXISTS) == 1
    assert again.count(Verdict.BURNT) == 63


async def test_holds_take_no_more_than_there_is(ledger: TwoWriters) -> None:
    holds = [living(str(n), 700, ledger) for n in range(40)]
    verdicts = await ledger.together(*holds)
    assert verdicts.count(Verdict.CREATED) == 14
    account = await ledger.account(ANN, WALLET)
    assert (account.balance, account.available) == (10_000, 200)


async def test_a_repeated_capture_with_its_hold_is_written_once(ledger: TwoWriters) -> None:
    capture = capture_of(living("a", 4000, ledger), "a", 1500, 50)
    verdicts = await ledger.together(*[capture] * 16)
    assert sorted(v.value for v in verdicts) == ["CREATED"] + ["EXISTS"] * 15
    account = await ledger.account(ANN, WALLET)
    assert (account.balance, account.available) == (8500, 6000)
    first, second = [await ledger.writers[0].post_fact(capture) for _ in range(2)]
    assert [t.id for t in first.transfers] == [t.id for t in second.transfers]
    assert len(first.transfers) == 2  # the hold is the attempt's


async def test_a_capture_and_a_void_at_once_have_one_winner(ledger: TwoWriters) -> None:
    for number in range(20):
        hold = living(str(number), 100, ledger)
        await ledger.tell(hold)
        capture, void = await ledger.together(capture_of(hold, str(number), 100), void_of(hold))
        assert (capture, void) in (
            (Verdict.CREATED, Verdict.EXISTS),
            (Verdict.PENDING_CLOSED, Verdict.CREATED),
        )
    account = await ledger.account(ANN, WALLET)
    assert account.balance == account.available


async def test_a_void_and_a_hold_that_never_was_have_one_winner(ledger: TwoWriters) -> None:
    outcomes = set()
    for number in range(30):
        hold = living(str(number), 100, ledger)
        facts = (hold, void_of(hold)) if number % 2 else (void_of(hold), hold)
        verdicts = await ledger.together(*facts)
        outcomes.add(verdicts[0 if number % 2 else 1])
        assert await ledger.tell(void_of(hold)) is Verdict.EXISTS
    assert outcomes <= {Verdict.CREATED, Verdict.BURNT}
    account = await ledger.account(ANN, WALLET)
    assert (account.balance, account.available) == (10_000, 10_000)
    async with ledger.db.read() as conn:
        both = await conn.scalar(text("SELECT count(*) FROM burnt JOIN transfers USING (bucket, id)"))
    assert both == 0


async def test_a_capture_racing_the_end_of_its_hold_takes_all_or_nothing(ledger: TwoWriters) -> None:
    async def capture_late(fact: CaptureFact, seconds: float) -> Verdict:
        await asyncio.sleep(seconds)
        return await ledger.tell(fact, writer=1)

    holds = [living(str(n), 100, ledger, milliseconds=400) for n in range(24)]
    await ledger.together(*holds)
    late = [capture_late(capture_of(hold, str(n), 100), 0.36 + n * 0.003) for n, hold in enumerate(holds)]
    racing = asyncio.gather(*late)
    while not racing.done():
        await ledger.writers[0].void_expired()
        await asyncio.sleep(0.01)
    verdicts = await racing
    assert set(verdicts) <= {Verdict.CREATED, Verdict.PENDING_EXPIRED}
    await ledger.writers[0].void_expired()
    account = await ledger.account(ANN, WALLET)
    assert account.balance == account.available == 10_000 - 100 * verdicts.count(Verdict.CREATED)


async def test_refunds_to_the_wallet_take_pending_money_and_then_available(ledger: TwoWriters) -> None:
    capture = capture_of(living("a", 4000, ledger), "a", 4000, 100)
    refunds = [refund_of(str(n), 1000, capture) for n in range(4)]
    # The first refund brings the capture with it.
    assert set(await ledger.together(*refunds, *refunds)) == {Verdict.CREATED, Verdict.EXISTS}
    assert (await ledger.account(ANN, WALLET)).balance == 10_000
    assert (await ledger.account(MERCHANT, AccountKind.MERCHANT_PENDING)).balance == 0
    assert (await ledger.account(MERCHANT, AccountKind.MERCHANT_AVAILABLE)).balance == -100
    assert (await ledger.account(PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)).balance == 0


async def test_what_a_wallet_paid_settles_like_what_a_card_paid(ledger: TwoWriters) -> None:
    hold = living("a", 4000, ledger)
    await ledger.tell(capture_of(hold, "a", 4000, 100))  # captured long ago
    await ledger.writers[0].settle_due()
    assert (await ledger.account(MERCHANT, AccountKind.MERCHANT_AVAILABLE)).balance == 3900


async def test_a_wallet_that_is_not_there_is_never_opened_by_a_fact(two_writers: TwoWriters) -> None:
    hold = living("a", 100, two_writers)
    verdicts = await two_writers.together(hold, capture_of(hold, "a", 100), top_up("a", 100))
    assert verdicts == [Verdict.ACCOUNT_NOT_FOUND] * 3
    await two_writers.open(KINDS[0])
    assert await two_writers.tell(replace(hold, amount=usd(1))) is Verdict.INSUFFICIENT_FUNDS
