"""What Stripe and the ledger say, late, again, or about the attempt before: applied where it is news, and to nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from servers.kernel.invariant import InvariantBroken
from servers.payments import store
from servers.payments.domain import (
    ActionRequired,
    Authorized,
    CardDeclined,
    Charged,
    ChargeResult,
    Decline,
    NotConfirmed,
    Payment,
    PaymentState,
    Source,
    StillProcessing,
)
from servers.payments.usecases import drive_attempt, learn_payment
from tests.support.payment_desk import Desk, usd
from tests.support.weather import Weather

W = Weather

CARD = Source(stripe_payment_method_id="pm_ok")
ASKS = Source(stripe_payment_method_id="pm_action")
SLOW = Source(stripe_payment_method_id="pm_slow")
DECLINED = Decline(code="card_declined", recommended_action="USE_ANOTHER_CARD", message="no")
NEWS: list[ChargeResult] = [
    ActionRequired(client_secret="pi_secret"),
    StillProcessing(),
    NotConfirmed(),
    CardDeclined(charge_id="ch_1", decline=DECLINED),
    Charged(charge_id="ch_1", amount=usd(1000)),
    Authorized(charge_id="ch_1", amount=usd(1000), multicapture=True, capture_before_time=None),
]


async def hear(desk: Desk, payment: Payment, news: ChargeResult) -> Payment:
    """Apply news of a payment's attempt."""
    async with desk.db.uow() as uow:
        found = await store.payment(uow.conn, payment.id, lock=True)
        assert found is not None
        assert found.latest_attempt is not None
        return await desk.deps.outcomes.charge(uow, found, found.latest_attempt, news)


@pytest.mark.parametrize("news", NEWS, ids=lambda news: type(news).__name__)
@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("waits", ["for the cardholder", "for the issuer", "for an answer"])
async def test_no_news_is_an_error_whatever_is_waited_for(
    desk: Desk, waits: str, manual: bool, news: ChargeResult
) -> None:
    payment = await desk.create("new", manual=manual)
    if waits == "for an answer":
        desk.weather(W.FINE, *[W.LOST] * 3)
        payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    else:
        payment = await desk.confirm(desk.ticket("pay"), payment, ASKS if "cardholder" in waits else SLOW)
    payment = await hear(desk, payment, news)
    again = await hear(desk, payment, news)
    assert (again.state, again.version) == (payment.state, payment.version), "a repeat is no news"


async def test_a_cardholder_who_came_back_is_not_asked_again_by_late_news(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, ASKS)
    payment = await hear(desk, payment, StillProcessing())
    payment = await hear(desk, payment, ActionRequired(client_secret="pi_secret"))
    assert payment.state is PaymentState.PROCESSING
    payment = await hear(desk, payment, Charged(charge_id="ch_1", amount=usd(1000)))
    assert payment.state is PaymentState.SUCCEEDED


async def secrets(desk: Desk) -> list[bytes | None]:
    """Return what is kept of Stripe's secrets."""
    return [row.next_action_secret for row in await desk.rows("SELECT next_action_secret FROM attempts ORDER BY id")]


@pytest.mark.parametrize("end", ["decline", "cancel", "charge", "process"])
async def test_a_secret_of_stripes_is_kept_only_while_the_cardholder_is_asked(desk: Desk, end: str) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, ASKS)
    assert await secrets(desk) != [None]
    match end:
        case "decline":
            await hear(desk, payment, CardDeclined(charge_id="", decline=DECLINED))
        case "cancel":
            await desk.cancel(desk.ticket("cancel"), payment)
        case "charge":
            await hear(desk, payment, Charged(charge_id="ch_1", amount=usd(1000)))
        case _:
            await hear(desk, payment, StillProcessing())
    assert await secrets(desk) == [None]
    async with desk.db.engine.connect() as conn:
        with pytest.raises(DBAPIError, match="attempts_next_action"):
            await conn.exec_driver_sql("UPDATE attempts SET next_action_secret = 'secret'")


async def fail_3d_secure(desk: Desk, key: str, payment: Payment) -> Payment:
    """Pay with a card that asks, and fail to authenticate."""
    payment = await desk.confirm(desk.ticket(key), payment, ASKS)
    [intent] = desk.stripe.of(payment.id)
    desk.stripe.settle(intent, succeed=False, authenticated=False)
    return await learn_payment(desk.deps, payment)


@pytest.mark.parametrize("first_declined", [False, True], ids=["the first", "after a decline"])
async def test_a_failed_3d_secure_is_not_the_answer_to_the_next_attempt(desk: Desk, first_declined: bool) -> None:
    payment = await desk.create("new", manual=False)
    if first_declined:
        payment = await desk.confirm(desk.ticket("first"), payment, Source(stripe_payment_method_id="pm_declined"))
    payment = await fail_3d_secure(desk, "second", payment)
    assert payment.state is PaymentState.REQUIRES_PAYMENT_METHOD
    # Of the next one, every answer is lost before any work is done: Stripe still shows the failure of the one before.
    request = desk.ticket("third")
    desk.weather(*[W.DROPPED] * 3)
    payment = await desk.confirm(request, payment, CARD)
    payment = await learn_payment(desk.deps, payment)
    assert payment.latest_attempt is not None
    assert (payment.state, payment.latest_attempt.state.name) == (PaymentState.PROCESSING, "UNKNOWN")
    payment = await drive_attempt(desk.deps, payment.latest_attempt.id)
    assert payment.state is PaymentState.SUCCEEDED


async def test_a_second_failed_3d_secure_is_told(desk: Desk) -> None:
    payment = await fail_3d_secure(desk, "first", await desk.create("new", manual=False))
    payment = await fail_3d_secure(desk, "second", payment)
    assert payment.state is PaymentState.REQUIRES_PAYMENT_METHOD


async def test_a_second_failed_3d_secure_is_told_although_the_answer_to_its_confirm_was_lost(desk: Desk) -> None:
    payment = await fail_3d_secure(desk, "first", await desk.create("new", manual=False))
    desk.weather(*[W.LOST] * 3)
    payment = await desk.confirm(desk.ticket("second"), payment, ASKS)
    [intent] = desk.stripe.of(payment.id)
    desk.stripe.settle(intent, succeed=False, authenticated=False)
    assert payment.latest_attempt is not None
    payment = await drive_attempt(desk.deps, payment.latest_attempt.id)
    payment = await learn_payment(desk.deps, payment)
    assert payment.state is PaymentState.REQUIRES_PAYMENT_METHOD


async def test_a_refund_that_the_ledger_does_not_book_is_not_sent(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    desk.ledger.verdict_of_refunds = "ACCOUNT_NOT_FOUND"
    with pytest.raises(InvariantBroken, match="ACCOUNT_NOT_FOUND"):
        await desk.refund(desk.ticket("refund"), payment, 400)
    assert not desk.stripe.refunds
