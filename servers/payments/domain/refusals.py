"""What payments refuse, one class per fact."""

from __future__ import annotations

from servers.kernel.errors import Kind, Refusal
from servers.kernel.money import Money


class OperationInProgress(Refusal):
    """A confirm, capture or cancel is still open."""

    kind = Kind.ABORTED
    reason = "OPERATION_IN_PROGRESS"

    def __init__(self, payment_id: str) -> None:
        super().__init__(
            "Another call for this payment is still open; read the payment to see how it ends.",
            metadata={"payment_id": payment_id},
            retry_after_seconds=1.0,
        )


class CaptureExceedsAvailable(Refusal):
    """More than what is authorized and not yet captured."""

    kind = Kind.PRECONDITION
    reason = "CAPTURE_EXCEEDS_AVAILABLE"

    def __init__(self, left: Money) -> None:
        super().__init__(
            f"At most {left.amount_minor} minor units of {left.currency} can be captured.",
            metadata={"capturable_minor": str(left.amount_minor), "currency": left.currency},
        )


class MulticaptureUnavailable(Refusal):
    """The card does not allow several captures."""

    kind = Kind.PRECONDITION
    reason = "MULTICAPTURE_UNAVAILABLE"

    def __init__(self, payment_id: str) -> None:
        super().__init__(
            "The card does not allow several captures: capture all, or set `final` to let the rest go.",
            metadata={"payment_id": payment_id},
        )


class RefundExceedsAvailable(Refusal):
    """More than what is captured and not yet refunded."""

    kind = Kind.PRECONDITION
    reason = "REFUND_EXCEEDS_AVAILABLE"

    def __init__(self, left: Money) -> None:
        super().__init__(
            f"At most {left.amount_minor} minor units of {left.currency} can be refunded.",
            metadata={"refundable_minor": str(left.amount_minor), "currency": left.currency},
        )


class PaymentMethodRejected(Refusal):
    """Stripe does not know the payment method or refuses to attach it."""

    kind = Kind.PRECONDITION
    reason = "PAYMENT_METHOD_REJECTED"

    def __init__(self, code: str) -> None:
        super().__init__("Stripe does not accept this payment method; make a new one.", metadata={"code": code})


class InsufficientFunds(Refusal):
    """The wallet does not hold enough."""

    kind = Kind.PRECONDITION
    reason = "INSUFFICIENT_FUNDS"

    def __init__(self, payment_id: str, currency: str) -> None:
        super().__init__(
            "The wallet does not hold enough; top it up, or pay with a card.",
            metadata={"currency": currency, "payment_id": payment_id},
        )
