"""Payments, attempts, captures, operations, refunds: records and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from servers.kernel.money import Money
from servers.payments.domain.fees import FeeRefund
from servers.payments.domain.states import (
    CARRIED_OUT,
    UNCERTAIN,
    AttemptState,
    CaptureMethod,
    MandateState,
    MethodState,
    OperationKind,
    OperationState,
    PaymentState,
    Purpose,
    RefundState,
    SetupState,
    Usage,
)


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
    is_default: bool
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
class NextAction:
    """What the cardholder must do: go to `url`, or use Stripe's SDK with what is sealed here."""

    url: str = ""
    sealed_secret: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an attempt takes the money from: a saved card, a card that is not saved, or a wallet."""

    payment_method_id: str = ""
    stripe_payment_method_id: str = ""
    wallet_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an attempt is made."""

    off_session: bool = False
    return_url: str = ""
    use_stripe_sdk: bool = False
    save_for: Usage = Usage.NONE
    """Save the card, and give the merchant a mandate for this use of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One confirm of a payment."""

    id: str
    payment_id: str
    owner_id: str
    source: Source
    manner: Manner
    state: AttemptState
    charge_id: str
    prior_charge_id: str
    """The charge of the attempt before: where Stripe still shows its failure, this attempt may not have been carried out."""
    prior_uncharged: bool
    """Whether an attempt before failed without a charge, as a failed 3-D Secure does."""
    decline: Decline | None
    next_action: NextAction
    create_time: datetime
    update_time: datetime

    def may_be_earlier(self, charge_id: str) -> bool:
        """Tell whether a failure that Stripe shows, with this charge or with none, may be an earlier attempt's. Sending this one
        again, under its own key, is how one finds out."""
        if self.state in CARRIED_OUT:
            return False
        return charge_id == self.prior_charge_id if charge_id else self.prior_uncharged


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Money taken from the card."""

    id: str
    amount: Money
    fee: Money
    fee_due_minor: int
    """What the plan asked of it; what it was too small to pay, the next ones pay."""
    fee_plan_version: str
    fee_refund: FeeRefund
    settlement_delay_seconds: int | None
    """How long its money is pending; None leaves it to the ledger's own delay."""
    capture_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One capture or cancel, from the intent to the outcome."""

    id: str
    payment_id: str
    owner_id: str
    kind: OperationKind
    amount_minor: int
    final: bool
    captured_before_minor: int
    """How much was captured when it began: by it, a read of Stripe tells whether this very capture took place."""
    reason: str
    failure_code: str
    state: OperationState
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A sum that a merchant wants from a customer, or a user from their own card for a wallet."""

    id: str
    owner_id: str
    """The merchant that is paid; of a top-up the user."""
    customer_id: str
    """The user who pays; empty where whoever holds the secret may."""
    purpose: Purpose
    top_up_id: str
    payment_method_id: str
    """The saved card that it was created with, if any."""
    statement_descriptor_suffix: str
    amount: Money
    state: PaymentState
    capture_method: CaptureMethod
    capturable_minor: int
    capture_pending_minor: int
    multicapture: bool
    capture_before_time: datetime | None
    cancellation_reason: str
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
    open_operation: Operation | None = None

    @property
    def merchant_id(self) -> str:
        """The merchant that is paid; empty for a top-up, which has none."""
        return self.owner_id if self.purpose is Purpose.SALE else ""

    @property
    def wallet_id(self) -> str:
        """The wallet that pays; empty for a card."""
        return self.latest_attempt.source.wallet_id if self.latest_attempt is not None else ""

    @property
    def captured(self) -> Money:
        """What was captured so far."""
        return Money(amount_minor=self.captured_minor, currency=self.amount.currency)

    @property
    def capturable(self) -> Money:
        """What can still be captured."""
        return Money(amount_minor=self.capturable_minor, currency=self.amount.currency)

    @property
    def refundable(self) -> Money:
        """What can still be refunded."""
        left = self.captured_minor - self.refunded_minor - self.refund_pending_minor
        return Money(amount_minor=left, currency=self.amount.currency)

    @property
    def certain(self) -> bool:
        """Whether no call to Stripe is without an outcome."""
        sure = self.latest_attempt is None or self.latest_attempt.state not in UNCERTAIN
        return sure and self.open_operation is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money on its way back."""

    id: str
    payment_id: str
    owner_id: str
    amount: Money
    fee_returned: Money
    """What the platform returns of its fee with it; taken back where it fails or is canceled."""
    reason: str
    state: RefundState
    stripe_refund_id: str
    failure_reason: str
    uncertain: bool
    metadata: Mapping[str, str]
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupIntent:
    """A card that is being saved with its issuer's consent."""

    id: str
    owner_id: str
    """The user whose card it will be."""
    merchant_id: str
    """The merchant that gets a mandate; empty where a user saves a card for themselves."""
    usage: Usage
    state: SetupState
    uncertain: bool
    confirms: int
    """How often it was confirmed: each confirm is a SetupIntent of its own at Stripe."""
    stripe_id: str
    stripe_payment_method_id: str
    manner: Manner
    next_action: NextAction
    last_decline: Decline | None
    payment_method_id: str
    mandate_id: str
    version: int
    create_time: datetime
    update_time: datetime

    @property
    def confirm_key(self) -> str:
        """The key of the present confirm at Stripe, also in its metadata."""
        return f"{self.id}-{self.confirms}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mandate:
    """A user's permission for one merchant to use one saved card."""

    id: str
    owner_id: str
    """The user who gave it."""
    merchant_id: str
    payment_method_id: str
    usage: Usage
    state: MandateState
    version: int
    create_time: datetime
    update_time: datetime
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSettings:
    """A merchant's settings for payments."""

    merchant_id: str
    return_url_origins: tuple[str, ...]
    version: int
    update_time: datetime | None
