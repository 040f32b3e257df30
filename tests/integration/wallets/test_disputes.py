"""Disputes in a ledger with two writers: by call and by event, once; held money is the merchant's or the user's no more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from paymesh.payments.v1 import payments_events_pb2, payments_pb2
from paymesh.wallets.v1 import ledger_pb2
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from servers.audit.invariants import SETTLEMENT, USERS_WALLETS, WALLETS
from servers.kernel.clock import SystemClock
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.eventlog import Delivered, EventRecord
from servers.runtime.render import money, stamp
from servers.wallets import store
from servers.wallets.domain import PLATFORM, AccountKind, Verdict, account_id
from servers.wallets.facts import CaptureFact
from servers.wallets.render import parse_fact, render_balances, render_line
from servers.wallets.render_wallets import render_statement_line
from tests.support.charging import Till
from tests.support.wallet_books import NOW, hold_of, usd

D = payments_pb2.Dispute
CLOCK = SystemClock()


def dispute_of(
    owner: str, amount: int, *, state: int = D.NEEDS_RESPONSE, stage: int = D.CHARGEBACK, version: int = 1,
    movements: Sequence[tuple[str, int, int]] = (), identifier: str = "",
) -> payments_pb2.Dispute:  # fmt: skip
    """Return a dispute of a merchant's or a user's."""
    merchant = owner.startswith("mer_")
    return D(
        id=identifier or new_id("dsp", clock=CLOCK, bucket=bucket_of(owner)),
        resource_version=version,
        payment_id=new_id("pay", clock=CLOCK, bucket=bucket_of(owner)),
        merchant_id=owner if merchant else "",
        top_up_id="" if merchant else new_id("top", clock=CLOCK, bucket=bucket_of(owner)),
        amount=money(usd(amount)),
        amount_at_risk=money(usd(amount)),
        stage=stage,  # type: ignore[arg-type]  # an int of the enum
        state=state,  # type: ignore[arg-type]  # as above
        stage_time=stamp(NOW),
        fee_payer=D.MERCHANT if merchant else D.PLATFORM,
        movements=[
            D.FundsMovement(id=name, amount=money(usd(moved)), fee=money(usd(fee)), create_time=stamp(NOW))
            for name, moved, fee in movements
        ],
    )


def told(dispute: payments_pb2.Dispute, kind: str, *, customer_id: str) -> Delivered:
    """Return the event of a dispute."""
    event = payments_events_pb2.PaymentEvent(
        event_id=new_id("evt", clock=CLOCK), type=kind, subject=dispute.id, version=dispute.resource_version,
        dispute=dispute, customer_id=customer_id, occur_time=stamp(NOW),
    )  # fmt: skip
    record = EventRecord(
        topic="paymesh.payments.v1", key=dispute.payment_id, event_id=event.event_id, type=kind, source="paymesh/payments",
        subject=dispute.id, version=event.version, occur_time=NOW, traceparent="", data=event.SerializeToString(),
    )  # fmt: skip
    return Delivered(record=record, partition=0, offset=0, generation=1)


def requests(dispute: payments_pb2.Dispute, owner: str) -> list[ledger_pb2.PostFactRequest]:
    """Return what another server calls with, for the same facts as the event tells."""
    opened = ledger_pb2.DisputeOpenedFact(
        dispute_id=dispute.id, stage=dispute.stage, owner_id=owner, amount=dispute.amount_at_risk,
        open_time=dispute.stage_time,
    )  # fmt: skip
    funds = [
        ledger_pb2.DisputeFundsFact(
            balance_transaction_id=one.id, owner_id=owner, amount=one.amount, fee=one.fee,
            fee_from_owner=dispute.fee_payer == D.MERCHANT, create_time=one.create_time,
        )
        for one in dispute.movements
    ]  # fmt: skip
    calls = [ledger_pb2.PostFactRequest(dispute_opened=opened)]
    calls += [ledger_pb2.PostFactRequest(dispute_funds=one) for one in funds]
    if dispute.state in (D.WON, D.LOST, D.PREVENTED):
        end = ledger_pb2.DisputeEndedFact(opened=opened, won=dispute.state == D.WON, end_time=stamp(NOW))
        calls.append(ledger_pb2.PostFactRequest(dispute_ended=end))
    return calls


async def balances(till: Till, owner: str) -> dict[str, int]:
    """Return an owner's balances in dollars, without those that hold nothing."""
    async with till.db.read() as conn:
        found = await store.accounts_of_owner(conn, owner)
    return {one.kind.name: one.balance for one in found if one.balance}


def broken(till: Till) -> dict[str, list[str]]:
    """Return what the audit finds."""
    engine = create_engine(till.db.engine.url.render_as_string(hide_password=False), poolclass=NullPool)
    try:
        with engine.connect() as conn:
            found = {
                check.title: [str(row[0]) for row in conn.execute(text(check.broken))]
                for check in (*WALLETS, *SETTLEMENT, *USERS_WALLETS)
            }
    finally:
        engine.dispose()
    return {title: rows for title, rows in found.items() if rows}


@pytest.mark.parametrize("by_event_first", [True, False])
@pytest.mark.parametrize(
    ("state", "movements", "merchant", "platform"),
    [
        (D.NEEDS_RESPONSE, [("txn_a", -700, 1500)],
         {"MERCHANT_AVAILABLE": -2200, "MERCHANT_DISPUTED": 700}, {"PROCESSOR_CLEARING": 2200, "DISPUTES_WITHDRAWN": -700}),
        (D.LOST, [("txn_a", -700, 1500)], {"MERCHANT_AVAILABLE": -2200}, {"PROCESSOR_CLEARING": 2200}),
        (D.PREVENTED, [("txn_a", -700, 0)], {"MERCHANT_AVAILABLE": -700}, {"PROCESSOR_CLEARING": 700}),
        (D.WON, [("txn_a", -700, 1500), ("txn_b", 700, -1500)], {}, {}),
    ],
)  # fmt: skip
async def test_a_call_and_an_event_of_one_fact_are_one(
    till: Till, by_event_first: bool, state: int, movements: list[tuple[str, int, int]],
    merchant: dict[str, int], platform: dict[str, int],
) -> None:  # fmt: skip
    owner = new_id("mer", clock=CLOCK)
    dispute = dispute_of(owner, 700, state=state, movements=movements)
    if by_event_first:
        await till.hear(told(dispute, "dispute.updated", customer_id=till.wallet.owner_id))
    facts = [parse_fact(request) for request in requests(dispute, owner)]
    expected = {Verdict.EXISTS} if by_event_first else {Verdict.CREATED}
    assert set(await till.ledger.together(*facts)) <= expected | {Verdict.EXISTS}
    for kind in ("dispute.opened", "dispute.updated"):
        await till.hear(told(dispute, kind, customer_id=till.wallet.owner_id))
    assert set(await till.ledger.together(*facts)) == {Verdict.EXISTS}
    assert await balances(till, owner) == merchant
    assert await balances(till, PLATFORM) == platform
    assert broken(till) == {}


async def test_balances_show_what_is_disputed_and_each_line_says_why(till: Till) -> None:
    owner = new_id("mer", clock=CLOCK)
    dispute = dispute_of(owner, 700, movements=[("txn_a", -700, 1500)])
    await till.hear(told(dispute, "dispute.opened", customer_id=""))
    async with till.db.read() as conn:
        shown = render_balances(owner, await store.accounts_of_owner(conn, owner)).balances[0]
        available = account_id(owner, AccountKind.MERCHANT_AVAILABLE, "USD")
        lines = [render_line(line) for line in await store.statement(conn, available, before=None, limit=9)]
    assert (shown.available.amount_minor, shown.disputed.amount_minor) == (-2200, 700)
    assert [(line.type, line.source_id, line.amount.amount_minor) for line in lines] == [
        ("dispute.fee", "txn_a", -1500),
        ("dispute.opened", dispute.id, -700),
    ]


async def test_a_negative_balance_recovers_from_what_is_earned_next(till: Till) -> None:
    owner = new_id("mer", clock=CLOCK)
    await till.hear(told(dispute_of(owner, 700), "dispute.opened", customer_id=""))
    capture = CaptureFact(
        capture_id=new_id("cap", clock=CLOCK, bucket=bucket_of(owner)), payment_id=new_id("pay", clock=CLOCK),
        merchant_id=owner, amount=usd(1000), fee=usd(100), capture_time=NOW,
    )  # fmt: skip
    await till.ledger.tell(capture)
    await till.ledger.writers[0].settle_due()
    assert await balances(till, owner) == {"MERCHANT_AVAILABLE": 200, "MERCHANT_DISPUTED": 700}


async def test_a_disputed_top_up_holds_what_is_in_the_wallet_and_what_is_not(till: Till) -> None:
    owner = till.wallet.owner_id
    await till.top_up("k", 1000)
    hold = hold_of("a", 600, customer_id=owner, wallet_id=till.wallet.id, expire_time=CLOCK.now().replace(year=2100))
    assert await till.ledger.tell(hold) is Verdict.CREATED
    dispute = dispute_of(owner, 1000, movements=[("txn_a", -1000, 1500)])
    await till.hear(told(dispute, "dispute.opened", customer_id=owner))
    assert await balances(till, owner) == {"CUSTOMER_DISPUTED": 1000}
    wallet = await till.ledger.account(owner, AccountKind.CUSTOMER_WALLET)
    assert (wallet.balance, wallet.available) == (0, -600)
    poor = hold_of("b", 1, customer_id=owner, wallet_id=till.wallet.id, expire_time=hold.expire_time)
    assert await till.ledger.tell(poor) is Verdict.INSUFFICIENT_FUNDS
    async with till.db.read() as conn:
        lines = [render_statement_line(line) for line in await store.statement(conn, wallet.id, before=None, limit=9)]
    newest = lines[0]
    assert (newest.type, newest.source_id, newest.amount.amount_minor) == ("dispute.opened", dispute.id, -1000)
    lost = dispute_of(owner, 1000, state=D.LOST, movements=[("txn_a", -1000, 1500)], identifier=dispute.id)
    await till.hear(told(lost, "dispute.lost", customer_id=owner))
    assert await balances(till, owner) == {}
    assert await balances(till, PLATFORM) == {"PROCESSOR_CLEARING": 1500, "PROCESSOR_FEES": -1500}
    assert broken(till) == {}


async def test_an_inquiry_moves_nothing(till: Till) -> None:
    owner = new_id("mer", clock=CLOCK)
    for state in (D.EARLY_WARNING, D.NEEDS_RESPONSE, D.UNDER_REVIEW, D.CLOSED, D.PREVENTED):
        dispute = dispute_of(owner, 700, stage=D.INQUIRY, state=state)
        await till.hear(told(dispute, "dispute.updated", customer_id=""))
    assert await balances(till, owner) == {}


async def test_both_stages_of_a_dispute_hold_and_end_by_themselves(till: Till) -> None:
    owner, movements = new_id("mer", clock=CLOCK), [("txn_a", -700, 0), ("txn_b", 700, 0), ("txn_c", -700, 0)]
    first = dispute_of(owner, 700, movements=movements[:1])
    chapters = [
        first,
        dispute_of(owner, 700, state=D.WON, movements=movements[:2], identifier=first.id),
        dispute_of(owner, 700, stage=D.PRE_ARBITRATION, movements=movements, identifier=first.id),
    ]
    for chapter in chapters:
        await till.hear(told(chapter, "dispute.updated", customer_id=""))
    assert await balances(till, owner) == {"MERCHANT_AVAILABLE": -700, "MERCHANT_DISPUTED": 700}
    lost = dispute_of(owner, 700, stage=D.PRE_ARBITRATION, state=D.LOST, movements=movements, identifier=first.id)
    await till.hear(told(lost, "dispute.lost", customer_id=""))
    assert await balances(till, owner) == {"MERCHANT_AVAILABLE": -700}
    assert await balances(till, PLATFORM) == {"PROCESSOR_CLEARING": 700}
