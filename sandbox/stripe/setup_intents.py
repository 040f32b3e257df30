"""Setup intents: a card made ready for later charges, without a charge now (https://docs.stripe.com/payments/setup-intents)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NoReturn

from sandbox.stripe.cards import TestCard
from sandbox.stripe.desk import Declined, Desk, card_error, doc_url, fresh_metadata, merge_metadata
from sandbox.stripe.payment_intents import automatic_methods
from sandbox.stripe.payment_methods import PaymentMethods
from sandbox.stripe.store import new_id
from sandbox.stripe.three_d_secure import Step, check_return_url, is_asked_for, next_action, step_of_setup
from sandbox.stripe.wire import Json, StripeError, invalid

NOUN: Final = "SetupIntent"
OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")
_ENDED: Final = {"succeeded": "it has already succeeded", "canceled": "it has been canceled"}
_NO_METHOD: Final = (
    "You cannot confirm this SetupIntent because it's missing a payment method. You can either update the SetupIntent with a "
    "payment method and then confirm it again, or confirm it again directly with a payment method or ConfirmationToken."
)


class SetupIntents:
    """POST and GET on setup intents."""

    def __init__(self, desk: Desk, methods: PaymentMethods) -> None:
        self._desk = desk
        self._methods = methods

    def create(self, params: Json) -> Json:
        """POST /v1/setup_intents."""
        if params.get("customer"):
            self._desk.live_customer(params["customer"])
        given = params.get("payment_method")
        method = self._methods.usable(given, params.get("customer"), NOUN, {}) if given else None
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
            "payment_method_options": _options(params),
            "payment_method_types": ["card"],
            "single_use_mandate": None,
            "status": "requires_confirmation" if method else "requires_payment_method",
            "usage": params.get("usage", "off_session"),
        }
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.created", intent)
        if not params.get("confirm"):
            if "return_url" in params:
                raise invalid("The parameter return_url can only be used with confirm=true.", param="return_url")
            return intent
        # What is refused now never existed, so its error carries no intent.
        confirm: Json = {name: params[name] for name in ("return_url", "use_stripe_sdk") if name in params}
        return self._confirm(intent, confirm, carried={})

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}: an ended one keeps its payment method. Stripe has no event for it."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        carried = {"setup_intent": dict(intent)}
        if params.get("customer"):
            intent["customer"] = self._desk.live_customer(params["customer"])["id"]
        if params.get("payment_method"):
            if intent["status"] not in OPEN:
                raise _unexpected_state(intent, "update")
            method = self._methods.usable(params["payment_method"], intent["customer"], NOUN, carried)
            intent.update(payment_method=method["id"], status="requires_confirmation", next_action=None)
        if "description" in params:
            intent["description"] = params["description"] or None
        merge_metadata(intent, params.get("metadata"))
        return self._desk.store.put(intent)

    def confirm(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}/confirm. A decline is Stripe's 402 with the intent inside."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        return self._confirm(intent, params, carried={"setup_intent": dict(intent)})

    def _confirm(self, intent: Json, params: Json, *, carried: Json) -> Json:
        chosen = params.get("payment_method") or intent["payment_method"]
        if chosen is None:
            raise invalid(_NO_METHOD, code="setup_intent_unexpected_state", **carried)
        if intent["status"] not in OPEN:
            raise _unexpected_state(intent, "confirm")
        check_return_url(intent, params, carried)
        method = self._methods.usable(chosen, intent["customer"], NOUN, carried)
        intent.update(payment_method=method["id"], next_action=None)
        if "payment_method_options" in params:
            intent["payment_method_options"] = _options(params)
        test = self._methods.test_card(method)
        match step_of_setup(test, asked_for=is_asked_for(intent)):
            case Step.CHALLENGE:
                intent.update(status="requires_action", next_action=next_action(self._desk.base_url, intent, params))
                self._desk.store.put(intent)
                self._desk.events.emit("setup_intent.requires_action", intent)
                return intent
            case Step.FAIL:
                self._decline(intent, method, replace(test, decline="generic_decline"))
        return self._finish(intent, method, test)

    def authenticate(self, identifier: str, *, succeed: bool) -> Json:
        """What the cardholder does on the 3-D Secure page. May raise Declined."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] != "requires_action":
            raise _unexpected_state(intent, "authenticate")
        method = self._methods.get(intent["payment_method"])
        if succeed:
            return self._finish(intent, method, self._methods.test_card(method))
        code = "setup_intent_authentication_failure"
        self._fail(intent, {
            "type": "invalid_request_error",
            "code": code,
            "doc_url": doc_url(code),
            "message": "The latest attempt to set up the payment method has failed because authentication failed.",
            "payment_method": method,
        })  # fmt: skip
        return intent

    def _finish(self, intent: Json, method: Json, test: TestCard) -> Json:
        if test.attach_declines:
            self._decline(intent, method, test)
        if intent["customer"]:
            method = self._methods.keep(method, intent["customer"])
        if intent["usage"] == "off_session":
            self._methods.set_up(method)
        intent.update(status="succeeded", next_action=None, last_setup_error=None)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.succeeded", intent)
        return intent

    def _decline(self, intent: Json, method: Json, test: TestCard) -> NoReturn:
        error = card_error(test, method)
        # Of setups, Stripe gives a decline_code in each case, and names the field of an expired card.
        error.body["error"].setdefault("decline_code", test.decline)
        if test.error_code == "expired_card":
            error.body["error"]["param"] = "exp_month"
        self._fail(intent, dict(error.body["error"]))
        error.body["error"]["setup_intent"] = intent
        raise Declined(error)

    def _fail(self, intent: Json, error: Json) -> None:
        intent.update(status="requires_payment_method", payment_method=None, next_action=None, last_setup_error=error)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.setup_failed", intent)

    def cancel(self, identifier: str, params: Json) -> Json:
        """POST /v1/setup_intents/{id}/cancel."""
        intent = self._desk.load("setup_intent", identifier, "intent")
        if intent["status"] not in OPEN:
            raise _unexpected_state(intent, "cancel")
        intent.update(status="canceled", cancellation_reason=params.get("cancellation_reason"), next_action=None)
        self._desk.store.put(intent)
        self._desk.events.emit("setup_intent.canceled", intent)
        return intent


def _options(params: Json) -> Json:
    card = (params.get("payment_method_options") or {}).get("card") or {}
    asked: str = card.get("request_three_d_secure", "automatic")
    return {"card": {"mandate_options": None, "network": None, "request_three_d_secure": asked}}


def _unexpected_state(intent: Json, verb: str) -> StripeError:
    why = _ENDED.get(intent["status"], f"it has a status of {intent['status']}")
    return invalid(
        f"You cannot {verb} this SetupIntent because {why}.",
        code="setup_intent_unexpected_state",
        setup_intent=intent,
    )
