"""3-D Secure: when the cardholder is asked, where, and how they come back
(https://docs.stripe.com/payments/3d-secure/authentication-flow, https://docs.stripe.com/testing#regulatory-cards)."""

from __future__ import annotations

from enum import Enum
from urllib.parse import urlencode, urlsplit, urlunsplit

from sandbox.stripe.cards import Secure, TestCard
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, invalid


class Step(Enum):
    """What a confirm does next."""

    PROCEED = "the cardholder is not asked"
    CHALLENGE = "the cardholder is asked"
    REFUSE = "the issuer wants to ask, and nobody is there"
    FAIL = "the issuer cannot be asked"


def step_of_payment(test: TestCard, *, off_session: bool, is_set_up: bool, asked_for: bool) -> Step:
    """Return what a payment does. `asked_for`: `request_three_d_secure` is `any` or `challenge`."""
    match test.secure:
        case Secure.LOOKUP_FAILS:
            return Step.FAIL
        case Secure.OPTIONAL if asked_for and not off_session:
            return Step.CHALLENGE
        case Secure.OPTIONAL_FAILS if asked_for and not off_session:
            return Step.FAIL
        case Secure.REQUIRED | Secure.UNLESS_SET_UP | Secure.SET_UP if not off_session:
            return Step.CHALLENGE
        # What the issuer declines either way, it declines without asking.
        case Secure.REQUIRED if not test.decline:
            return Step.REFUSE
        case Secure.UNLESS_SET_UP if not is_set_up:
            return Step.REFUSE
    return Step.PROCEED


def step_of_setup(test: TestCard, *, asked_for: bool) -> Step:
    """Return what a setup does; the cardholder is there."""
    match test.secure:
        case Secure.LOOKUP_FAILS:
            return Step.FAIL
        case Secure.OPTIONAL_FAILS if asked_for:
            return Step.FAIL
        case Secure.REQUIRED | Secure.UNLESS_SET_UP:
            return Step.CHALLENGE
        case Secure.OPTIONAL if asked_for:
            return Step.CHALLENGE
    return Step.PROCEED


def is_asked_for(intent: Json) -> bool:
    """Say whether an intent asks for 3-D Secure
    (https://docs.stripe.com/payments/3d-secure/authentication-flow#manual-three-ds)."""
    return intent["payment_method_options"]["card"]["request_three_d_secure"] in ("any", "challenge")


def details(test: TestCard, *, challenged: bool, asked_for: bool) -> Json | None:
    """Return a charge's `three_d_secure`; None where nobody authenticated
    (https://docs.stripe.com/api/charges/object#charge_object-payment_method_details-card-three_d_secure)."""
    if challenged or test.secure is Secure.FRICTIONLESS:
        flow, result, indicator = "challenge" if challenged else "frictionless", "authenticated", "05"
    elif asked_for and test.secure is Secure.NOT_ENROLLED:
        # The issuer takes note, and asks nobody.
        flow, result, indicator = None, "attempt_acknowledged", "06"
    else:
        return None
    return {
        "authentication_flow": flow,
        "electronic_commerce_indicator": indicator,
        "exemption_indicator": None,
        "result": result,
        "result_reason": None,
        "transaction_id": new_id("3ds"),
        "version": "2.2.0",
    }


def next_action(base_url: str, intent: Json, params: Json) -> Json:
    """Return what the cardholder has to do: a redirect where the confirm gives a `return_url`; what Stripe.js does by itself where
    it does not, or where it says `use_stripe_sdk` (https://docs.stripe.com/payments/3d-secure/authentication-flow)."""
    url = f"{base_url}/_sandbox/{intent['object']}s/{intent['id']}/authenticate"
    redirect = {"return_url": params.get("return_url"), "url": url}
    if params.get("return_url") and not params.get("use_stripe_sdk"):
        return {"type": "redirect_to_url", "redirect_to_url": redirect}
    by_script = {"type": "three_d_secure_redirect", "stripe_js": url, "source": new_id("src")}
    action: Json = {"type": "use_stripe_sdk", "use_stripe_sdk": by_script}
    if not params.get("use_stripe_sdk"):
        # More lenient than Stripe: who confirms without a script and without a return_url still finds the page.
        action["redirect_to_url"] = redirect
    return action


def _check_url(params: Json) -> None:
    """Raise Stripe's 400 for a `return_url` that no browser could be sent to."""
    if "return_url" in params and not urlsplit(params["return_url"]).scheme:
        raise invalid("Not a valid URL", code="url_invalid", param="return_url")


def check_return_url(intent: Json, params: Json, carried: Json) -> None:
    """Raise Stripe's 400 for a confirm without `return_url` where a payment method might redirect
    (https://docs.stripe.com/api/payment_intents/confirm#confirm_payment_intent-return_url)."""
    _check_url(params)
    automatic = intent["automatic_payment_methods"]
    if automatic and automatic["allow_redirects"] == "always" and not params.get("return_url"):
        noun = "PaymentIntent" if intent["object"] == "payment_intent" else "SetupIntent"
        raise invalid(
            f"This {noun} is configured to accept payment methods enabled in your Dashboard. Because some of these payment methods "
            "might redirect your customer off of your page, you must provide a `return_url`. If you don't want to accept "
            "redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` and "
            "`automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment Intents.",
            **carried,
        )


def way_back(url: str, intent: Json) -> str:
    """Return the address that the cardholder comes back to, with what Stripe adds
    (https://docs.stripe.com/payments/3d-secure/authentication-flow#return-url)."""
    kind = intent["object"]
    status = "succeeded" if intent["status"] in ("succeeded", "requires_capture") else "failed"
    added = {kind: intent["id"], f"{kind}_client_secret": intent["client_secret"], "redirect_status": status}
    parts = urlsplit(url)
    query = f"{parts.query}&{urlencode(added)}" if parts.query else urlencode(added)
    return urlunsplit(parts._replace(query=query))
