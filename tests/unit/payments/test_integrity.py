"""What Stripe repeats of a payment or a refund must be ours: each difference is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from servers.kernel.money import Money
from servers.payments.domain import (
    Authorized,
    CaptureMethod,
    CardDeclined,
    Charged,
    Decline,
    Echo,
    FeeRefund,
    IntentStatus,
    Payment,
    PaymentState,
    Purpose,
    Refund,
    RefundEcho,
    RefundResult,
    RefundState,
    StillProcessing,
    SuspenseCause,
    SuspenseItem,
    differences,
    refund_differences,
)
from servers.payments.domain.records import Capture

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def usd(amount: int) -> Money:
    """Return dollars."""
    return Money(amount_minor=amount, currency="USD")


OURS = Echo(intent_id="pi_1", payment_id="pay_1", amount=usd(1000))
PAYMENT = Payment(
    id="pay_1", owner_id="mer_1", customer_id="usr_1", purpose=Purpose.SALE, top_up_id="", payment_method_id="",
    statement_descriptor_suffix="", amount=usd(1000), state=PaymentState.PROCESSING, capture_method=CaptureMethod.MANUAL,
    capturable_minor=0, capture_pending_minor=0, multicapture=False, capture_before_time=None, cancellation_reason="",
    captured_minor=0, refunded_minor=0, refund_pending_minor=0, stripe_payment_intent_id="pi_1", description="",
    metadata={}, version=1, create_time=NOW, update_time=NOW, capture_deadline=None, due_time=None,
)  # fmt: skip
EUROS = Money(amount_minor=1000, currency="EUR")
DECLINE = Decline(code="declined", recommended_action="STOP", message="No.")


@pytest.mark.parametrize(
    ("echo", "what"),
    [
        (OURS, ()),
        (None, ()),
        (replace(OURS, intent_id="pi_2"), ("id",)),
        (replace(OURS, payment_id="pay_2"), ("id",)),
        (replace(OURS, payment_id=""), ("id",)),
        (replace(OURS, amount=usd(1001)), ("amount",)),
        (replace(OURS, amount=EUROS), ("currency",)),
        (replace(OURS, intent_id="pi_2", amount=usd(1)), ("id", "amount")),
    ],
)
def test_every_answer_about_an_intent_is_compared(echo: Echo | None, what: tuple[str, ...]) -> None:
    answers = [
        Charged(charge_id="ch_1", amount=usd(1000), echo=echo),
        Authorized(charge_id="ch_1", amount=usd(1000), multicapture=False, capture_before_time=None, echo=echo),
        CardDeclined(charge_id="ch_1", decline=DECLINE, echo=echo),
        StillProcessing(echo=echo),
        IntentStatus(status="canceled", received=usd(0), echo=echo),
    ]
    assert [differences(PAYMENT, answer) for answer in answers] == [what] * len(answers)


def test_what_was_taken_or_held_is_compared_too() -> None:
    assert differences(PAYMENT, Charged(charge_id="c", amount=usd(999), echo=OURS)) == ("amount",)
    assert differences(PAYMENT, Charged(charge_id="c", amount=EUROS, echo=OURS)) == ("currency",)
    held = Authorized(charge_id="c", amount=usd(999), multicapture=False, capture_before_time=None, echo=OURS)
    assert differences(PAYMENT, held) == ("amount",)
    automatic = replace(PAYMENT, capture_method=CaptureMethod.AUTOMATIC)
    assert differences(automatic, replace(held, amount=usd(1000))) == ("capture_method",)


@pytest.mark.parametrize(
    ("echo", "what"),
    [
        (RefundEcho(intent_id="pi_1", refund_id="ref_1", amount=usd(400)), ()),
        (None, ()),
        (RefundEcho(intent_id="pi_2", refund_id="ref_1", amount=usd(400)), ("id",)),
        (RefundEcho(intent_id="pi_1", refund_id="ref_2", amount=usd(400)), ("id",)),
        (RefundEcho(intent_id="pi_1", refund_id="ref_1", amount=usd(401)), ("amount",)),
        (RefundEcho(intent_id="pi_1", refund_id="ref_1", amount=EUROS), ("currency",)),
    ],
)
def test_every_answer_about_a_refund_is_compared(echo: RefundEcho | None, what: tuple[str, ...]) -> None:
    refund = Refund(
        id="ref_1", payment_id="pay_1", owner_id="mer_1", amount=usd(400), fee_returned=usd(0), reason="OTHER",
        state=RefundState.PENDING, stripe_refund_id="", failure_reason="", uncertain=False, metadata={}, version=1,
        create_time=NOW, update_time=NOW,
    )  # fmt: skip
    result = RefundResult(stripe_refund_id="re_1", state=RefundState.SUCCEEDED, failure_reason="", echo=echo)
    assert refund_differences(refund, "pi_1", result) == what


def test_what_stripe_took_is_accounted_for_once() -> None:
    late = SuspenseItem(id="sus_1", amount=usd(300), cause=SuspenseCause.LATE_CAPTURE, create_time=NOW)
    own = Capture(
        id="cap_1", amount=usd(700), fee=usd(1), fee_due_minor=1, fee_plan_version="1", fee_refund=FeeRefund.KEPT,
        settlement_delay_seconds=None, capture_time=NOW,
    )  # fmt: skip
    accepted = replace(own, id="cap_2", amount=usd(300), suspense_item_id="sus_1")
    assert replace(PAYMENT, captures=(own,), suspense=(late,)).taken_by_stripe("USD") == 1000
    assert replace(PAYMENT, captures=(own, accepted), suspense=(late,)).taken_by_stripe("USD") == 1000
    assert replace(PAYMENT, captures=(own,), suspense=(late,)).taken_by_stripe("EUR") == 0
