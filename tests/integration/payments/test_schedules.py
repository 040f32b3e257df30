"""Captures by schedule: before the deadline and while the authorization lasts, once, whoever else is at it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from servers.payments.domain import Payment, PaymentState, Source
from servers.payments.resolvers import resolvers
from servers.payments.usecases import act_on_due, end_windows
from servers.runtime.janitor import Janitor
from tests.support.payment_desk import WALLET, Desk
from tests.support.weather import Weather

W = Weather
NEVER = [W.REFUSED] * 3
CARD = Source(stripe_payment_method_id="pm_ok")
FROM_WALLET = Source(wallet_id=WALLET.id)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


async def held(desk: Desk, deadline: datetime | None, source: Source = CARD) -> Payment:
    """Return a payment whose money is held, to be captured by a deadline."""
    payment = await desk.create("new", manual=True, capture_deadline=deadline)
    return await desk.confirm(desk.ticket("pay"), payment, source)


async def sums(desk: Desk, payment: Payment) -> tuple[PaymentState, int, int]:
    """Return how a payment stands, what was captured and what still can be."""
    now = await desk.payment(payment.id)
    return now.state, now.captured_minor, now.capturable_minor


@pytest.mark.parametrize("source", [CARD, FROM_WALLET], ids=["card", "wallet"])
async def test_all_that_is_left_is_captured_ten_minutes_before_the_deadline(desk: Desk, source: Source) -> None:
    start = desk.deps.clock.now()
    payment = await held(desk, start + 2 * DAY, source)
    await desk.told(desk.ticket("part"), desk.capture(desk.ticket("part"), payment, 300))
    desk.wait(2 * DAY - 11 * MINUTE)
    assert await act_on_due(desk.deps) == 0
    assert await sums(desk, payment) == (PaymentState.PARTIALLY_CAPTURED, 300, 700)
    desk.wait(MINUTE + timedelta(seconds=1))
    assert await act_on_due(desk.deps) == 1
    assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)
    assert await act_on_due(desk.deps) == 0
    assert len((await desk.payment(payment.id)).captures) == 2


async def test_a_deadline_after_the_authorizations_end_means_its_end(desk: Desk) -> None:
    payment = await held(desk, desk.deps.clock.now() + 30 * DAY)
    desk.wait(7 * DAY - 9 * MINUTE)
    await act_on_due(desk.deps)
    assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)


async def test_a_deadline_that_passed_before_the_confirm_means_at_once(desk: Desk) -> None:
    payment = await desk.create("new", manual=True, capture_deadline=desk.deps.clock.now() + MINUTE)
    desk.wait(DAY)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    await act_on_due(desk.deps)
    assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)


@pytest.mark.parametrize("part", [0, 400])
async def test_without_a_deadline_what_is_not_captured_ends_with_the_authorization(desk: Desk, part: int) -> None:
    payment = await held(desk, None)
    if part:
        await desk.told(desk.ticket("part"), desk.capture(desk.ticket("part"), payment, part))
    desk.wait(8 * DAY)
    assert await act_on_due(desk.deps) == 0
    await end_windows(desk.deps)
    ended = PaymentState.SUCCEEDED if part else PaymentState.EXPIRED
    assert await sums(desk, payment) == (ended, part, 0)


async def test_what_stripe_was_not_reached_for_is_tried_again_at_longer_and_longer_pauses(desk: Desk) -> None:
    payment = await held(desk, desk.deps.clock.now() + DAY)
    desk.wait(DAY - 10 * MINUTE)
    tries = 0
    for _ in range(8):
        desk.stripe.forecast.be(*NEVER)
        tries += await act_on_due(desk.deps)
        desk.stripe.forecast.be()
        desk.wait(MINUTE)
    assert 3 <= tries <= 5
    assert await sums(desk, payment) == (PaymentState.REQUIRES_CAPTURE, 0, 1000)
    desk.wait(10 * MINUTE)
    await act_on_due(desk.deps)
    assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)


async def test_a_lost_answer_is_not_captured_a_second_time(desk: Desk) -> None:
    payment = await held(desk, desk.deps.clock.now() + DAY)
    desk.wait(DAY - 9 * MINUTE)
    desk.stripe.forecast.be(W.LOST, W.LOST, W.LOST)
    await act_on_due(desk.deps)
    assert (await desk.payment(payment.id)).capture_pending_minor == 1000
    desk.wait(3 * MINUTE)
    await act_on_due(desk.deps)
    assert [row.n for row in await desk.rows("SELECT count(*) AS n FROM operations")] == [1]
    desk.wait(6 * MINUTE)
    await Janitor(desk.db, resolvers(desk.deps)).round()
    assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)
    assert sum(intent.received for intent in desk.stripe.of(payment.id)) == 1000


async def test_two_sweeps_and_the_merchant_at_once_capture_once(desk: Desk) -> None:
    for number in range(5):
        payment = await desk.create(f"new {number}", manual=True, capture_deadline=desk.deps.clock.now() + DAY)
        payment = await desk.confirm(desk.ticket(f"pay {number}"), payment, CARD)
        desk.wait(DAY - 9 * MINUTE)
        request = desk.ticket(f"all {number}")
        await asyncio.gather(
            act_on_due(desk.deps), act_on_due(desk.deps), desk.told(request, desk.capture(request, payment, None))
        )
        assert await sums(desk, payment) == (PaymentState.SUCCEEDED, 1000, 0)
        assert sum(intent.received for intent in desk.stripe.of(payment.id)) == 1000


async def test_a_canceled_payment_has_nothing_due(desk: Desk) -> None:
    payment = await held(desk, desk.deps.clock.now() + DAY)
    await desk.told(desk.ticket("cancel"), desk.cancel(desk.ticket("cancel"), payment))
    desk.wait(2 * DAY)
    assert await act_on_due(desk.deps) == 0
    assert (await desk.payment(payment.id)).state is PaymentState.CANCELED
