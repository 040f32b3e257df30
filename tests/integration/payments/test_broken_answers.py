"""Stripe answers an error, and would answer it again under the same key for a day; a refusal is an answer and stays one."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from servers.kernel.errors import Refusal
from servers.payments import store
from servers.payments.domain import Manner, Payment, PaymentState, Source, Usage
from servers.payments.usecases import revoke_mandate
from servers.runtime.idempotency import Replayed
from tests.support.payment_desk import USER, Desk
from tests.support.weather import Weather

W = Weather
CARD = Source(stripe_payment_method_id="pm_ok")


@pytest.mark.parametrize("weather", [W.BROKE, W.BROKE_AFTER])
async def test_an_intent_that_stripe_failed_to_make_leaves_the_key_open_and_is_made_by_the_next_call(
    desk: Desk, weather: Weather
) -> None:
    payment = await desk.create("new", manual=False)
    request = desk.ticket("pay")
    for _ in range(6):  # more often than the breaker allows
        desk.weather(weather)
        answer = await desk.told(request, desk.confirm(request, payment, CARD))
        assert answer.reason == "PROVIDER_UNAVAILABLE"
        assert (await desk.payment(payment.id)).state is PaymentState.REQUIRES_CONFIRMATION
        desk.reachable()
    desk.weather()
    payment = await desk.confirm(request, payment, CARD)
    assert payment.state is PaymentState.SUCCEEDED
    assert sum(intent.paid for intent in desk.stripe.of(payment.id)) == 1


async def refunding(desk: Desk, weather: Weather) -> Payment:
    """Return a paid payment with a refund that Stripe answered with an error."""
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    desk.stripe.forecast.be(weather)
    await desk.refund(desk.ticket("refund"), payment, 400)
    assert [row.uncertain for row in await desk.rows("SELECT uncertain FROM refunds")] == [True]
    return payment


async def test_a_refund_that_was_made_before_the_error_is_found(desk: Desk) -> None:
    await refunding(desk, W.BROKE_AFTER)
    await desk.janitor()
    assert [row.state for row in await desk.rows("SELECT state FROM refunds")] == ["SUCCEEDED"]
    assert not desk.stripe.useless


async def test_a_refund_is_not_sent_again_under_a_key_that_an_error_was_answered_under(desk: Desk) -> None:
    await refunding(desk, W.BROKE)
    sent = len(desk.stripe.sent)
    for _ in range(3):
        await desk.janitor(after_hours=25)
    assert (len(desk.stripe.sent), desk.stripe.useless) == (sent, [])
    rows = await desk.rows("SELECT state, uncertain FROM refunds")
    assert [(row.state, row.uncertain) for row in rows] == [("PENDING", True)]


async def test_a_refund_whose_answer_was_lost_is_sent_again(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    desk.stripe.forecast.be(*[W.DROPPED] * 3)
    await desk.refund(desk.ticket("refund"), payment, 400)
    await desk.janitor()
    assert [row.state for row in await desk.rows("SELECT state FROM refunds")] == ["SUCCEEDED"]


async def test_a_refusal_to_go_on_with_a_new_payment_is_kept_under_its_key(desk: Desk) -> None:
    saving = await desk.create("saving", manual=False)
    saving = await desk.confirm(desk.ticket("save"), saving, CARD, Usage.OFF_SESSION)
    assert saving.latest_attempt is not None
    method_id = saving.latest_attempt.source.payment_method_id

    def charge() -> Awaitable[Payment]:
        manner = Manner(off_session=True)
        return desk.create("charge", manual=False, payment_method_id=method_id, confirm=True, manner=manner)

    desk.weather(*[W.REFUSED] * 3)
    with pytest.raises(Refusal, match="cannot be reached"):
        await charge()
    await desk.bury(desk.ticket("charge"))
    async with desk.db.read() as conn:
        [mandate] = await store.active_mandates(conn, method_id=method_id)
    await revoke_mandate(desk.deps, desk.ticket("revoke", method="revoke"), USER, mandate.id)
    with pytest.raises(Refusal) as refused:
        await charge()
    assert refused.value.reason == "RESOURCE_NOT_FOUND"
    with pytest.raises(Replayed) as replayed:
        await charge()
    assert replayed.value.refused
