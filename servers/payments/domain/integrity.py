"""Whether Stripe speaks of what we asked for: the amount, the currency and the ids that it repeats must be ours."""

from __future__ import annotations

from servers.kernel.money import Money
from servers.payments.domain.answers import Authorized, Charged, ChargeResult, IntentStatus, RefundResult
from servers.payments.domain.records import Payment, Refund
from servers.payments.domain.states import CaptureMethod


def differences(payment: Payment, answer: ChargeResult | IntentStatus) -> tuple[str, ...]:
    """Return the names of what an answer has otherwise than the payment: "id", "currency", "amount", "capture_method"."""
    found = []
    if (echo := answer.echo) is not None:
        ours = (payment.stripe_payment_intent_id or echo.intent_id, payment.id)
        if (echo.intent_id, echo.payment_id) != ours:
            found.append("id")
        found += _of_amounts(payment.amount, echo.amount)
    if isinstance(answer, Charged | Authorized):
        found += _of_amounts(payment.amount, answer.amount)
    if isinstance(answer, Authorized) and payment.capture_method is not CaptureMethod.MANUAL:
        found.append("capture_method")
    return tuple(dict.fromkeys(found))


def refund_differences(refund: Refund, intent_id: str, result: RefundResult) -> tuple[str, ...]:
    """Return the names of what an answer has otherwise than the refund."""
    if (echo := result.echo) is None:
        return ()
    found = ["id"] if (echo.intent_id, echo.refund_id) != (intent_id, refund.id) else []
    return (*found, *_of_amounts(refund.amount, echo.amount))


def _of_amounts(ours: Money, theirs: Money) -> list[str]:
    if ours.currency != theirs.currency:
        return ["currency"]
    return ["amount"] if ours.amount_minor != theirs.amount_minor else []
