"""Charges: what the issuer answered, what was captured of it, and the money that follows."""

from __future__ import annotations

from typing import Final

from sandbox.stripe.amounts import LARGEST
from sandbox.stripe.cards import TestCard
from sandbox.stripe.desk import Desk
from sandbox.stripe.ledger import AVAILABLE_AFTER_SECONDS
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json

CHARGE_NULLS = (
    "application",
    "application_fee",
    "application_fee_amount",
    "calculated_statement_descriptor",
    "failure_balance_transaction",
    "on_behalf_of",
    "receipt_number",
    "receipt_url",
    "review",
    "source",
    "source_transfer",
    "statement_descriptor",
    "transfer_data",
)
"""What a card charge of the sandbox never has, but must show."""
DAY: Final = 24 * 3600
MULTICAPTURE_BRANDS: Final = ("amex", "discover", "mastercard", "visa")
OVERCAPTURE_BRANDS: Final = ("mastercard", "visa")
OVERCAPTURE_PERCENT: Final = 20
"""How much more than was authorized may be captured (https://docs.stripe.com/payments/overcapture#availability)."""
CAPTURES_MAX: Final = 50
"""How often one charge may be captured (https://docs.stripe.com/payments/multicapture#availability)."""


def authorization_seconds(brand: str, *, off_session: bool) -> int:
    """Return how long an uncaptured charge holds (https://docs.stripe.com/payments/place-a-hold-on-a-payment-method)."""
    return 5 * DAY if off_session and brand == "visa" else 7 * DAY


class Charges:
    """Writes charges."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def make(self, intent: Json, method: Json, test: TestCard, *, secured: Json | None, off_session: bool) -> Json:
        """Return a new charge, authorized or declined, not yet stored."""
        failed = test.reason is not None
        return {
            "id": new_id("ch"),
            "object": "charge",
            **dict.fromkeys(CHARGE_NULLS),
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "balance_transaction": None,
            "billing_details": method["billing_details"],
            "captured": False,
            "created": self._desk.clock.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_code": test.error_code or None,
            "failure_message": test.reason.message if test.reason is not None else None,
            "fraud_details": {},
            "livemode": False,
            "metadata": intent["metadata"],
            "outcome": _outcome(test),
            "paid": not failed,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": {
                "card": self._card(intent, method, failed, secured, off_session),
                "type": "card",
            },
            "receipt_email": intent["receipt_email"],
            "refunded": False,
            "shipping": intent["shipping"],
            "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
            "status": "failed" if failed else "succeeded",
            "transfer_group": intent["transfer_group"],
        }

    def _card(self, intent: Json, method: Json, failed: bool, secured: Json | None, off_session: bool) -> Json:
        same = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "checks")
        card = {name: method["card"][name] for name in same}
        options = intent["payment_method_options"]["card"]
        is_held = intent["capture_method"] == "manual" and not failed
        most = _most_capturable(intent["amount"], card, asked=options.get("request_overcapture") == "if_available")
        multiple = options.get("request_multicapture") == "if_available" and (
            card["funding"] != "prepaid" and card["brand"] in MULTICAPTURE_BRANDS
        )
        held = {
            "capture_before": self._desk.clock.now() + authorization_seconds(card["brand"], off_session=off_session),
            "extended_authorization": {"status": "disabled"},
            "incremental_authorization": {"status": "unavailable"},
            "multicapture": {"status": _available(multiple)},
            "overcapture": {"maximum_amount_capturable": most, "status": _available(most > intent["amount"])},
        }
        return {
            **card,
            "amount_authorized": None if failed else intent["amount"],
            **(held if is_held else {}),
            "installments": None,
            "mandate": None,
            "network": card["brand"],
            "three_d_secure": secured,
            "wallet": None,
        }

    def capture(self, charge: Json, amount: int, test: TestCard) -> None:
        """Capture `amount` more of an authorized charge and book it; the fees of several captures add up to the fee of one. The
        caller emits the event."""
        if not amount:
            return
        before = charge["amount_captured"]
        fee = self._desk.ledger.charge_fee(before + amount) - (self._desk.ledger.charge_fee(before) if before else 0)
        wait = 0 if test.settles_at_once else AVAILABLE_AFTER_SECONDS
        transaction = self._desk.ledger.write(
            kind="charge",
            amount=amount,
            fee=fee,
            currency=charge["currency"],
            source=charge["id"],
            available_on=self._desk.clock.now() + wait,
        )
        charge.update(captured=True, amount_captured=before + amount, balance_transaction=transaction["id"])
        self._desk.store.put(charge)

    def release(self, charge: Json, event: str) -> None:
        """Let go of an authorization: Stripe marks the charge as refunded (https://docs.stripe.com/api/charges/capture)."""
        charge.update(refunded=True, amount_refunded=charge["amount"])
        self._desk.store.put(charge)
        self._desk.events.emit(event, charge)


def _available(granted: bool) -> str:
    return "available" if granted else "unavailable"


def _most_capturable(amount: int, card: Json, *, asked: bool) -> int:
    """Return how much may be captured in the end."""
    granted = asked and card["brand"] in OVERCAPTURE_BRANDS and card["funding"] != "prepaid"
    return min(LARGEST, amount + amount * OVERCAPTURE_PERCENT // 100) if granted else amount


def _outcome(test: TestCard) -> Json:
    """Return what the issuer and Radar said (https://docs.stripe.com/api/charges/object#charge_object-outcome)."""
    reason = test.reason
    told = {
        "advice_code": reason.advice if reason is not None else None,
        "network_advice_code": None,
        "network_decline_code": reason.network if reason is not None else None,
        "risk_level": test.risk,
    }
    if reason is None:
        told |= {"network_status": "approved_by_network", "reason": None, "type": "authorized"}
        return told | {"seller_message": "Payment complete."}
    if reason.is_block:
        why = "highest_risk_level" if test.risk == "highest" else test.decline
        told |= {"network_status": "not_sent_to_network", "reason": why, "type": "blocked"}
        return told | {"seller_message": "Stripe blocked this payment as too risky."}
    told |= {"network_status": "declined_by_network", "reason": test.decline, "type": "issuer_declined"}
    if test.decline == "generic_decline":
        return told | {"seller_message": "The bank did not return any further details with this decline."}
    return told | {"seller_message": f"The bank returned the decline code `{test.decline}`."}
