"""What the processor says, in our words. Amounts are what it echoes; they must be ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servers.kernel.money import Money
from servers.payments.domain.reconciliation import BalanceTransaction
from servers.payments.domain.records import Capture, Card, Decline
from servers.payments.domain.states import RefundState


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """What an answer about a PaymentIntent repeats of what it was made with."""

    intent_id: str
    payment_id: str
    """From its metadata."""
    amount: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundEcho:
    """What an answer about a refund repeats of what it was made with."""

    intent_id: str
    refund_id: str
    """From its metadata."""
    amount: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class OfIntent:
    """An answer about a PaymentIntent. `echo` is None where it does not show one: a wallet's, or an error's."""

    echo: Echo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedCard:
    """The card that was charged, under Stripe's id of it."""

    stripe_id: str
    card: Card


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged(OfIntent):
    """The money was taken. `capture` is given where the ledger took it from a wallet, and has booked it so."""

    charge_id: str
    amount: Money
    used: UsedCard | None = None
    capture: Capture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized(OfIntent):
    """The money is held on the card or in the wallet, and none of it is taken."""

    charge_id: str
    amount: Money
    multicapture: bool
    capture_before_time: datetime | None
    used: UsedCard | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardDeclined(OfIntent):
    """The card was declined, or the wallet does not hold enough."""

    charge_id: str
    decline: Decline


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequired(OfIntent):
    """The cardholder must authenticate: at `url`, or through Stripe's SDK with `client_secret`."""

    url: str = ""
    client_secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillProcessing(OfIntent):
    """The processor is not done yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotConfirmed(OfIntent):
    """The processor has not carried out this confirm."""


ChargeResult = Charged | Authorized | CardDeclined | ActionRequired | StillProcessing | NotConfirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentStatus(OfIntent):
    """How the processor's object stands as a whole: what captures and cancels go by."""

    status: str
    """Stripe's word: requires_capture, succeeded, canceled…"""
    received: Money
    capture: Capture | None = None
    """Of a capture from a wallet: as the ledger booked it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRefused:
    """The processor will not capture or cancel; nothing was done."""

    code: str


OperationResult = IntentStatus | OperationRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundResult:
    """What the processor says of a refund."""

    stripe_refund_id: str
    state: RefundState
    failure_reason: str
    pending_reason: str = ""
    """What it waits for; in PENDING only."""
    echo: RefundEcho | None = None
    """None where it does not show one: a wallet's, or a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSaved:
    """The setup intent succeeded: the card belongs to its customer at Stripe."""

    used: UsedCard


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupCanceled:
    """The setup intent was canceled at Stripe."""


SetupResult = CardSaved | CardDeclined | ActionRequired | StillProcessing | NotConfirmed | SetupCanceled


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesPage:
    """A page of Stripe's balance transactions, newest first."""

    lines: tuple[BalanceTransaction, ...]
    more: bool
