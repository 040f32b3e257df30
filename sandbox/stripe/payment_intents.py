"""Payment intents: one purchase, however many tries it takes (https://docs.stripe.com/payments/paymentintents/lifecycle)."""

from __future__ import annotations

from dataclasses import replace

from sandbox.stripe.amounts import check_amount, currency_of
from sandbox.stripe.cards import TestCard
from sandbox.stripe.charges import CAPTURES_MAX, Charges
from sandbox.stripe.desk import Declined, Desk, card_error, differences, doc_url, fresh_metadata, merge_metadata
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.payment_methods import PaymentMethods
from sandbox.stripe.store import new_id
from sandbox.stripe.three_d_secure import Step, check_return_url, details, is_asked_for, next_action, step_of_payment
from sandbox.stripe.wire import Json, StripeError, invalid

NOUN = "PaymentIntent"
CONFIRMABLE = ("requires_payment_method", "requires_confirmation")
CANCELABLE = (*CONFIRMABLE, "requires_action", "requires_capture", "processing")
ALWAYS_CHANGEABLE = frozenset({"description", "metadata", "expand"})
_ONLY_WITH_CONFIRM = ("off_session", "return_url")
_PLAIN = (
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor_suffix",
    "transfer_group",
)
_KEPT_OPTIONS = (
    "request_extended_authorization",
    "request_incremental_authorization",
    "request_multicapture",
    "request_overcapture",
    "request_three_d_secure",
)
_CUSTOMER_IS_SET = (
    "You cannot modify `customer` on a PaymentIntent once it already has been set. To fulfill a payment with a different Customer, "
    "cancel this PaymentIntent and create a new one."
)
_RELEASED = (
    "The remaining amount on this PaymentIntent could not be captured because the remainder of the authorized amount has been "
    "released."
)
_NO_METHOD = (
    "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the PaymentIntent with a "
    "payment method and then confirm it again, or confirm it again directly with a payment method or ConfirmationToken."
)


class PaymentIntents:
    """POST and GET on payment intents."""

    def __init__(self, desk: Desk, methods: PaymentMethods, disputes: Disputes) -> None:
        self._desk = desk
        self._methods = methods
        self._disputes = disputes
        self._charges = Charges(desk)

    def create(self, params: Json) -> Json:
        """POST /v1/payment_intents."""
        currency = currency_of(params["currency"])
        check_amount(params["amount"], currency)
        if params.get("customer"):
            self._desk.live_customer(params["customer"])
        for name in _ONLY_WITH_CONFIRM:
            if name in params and not params.get("confirm"):
                raise invalid(f"The parameter {name} can only be used with confirm=true.", param=name)
        given = params.get("payment_method")
        method = self._methods.usable(given, params.get("customer"), NOUN, {}) if given else None
        identifier = new_id("pi")
        intent: Json = {
            "id": identifier,
            "object": "payment_intent",
            "amount": params["amount"],
            "amount_capturable": 0,
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": automatic_methods(params),
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": params.get("capture_method", "automatic_async"),
            "client_secret": f"{identifier}_secret_{new_id('s')[2:]}",
            "confirmation_method": "automatic",
            "created": self._desk.clock.now(),
            "currency": currency,
            "customer": params.get("customer"),
            **{name: params.get(name) or None for name in _PLAIN},
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": fresh_metadata(params.get("metadata")),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method["id"] if method else None,
            "payment_method_configuration_details": None,
            "payment_method_options": _options(params),
            "payment_method_types": ["card"],
            "processing": None,
            "review": None,
            "source": None,
            "statement_descriptor": None,
            "status": "requires_confirmation" if method else "requires_payment_method",
            "transfer_data": None,
        }
        self._desk.store.put(intent)
        self._desk.events.emit("payment_intent.created", intent)
        if not params.get("confirm"):
            return intent
        # What is refused now never existed, so its error carries no intent.
        confirm: Json = {name: params[name] for name in (*_ONLY_WITH_CONFIRM, "use_stripe_sdk") if name in params}
        return self._confirm(intent, confirm, carried={})

    def update(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}. Stripe has no event for it."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] not in (*CONFIRMABLE, "requires_action") and params.keys() - ALWAYS_CHANGEABLE:
            raise _unexpected_state(intent, "updated")
        if params.get("customer"):
            if intent["customer"] not in (None, params["customer"]):
                raise invalid(_CUSTOMER_IS_SET, param="customer")
            intent["customer"] = self._desk.live_customer(params["customer"])["id"]
        if "currency" in params:
            intent["currency"] = currency_of(params["currency"])
        intent["amount"] = params.get("amount", intent["amount"])
        check_amount(intent["amount"], intent["currency"])
        if params.get("payment_method"):
            carried = {"payment_intent": dict(intent)}
            method = self._methods.usable(params["payment_method"], intent["customer"], NOUN, carried)
            intent["payment_method"] = method["id"]
            intent["status"] = "requires_confirmation"
            intent["next_action"] = None
        if "payment_method_options" in params:
            intent["payment_method_options"] = _options(params)
        intent["capture_method"] = params.get("capture_method", intent["capture_method"])
        intent.update({name: params[name] or None for name in _PLAIN if name in params})
        merge_metadata(intent, params.get("metadata"))
        return self._desk.store.put(intent)

    def confirm(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/confirm. A decline is Stripe's 402 with the intent inside."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] not in (*CONFIRMABLE, "requires_action"):
            raise _unexpected_state(intent, "confirmed")
        return self._confirm(intent, params, carried={"payment_intent": dict(intent)})

    def _confirm(self, intent: Json, params: Json, *, carried: Json) -> Json:
        check_return_url(intent, params, carried)
        chosen = params.get("payment_method") or intent["payment_method"]
        if chosen is None:
            raise invalid(_NO_METHOD, code="payment_intent_unexpected_state", **carried)
        method = self._methods.usable(chosen, intent["customer"], NOUN, carried)
        intent.update({name: params[name] or None for name in _PLAIN if name in params})
        intent.update(payment_method=method["id"], next_action=None)
        if "payment_method_options" in params:
            intent["payment_method_options"] = _options(params)
        test = self._methods.test_card(method)
        step = step_of_payment(
            test,
            off_session=bool(params.get("off_session")),
            is_set_up=self._methods.is_set_up(method),
            asked_for=is_asked_for(intent),
        )
        match step:
            case Step.CHALLENGE:
                intent.update(status="requires_action", next_action=next_action(self._desk.base_url, intent, params))
                self._desk.store.put(intent)
                self._desk.events.emit("payment_intent.requires_action", intent)
                return intent
            case Step.REFUSE:
                # Nobody is there to authenticate (https://docs.stripe.com/declines/codes, `authentication_required`).
                test = replace(test, decline="authentication_required")
            case Step.FAIL:
                test = replace(test, decline="generic_decline")
        return self._charge(intent, method, test, off_session=bool(params.get("off_session")))

    def authenticate(self, identifier: str, *, succeed: bool) -> Json:
        """What the cardholder does on the 3-D Secure page. May raise Declined: authenticated cards decline, too."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] != "requires_action":
            raise _unexpected_state(intent, "authenticated")
        intent["next_action"] = None
        method = self._methods.get(intent["payment_method"])
        if succeed:
            return self._charge(intent, method, self._methods.test_card(method), challenged=True)
        intent.update(status="requires_payment_method", payment_method=None)
        code = "payment_intent_authentication_failure"
        intent["last_payment_error"] = {
            "type": "invalid_request_error",
            "code": code,
            "doc_url": doc_url(code),
            "message": "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
            "PaymentMethod to attempt to fulfill this PaymentIntent again.",
            "payment_method": method,
            "payment_method_type": "card",
        }
        self._desk.store.put(intent)
        self._desk.events.emit("payment_intent.payment_failed", intent)
        return intent

    def _charge(
        self, intent: Json, method: Json, test: TestCard, *, challenged: bool = False, off_session: bool = False
    ) -> Json:
        secured = details(test, challenged=challenged, asked_for=is_asked_for(intent) and not off_session)
        charge = self._charges.make(intent, method, test, secured=secured, off_session=off_session)
        intent["latest_charge"] = charge["id"]
        self._desk.store.put(charge, parent=intent["id"])
        if test.decline:
            self._methods.spend(method, attachable=False)
            raise Declined(self._decline(intent, charge, method, test))
        intent["last_payment_error"] = None
        if intent["setup_future_usage"] and intent["customer"]:
            method = self._methods.keep(method, intent["customer"])
        if intent["setup_future_usage"] == "off_session":
            self._methods.set_up(method)
        self._methods.spend(method, attachable=bool(intent["setup_future_usage"]))
        if intent["capture_method"] == "manual":
            intent.update(status="requires_capture", amount_capturable=intent["amount"])
            self._desk.store.put(intent)
            ends = charge["payment_method_details"]["card"]["capture_before"]
            self._desk.remind("payment_intent.expire", intent["id"], after_seconds=ends - charge["created"])
            self._desk.events.emit("charge.succeeded", charge)
            self._desk.events.emit("payment_intent.amount_capturable_updated", intent)
            return intent
        return self._collect(intent, charge, intent["amount"], test)

    def _decline(self, intent: Json, charge: Json, method: Json, test: TestCard) -> StripeError:
        error = card_error(test, method, charge=charge["id"], payment_method_type="card")
        intent["last_payment_error"] = dict(error.body["error"])
        intent.update(status="requires_payment_method", payment_method=None)
        self._desk.store.put(intent)
        self._desk.events.emit("charge.failed", charge)
        self._desk.events.emit("payment_intent.payment_failed", intent)
        error.body["error"]["payment_intent"] = intent
        return error

    def _collect(self, intent: Json, charge: Json, amount: int, test: TestCard, *, final: bool = True) -> Json:
        before = dict(charge)
        received = intent["amount_received"] + amount
        final = final or received == intent["amount"]
        self._charges.capture(charge, amount, test)
        intent.update(amount_received=received, amount_capturable=0 if final else intent["amount"] - received)
        intent["status"] = "succeeded" if final else "requires_capture"
        self._desk.store.put(intent)
        if intent["capture_method"] == "manual":
            self._desk.events.emit("charge.captured", charge, before=differences(before, charge))
        else:
            self._desk.events.emit("charge.succeeded", charge)
        self._disputes.after_payment(charge, test)
        if final:
            self._desk.forget("payment_intent.expire", intent["id"])
        kind = "payment_intent.succeeded" if final else "payment_intent.amount_capturable_updated"
        self._desk.events.emit(kind, intent)
        return intent

    def capture(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/capture: in full or in part. The rest is released, unless the charge grants further
        captures and `final_capture` is false (https://docs.stripe.com/payments/multicapture)."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] == "succeeded":
            raise invalid(_RELEASED, code="payment_intent_unexpected_state", payment_intent=intent)
        if intent["status"] != "requires_capture":
            raise _unexpected_state(intent, "captured")
        charge = self._desk.load("charge", intent["latest_charge"], "charge")
        final: bool = params.get("final_capture", True)
        if not final:
            self._check_multicapture(intent, charge)
        amount: int = params["amount_to_capture"] if "amount_to_capture" in params else intent["amount_capturable"]
        card = charge["payment_method_details"]["card"]
        most: int = card.get("overcapture", {}).get("maximum_amount_capturable", intent["amount"])
        # Only the last capture may go beyond what was authorized.
        _check_capture(
            intent, amount, most - intent["amount_received"] if final else intent["amount_capturable"], final=final
        )
        merge_metadata(intent, params.get("metadata"))
        test = self._methods.test_card({"id": charge["payment_method"]})
        return self._collect(intent, charge, amount, test, final=final)

    def _check_multicapture(self, intent: Json, charge: Json) -> None:
        """Raise Stripe's 400 where the charge was not granted another capture (https://docs.stripe.com/payments/multicapture)."""
        if charge["payment_method_details"]["card"]["multicapture"]["status"] != "available":
            raise invalid(
                "This PaymentIntent does not support multicapture.", param="final_capture", payment_intent=intent
            )
        # The last one that is left must be the final one.
        if len(self._desk.store.newest("balance_transaction", parent=charge["id"])) >= CAPTURES_MAX - 1:
            raise invalid(
                f"A PaymentIntent is captured {CAPTURES_MAX} times at most.",
                param="final_capture",
                payment_intent=intent,
            )

    def cancel(self, identifier: str, params: Json) -> Json:
        """POST /v1/payment_intents/{id}/cancel: an authorization is let go."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] not in CANCELABLE or intent["amount_received"]:
            raise _unexpected_state(intent, "canceled")
        return self._close(intent, params.get("cancellation_reason"), "charge.refunded")

    def expire(self, identifier: str) -> None:
        """The authorization window ends: what was captured stays captured, the rest is let go."""
        intent = self._desk.load("payment_intent", identifier, "intent")
        if intent["status"] != "requires_capture":
            return
        if not intent["amount_received"]:
            self._close(intent, "automatic", "charge.expired")
            return
        intent.update(status="succeeded", amount_capturable=0)
        self._desk.store.put(intent)
        self._desk.events.emit("payment_intent.succeeded", intent)

    def _close(self, intent: Json, reason: str | None, event: str) -> Json:
        if intent["status"] == "requires_capture":
            self._charges.release(self._desk.load("charge", intent["latest_charge"], "charge"), event)
        self._desk.forget("payment_intent.expire", intent["id"])
        intent.update(
            status="canceled",
            amount_capturable=0,
            canceled_at=self._desk.clock.now(),
            cancellation_reason=reason,
            next_action=None,
        )
        self._desk.store.put(intent)
        self._desk.events.emit("payment_intent.canceled", intent)
        return intent


def _check_capture(intent: Json, amount: int, most: int, *, final: bool) -> None:
    """Raise Stripe's 400 for an amount that cannot be captured. Nothing may be captured only to end a multicapture."""
    if amount < 0:
        raise invalid("Invalid non-negative integer", param="amount_to_capture", payment_intent=intent)
    if amount == 0 and not (final and intent["amount_received"]):
        raise invalid(
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            # Stripe names the parameter of the charge here.
            param="amount",
            payment_intent=intent,
        )
    if amount > most:
        raise invalid(
            "The payment could not be captured because the requested capture amount is greater than the amount you can capture "
            "for this charge.",
            code="amount_too_large",
            payment_intent=intent,
        )


def automatic_methods(params: Json) -> Json | None:
    """Return how the account's own choice of payment methods applies: by default where no types are named
    (https://docs.stripe.com/upgrades#2023-08-16)."""
    types = params.get("payment_method_types")
    if types is not None and types != ["card"]:
        raise invalid("The sandbox serves payments by card only.", param="payment_method_types")
    given = params.get("automatic_payment_methods") or ({} if types else {"enabled": True})
    if types and given.get("enabled"):
        raise invalid("You may only specify one of these parameters: automatic_payment_methods, payment_method_types.")
    return {"allow_redirects": "always", **given} if given.get("enabled") else None


def _options(params: Json) -> Json:
    card = (params.get("payment_method_options") or {}).get("card") or {}
    kept = {name: card[name] for name in _KEPT_OPTIONS if name in card}
    base: Json = {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
    return {"card": base | kept}


def _unexpected_state(intent: Json, verb: str) -> StripeError:
    return invalid(
        f"This PaymentIntent could not be {verb} because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        payment_intent=intent,
    )
