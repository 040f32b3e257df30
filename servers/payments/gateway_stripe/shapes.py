"""Stripe's objects as answers of ours: shapes, amounts, declines. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import stripe

from servers.kernel.invariant import invariant
from servers.kernel.money import Money, exponent
from servers.payments.declines import decline_of
from servers.payments.domain import (
    ActionRequired,
    Authorized,
    Card,
    CardDeclined,
    CardSaved,
    Charged,
    ChargeResult,
    Decline,
    Echo,
    IntentStatus,
    NotConfirmed,
    RefundEcho,
    RefundResult,
    RefundState,
    SetupCanceled,
    SetupResult,
    StillProcessing,
    UsedCard,
)

# Without decimals in ISO 4217, but counted in hundredths by Stripe's API (Stripe, "Special cases for currencies").
_HUNDREDFOLD: Final = frozenset({"ISK", "UGX"})
_REFUND_STATES: Final = {
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.CANCELED,
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
}


def code_of(error: stripe.StripeError) -> str:
    """Return Stripe's code of an error, or ""."""
    # The SDK leaves `code` empty on some of its classes, although Stripe sent one.
    return str(error.code or body_of(error).get("code") or "")


def body_of(error: stripe.StripeError) -> dict[str, Any]:
    """Return what Stripe sent with an error, or an empty one."""
    body: dict[str, Any] = error.json_body["error"] if isinstance(error.json_body, dict) else {}
    return body


def _echo(intent: stripe.PaymentIntent) -> Echo:
    metadata = intent.metadata.to_dict() if intent.metadata is not None else {}
    return Echo(
        intent_id=intent.id,
        payment_id=metadata.get("paymesh_payment_id", ""),
        amount=from_stripe(intent.amount, intent.currency),
    )


def _echo_in(intent: dict[str, Any] | None) -> Echo | None:
    """Return what an error repeats of its intent, if it carries one."""
    if not intent:
        return None
    return Echo(
        intent_id=str(intent["id"]),
        payment_id=str((intent.get("metadata") or {}).get("paymesh_payment_id", "")),
        amount=from_stripe(int(intent["amount"]), str(intent["currency"])),
    )


def status_of(intent: stripe.PaymentIntent) -> IntentStatus:
    """Return how an intent stands as a whole."""
    received = from_stripe(intent.amount_received, intent.currency)
    return IntentStatus(status=intent.status, received=received, echo=_echo(intent))


def card_of(card: Any) -> Card:
    """Return what may be shown of a card: of a payment method's, or of the details of a charge."""
    return Card(
        brand=card.brand or "unknown",
        last4=card.last4 or "",
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        funding=card.funding or "unknown",
        country=card.country or "",
    )


def _charged_card(intent: stripe.PaymentIntent) -> Any:
    charge = intent.latest_charge
    details = charge.payment_method_details if isinstance(charge, stripe.Charge) else None
    return details.card if details is not None else None


def _used(intent: stripe.PaymentIntent) -> UsedCard | None:
    card, method = _charged_card(intent), intent.payment_method
    if card is None or method is None:
        return None
    return UsedCard(stripe_id=method if isinstance(method, str) else method.id, card=card_of(card))


def _authorized(intent: stripe.PaymentIntent, charge_id: str) -> Authorized:
    card = _charged_card(intent)
    multicapture = getattr(card, "multicapture", None)
    before = getattr(card, "capture_before", None)
    return Authorized(
        echo=_echo(intent),
        charge_id=charge_id,
        amount=from_stripe(intent.amount_capturable, intent.currency),
        multicapture=multicapture is not None and multicapture.status == "available",
        capture_before_time=datetime.fromtimestamp(before, UTC) if before is not None else None,
        used=_used(intent),
    )


def action_of(intent: stripe.PaymentIntent | stripe.SetupIntent) -> ActionRequired:
    """Return what the cardholder must do: a redirect, or Stripe's own SDK with the intent's secret."""
    echo = _echo(intent) if isinstance(intent, stripe.PaymentIntent) else None
    action = intent.next_action
    redirect = getattr(action, "redirect_to_url", None)  # the SDK has no attribute for a key that is not there
    if redirect is not None and redirect.url and not (action is not None and action.type == "use_stripe_sdk"):
        return ActionRequired(url=redirect.url, echo=echo)
    return ActionRequired(client_secret=intent.client_secret or "", echo=echo)


def result_of(intent: stripe.PaymentIntent, *, prior_charge_id: str) -> ChargeResult:
    """Return what an intent says of the attempt that came after the charge `prior_charge_id`."""
    latest = intent.latest_charge
    charge_id = latest if isinstance(latest, str) else latest.id if latest is not None else ""
    echo = _echo(intent)
    match intent.status:
        case "requires_capture":
            return _authorized(intent, charge_id)
        case "succeeded":
            amount = from_stripe(intent.amount_received, intent.currency)
            return Charged(charge_id=charge_id, amount=amount, used=_used(intent), echo=echo)
        case "requires_action":
            return action_of(intent)
        case "processing":
            return StillProcessing(echo=echo)
    error = intent.last_payment_error
    if (
        intent.status == "requires_payment_method"
        and error is not None
        and (charge_id != prior_charge_id or not charge_id)
    ):
        return CardDeclined(charge_id=charge_id, decline=_decline(error), echo=echo)
    return NotConfirmed(echo=echo)


def setup_result_of(intent: stripe.SetupIntent) -> SetupResult:
    """Return what a setup intent says; its payment method is expanded."""
    match intent.status:
        case "succeeded":
            method = intent.payment_method
            invariant(isinstance(method, stripe.PaymentMethod), "a setup intent without its card", setup=intent.id)
            assert isinstance(method, stripe.PaymentMethod)
            return CardSaved(used=UsedCard(stripe_id=method.id, card=card_of(method.card)))
        case "requires_action":
            return action_of(intent)
        case "processing":
            return StillProcessing()
        case "canceled":
            return SetupCanceled()
    if intent.last_setup_error is not None:
        return CardDeclined(charge_id="", decline=_decline(intent.last_setup_error))
    return NotConfirmed()


def _decline(error: Any) -> Decline:
    # The SDK has no attribute for a key that is not there, and Stripe leaves out what does not apply.
    said = {name: getattr(error, name, None) or "" for name in ("code", "decline_code", "advice_code")}
    return decline_of(**said)


def declined_of(error: stripe.CardError) -> CardDeclined:
    """Return the decline that an error of Stripe's tells."""
    body = body_of(error)
    return CardDeclined(
        echo=_echo_in(body.get("payment_intent")),
        charge_id=str(body.get("charge") or ""),
        decline=decline_of(
            code=error.code or "",
            decline_code=str(body.get("decline_code") or ""),
            advice_code=str(body.get("advice_code") or ""),
        ),
    )


def refund_of(refund: stripe.Refund) -> RefundResult:
    """Return what Stripe says of a refund."""
    return RefundResult(
        stripe_refund_id=refund.id,
        state=_REFUND_STATES[refund.status or "pending"],
        failure_reason=getattr(refund, "failure_reason", None) or "",
        echo=_refund_echo(refund),
    )


def _refund_echo(refund: stripe.Refund) -> RefundEcho:
    metadata = refund.metadata.to_dict() if refund.metadata is not None else {}
    intent = refund.payment_intent
    return RefundEcho(
        intent_id=(intent if isinstance(intent, str) else intent.id) if intent is not None else "",
        refund_id=metadata.get("paymesh_refund_id", ""),
        amount=from_stripe(refund.amount, refund.currency),
    )


def step_of(currency: str) -> int:
    """Return of what amounts of a currency must be a multiple, in our minor units: Stripe takes currencies with three decimals in
    tens only (Stripe, "Three-decimal currencies")."""
    return 10 if exponent(currency) == 3 else 1


def to_stripe(amount: Money) -> int:
    """Return an amount in Stripe's smallest unit."""
    factor = 100 if amount.currency in _HUNDREDFOLD else 1
    return amount.amount_minor * factor


def from_stripe(amount: int, currency: str) -> Money:
    """Return an amount of Stripe's in ours."""
    code = currency.upper()
    if code in _HUNDREDFOLD:
        whole, rest = divmod(amount, 100)
        invariant(rest == 0, "Stripe charged a part of a whole unit", currency=code, amount=amount)
        return Money(amount_minor=whole, currency=code)
    return Money(amount_minor=amount, currency=code)
