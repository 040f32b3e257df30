"""What payments refuse, one class per fact."""

from __future__ import annotations

from servers.kernel.errors import Kind, Refusal
from servers.kernel.money import Money


class OperationInProgress(Refusal):
    """A confirm, capture or cancel of the payment, of the setup intent or with the payment method is still open, or the accept of
    the dispute."""

    kind = Kind.ABORTED
    reason = "OPERATION_IN_PROGRESS"

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"Another operation of {resource} is still open; read it to see how that one ends.",
            metadata={"resource": resource},
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


class PaymentDisputed(Refusal):
    """A chargeback of the payment is open."""

    kind = Kind.PRECONDITION
    reason = "PAYMENT_DISPUTED"

    def __init__(self, payment_id: str) -> None:
        super().__init__(
            "A chargeback of this payment is open: accept the dispute instead, or wait for its end.",
            metadata={"payment_id": payment_id},
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
