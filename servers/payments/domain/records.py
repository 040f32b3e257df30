"""Payments, attempts, captures, operations, refunds: records and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

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
    ReviewState,
    SetupState,
    SuspenseCause,
    Usage,
)

CAPTURE_LEAD: Final = timedelta(minutes=10)
"""How long before its deadline a scheduled capture is made: enough for tries that fail."""


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
    retry_after: timedelta | None = None
    """How soon the same card may be tried again; None where there is no telling, or no use in it."""
    network_code: str = ""
    """What the card network calls it."""


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
    suspense_item_id: str = ""
    """The suspense item that it was before a person accepted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseItem:
    """Money that Stripe took without being asked for it, or not for as much."""

    id: str
    amount: Money
    cause: SuspenseCause
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StaffAction:
    """What somebody of the staff decided, and why."""

    owner_id: str
    """Whose resource it was about."""
    id: str
    actor_id: str
    actor_role: str
    action: str
    resource_id: str
    decision: str
    reason: str
    request_id: str
    create_time: datetime


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
class Review:
    """A person's look at a payment before its card is charged."""

    state: ReviewState
    reasons: tuple[str, ...]
    """Why a person shall look."""
    expire_time: datetime
    """When the payment is canceled if nobody has looked."""


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
    capture_deadline: datetime | None
    """By when the merchant wants it captured by itself."""
    due_time: datetime | None
    """When the sweep has something to do with it, whatever that is in its state."""
    review: Review | None = None
    stripe_payment_intent_id: str
    description: str
    metadata: Mapping[str, str]
    version: int
    create_time: datetime
    update_time: datetime
    disputed_minor: int = 0
    """What chargebacks that are not won may cost."""
    open_chargebacks: int = 0
    latest_attempt: Attempt | None = None
    captures: tuple[Capture, ...] = ()
    open_operation: Operation | None = None
    suspense: tuple[SuspenseItem, ...] = ()
    overcapture_minor: int = 0
    """By how much a person let what was captured exceed the amount."""

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
        """What can still be refunded: nothing while a chargeback is open."""
        left = self.captured_minor - self.refunded_minor - self.refund_pending_minor - self.disputed_minor
        return Money(amount_minor=0 if self.open_chargebacks else max(0, left), currency=self.amount.currency)

    @property
    def over_exposure_minor(self) -> int:
        """How much more is refunded and disputed than captured; the database generates the same."""
        return max(0, self.refunded_minor + self.refund_pending_minor + self.disputed_minor - self.captured_minor)

    @property
    def capture_due_time(self) -> datetime | None:
        """When all that is left is captured by itself: some minutes before the deadline, and while the authorization lasts."""
        if self.capture_deadline is None:
            return None
        ends = self.capture_before_time
        return (min(self.capture_deadline, ends) if ends is not None else self.capture_deadline) - CAPTURE_LEAD

    def taken_by_stripe(self, currency: str) -> int:
        """Return how much of what Stripe took is accounted for: captured from a card, or in suspense. What was accepted is both,
        and counts once."""
        own = () if self.wallet_id else (c.amount for c in self.captures if not c.suspense_item_id)
        return sum(a.amount_minor for a in (*own, *(i.amount for i in self.suspense)) if a.currency == currency)

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
    pending_reason: str = ""
    """What it waits for; in PENDING only."""
    retry_time: datetime | None = None
    """When one that waits for the merchant's balance is tried again."""
    uncertain: bool
    metadata: Mapping[str, str]
    version: int
    create_time: datetime
    update_time: datetime
    suspense_item_id: str = ""
    """The suspense item that goes back: not what was captured, so it counts against nothing."""

    @classmethod
    def of(
        cls,
        payment: Payment,
        refund_id: str,
        amount: Money,
        *,
        fee_returned: Money,
        reason: str,
        metadata: Mapping[str, str],
        now: datetime,
        suspense_item_id: str = "",
    ) -> Refund:
        """Return a refund of a payment's that is about to be sent: nobody but us knows of it yet."""
        return cls(
            id=refund_id,
            payment_id=payment.id,
            owner_id=payment.owner_id,
            amount=amount,
            fee_returned=fee_returned,
            reason=reason,
            state=RefundState.PENDING,
            stripe_refund_id="",
            failure_reason="",
            uncertain=False,
            metadata=metadata,
            version=1,
            create_time=now,
            update_time=now,
            suspense_item_id=suspense_item_id,
        )

    @property
    def merchant_id(self) -> str:
        """The merchant that refunds; empty where a top-up's money goes back, which has none."""
        return self.owner_id if self.owner_id.startswith("mer_") else ""

    @property
    def cancelable(self) -> bool:
        """Whether a cancel has a chance: Stripe carries out what it has accepted, unless it waits for its customer. Money that
        nobody asked for goes back."""
        if self.suspense_item_id:
            return False
        return self.state is RefundState.REQUIRES_ACTION or not (self.stripe_refund_id or self.uncertain)


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
    refunds_wait: bool = False
    """Whether a refund that the merchant's balance does not cover waits, instead of taking it below zero."""
    version: int
    update_time: datetime | None
