"""The domain's records as messages of the contract."""

from __future__ import annotations

from paymesh.payments.v1 import payments_pb2
from paymesh.type.v1 import money_pb2

from servers.payments.domain import (
    PAYMENT,
    REFUND,
    Attempt,
    AttemptState,
    Capture,
    Payment,
    PaymentMethod,
    PaymentState,
    Refund,
)
from servers.runtime.render import etag, money, stamp


class Renderer:
    """Renders for one deployment, which runs in one mode."""

    def __init__(self, *, livemode: bool) -> None:
        self._livemode = livemode

    def method(self, method: PaymentMethod) -> payments_pb2.PaymentMethod:
        """Return a payment method as a message."""
        message = payments_pb2.PaymentMethod(
            id=method.id,
            create_time=stamp(method.create_time),
            update_time=stamp(method.update_time),
            resource_version=method.version,
            etag=etag(method.version),
            customer_id=method.owner_id,
            state=payments_pb2.PaymentMethod.State.Value(method.state.value),
            livemode=self._livemode,
            is_default=method.is_default,
        )
        if (card := method.card) is not None:
            message.card.brand = card.brand
            message.card.last4 = card.last4
            message.card.exp_month = card.exp_month
            message.card.exp_year = card.exp_year
            message.card.funding = card.funding
            message.card.country = card.country
        return message

    def payment(self, payment: Payment) -> payments_pb2.Payment:
        """Return a payment as a message."""
        currency = payment.amount.currency
        actions = PAYMENT.available_actions(payment.state)
        if payment.refundable.amount_minor == 0:
            actions = tuple(action for action in actions if action != "refund")
        message = payments_pb2.Payment(
            id=payment.id,
            create_time=stamp(payment.create_time),
            update_time=stamp(payment.update_time),
            resource_version=payment.version,
            etag=etag(payment.version),
            merchant_id=payment.merchant_id,
            customer_id=payment.customer_id,
            amount=money(payment.amount),
            state=payments_pb2.Payment.State.Value(payment.state.value),
            amount_captured=_minor(payment.captured_minor, currency),
            amount_refunded=_minor(payment.refunded_minor, currency),
            amount_refund_pending=_minor(payment.refund_pending_minor, currency),
            certainty=payments_pb2.CERTAIN if payment.certain else payments_pb2.UNKNOWN,
            captures=[capture_message(capture) for capture in payment.captures],
            available_actions=actions,
            description=payment.description,
            metadata=payment.metadata,
            livemode=self._livemode,
            capture_method=payments_pb2.Payment.CaptureMethod.Value(payment.capture_method.value),
            amount_capturable=_minor(payment.capturable_minor, currency),
            amount_capture_pending=_minor(payment.capture_pending_minor, currency),
            multicapture_available=payment.multicapture,
        )
        if payment.capture_before_time is not None:
            message.capture_before_time.CopyFrom(stamp(payment.capture_before_time))
        if payment.cancellation_reason:
            message.cancellation_reason = payments_pb2.Payment.CancellationReason.Value(payment.cancellation_reason)
        if (attempt := payment.latest_attempt) is not None:
            message.latest_attempt.CopyFrom(attempt_message(attempt))
            waits = payment.state is PaymentState.REQUIRES_ACTION and attempt.state is AttemptState.REQUIRES_ACTION
            if waits and attempt.next_action_url:
                message.next_action.redirect_url = attempt.next_action_url
        return message


def capture_message(capture: Capture) -> payments_pb2.Capture:
    """Return a capture as a message."""
    return payments_pb2.Capture(
        id=capture.id,
        amount=money(capture.amount),
        fee=money(capture.fee),
        fee_plan_version=capture.fee_plan_version,
        capture_time=stamp(capture.capture_time),
    )


def attempt_message(attempt: Attempt) -> payments_pb2.Attempt:
    """Return an attempt as a message."""
    message = payments_pb2.Attempt(
        id=attempt.id,
        create_time=stamp(attempt.create_time),
        update_time=stamp(attempt.update_time),
        payment_id=attempt.payment_id,
        payment_method_id=attempt.payment_method_id,
        state=payments_pb2.Attempt.State.Value(attempt.state.value),
    )
    if (decline := attempt.decline) is not None:
        message.decline.code = decline.code
        message.decline.message = decline.message
        message.decline.recommended_action = payments_pb2.Decline.RecommendedAction.Value(decline.recommended_action)
    return message


def refund_message(refund: Refund) -> payments_pb2.Refund:
    """Return a refund as a message."""
    return payments_pb2.Refund(
        id=refund.id,
        create_time=stamp(refund.create_time),
        update_time=stamp(refund.update_time),
        resource_version=refund.version,
        etag=etag(refund.version),
        payment_id=refund.payment_id,
        merchant_id=refund.merchant_id,
        amount=money(refund.amount),
        reason=payments_pb2.Refund.Reason.Value(refund.reason),
        state=payments_pb2.Refund.State.Value(refund.state.value),
        certainty=payments_pb2.UNKNOWN if refund.uncertain else payments_pb2.CERTAIN,
        failure_reason=refund.failure_reason,
        available_actions=REFUND.available_actions(refund.state),
        metadata=refund.metadata,
    )


def _minor(amount_minor: int, currency: str) -> money_pb2.Money:
    return money_pb2.Money(amount_minor=amount_minor, currency=currency)
