"""Payments, attempts, captures, refunds: states, arrows and arithmetic, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import ClassVar, Final

from servers.kernel.errors import Kind, Refusal
from servers.kernel.money import Money, Rounding, apply_bps
from servers.kernel.transitions import Arrow, IllegalTransition, Machine


class PaymentState(Enum):
    """The states of a payment; the names are those of the contract."""

    REQUIRES_PAYMENT_METHOD = "REQUIRES_PAYMENT_METHOD"
    REQUIRES_CONFIRMATION = "REQUIRES_CONFIRMATION"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    CONFLICTED = "CONFLICTED"


class AttemptState(Enum):
    """The states of an attempt."""

    CREATED = "CREATED"
    SENT = "SENT"
    SUCCEEDED = "SUCCEEDED"
    DECLINED = "DECLINED"
    NOT_SENT = "NOT_SENT"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    NEEDS_OPERATOR = "NEEDS_OPERATOR"


class RefundState(Enum):
    """The states of a refund."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class MethodState(Enum):
    """The states of a payment method."""

    ATTACHING = "ATTACHING"
    ATTACHED = "ATTACHED"
    REJECTED = "REJECTED"


class PaymentStateInvalid(IllegalTransition):
    """The payment's state does not allow the verb."""

    reason: ClassVar[str] = "PAYMENT_STATE_INVALID"


class RefundStateInvalid(IllegalTransition):
    """The refund's state does not allow the verb."""

    reason: ClassVar[str] = "REFUND_STATE_INVALID"


class MethodStateInvalid(IllegalTransition):
    """The payment method's state does not allow the use."""

    reason: ClassVar[str] = "PAYMENT_METHOD_STATE_INVALID"


_P = PaymentState
PAYMENT: Final = Machine(
    name="payment",
    states=PaymentState,
    terminal=frozenset({_P.SUCCEEDED}),
    refusal=PaymentStateInvalid,
    actions={_P.SUCCEEDED: ("refund",)},
    arrows=(
        Arrow(None, "create", _P.REQUIRES_PAYMENT_METHOD, "payment.created"),
        Arrow(_P.REQUIRES_PAYMENT_METHOD, "attach", _P.REQUIRES_CONFIRMATION, "payment.updated", "confirm"),
        Arrow(_P.REQUIRES_CONFIRMATION, "send", _P.PROCESSING, "payment.processing", "confirm"),
        Arrow(_P.PROCESSING, "not_sent", _P.REQUIRES_CONFIRMATION, "payment.updated"),
        Arrow(_P.PROCESSING, "succeed", _P.SUCCEEDED, "payment.succeeded"),
        Arrow(_P.PROCESSING, "decline", _P.REQUIRES_PAYMENT_METHOD, "payment.declined"),
        Arrow(_P.PROCESSING, "require_action", _P.REQUIRES_ACTION, "payment.requires_action"),
        Arrow(_P.PROCESSING, "conflict", _P.CONFLICTED, "payment.conflicted"),
        Arrow(_P.REQUIRES_ACTION, "return", _P.PROCESSING, "payment.processing"),
        Arrow(_P.REQUIRES_ACTION, "decline", _P.REQUIRES_PAYMENT_METHOD, "payment.declined"),
    ),
)
_A = AttemptState
ATTEMPT: Final = Machine(
    name="attempt",
    states=AttemptState,
    terminal=frozenset({_A.SUCCEEDED, _A.DECLINED, _A.NOT_SENT}),
    refusal=PaymentStateInvalid,
    arrows=(
        Arrow(None, "create", _A.CREATED, ""),
        Arrow(_A.CREATED, "send", _A.SENT, ""),
        Arrow(_A.CREATED, "not_sent", _A.NOT_SENT, ""),
        Arrow(_A.SENT, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.SENT, "decline", _A.DECLINED, ""),
        Arrow(_A.SENT, "not_sent", _A.NOT_SENT, ""),
        Arrow(_A.SENT, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.SENT, "pend", _A.PENDING, ""),
        Arrow(_A.SENT, "lose", _A.UNKNOWN, ""),
        Arrow(_A.REQUIRES_ACTION, "pend", _A.PENDING, ""),
        Arrow(_A.REQUIRES_ACTION, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.REQUIRES_ACTION, "decline", _A.DECLINED, ""),
        Arrow(_A.PENDING, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.PENDING, "decline", _A.DECLINED, ""),
        Arrow(_A.UNKNOWN, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.UNKNOWN, "decline", _A.DECLINED, ""),
        Arrow(_A.UNKNOWN, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.UNKNOWN, "pend", _A.PENDING, ""),
        Arrow(_A.UNKNOWN, "give_up", _A.NEEDS_OPERATOR, ""),
        # A person looks for the answer, and the provider may still send it.
        Arrow(_A.NEEDS_OPERATOR, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.NEEDS_OPERATOR, "decline", _A.DECLINED, ""),
        Arrow(_A.NEEDS_OPERATOR, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.NEEDS_OPERATOR, "pend", _A.PENDING, ""),
    ),
)
_R = RefundState
REFUND: Final = Machine(
    name="refund",
    states=RefundState,
    # SUCCEEDED is left by one arrow only, the bank's return of the money.
    terminal=frozenset({_R.FAILED, _R.CANCELED}),
    refusal=RefundStateInvalid,
    arrows=(
        Arrow(None, "create", _R.PENDING, "refund.created"),
        Arrow(_R.PENDING, "succeed", _R.SUCCEEDED, "refund.succeeded"),
        Arrow(_R.PENDING, "fail", _R.FAILED, "refund.failed"),
        Arrow(_R.PENDING, "cancel", _R.CANCELED, "refund.canceled"),
        Arrow(_R.SUCCEEDED, "fail", _R.FAILED, "refund.failed"),
    ),
)
_M = MethodState
METHOD: Final = Machine(
    name="payment_method",
    states=MethodState,
    terminal=frozenset({_M.REJECTED}),
    refusal=MethodStateInvalid,
    arrows=(
        Arrow(None, "create", _M.ATTACHING, ""),
        Arrow(_M.ATTACHING, "attach", _M.ATTACHED, "payment_method.attached"),
        Arrow(_M.ATTACHING, "reject", _M.REJECTED, ""),
    ),
)
MACHINES: Final = (PAYMENT, ATTEMPT, REFUND, METHOD)
OPEN_ATTEMPTS: Final = frozenset({_A.CREATED, _A.SENT, _A.PENDING, _A.UNKNOWN, _A.NEEDS_OPERATOR})
"""While an attempt is open, no second one may start: that is how a card is charged twice."""
UNCERTAIN: Final = frozenset({_A.SENT, _A.UNKNOWN, _A.NEEDS_OPERATOR})


class OperationInProgress(Refusal):
    """An attempt of the payment is still open."""

    kind = Kind.ABORTED
    reason = "OPERATION_IN_PROGRESS"

    def __init__(self, payment_id: str) -> None:
        super().__init__(
            "Another confirm of this payment is still open; read the payment to see how it ends.",
            metadata={"payment_id": payment_id},
            retry_after_seconds=1.0,
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


class ProviderUnavailable(Refusal):
    """Stripe was provably not reached."""

    kind = Kind.UNAVAILABLE
    reason = "PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The card processor cannot be reached; ask again with the same key.", retry_after_seconds=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePlan:
    """What the platform keeps of a capture: basis points of it and a fixed part per currency."""

    version: str
    basis_points: int
    fixed_minor: Mapping[str, int] = field(default_factory=dict)

    def fee(self, captured: Money) -> Money:
        """Return the fee of a capture in full: HALF_EVEN, and never more than the capture."""
        part = apply_bps(captured.amount_minor, self.basis_points, rounding=Rounding.HALF_EVEN)
        whole = min(part + self.fixed_minor.get(captured.currency, 0), captured.amount_minor)
        return Money(amount_minor=whole, currency=captured.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What may be shown of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int
    funding: str
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """A user's card at Stripe."""

    id: str
    owner_id: str
    stripe_id: str
    state: MethodState
    card: Card | None
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline:
    """Why a card was declined."""

    code: str
    recommended_action: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One confirm of a payment."""

    id: str
    payment_id: str
    merchant_id: str
    payment_method_id: str
    stripe_payment_method_id: str
    state: AttemptState
    charge_id: str
    prior_charge_id: str
    """The charge of the attempt before: where Stripe still shows it, this attempt was not carried out."""
    decline: Decline | None
    next_action_url: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Money taken from the card."""

    id: str
    amount: Money
    fee: Money
    fee_plan_version: str
    capture_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A sum that a merchant wants from a customer."""

    id: str
    merchant_id: str
    customer_id: str
    amount: Money
    state: PaymentState
    captured_minor: int
    refunded_minor: int
    refund_pending_minor: int
    stripe_payment_intent_id: str
    description: str
    metadata: Mapping[str, str]
    version: int
    create_time: datetime
    update_time: datetime
    latest_attempt: Attempt | None = None
    captures: tuple[Capture, ...] = ()

    @property
    def refundable(self) -> Money:
        """What can still be refunded."""
        left = self.captured_minor - self.refunded_minor - self.refund_pending_minor
        return Money(amount_minor=left, currency=self.amount.currency)

    @property
    def certain(self) -> bool:
        """Whether no call to Stripe is without an outcome."""
        return self.latest_attempt is None or self.latest_attempt.state not in UNCERTAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money on its way back."""

    id: str
    payment_id: str
    merchant_id: str
    amount: Money
    reason: str
    state: RefundState
    stripe_refund_id: str
    failure_reason: str
    uncertain: bool
    metadata: Mapping[str, str]
    version: int
    create_time: datetime
    update_time: datetime


# What the processor says of a confirm. `amount` is what it echoes; it must be ours.


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """The card was charged."""

    charge_id: str
    amount: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class CardDeclined:
    """The card was declined."""

    charge_id: str
    decline: Decline


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequired:
    """The cardholder must authenticate."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StillProcessing:
    """The processor is not done yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotConfirmed:
    """The processor has not carried out this confirm."""


ChargeResult = Charged | CardDeclined | ActionRequired | StillProcessing | NotConfirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundResult:
    """What the processor says of a refund: `state` is PENDING, SUCCEEDED, FAILED or CANCELED."""

    stripe_refund_id: str
    state: RefundState
    failure_reason: str
