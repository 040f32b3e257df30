"""Payments that a person looks at first: charged only after that, once, or not at all, whoever is faster."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from servers.payments.domain import Payment, PaymentState, ReviewState, Source
from servers.payments.resolvers import resolvers
from servers.payments.risk import CLEAR, Assessment, Question, Screening, Thresholds
from servers.payments.usecases import act_on_due, approve_payment, cancel_payment
from servers.runtime.channels import PeerUnavailable
from servers.runtime.janitor import Janitor
from tests.support.payment_desk import MERCHANT, WALLET, Answer, Desk, usd
from tests.support.weather import Weather

W = Weather
NEVER = [W.REFUSED] * 3
CARD = Source(stripe_payment_method_id="pm_ok")
FROM_WALLET = Source(wallet_id=WALLET.id)
DAY = timedelta(days=1)
P = PaymentState


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Return a desk where sums above 5.00 dollars are looked at."""
    return replace(desk, deps=replace(desk.deps, screening=Screening(Thresholds({"USD": 500}), closed=True)))


async def in_review(desk: Desk, source: Source = CARD, *, name: str = "1") -> Payment:
    """Return a payment in review."""
    payment = await desk.create(f"new {name}", manual=False)
    payment = await desk.confirm(desk.ticket(f"pay {name}"), payment, source)
    assert payment.state is P.REQUIRES_REVIEW
    return payment


async def approve(desk: Desk, payment: Payment, key: str = "approve") -> Answer:
    """Approve as the merchant."""
    request = desk.ticket(key, payment.id, method="approve")
    return await desk.told(request, approve_payment(desk.deps, request, payment_id=payment.id, merchant_id=MERCHANT))


async def reject(desk: Desk, payment: Payment, key: str = "reject") -> Answer:
    """Reject as the merchant."""
    request = desk.ticket(key, payment.id, method="reject")
    call = cancel_payment(
        desk.deps, request, payment_id=payment.id, merchant_id=MERCHANT, reason="REVIEW_REJECTED", in_review=True
    )
    return await desk.told(request, call)


def paid(desk: Desk, payment: Payment, source: Source) -> int:
    """Return how often the payment was charged, at Stripe or in the ledger."""
    if source is FROM_WALLET:
        return sum(whose == payment.id for whose, _, _ in desk.ledger.taken.values())
    return sum(intent.paid for intent in desk.stripe.of(payment.id))


async def told_of(desk: Desk, payment: Payment) -> list[str]:
    """Return the types of the events about a payment, in order."""
    rows = await desk.rows("SELECT type FROM outbox WHERE subject = :id ORDER BY version", id=payment.id)
    return [row.type.removeprefix("payment.") for row in rows]


@pytest.mark.parametrize("source", [CARD, FROM_WALLET], ids=["card", "wallet"])
async def test_nothing_is_charged_before_a_person_said_so_and_then_once(desk: Desk, source: Source) -> None:
    payment = await in_review(desk, source)
    assert payment.review is not None
    assert (payment.review.state, payment.review.reasons) == (ReviewState.OPEN, ("AMOUNT_ABOVE_THRESHOLD",))
    assert not await desk.rows("SELECT id FROM outbound_calls")
    desk.wait(timedelta(hours=2))
    await Janitor(desk.db, resolvers(desk.deps)).round()
    assert await act_on_due(desk.deps) == 0
    again = await desk.told(desk.ticket("pay 1"), desk.confirm(desk.ticket("pay 1"), payment, source))
    assert again.is_replayed
    other = await desk.told(desk.ticket("other"), desk.confirm(desk.ticket("other"), payment, source))
    assert other.reason == "PAYMENT_STATE_INVALID"
    assert paid(desk, payment, source) == 0
    first, second = await approve(desk, payment), await approve(desk, payment)
    assert (first.reason, second.body) == ("", first.body)
    assert (await approve(desk, payment, "late")).reason == "PAYMENT_STATE_INVALID"
    assert (await reject(desk, payment)).reason == "PAYMENT_STATE_INVALID"
    done = await desk.payment(payment.id)
    assert (done.state, paid(desk, payment, source)) == (P.SUCCEEDED, 1)
    assert done.review is not None
    assert done.review.state is ReviewState.APPROVED
    assert await told_of(desk, payment) == ["created", "updated", "in_review", "processing", "succeeded"]


async def test_small_sums_and_currencies_without_a_threshold_are_not_looked_at(desk: Desk) -> None:
    payment = await desk.create("small", manual=False, amount=500)
    assert (await desk.confirm(desk.ticket("pay"), payment, CARD)).state is P.SUCCEEDED


async def test_an_approved_payment_is_not_reviewed_again(desk: Desk) -> None:
    payment = await in_review(desk, Source(stripe_payment_method_id="pm_declined"))
    assert (await approve(desk, payment)).reason == ""
    assert (await desk.payment(payment.id)).state is P.REQUIRES_PAYMENT_METHOD
    payment = await desk.confirm(desk.ticket("again"), payment, CARD)
    assert payment.state is P.SUCCEEDED


async def test_a_rejected_payment_is_canceled_and_nothing_was_charged(desk: Desk) -> None:
    payment = await in_review(desk)
    first, second = await reject(desk, payment), await reject(desk, payment)
    assert (first.reason, second.body) == ("", first.body)
    ended = await desk.payment(payment.id)
    assert (ended.state, ended.cancellation_reason) == (P.CANCELED, "REVIEW_REJECTED")
    assert ended.review is not None
    assert ended.review.state is ReviewState.REJECTED
    assert ended.latest_attempt is not None
    assert ended.latest_attempt.decline is not None
    assert ended.latest_attempt.decline.code == "payment_canceled"
    assert (await approve(desk, payment)).reason == "PAYMENT_STATE_INVALID"
    assert not desk.stripe.sent
    assert await told_of(desk, payment) == ["created", "updated", "in_review", "canceled"]


async def test_what_stripe_knows_of_is_canceled_there_before_it_is_here(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    lenient = replace(desk, deps=replace(desk.deps, screening=Screening(Thresholds({}), closed=True)))
    declined = Source(stripe_payment_method_id="pm_declined")
    await lenient.confirm(desk.ticket("first"), payment, declined)
    payment = await desk.confirm(desk.ticket("second"), payment, CARD)
    assert payment.state is P.REQUIRES_REVIEW
    desk.stripe.forecast.be(W.LOST, W.LOST, W.LOST)
    lost = await reject(desk, payment)
    assert (lost.reason, (await desk.payment(payment.id)).state) == ("", P.REQUIRES_REVIEW)
    assert (await approve(desk, payment)).reason == "OPERATION_IN_PROGRESS"
    desk.wait(timedelta(minutes=6))
    await Janitor(desk.db, resolvers(desk.deps)).round()
    ended = await desk.payment(payment.id)
    assert (ended.state, ended.cancellation_reason) == (P.CANCELED, "REVIEW_REJECTED")
    assert [intent.status for intent in desk.stripe.of(payment.id)] == ["canceled"]


async def test_nobody_looked_in_time(desk: Desk) -> None:
    payment = await in_review(desk)
    desk.wait(DAY - timedelta(minutes=1))
    assert await act_on_due(desk.deps) == 0
    desk.wait(timedelta(minutes=2))
    assert await act_on_due(desk.deps) == 1
    ended = await desk.payment(payment.id)
    assert (ended.state, ended.cancellation_reason) == (P.CANCELED, "REVIEW_TIMED_OUT")
    assert ended.review is not None
    assert (ended.review.state, ended.due_time) == (ReviewState.TIMED_OUT, None)
    assert (await approve(desk, payment)).reason == "PAYMENT_STATE_INVALID"


async def test_of_approve_reject_and_the_end_of_the_time_one_wins(desk: Desk) -> None:
    for number in range(6):
        payment = await in_review(desk, name=str(number))
        desk.wait(DAY + timedelta(minutes=1))
        yes, no, _ = await asyncio.gather(
            approve(desk, payment, f"yes {number}"), reject(desk, payment, f"no {number}"), act_on_due(desk.deps)
        )
        ended = await desk.payment(payment.id)
        assert ended.state in (P.SUCCEEDED, P.CANCELED)
        assert paid(desk, payment, CARD) == (ended.state is P.SUCCEEDED) == (yes.reason == "")
        assert (yes.reason == "") + (no.reason == "") <= 1
        assert {yes.reason, no.reason} <= {"", "PAYMENT_STATE_INVALID", "OPERATION_IN_PROGRESS"}


async def test_an_approval_that_could_not_be_sent_goes_on_under_its_key(desk: Desk) -> None:
    payment = await in_review(desk)
    desk.stripe.forecast.be(*NEVER)
    assert (await approve(desk, payment)).reason == "PROVIDER_UNAVAILABLE"
    assert (await desk.payment(payment.id)).state is P.REQUIRES_CONFIRMATION
    desk.stripe.forecast.be()
    assert (await approve(desk, payment)).reason == ""
    assert (await desk.payment(payment.id)).state is P.SUCCEEDED
    assert paid(desk, payment, CARD) == 1


@pytest.mark.parametrize("weather", [W.DIED, W.DIED_BEFORE])
async def test_a_process_that_dies_after_an_approval_charges_once(desk: Desk, weather: Weather) -> None:
    payment = await in_review(desk)
    desk.stripe.forecast.be(W.FINE, weather)
    assert (await approve(desk, payment)).reason == "DIED"
    assert (await approve(desk, payment)).reason == ""
    assert (await desk.payment(payment.id)).state is P.SUCCEEDED
    assert paid(desk, payment, CARD) == 1


async def test_a_shoppers_confirm_is_looked_at_as_well(desk: Desk) -> None:
    payment = await desk.create("new", manual=False, customer_id="")
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    assert payment.state is P.REQUIRES_REVIEW
    assert (await approve(desk, payment)).reason == ""
    assert (await desk.payment(payment.id)).state is P.SUCCEEDED


class Slow:
    """Fraud rules that answer too late, or not at all."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def assess(self, question: Question) -> Assessment:
        """Take too long."""
        if self._error is not None:
            raise self._error
        await asyncio.sleep(30)
        return CLEAR


QUESTION: dict[str, Any] = {
    "payment_id": "p", "merchant_id": "m", "customer_id": "", "amount": usd(1), "off_session": False,
    "from_wallet": False,
}  # fmt: skip


@pytest.mark.parametrize("error", [None, PeerUnavailable("risk")], ids=["late", "away"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
async def test_without_an_answer_in_time_the_setting_decides(error: Exception | None, closed: bool) -> None:
    screening = Screening(Slow(error), closed=closed, deadline_seconds=0.05)
    assessment = await asyncio.wait_for(screening.assess(Question(**QUESTION)), 5)
    assert assessment.reasons == (("NO_ANSWER",) if closed else ())
