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
    Attempt,
    Authorized,
    Card,
    CardDeclined,
    CardSaved,
    Charged,
    ChargeResult,
    Decline,
    DisputeNews,
    DisputeState,
    Echo,
    FundsMovement,
    IntentStatus,
    NotConfirmed,
    RefundEcho,
    RefundResult,
    RefundState,
    SetupCanceled,
    SetupResult,
    StillProcessing,
    UsedCard,
    WarningNews,
)

# Without decimals in ISO 4217, but counted in hundredths by Stripe's API (Stripe, "Special cases for currencies").
_HUNDREDFOLD: Final = frozenset({"ISK", "UGX"})
_REFUND_STATES: Final = {
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.CANCELED,
    "pending": RefundState.PENDING,
    "requires_action": RefundState.REQUIRES_ACTION,
}
_PENDING_REASONS: Final = {
    "charge_pending": "CHARGE_PENDING",
    "insufficient_funds": "INSUFFICIENT_PLATFORM_BALANCE",
    "processing": "PROCESSING",
}
_DISPUTE_STATES: Final = {
    "warning_needs_response": DisputeState.NEEDS_RESPONSE,
    "warning_under_review": DisputeState.UNDER_REVIEW,
    "warning_closed": DisputeState.CLOSED,
    "needs_response": DisputeState.NEEDS_RESPONSE,
    "under_review": DisputeState.UNDER_REVIEW,
    "won": DisputeState.WON,
    "lost": DisputeState.LOST,
    "prevented": DisputeState.PREVENTED,
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


def result_of(intent: stripe.PaymentIntent, attempt: Attempt | None) -> ChargeResult:
    """Return what an intent says of the attempt that is read about; None where it is the answer to the confirm itself."""
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
    if intent.status == "requires_payment_method" and error is not None:
        # Not the intent's latest charge: a failed 3-D Secure has none, and the intent still shows the one of an earlier attempt.
        charge_id = getattr(error, "charge", None) or ""
        if attempt is None or not attempt.may_be_earlier(charge_id):
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
    names = ("code", "decline_code", "advice_code", "network_decline_code")
    return decline_of(**{name: getattr(error, name, None) or "" for name in names})


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
            network_decline_code=str(body.get("network_decline_code") or ""),
        ),
    )


def refund_of(refund: stripe.Refund) -> RefundResult:
    """Return what Stripe says of a refund."""
    state = _REFUND_STATES[refund.status or "pending"]
    reason = getattr(refund, "pending_reason", None) if state is RefundState.PENDING else None
    return RefundResult(
        stripe_refund_id=refund.id,
        state=state,
        failure_reason=getattr(refund, "failure_reason", None) or "",
        pending_reason=_PENDING_REASONS.get(reason or "", ""),
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


def dispute_of(dispute: stripe.Dispute) -> DisputeNews:
    """Return how a dispute stands."""
    details = dispute.evidence_details
    due = getattr(details, "due_by", None)
    return DisputeNews(
        stripe_dispute_id=dispute.id,
        payment_intent_id=_id_of(getattr(dispute, "payment_intent", None)),
        charge_id=_id_of(dispute.charge),
        # What was prevented may have cost the money all the same, where a network's rule gave it back.
        is_inquiry=dispute.status.startswith("warning_")
        or (dispute.status == "prevented" and not dispute.balance_transactions),
        state=_DISPUTE_STATES[dispute.status],
        amount=from_stripe(dispute.amount, dispute.currency),
        reason=dispute.reason,
        # Stripe says 0 or nothing where no response is possible.
        evidence_due_time=datetime.fromtimestamp(due, UTC) if due else None,
        has_evidence=details.has_evidence,
        past_due=details.past_due,
        submission_count=details.submission_count,
        create_time=datetime.fromtimestamp(dispute.created, UTC),
        movements=tuple(
            FundsMovement(
                id=one.id,
                amount=from_stripe(one.amount, one.currency),
                fee=from_stripe(one.fee, one.currency),
                create_time=datetime.fromtimestamp(one.created, UTC),
            )
            for one in dispute.balance_transactions
        ),
    )


def warning_of(warning: stripe.radar.EarlyFraudWarning) -> WarningNews:
    """Return an issuer's report of fraud."""
    return WarningNews(
        stripe_warning_id=warning.id,
        payment_intent_id=_id_of(getattr(warning, "payment_intent", None)),
        charge_id=_id_of(warning.charge),
        reason=warning.fraud_type,
        create_time=datetime.fromtimestamp(warning.created, UTC),
    )


def _id_of(found: Any) -> str:
    """Return the id of what Stripe names, expanded or not, or ""."""
    return found if isinstance(found, str) else found.id if found is not None else ""


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
