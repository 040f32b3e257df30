"""What the processor says, in our words. Amounts are what it echoes; they must be ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servers.kernel.money import Money
from servers.payments.domain.records import Decline
from servers.payments.domain.states import RefundState


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """The card was charged."""

    charge_id: str
    amount: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """The money is held on the card, and none of it is taken."""

    charge_id: str
    amount: Money
    multicapture: bool
    capture_before_time: datetime | None


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


ChargeResult = Charged | Authorized | CardDeclined | ActionRequired | StillProcessing | NotConfirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentStatus:
    """How the processor's object stands as a whole: what captures and cancels go by."""

    status: str
    """Stripe's word: requires_capture, succeeded, canceled…"""
    received: Money
    cancellation_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRefused:
    """The processor will not capture or cancel; nothing was done."""

    code: str


OperationResult = IntentStatus | OperationRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundResult:
    """What the processor says of a refund: `state` is PENDING, SUCCEEDED, FAILED or CANCELED."""

    stripe_refund_id: str
    state: RefundState
    failure_reason: str
