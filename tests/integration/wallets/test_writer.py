"""The writer on real Postgres: concurrent, idempotent, and correct with two of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from servers.kernel.clock import SystemClock
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import Money
from servers.runtime.db import Database
from servers.wallets import store
from servers.wallets.domain import PLATFORM, AccountKind, Transfer, TransferKind, Verdict, account_id
from servers.wallets.facts import CaptureFact, RefundCreatedFact, RefundFailedFact, SettlementFact
from servers.wallets.writer import LedgerOverloaded, Writer
from tests.support.ledger import CHAIN_KEYS
from tests.support.postgres import MakeDatabase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = SystemClock()


@pytest.fixture
async def ledger(make_database: MakeDatabase) -> AsyncIterator[tuple[Database, Writer, Writer]]:
    """Return a database with two writers at work on it."""
    db = await make_database("wallets")
    writers = [Writer(db, keys=CHAIN_KEYS, queue_max=2000, batch_max=100) for _ in range(2)]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    yield db, writers[0], writers[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def usd(amount: int) -> Money:
    """Return dollars in cents."""
    return Money(amount_minor=amount, currency="USD")


def capture_of(merchant: str, amount: int = 2500, fee: int = 63) -> CaptureFact:
    """Return a capture."""
    return CaptureFact(
        capture_id=new_id("cap", clock=CLOCK),
        payment_id=new_id("pay", clock=CLOCK),
        merchant_id=merchant,
        amount=usd(amount),
        fee=usd(fee),
        capture_time=NOW,
    )


async def balances(db: Database, owner: str) -> dict[AccountKind, int]:
    """Return an owner's balances."""
    async with db.read() as conn:
        return {account.kind: account.balance for account in await store.accounts_of_owner(conn, owner)}


async def test_a_capture_is_booked_once_by_whoever_tells_of_it(ledger: tuple[Database, Writer, Writer]) -> None:
    db, one, two = ledger
    fact = capture_of(new_id("mer", clock=CLOCK))
    posted = await asyncio.gather(*(writer.post_fact(fact) for writer in (one, two) * 16))
    verdicts = [p.verdicts[0][0] for p in posted]
    assert verdicts.count(Verdict.CREATED) == 1
    assert verdicts.count(Verdict.EXISTS) == 31
    assert (await balances(db, fact.merchant_id))[AccountKind.MERCHANT_PENDING] == 2437
    assert (await balances(db, PLATFORM))[AccountKind.PLATFORM_FEES] == 63


async def test_a_refund_takes_pending_money_first_and_gives_back_where_it_took(
    ledger: tuple[Database, Writer, Writer],
) -> None:
    db, writer, _ = ledger
    fact = capture_of(new_id("mer", clock=CLOCK))
    refund_id = new_id("ref", clock=CLOCK)
    refund = RefundCreatedFact(refund_id=refund_id, amount=usd(2500), captures=(fact,), create_time=NOW)
    # The refund arrives before the capture's own event: it books the capture first.
    assert (await writer.post_fact(refund)).verdicts[0][0] is Verdict.CREATED
    assert (await writer.post_fact(fact)).verdicts[0][0] is Verdict.EXISTS
    merchant = await balances(db, fact.merchant_id)
    assert (merchant[AccountKind.MERCHANT_PENDING], merchant[AccountKind.MERCHANT_AVAILABLE]) == (0, -63)
    failed = RefundFailedFact(refund_id=refund_id, merchant_id=fact.merchant_id, fail_time=NOW)
    assert (await writer.post_fact(failed)).verdicts[0][0] is Verdict.CREATED
    assert (await writer.post_fact(failed)).verdicts[0][0] is Verdict.EXISTS
    merchant = await balances(db, fact.merchant_id)
    assert (merchant[AccountKind.MERCHANT_PENDING], merchant[AccountKind.MERCHANT_AVAILABLE]) == (2437, 0)
    assert (await balances(db, PLATFORM))[AccountKind.REFUNDS_IN_TRANSIT] == 0


async def funded_wallet(db: Database, writer: Writer, amount: int) -> tuple[str, str]:
    """Return a customer's wallet with money in it, and the platform account that it came from."""
    owner = new_id("usr", clock=CLOCK)
    kinds = [(owner, AccountKind.CUSTOMER_WALLET, "USD"), (PLATFORM, AccountKind.PROCESSOR_CLEARING, "USD")]
    async with db.uow() as uow:
        await store.open_accounts(uow.conn, kinds, NOW)
    wallet, clearing = (account_id(*kind) for kind in kinds)
    assert await writer.post([move(clearing, wallet, amount)]) == [(Verdict.CREATED, "")]
    return wallet, clearing


def move(debit: str, credit: str, amount: int, **more: object) -> Transfer:
    """Return a transfer with a fresh id."""
    fields: dict[str, object] = {
        "id": new_id("trf", clock=CLOCK, bucket=bucket_of(debit)),
        "debit_account_id": debit,
        "credit_account_id": credit,
        "amount_minor": amount,
        "currency": "USD",
        "code": "test",
        "kind": TransferKind.POSTED,
        "fact_id": "test",
        "effective_time": NOW,
    }
    return Transfer(**(fields | more))  # type: ignore[arg-type]  # fields by name


async def test_two_writers_never_spend_the_same_money_twice(ledger: tuple[Database, Writer, Writer]) -> None:
    db, one, two = ledger
    wallet, clearing = await funded_wallet(db, one, 100)
    spends = [(one if n % 2 else two).post([move(wallet, clearing, 7)]) for n in range(40)]
    verdicts = [result[0][0] for result in await asyncio.gather(*spends)]
    assert verdicts.count(Verdict.CREATED) == 14
    assert verdicts.count(Verdict.INSUFFICIENT_FUNDS) == 26
    async with db.read() as conn:
        account = (await store.accounts(conn, [wallet]))[0]
        versions = (
            await conn.execute(
                text("SELECT account_version FROM entries WHERE account_id = :id ORDER BY 1"), {"id": wallet}
            )
        ).scalars()
        assert list(versions) == list(range(1, 16))
    assert account.balance == 2


async def test_an_expired_hold_gives_its_money_back_by_itself(ledger: tuple[Database, Writer, Writer]) -> None:
    db, writer, _ = ledger
    wallet, clearing = await funded_wallet(db, writer, 100)
    soon = CLOCK.now() + timedelta(milliseconds=300)
    held = move(wallet, clearing, 60, kind=TransferKind.PENDING, expire_time=soon)
    assert (await writer.post([held]))[0][0] is Verdict.CREATED
    assert await writer.void_expired() == 0
    async with asyncio.timeout(5):
        while not await writer.void_expired():
            await asyncio.sleep(0.05)
    async with db.read() as conn:
        assert (await store.accounts(conn, [wallet]))[0].available == 100


async def test_a_full_queue_sheds_at_once(make_database: MakeDatabase) -> None:
    writer = Writer(await make_database("wallets"), keys=CHAIN_KEYS, queue_max=10, batch_max=10)
    wallet, clearing = (account_id(PLATFORM, kind, "USD") for kind in (AccountKind.SUSPENSE, AccountKind.PLATFORM_FEES))
    # Nobody drains this writer's queue, so these wait in it until they are cancelled.
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(writer.post([move(wallet, clearing, 1) for _ in range(10)]))
        await asyncio.sleep(0)
        with pytest.raises(LedgerOverloaded):
            await writer.post([move(wallet, clearing, 1)])
        waiting.cancel()


@pytest.mark.parametrize(("table", "index"), [("accounts", "accounts_"), ("transfers", "transfers_pkey")])
async def test_the_ledgers_role_always_takes_the_keys(make_database: MakeDatabase, table: str, index: str) -> None:
    db = await make_database("wallets")
    async with db.read() as conn:
        plan = "\n".join(
            (
                await conn.execute(
                    text(
                        "EXPLAIN SELECT a.id FROM unnest(ARRAY[1]::smallint[], ARRAY['acc_1']) AS k(bucket, id) "
                        f"JOIN {table} a ON a.bucket = k.bucket AND a.id = k.id"
                    )
                )
            ).scalars()
        )
    assert "Seq Scan" not in plan
    assert f"using {index}" in plan


async def test_what_a_transfer_says_is_kept_to_the_letter(ledger: tuple[Database, Writer, Writer]) -> None:
    db, writer, _ = ledger
    wallet, clearing = await funded_wallet(db, writer, 100)
    odd = ["", "NULL", "null", 'a"b', "a\\b", "{a,b}", "a','b", "é\r\t ", '\\"']
    moves = [move(clearing, wallet, 1, code=f"c{n}", fact_id=text) for n, text in enumerate(odd)]
    assert {verdict for verdict, _ in await writer.post(moves)} == {Verdict.CREATED}
    assert {verdict for verdict, _ in await writer.post(moves)} == {Verdict.EXISTS}
    async with db.read() as conn:
        assert await store.transfers(conn, [m.id for m in moves]) == {m.id: m for m in moves}


async def test_a_lost_connection_costs_nobody_an_answer_for_long(ledger: tuple[Database, Writer, Writer]) -> None:
    db, writer, _ = ledger
    wallet, clearing = await funded_wallet(db, writer, 100)
    async with db.uow() as uow:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        await uow.conn.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    moves = [move(clearing, wallet, 1) for _ in range(5)]
    results = await asyncio.gather(*(writer.post([m]) for m in moves))
    assert [result[0][0] for result in results] == [Verdict.CREATED] * 5


def refund_of(*captures: CaptureFact, amount: int) -> RefundCreatedFact:
    """Return a refund."""
    return RefundCreatedFact(
        refund_id=new_id("ref", clock=CLOCK), amount=usd(amount), captures=tuple(captures), create_time=NOW
    )


async def test_pending_money_becomes_available_once_when_it_is_due(ledger: tuple[Database, Writer, Writer]) -> None:
    db, one, two = ledger
    merchant = new_id("mer", clock=CLOCK)
    captures = [capture_of(merchant) for _ in range(3)]
    for capture in captures:
        await one.post_fact(capture)
    await one.post_fact(refund_of(captures[0], amount=437))
    await asyncio.gather(one.settle_due(), two.settle_due(), one.settle_due())
    held = await balances(db, merchant)
    assert held[AccountKind.MERCHANT_PENDING] == 0
    assert held[AccountKind.MERCHANT_AVAILABLE] == 3 * 2437 - 437
    assert await one.settle_due() == 0


async def test_money_is_not_available_before_its_time(ledger: tuple[Database, Writer, Writer]) -> None:
    db, one, _ = ledger
    merchant = new_id("mer", clock=CLOCK)
    fresh = replace(capture_of(merchant), capture_time=CLOCK.now())
    await one.post_fact(fresh)
    assert await one.settle_due() == 0
    assert (await balances(db, merchant))[AccountKind.MERCHANT_PENDING] == 2437


async def test_a_refund_after_the_settlement_takes_available_money_and_gives_it_back_there(
    ledger: tuple[Database, Writer, Writer],
) -> None:
    db, one, _ = ledger
    merchant = new_id("mer", clock=CLOCK)
    capture = capture_of(merchant)
    await one.post_fact(capture)
    early = refund_of(capture, amount=1000)
    await one.post_fact(early)  # takes pending money
    await one.settle_due()
    late = refund_of(capture, amount=500)
    await one.post_fact(late)  # takes available money
    assert (await balances(db, merchant))[AccountKind.MERCHANT_AVAILABLE] == 2437 - 1500
    for refund in (early, late):
        failed = RefundFailedFact(refund_id=refund.refund_id, merchant_id=merchant, fail_time=NOW)
        await one.post_fact(failed)
    held = await balances(db, merchant)
    assert (held[AccountKind.MERCHANT_PENDING], held[AccountKind.MERCHANT_AVAILABLE]) == (0, 2437)


async def test_a_settlement_and_a_refund_at_once_never_take_the_same_money_twice(
    ledger: tuple[Database, Writer, Writer],
) -> None:
    db, one, two = ledger
    for _ in range(10):
        merchant = new_id("mer", clock=CLOCK)
        capture = capture_of(merchant)
        await one.post_fact(capture)
        settlement = SettlementFact(
            capture_id=capture.capture_id, merchant_id=merchant, currency="USD", settle_time=NOW
        )
        await asyncio.gather(one.post_fact(settlement), two.post_fact(refund_of(capture, amount=700)))
        held = await balances(db, merchant)
        assert (held[AccountKind.MERCHANT_PENDING], held[AccountKind.MERCHANT_AVAILABLE]) == (0, 1737)


async def test_a_refund_and_its_end_at_once_leave_nothing_in_transit(ledger: tuple[Database, Writer, Writer]) -> None:
    db, one, two = ledger
    verdicts = []
    for number in range(20):
        capture = capture_of(new_id("mer", clock=CLOCK))
        await one.post_fact(capture)
        refund = refund_of(capture, amount=700)
        ended = RefundFailedFact(refund_id=refund.refund_id, merchant_id=capture.merchant_id, fail_time=NOW)
        facts = (refund, ended) if number % 2 else (ended, refund)
        writers = (one, two) if number % 4 < 2 else (two, one)
        await asyncio.gather(*(writer.post_fact(fact) for writer, fact in zip(writers, facts, strict=True)))
        # Whoever tells of either again changes nothing.
        verdicts.append((await two.post_fact(refund)).verdicts[0][0])
        await one.post_fact(ended)
        held = await balances(db, capture.merchant_id)
        assert (held[AccountKind.MERCHANT_PENDING], held[AccountKind.MERCHANT_AVAILABLE]) == (2437, 0)
        assert (await balances(db, PLATFORM))[AccountKind.REFUNDS_IN_TRANSIT] == 0
    assert set(verdicts) <= {Verdict.EXISTS, Verdict.BURNT}
