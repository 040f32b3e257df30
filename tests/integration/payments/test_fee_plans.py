"""Fee plans: who sets them, what they refuse, and what captures and refunds make of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from paymesh.payments.v1 import payments_events_pb2, payments_pb2
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from servers.kernel.errors import FieldInvalid
from servers.kernel.ids import new_id
from servers.payments import store
from servers.payments.domain import FeePlan, FeeRefund, MerchantFeePlan, Payment, RefundResult, RefundState, Source
from servers.payments.service.fee_plans import terms_of
from servers.payments.usecases import ReplaceFeePlan, replace_fee_plan
from tests.support.payment_desk import MERCHANT, WALLET, Desk, rendered, usd
from tests.support.weather import Weather

STAFF = "usr_" + "0" * 26
RETURNED = FeePlan(
    version="",
    basis_points=1000,
    fixed_minor={"USD": 30},
    fee_refund=FeeRefund.RETURNED,
    settlement_delay_seconds=86_400,
)
CARD = Source(stripe_payment_method_id="pm_ok")


async def put(desk: Desk, key: str, terms: FeePlan = RETURNED, expected: int | None = None) -> MerchantFeePlan:
    """Set the merchant's next plan."""
    command = ReplaceFeePlan(merchant_id=MERCHANT, terms=terms, reason="agreed", set_by=STAFF, expected=expected)
    ticket = replace(desk.ticket(key, command, method="put"), render=lambda _: b"")
    return await replace_fee_plan(desk.deps, ticket, command)


async def paid(desk: Desk, name: str, *, manual: bool = False, source: Source = CARD) -> Payment:
    """Return a payment of 1000 that was confirmed."""
    payment = await desk.create(f"new-{name}", manual=manual, customer_id="" if source is CARD else WALLET.customer_id)
    return await desk.confirm(desk.ticket(f"pay-{name}"), payment, source)


def terms(payment: Payment) -> list[tuple[str, int, str, int | None]]:
    """Return version, fee, policy and delay of each capture, in the order in which they were made."""
    made = sorted(payment.captures, key=lambda capture: capture.capture_time)
    return [(c.fee_plan_version, c.fee.amount_minor, c.fee_refund.value, c.settlement_delay_seconds) for c in made]


async def test_captures_have_the_terms_that_were_in_force_when_they_were_made(desk: Desk) -> None:
    before = await paid(desk, "before")
    own = await put(desk, "one")
    assert own.create_time is not None
    assert own.effective_time is not None
    assert (own.number, own.plan.version, own.effective_time > own.create_time) == (1, "v1", True)
    at_once = await paid(desk, "at once")
    desk.wait(timedelta(seconds=5))
    after = await paid(desk, "after")
    assert terms(before) == terms(at_once) == [("2026-11", 40, "KEPT", None)]
    assert terms(after) == [("v1", 130, "RETURNED", 86_400)]
    assert terms(await desk.payment(before.id)) == terms(before)


async def test_the_fixed_part_is_taken_once_though_the_plan_changes_between_parts(desk: Desk) -> None:
    payment = await paid(desk, "parts", manual=True)
    payment = await desk.capture(desk.ticket("first"), payment, 400)
    await put(desk, "one", replace(RETURNED, fixed_minor={"USD": 60}))
    desk.wait(timedelta(seconds=5))
    payment = await desk.capture(desk.ticket("last"), payment, None)
    assert [(version, fee) for version, fee, _, _ in terms(payment)] == [("2026-11", 6 + 25), ("v1", 60)]


@pytest.mark.parametrize("manual", [False, True])
async def test_a_wallets_capture_whose_answer_was_lost_keeps_the_plan_of_its_time(desk: Desk, manual: bool) -> None:
    wallet = Source(wallet_id=WALLET.id)
    payment = await desk.create("new", manual=manual)
    call = desk.ticket("pay")
    if manual:
        payment = await desk.confirm(call, payment, wallet)
        call = desk.ticket("take")
    desk.weather(Weather.LOST)
    lost = desk.capture(call, payment, None) if manual else desk.confirm(call, payment, wallet)
    await desk.told(call, lost)
    await put(desk, "one")
    await desk.janitor()
    payment = await desk.payment(payment.id)
    assert terms(payment) == [("2026-11", 40, "KEPT", None)]
    [(_, amount, fee)] = desk.ledger.taken.values()
    assert (amount, fee) == (usd(1000), payment.captures[0].fee)


async def test_refunds_return_the_fee_in_parts_that_add_up_and_one_that_failed_returns_nothing(desk: Desk) -> None:
    await put(desk, "one")
    desk.wait(timedelta(seconds=5))
    payment = await paid(desk, "all")
    first = await desk.refund(desk.ticket("a"), payment, 333)
    second = await desk.refund(desk.ticket("b"), payment, 334)
    assert [refund.fee_returned for refund in (first, second)] == [usd(43), usd(44)]
    async with desk.db.uow() as uow:
        locked = await store.payment(uow.conn, payment.id, lock=True)
        refund = await store.refund(uow.conn, first.id, lock=True)
        assert locked is not None
        assert refund is not None
        failed = RefundResult(
            stripe_refund_id="re_1", state=RefundState.FAILED, failure_reason="expired_or_canceled_card"
        )
        await desk.deps.outcomes.refund(uow, locked, refund, failed)
    rest = await desk.refund(desk.ticket("c"), payment, None)
    assert (rest.amount, rest.fee_returned) == (usd(666), usd(130 - 44))
    others = await desk.rows("SELECT sum(fee_returned_minor) AS n FROM refunds WHERE id <> :id", id=first.id)
    assert others[0].n == 130


async def test_under_a_plan_that_keeps_the_fee_refunds_return_none_of_it(desk: Desk) -> None:
    payment = await paid(desk, "kept")
    await put(desk, "one")  # what is agreed later changes nothing about it
    desk.wait(timedelta(seconds=5))
    assert (await desk.refund(desk.ticket("a"), payment, None)).fee_returned == usd(0)


async def test_of_several_who_replace_the_same_version_one_does(desk: Desk) -> None:
    told = await asyncio.gather(*(rendered(lambda n=n: put(desk, f"k{n}", expected=0)) for n in range(5)))  # type: ignore[misc]
    assert set(told) <= {"ok", "CONCURRENT_UPDATE", "ETAG_MISMATCH"}
    assert told.count("ok") == 1
    assert await rendered(lambda: put(desk, "late", expected=0)) == "ETAG_MISMATCH"
    assert (await put(desk, "next", expected=1)).number == 2
    assert [row.number for row in await desk.rows("SELECT number FROM fee_plans ORDER BY number")] == [1, 2]


async def test_each_version_is_told_once_and_never_changed(desk: Desk) -> None:
    await put(desk, "one")
    await put(desk, "two", replace(RETURNED, basis_points=20))
    told = await desk.rows("SELECT subject, version, data FROM outbox WHERE type = 'fee_plan.set' ORDER BY version")
    assert [(row.subject, row.version) for row in told] == [(MERCHANT, 1), (MERCHANT, 2)]
    plan = payments_events_pb2.PaymentEvent.FromString(told[1].data).fee_plan
    assert (plan.version, plan.basis_points, plan.set_by, plan.reason) == ("v2", 20, STAFF, "agreed")
    with pytest.raises(DBAPIError):
        async with desk.db.uow() as uow:
            await uow.conn.execute(text("UPDATE fee_plans SET basis_points = 1"))


async def test_a_plan_of_one_merchant_is_no_others(desk: Desk) -> None:
    await put(desk, "one")
    desk.wait(timedelta(seconds=5))
    other = replace(await paid(desk, "mine"), owner_id=new_id("mer", clock=desk.deps.clock))
    async with desk.db.read() as conn:
        assert (await desk.deps.fee_plans.in_force(conn, other, desk.deps.clock.now())).version == "2026-11"


async def test_the_plan_is_found_by_its_key(desk: Desk) -> None:
    statement = "EXPLAIN SELECT * FROM fee_plans WHERE merchant_id = 'm' AND effective_time <= now() ORDER BY number DESC LIMIT 1"
    async with desk.db.uow() as uow:
        await uow.conn.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join((await uow.conn.execute(text(statement))).scalars())
    assert "fee_plans_pkey" in plan


@pytest.mark.parametrize(
    ("fixed", "field"),
    [
        ([{"amount_minor": 1, "currency": "USD"}, {"amount_minor": 2, "currency": "USD"}], "fixed[1].currency"),
        ([{"amount_minor": 1, "currency": "ZZZ"}], "fixed[0].currency"),
        ([{"amount_minor": -1, "currency": "USD"}], "fixed[0].amount_minor"),
    ],
)
def test_a_fixed_part_that_cannot_be_is_named(fixed: list[dict[str, Any]], field: str) -> None:
    request = payments_pb2.ReplaceMerchantFeePlanRequest(fixed=fixed, fee_refund=payments_pb2.FeePlan.KEPT)
    with pytest.raises(FieldInvalid) as refused:
        terms_of(request)
    assert [violation.field for violation in refused.value.violations] == [field]
