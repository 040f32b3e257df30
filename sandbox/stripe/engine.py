"""What Stripe does: customers, payment methods, payment intents, charges, refunds. Each method is one request's work and runs
inside the request's transaction."""

from __future__ import annotations

from typing import Any

from sandbox.stripe.cards import BY_NUMBER, BY_TOKEN, TestCard
from sandbox.stripe.clock import Clock
from sandbox.stripe.events import Events
from sandbox.stripe.ledger import Ledger
from sandbox.stripe.store import Store, new_id
from sandbox.stripe.wire import Json, StripeError, invalid, missing

NO_ADDRESS = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
CHARGE_NULLS = (
    "application",
    "application_fee",
    "application_fee_amount",
    "calculated_statement_descriptor",
    "failure_balance_transaction",
    "on_behalf_of",
    "receipt_email",
    "receipt_number",
    "receipt_url",
    "review",
    "shipping",
    "source",
    "source_transfer",
    "statement_descriptor",
    "transfer_data",
    "transfer_group",
)
"""What a card charge of the sandbox never has, but must show."""
CONFIRMABLE = ("requires_payment_method", "requires_confirmation")
CANCELABLE = (*CONFIRMABLE, "requires_action", "requires_capture", "processing")


class Engine:
    """Stripe's behaviour for cards."""

    def __init__(self, store: Store, clock: Clock, ledger: Ledger, events: Events) -> None:
        self._store = store
        self._clock = clock
        self._ledger = ledger
        self._events = events

    def load(self, kind: str, identifier: str, param: str) -> Json:
        """Return an object or raise Stripe's 404."""
        found = self._store.get(kind, identifier)
        if found is None:
            raise missing(kind, identifier, param)
        return found

    # Customers and payment methods

    def create_customer(self, params: Json) -> Json:
        """POST /v1/customers."""
        customer = self._store.put(
            {
                "id": new_id("cus"),
                "object": "customer",
                "address": None,
                "balance": 0,
                "created": self._clock.now(),
                "currency": None,
                "default_source": None,
                "delinquent": False,
                "description": params.get("description"),
                "discount": None,
                "email": params.get("email"),
                "invoice_prefix": None,
                "invoice_settings": {
                    "custom_fields": None,
                    "default_payment_method": None,
                    "footer": None,
                    "rendering_options": None,
                },
                "livemode": False,
                "metadata": params.get("metadata", {}),
                "name": params.get("name"),
                "next_invoice_sequence": 1,
                "phone": params.get("phone"),
                "preferred_locales": [],
                "shipping": None,
                "tax_exempt": "none",
                "test_clock": None,
            }
        )
        self._events.emit("customer.created", customer)
        return customer

    def create_payment_method(self, params: Json) -> Json:
        """POST /v1/payment_methods: card numbers of the test table only."""
        card = params.get("card") or {}
        if params.get("type") != "card" or "number" not in card:
            raise invalid("The sandbox makes payment methods of type card with a test number only.", param="type")
        test = BY_NUMBER.get(card["number"].replace(" ", ""))
        if test is None:
            raise StripeError(
                402, "card_error", "Your card number is incorrect.", code="incorrect_number", param="number"
            )
        return self._mint(test)

    def payment_method(self, identifier: str) -> Json:
        """Return a payment method; a static test id mints a real one, as at Stripe."""
        if identifier in BY_TOKEN:
            return self._mint(BY_TOKEN[identifier])
        found = self._store.get("payment_method", identifier)
        if found is None:
            raise invalid(
                f"No such PaymentMethod: '{identifier}'", status=404, code="resource_missing", param="payment_method"
            )
        return found

    def _mint(self, test: TestCard) -> Json:
        card = {
            "brand": test.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": test.country,
            "display_brand": test.brand,
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": f"fp{test.number[-10:]}",
            "funding": test.funding,
            "generated_from": None,
            "last4": test.number[-4:],
            "networks": {"available": [test.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        }
        return self._store.put(
            {
                "id": new_id("pm"),
                "object": "payment_method",
                "allow_redisplay": "unspecified",
                "billing_details": {"address": NO_ADDRESS, "email": None, "name": None, "phone": None, "tax_id": None},
                "card": card,
                "created": self._clock.now(),
                "customer": None,
                "customer_account": None,
                "livemode": False,
                "metadata": {},
                "type": "card",
            },
            parent=test.number,
        )

    def _test_card(self, method: Json) -> TestCard:
        row = self._store.db.execute("SELECT parent FROM objects WHERE id = ?", (method["id"],)).fetchone()
        return BY_NUMBER[row[0]]

    def attach(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_methods/{id}/attach."""
        if "customer" not in params:
            raise invalid("Missing required param: customer.", code="parameter_missing", param="customer")
        customer = self.load("customer", params["customer"], "customer")
        method = self.payment_method(identifier)
        if method["customer"] not in (None, customer["id"]):
            raise invalid("The payment method you provided has already been attached to a customer.")
        test = self._test_card(method)
        if test.attach_declines:
            raise _card_error(test, method)
        method["customer"] = customer["id"]
        self._store.put(method)
        self._events.emit("payment_method.attached", method)
        return method

    def detach(self, identifier: str) -> Json:
        """POST /v1/payment_methods/{id}/detach."""
        method = self.payment_method(identifier)
        method["customer"] = None
        self._store.put(method)
        self._events.emit("payment_method.detached", method)
        return method

    # Payment intents

    def create_intent(self, params: Json) -> Json:
        """POST /v1/payment_intents."""
        if params["amount"] < 1:
            raise invalid(
                "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
            )
        if params.get("customer"):
            self.load("customer", params["customer"], "customer")
        method = self.payment_method(params["payment_method"])["id"] if params.get("payment_method") else None
        identifier = new_id("pi")
        intent: Json = {
            "id": identifier,
            "object": "payment_intent",
            "amount": params["amount"],
            "amount_capturable": 0,
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": params.get("capture_method", "automatic"),
            "client_secret": f"{identifier}_secret_{new_id('s')[2:]}",
            "confirmation_method": "automatic",
            "created": self._clock.now(),
            "currency": params["currency"].lower(),
            "customer": params.get("customer"),
            "description": params.get("description"),
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": params.get("metadata", {}),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method,
            "payment_method_configuration_details": None,
            "payment_method_options": {},
            "payment_method_types": params.get("payment_method_types", ["card"]),
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
            "status": "requires_confirmation" if method else "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
        }
        self._store.put(intent)
        self._events.emit("payment_intent.created", intent)
        return self.confirm(identifier, {}) if params.get("confirm") else intent

    def confirm(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/confirm. A decline is Stripe's 402 with the intent inside."""
        intent = self.load("payment_intent", identifier, "intent")
        if intent["status"] not in CONFIRMABLE:
            raise _unexpected_state(intent, "confirm")
        if params.get("payment_method"):
            method = self.payment_method(params["payment_method"])
            if method["customer"] and method["customer"] != intent["customer"]:
                raise invalid("The payment method belongs to another customer.", param="payment_method")
            intent["payment_method"] = method["id"]
        if intent["payment_method"] is None:
            raise invalid("You cannot confirm this PaymentIntent because it's missing a payment method.",
                          code="payment_intent_unexpected_state")  # fmt: skip
        method = self.payment_method(intent["payment_method"])
        test = self._test_card(method)
        if test.authenticates and not params.get("_authenticated"):
            return self._require_action(intent, params)
        return self._charge(intent, method, test)

    def _require_action(self, intent: Json, params: Json) -> Json:
        url = f"/_sandbox/payment_intents/{intent['id']}/authenticate"
        intent["status"] = "requires_action"
        intent["next_action"] = {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": params.get("return_url"), "url": f"https://stripe.invalid{url}"},
        }
        self._store.put(intent)
        self._events.emit("payment_intent.requires_action", intent)
        return intent

    def authenticate(self, identifier: str, *, succeed: bool) -> Json:
        """What the cardholder does on the 3-D Secure page."""
        intent = self.load("payment_intent", identifier, "intent")
        if intent["status"] != "requires_action":
            raise _unexpected_state(intent, "authenticate")
        intent["next_action"] = None
        intent["status"] = "requires_confirmation"
        if succeed:
            self._store.put(intent)
            return self.confirm(identifier, {"_authenticated": True})
        intent["status"] = "requires_payment_method"
        intent["last_payment_error"] = {
            "type": "invalid_request_error",
            "code": "payment_intent_authentication_failure",
            "message": "The provided PaymentMethod has failed authentication.",
        }
        self._store.put(intent)
        self._events.emit("payment_intent.payment_failed", intent)
        return intent

    def _charge(self, intent: Json, method: Json, test: TestCard) -> Json:
        failed = bool(test.error_code)
        manual = intent["capture_method"] == "manual"
        charge = self._new_charge(intent, method, test)
        intent["latest_charge"] = charge["id"]
        if failed:
            error = _card_error(test, method, charge=charge["id"])
            intent["last_payment_error"] = {**error.body["error"], "payment_method": method}
            intent["status"], intent["payment_method"] = "requires_payment_method", None
            self._store.put(charge, parent=intent["id"])
            self._store.put(intent)
            self._events.emit("charge.failed", charge)
            self._events.emit("payment_intent.payment_failed", intent)
            error.body["error"]["payment_intent"] = intent
            raise Declined(error)
        intent["last_payment_error"] = None
        self._store.put(charge, parent=intent["id"])
        if manual:
            intent["status"], intent["amount_capturable"] = "requires_capture", intent["amount"]
            self._store.put(intent)
            self._events.emit("charge.succeeded", charge)
            self._events.emit("payment_intent.amount_capturable_updated", intent)
            return intent
        return self._collect(intent, charge, intent["amount"])

    def _new_charge(self, intent: Json, method: Json, test: TestCard) -> Json:
        failed = bool(test.error_code)
        outcome = {
            "advice_code": test.advice_code or None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "declined_by_network" if failed else "approved_by_network",
            "reason": test.decline_code or None,
            "risk_level": "normal",
            "seller_message": "The bank declined the payment." if failed else "Payment complete.",
            "type": "issuer_declined" if failed else "authorized",
        }
        card = {
            k: method["card"][k]
            for k in ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")
        }
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
            "created": self._clock.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_code": test.error_code or None,
            "failure_message": "Your card was declined." if failed else None,
            "fraud_details": {},
            "livemode": False,
            "metadata": intent["metadata"],
            "outcome": outcome,
            "paid": not failed,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": {
                "card": {
                    **card,
                    "amount_authorized": intent["amount"],
                    "checks": method["card"]["checks"],
                    "installments": None,
                    "mandate": None,
                    "network": method["card"]["brand"],
                    "three_d_secure": None,
                    "wallet": None,
                },
                "type": "card",
            },
            "refunded": False,
            "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
            "status": "failed" if failed else "succeeded",
        }

    def _collect(self, intent: Json, charge: Json, amount: int) -> Json:
        """Capture `amount` of an authorized charge, and close the intent."""
        fee = self._ledger.charge_fee(amount)
        transaction = self._ledger.write(
            kind="charge", amount=amount, fee=fee, currency=intent["currency"], source=charge["id"], pending=True
        )
        charge.update(captured=True, amount_captured=amount, balance_transaction=transaction["id"])
        intent.update(status="succeeded", amount_received=amount, amount_capturable=0)
        self._store.put(charge)
        self._store.put(intent)
        self._events.emit("charge.captured" if intent["capture_method"] == "manual" else "charge.succeeded", charge)
        self._events.emit("payment_intent.succeeded", intent)
        return intent

    def capture(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/capture: once, in full or in part; the rest is released."""
        intent = self.load("payment_intent", identifier, "intent")
        if intent["status"] != "requires_capture":
            raise _unexpected_state(intent, "capture")
        amount = int(params.get("amount_to_capture") or intent["amount_capturable"])
        if not 0 < amount <= intent["amount_capturable"]:
            raise invalid(
                "The amount to capture is not capturable.", code="amount_too_large", param="amount_to_capture"
            )
        charge = self.load("charge", intent["latest_charge"], "charge")
        return self._collect(intent, charge, amount)

    def cancel(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/cancel."""
        intent = self.load("payment_intent", identifier, "intent")
        if intent["status"] not in CANCELABLE:
            raise _unexpected_state(intent, "cancel")
        intent.update(
            status="canceled",
            amount_capturable=0,
            canceled_at=self._clock.now(),
            cancellation_reason=params.get("cancellation_reason"),
            next_action=None,
        )
        self._store.put(intent)
        self._events.emit("payment_intent.canceled", intent)
        return intent

    # Refunds

    def create_refund(self, params: Json) -> Json:
        """POST /v1/refunds."""
        charge = self._charge_of(params)
        left = charge["amount_captured"] - charge["amount_refunded"]
        if left <= 0:
            raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        amount = params.get("amount", left)
        if not 0 < amount <= left:
            raise invalid(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount"
            )
        refund: Json = {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": self._clock.now(),
            "currency": charge["currency"],
            "destination_details": {"card": {"type": "refund"}, "type": "card"},
            "metadata": params.get("metadata", {}),
            "payment_intent": charge["payment_intent"],
            "reason": params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "succeeded",
            "transfer_reversal": None,
        }
        transaction = self._ledger.write(
            kind="refund", amount=-amount, fee=0, currency=charge["currency"], source=refund["id"], pending=False
        )
        refund["balance_transaction"] = transaction["id"]
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._store.put(refund, parent=charge["payment_intent"] or charge["id"])
        self._store.put(charge)
        self._events.emit("refund.created", refund)
        self._events.emit("charge.refunded", charge)
        return refund

    def fail_refund(self, identifier: str) -> Json:
        """The bank returns a refund: its money comes back (`refund_failure`)."""
        refund = self.load("refund", identifier, "refund")
        if refund["status"] != "succeeded":
            raise invalid("The refund is not in succeeded.")
        charge = self.load("charge", refund["charge"], "charge")
        transaction = self._ledger.write(
            kind="refund_failure",
            amount=refund["amount"],
            fee=0,
            currency=refund["currency"],
            source=identifier,
            pending=False,
        )
        refund.update(
            status="failed", failure_reason="lost_or_stolen_card", failure_balance_transaction=transaction["id"]
        )
        charge["amount_refunded"] -= refund["amount"]
        charge["refunded"] = False
        self._store.put(refund)
        self._store.put(charge)
        self._events.emit("refund.failed", refund)
        return refund

    def _charge_of(self, params: Json) -> Json:
        if params.get("charge"):
            return self.load("charge", params["charge"], "charge")
        if not params.get("payment_intent"):
            raise invalid("One of the following params should be provided: payment_intent or charge.")
        intent = self.load("payment_intent", params["payment_intent"], "payment_intent")
        if intent["amount_received"] == 0:
            raise invalid(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
        return self.load("charge", intent["latest_charge"], "charge")


class Declined(Exception):
    """A decline: the transaction commits, and the answer is an error all the same."""

    def __init__(self, error: StripeError) -> None:
        super().__init__("declined")
        self.error = error


def _card_error(test: TestCard, method: Json, **extra: Any) -> StripeError:
    body: Json = {"code": test.error_code, "payment_method": method, **extra}
    if test.decline_code and test.error_code == "card_declined":
        body["decline_code"] = test.decline_code
    if test.advice_code:
        body["advice_code"] = test.advice_code
    return StripeError(402, "card_error", "Your card was declined.", **body)


def _unexpected_state(intent: Json, verb: str) -> StripeError:
    return invalid(
        f"This PaymentIntent could not be {verb}ed because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        payment_intent=intent,
    )
