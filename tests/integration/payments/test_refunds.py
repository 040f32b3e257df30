"""Refunds that wait, and refunds that are canceled: never both canceled and sent, never reserved twice or given back twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from servers.payments import store
from servers.payments.domain import Payment, Refund, RefundState, Source
from servers.payments.resolvers import resolvers
from servers.payments.usecases import cancel_refund, drive_refund, replace_settings, retry_refunds
from servers.runtime.janitor import Janitor
from tests.support.payment_desk import MERCHANT, USER, WALLET, Answer, Desk
from tests.support.weather import Weather

W = Weather
NEVER = [W.REFUSED] * 3
CARD = Source(stripe_payment_method_id="pm_ok")
FROM_WALLET = Source(wallet_id=WALLET.id)
MINUTE = timedelta(seconds=61)


async def paid(desk: Desk, source: Source = CARD) -> Payment:
    """Return a payment whose money was taken."""
    return await desk.confirm(desk.ticket("pay"), await desk.create("new", manual=False), source)


async def only(desk: Desk) -> Refund:
    """Return the one refund that there is."""
    row = (await desk.rows("SELECT id FROM refunds"))[0]
    async with desk.db.read() as conn:
        found = await store.refund(conn, row.id)
    assert found is not None
    return found


async def cancel(desk: Desk, refund: Refund, key: str = "cancel") -> Answer:
    """Cancel as the merchant."""
    request = desk.ticket(key, refund.id, method="cancel_refund")
    return await desk.told(request, cancel_refund(desk.deps, request, refund_id=refund.id, merchant_id=MERCHANT))


async def told_of(desk: Desk, refund: Refund) -> list[str]:
    """Return the types of the events about a refund, in order."""
    rows = await desk.rows("SELECT type FROM outbox WHERE subject = :id ORDER BY version", id=refund.id)
    return [row.type for row in rows]


async def janitor(desk: Desk, *, after: timedelta = timedelta(minutes=6)) -> None:
    """Let time pass and the janitor look."""
    desk.wait(after)
    await Janitor(desk.db, resolvers(desk.deps)).round()


async def wait_for_money(desk: Desk) -> None:
    """Have the merchant's refunds wait for its balance, which covers none."""
    request = desk.ticket("settings", method="settings")
    await replace_settings(desk.deps, request, MERCHANT, (), None, refunds_wait=True)
    desk.ledger.is_short = True


async def test_a_refund_that_was_not_sent_is_canceled_and_never_sent_after_that(desk: Desk) -> None:
    payment = await paid(desk)
    desk.stripe.forecast.be(*NEVER)
    answer = await desk.told(desk.ticket("refund"), desk.refund(desk.ticket("refund"), payment, 400))
    assert answer.reason == "PROVIDER_UNAVAILABLE"
    refund = await only(desk)
    assert (refund.state, refund.cancelable) == (RefundState.PENDING, True)
    first = await cancel(desk, refund)
    again = await cancel(desk, refund)
    assert (first.reason, again.body, again.is_replayed) == ("", first.body, True)
    assert (await cancel(desk, refund, "another")).reason == "REFUND_STATE_INVALID"
    await janitor(desk)
    # The call that began it, tried again under its key, is told how it ended.
    await desk.told(desk.ticket("refund"), desk.refund(desk.ticket("refund"), payment, 400))
    assert not desk.stripe.refunds
    payment = await desk.payment(payment.id)
    assert (payment.refund_pending_minor, payment.refunded_minor, payment.refundable.amount_minor) == (0, 0, 1000)
    assert await told_of(desk, refund) == ["refund.created", "refund.canceled"]


async def test_one_that_is_being_sent_is_neither_canceled_nor_lost(desk: Desk) -> None:
    payment = await paid(desk)
    desk.stripe.forecast.be(W.LATE)
    request = desk.ticket("refund")
    late = asyncio.ensure_future(desk.told(request, desk.refund(request, payment, 400)))
    await desk.stripe.forecast.blocked.wait()
    refund = await only(desk)
    refused = await cancel(desk, refund)
    assert (refused.body, refused.reason) == (None, "OPERATION_IN_PROGRESS")
    desk.stripe.forecast.let_through()
    assert (await late).reason == ""
    assert (await cancel(desk, refund)).reason == "REFUND_STATE_INVALID"
    assert (await only(desk)).state is RefundState.SUCCEEDED


@pytest.mark.parametrize("amount", [401, 400], ids=["pending", "succeeded"])
async def test_what_stripe_carries_out_or_has_is_not_canceled(desk: Desk, amount: int) -> None:
    payment = await paid(desk)
    request = desk.ticket("refund")
    await desk.told(request, desk.refund(request, payment, amount))
    refund = await only(desk)
    if refund.state is RefundState.PENDING:
        assert not refund.cancelable
    assert (await cancel(desk, refund)).reason == "REFUND_STATE_INVALID"
    assert len(desk.stripe.refunds) == 1


async def test_of_a_cancel_and_a_sending_at_once_one_wins(desk: Desk) -> None:
    payment = await paid(desk)
    for number in range(6):
        desk.stripe.forecast.be(*NEVER)
        request = desk.ticket(f"refund {number}")
        await desk.told(request, desk.refund(request, payment, 100))
        row = (await desk.rows("SELECT id FROM refunds ORDER BY id DESC LIMIT 1"))[0]
        async with desk.db.read() as conn:
            refund = await store.refund(conn, row.id)
        assert refund is not None
        desk.stripe.forecast.be()
        desk.reachable()
        answer, _ = await asyncio.gather(
            cancel(desk, refund, f"cancel {number}"), drive_refund(desk.deps, refund.id), return_exceptions=True
        )
        assert isinstance(answer, Answer)
        async with desk.db.read() as conn:
            ended = await store.refund(conn, refund.id)
        assert ended is not None
        sent = desk.stripe.has_made(refund.id)
        assert (answer.reason == "") == (ended.state is RefundState.CANCELED) == (not sent)
        assert answer.reason in ("", "REFUND_STATE_INVALID", "OPERATION_IN_PROGRESS")
    payment = await desk.payment(payment.id)
    given = sum(made.amount for made in desk.stripe.refunds.values())
    assert (payment.refunded_minor, payment.refund_pending_minor) == (given, 0)


@pytest.mark.parametrize("source", [CARD, FROM_WALLET], ids=["card", "wallet"])
async def test_a_refund_waits_for_the_merchants_balance_and_goes_out_when_it_covers_it(
    desk: Desk, source: Source
) -> None:
    payment = await paid(desk, source)
    await wait_for_money(desk)
    request = desk.ticket("refund")
    answer = await desk.told(request, desk.refund(request, payment, 400))
    refund = await only(desk)
    assert (answer.reason, refund.state, refund.pending_reason) == (
        "", RefundState.PENDING, "INSUFFICIENT_MERCHANT_BALANCE",
    )  # fmt: skip
    assert not desk.stripe.refunds
    await janitor(desk, after=timedelta(hours=2))
    assert await retry_refunds(desk.deps) == 1
    assert not desk.ledger.given_back
    assert await told_of(desk, refund) == ["refund.created", "refund.updated"]  # waiting on is no news
    desk.ledger.is_short = False
    assert await retry_refunds(desk.deps) == 0  # not before its minute is over
    desk.wait(MINUTE)
    assert await retry_refunds(desk.deps) == 1
    ended = await only(desk)
    assert (ended.state, ended.pending_reason, ended.retry_time) == (RefundState.SUCCEEDED, "", None)
    assert len(desk.ledger.given_back) == 1
    assert (await desk.payment(payment.id)).refunded_minor == 400
    # What the caller was told first is told again.
    assert (await desk.told(request, desk.refund(request, payment, 400))).body == answer.body


@pytest.mark.parametrize("source", [CARD, FROM_WALLET], ids=["card", "wallet"])
async def test_a_refund_that_waits_is_canceled_whoever_tries_it_again(desk: Desk, source: Source) -> None:
    payment = await paid(desk, source)
    await wait_for_money(desk)
    await desk.told(desk.ticket("refund"), desk.refund(desk.ticket("refund"), payment, 400))
    refund = await only(desk)
    desk.ledger.is_short = False
    desk.wait(MINUTE)
    answer, _ = await asyncio.gather(cancel(desk, refund), retry_refunds(desk.deps))
    ended = await only(desk)
    gone_out = desk.stripe.has_made(refund.id) if source is CARD else refund.id in desk.ledger.given_back
    assert (answer.reason == "") == (ended.state is RefundState.CANCELED) == (not gone_out)
    desk.wait(MINUTE)
    assert await retry_refunds(desk.deps) == 0
    payment = await desk.payment(payment.id)
    assert payment.refund_pending_minor == 0


async def test_by_default_a_refund_is_never_held_up_for_want_of_money(desk: Desk) -> None:
    payment = await paid(desk)
    desk.ledger.is_short = True
    request = desk.ticket("refund")
    await desk.told(request, desk.refund(request, payment, 400))
    assert (await only(desk)).state is RefundState.SUCCEEDED


async def needing_its_customer(desk: Desk) -> Refund:
    """Return a refund that Stripe waits for its customer with."""
    payment = await paid(desk)
    request = desk.ticket("refund")
    await desk.told(request, desk.refund(request, payment, 401))
    refund = await only(desk)
    desk.stripe.made(refund.id).state = RefundState.REQUIRES_ACTION
    await drive_refund(desk.deps, refund.id)
    refund = await only(desk)
    assert (refund.state, refund.cancelable) == (RefundState.REQUIRES_ACTION, True)
    return refund


async def test_what_waits_for_its_customer_is_canceled_at_stripe(desk: Desk) -> None:
    refund = await needing_its_customer(desk)
    assert (await desk.payment(refund.payment_id)).refund_pending_minor == 401
    assert (await cancel(desk, refund)).reason == ""
    assert (await only(desk)).state is RefundState.CANCELED
    assert desk.stripe.made(refund.id).state is RefundState.CANCELED
    assert (await desk.payment(refund.payment_id)).refund_pending_minor == 0
    kinds = ["refund.created", "refund.requires_action", "refund.canceled"]
    assert await told_of(desk, refund) == kinds


async def test_a_lost_answer_to_a_cancel_is_unknown_until_it_is_read(desk: Desk) -> None:
    refund = await needing_its_customer(desk)
    desk.stripe.forecast.be(W.LOST, W.LOST, W.LOST)
    lost = await cancel(desk, refund)
    assert (lost.reason, (await only(desk)).uncertain) == ("", True)
    await janitor(desk)
    ended = await only(desk)
    assert (ended.state, ended.uncertain) == (RefundState.CANCELED, False)
    assert (await cancel(desk, refund)).body == lost.body


@pytest.mark.parametrize("weather", [W.DIED, W.DIED_BEFORE])
async def test_a_process_that_dies_in_a_cancel_leaves_it_to_the_same_key(desk: Desk, weather: Weather) -> None:
    refund = await needing_its_customer(desk)
    desk.stripe.forecast.be(weather)
    assert (await cancel(desk, refund)).reason == "DIED"
    assert (await cancel(desk, refund)).reason == ""
    assert (await only(desk)).state is RefundState.CANCELED


async def test_a_cancel_that_could_not_be_sent_leaves_the_refund_as_it_is(desk: Desk) -> None:
    refund = await needing_its_customer(desk)
    desk.stripe.forecast.be(*NEVER)
    assert (await cancel(desk, refund)).reason == "PROVIDER_UNAVAILABLE"
    assert (await only(desk)).state is RefundState.REQUIRES_ACTION
    assert (await cancel(desk, refund)).reason == ""
    assert (await only(desk)).state is RefundState.CANCELED


async def test_a_cancel_that_comes_too_late_tells_so_and_how_it_went_on(desk: Desk) -> None:
    refund = await needing_its_customer(desk)
    desk.stripe.made(refund.id).state = RefundState.SUCCEEDED
    answer = await cancel(desk, refund)
    assert answer.reason == "REFUND_STATE_INVALID"
    assert (await cancel(desk, refund)).body == answer.body
    assert (await only(desk)).state is RefundState.SUCCEEDED
    payment = await desk.payment(refund.payment_id)
    assert (payment.refunded_minor, payment.refund_pending_minor) == (401, 0)


async def test_nobody_else_cancels_a_refund(desk: Desk) -> None:
    refund = await needing_its_customer(desk)
    request = desk.ticket("stranger", method="cancel_refund")
    call = cancel_refund(desk.deps, request, refund_id=refund.id, merchant_id="mer_" + USER[4:])
    assert (await desk.told(request, call)).reason == "RESOURCE_NOT_FOUND"
