"""Setup intents: a card made ready for later charges, without a charge now (https://docs.stripe.com/payments/setup-intents)."""

from __future__ import annotations

from sandbox.stripe.customers import PaymentMethods
from sandbox.stripe.desk import Declined, Desk, card_error, fresh_metadata, merge_metadata
from sandbox.stripe.payment_intents import CONFIRMABLE, automatic_methods
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, StripeError, invalid


class SetupIntents:
    """POST and GET on setup intents."""

    def __init__(self, desk: Desk, methods: PaymentMethods) -> None:
        self._desk = desk
        self._methods = methods

    def create(self, params: Json) -> Json:
        """POST /v1/setup_intents."""
        if params.get("customer"):
            self._desk.live_customer(params["customer"])
        method = self._methods.get(params["payment_method"]) if params.get("payment_method") else None
        identifier = new_id("seti")
        intent: Json = {
            "id": identifier,
            "object": "setup_intent",
            "application": None,
            "automatic_payment_methods": automatic_methods(params),
            "cancellation_reason": None,
            "client_secret": f"{identifier}_secret_{new_id('s')[2:]}",
            "created": self._desk.clock.now(),
            "customer": params.get("customer"),
            "description": params.get("description"),
            "excluded_payment_method_types": None,
            "flow_directions": None,
            "last_setup_error": None,
            "latest_attempt": None,
            "livemode": False,
            "mandate": None,
            "metadata": fresh_metadata(params.get("metadata")),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method["id"] if method else None,
            "payment_method_configuration_details": None,
            "payment_method_options": {"card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "single_use_mandate": None,
            "status": "requires_confirmation" if method else "requires_payment_method",
            "usage": params.get("usage", "off_session"),
        }  # fmt: skip
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.created", intent)
        given = {"return_url": params["return_url"]} if "return_url" in params else {}
        return self.confirm(identifier, given) if params.get("confirm") else intent

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] in ("succeeded", "canceled"):
            raise _unexpected_state(intent, "updated")
        if params.get("customer"):
            intent["customer"] = self._desk.live_customer(params["customer"])["id"]
        if params.get("payment_method"):
            intent["payment_method"] = self._methods.get(params["payment_method"])["id"]
            intent["status"] = "requires_confirmation"
        if "description" in params:
            intent["description"] = params["description"] or None
        merge_metadata(intent, params.get("metadata"))
        return self._desk.store.put(intent)

    def confirm(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}/confirm."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] not in (*CONFIRMABLE, "requires_action"):
            raise _unexpected_state(intent, "confirmed")
        automatic = intent["automatic_payment_methods"]
        if automatic and automatic["allow_redirects"] == "always" and not params.get("return_url"):
            raise invalid(
                "This SetupIntent may redirect your customer: you must provide a `return_url`.", param="return_url"
            )
        if params.get("payment_method"):
            intent["payment_method"] = self._methods.get(params["payment_method"])["id"]
        if intent["payment_method"] is None:
            raise invalid("You cannot confirm this SetupIntent because it's missing a payment method.",
                          code="setup_intent_unexpected_state")  # fmt: skip
        method = self._methods.get(intent["payment_method"])
        if method["customer"] and method["customer"] != intent["customer"]:
            raise invalid("The payment method belongs to another customer.", param="payment_method")
        test = self._methods.test_card(method)
        if test.authenticates or test.authenticates_until_set_up:
            return self._require_action(intent, params)
        return self._finish(intent, method)

    def _require_action(self, intent: Json, params: Json) -> Json:
        url = f"{self._desk.base_url}/_sandbox/setup_intents/{intent['id']}/authenticate"
        intent["status"] = "requires_action"
        intent["next_action"] = {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": params.get("return_url"), "url": url},
        }
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.requires_action", intent)
        return intent

    def authenticate(self, identifier: str, *, succeed: bool) -> Json:
        """What the cardholder does on the 3-D Secure page. May raise Declined."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] != "requires_action":
            raise _unexpected_state(intent, "authenticated")
        method = self._methods.get(intent["payment_method"])
        if succeed:
            return self._finish(intent, method)
        self._fail(intent, {
            "type": "invalid_request_error",
            "code": "setup_intent_authentication_failure",
            "message": "The latest attempt to set up the payment method has failed because authentication failed.",
            "payment_method": method,
        })  # fmt: skip
        return intent

    def _finish(self, intent: Json, method: Json) -> Json:
        test = self._methods.test_card(method)
        if test.attach_declines:
            error = card_error(test, method)
            self._fail(intent, dict(error.body["error"]))
            error.body["error"]["setup_intent"] = intent
            raise Declined(error)
        if intent["customer"]:
            method = self._methods.keep(method, intent["customer"])
        self._methods.set_up(method)
        intent.update(status="succeeded", next_action=None, last_setup_error=None)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.succeeded", intent)
        return intent

    def _fail(self, intent: Json, error: Json) -> None:
        intent.update(status="requires_payment_method", payment_method=None, next_action=None, last_setup_error=error)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.setup_failed", intent)

    def cancel(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}/cancel."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] in ("succeeded", "canceled"):
            raise _unexpected_state(intent, "canceled")
        intent.update(status="canceled", cancellation_reason=params.get("cancellation_reason"), next_action=None)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.canceled", intent)
        return intent


def _unexpected_state(intent: Json, verb: str) -> StripeError:
    return invalid(
        f"This SetupIntent could not be {verb} because it has a status of {intent['status']}.",
        code="setup_intent_unexpected_state",
        setup_intent=intent,
    )
