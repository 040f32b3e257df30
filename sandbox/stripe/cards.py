"""Stripe's test cards, as its testing page documents them (https://docs.stripe.com/testing): one row each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Secure(Enum):
    """How a card stands to 3-D Secure (https://docs.stripe.com/testing#regulatory-cards)."""

    NOT_SUPPORTED = "is not supported"
    NOT_ENROLLED = "is supported, and the cardholder is never asked"
    OPTIONAL = "when the payment asks for it"
    OPTIONAL_FAILS = "fails when the payment asks for it"
    REQUIRED = "always"
    UNLESS_SET_UP = "always on-session; off-session until set up"
    SET_UP = "always on-session; never off-session"
    FRICTIONLESS = "always, without a challenge"
    LOOKUP_FAILS = "always, and the issuer cannot be asked"


@dataclass(frozen=True, slots=True)
class TestCard:
    """What a test card does when it is charged."""

    token: str
    """The static id `pm_card_<token>`."""
    number: str
    brand: str = "visa"
    error_code: str = ""
    """The error's `code`; empty where the charge succeeds."""
    decline_code: str = ""
    """The error's `decline_code`, where the issuer declines."""
    advice_code: str = ""
    """The charge outcome's `advice_code`."""
    attach_declines: bool = False
    """Whether the decline comes when the card is attached to a customer already."""
    secure: Secure = Secure.NOT_ENROLLED
    """When 3-D Secure is asked for."""
    refund_fails: bool = False
    """Whether a refund succeeds at first and fails later."""
    refund_waits: bool = False
    """Whether a refund is pending at first and succeeds later."""
    settles_at_once: bool = False
    """Whether the money skips the pending balance."""
    risk_level: str = "normal"
    also: tuple[str, ...] = ()
    """Further static ids of the same card, without `pm_card_`."""
    funding: str = "credit"
    country: str = "US"


CARDS: Final = (
    # Charges succeed; one row per brand, funding and country of the card.
    TestCard("visa", "4242424242424242", also=("us",)),
    TestCard("visa_debit", "4000056655665556", funding="debit"),
    TestCard("mastercard", "5555555555554444", "mastercard"),
    TestCard("mastercard_debit", "5200828282828210", "mastercard", funding="debit"),
    TestCard("mastercard_prepaid", "5105105105105100", "mastercard", funding="prepaid"),
    TestCard("amex", "378282246310005", "amex", secure=Secure.NOT_SUPPORTED, also=("amex_threeDSecureNotSupported",)),
    TestCard("discover", "6011111111111117", "discover"),
    TestCard("diners", "3056930009020004", "diners"),
    TestCard("jcb", "3566002020360505", "jcb", country="JP"),
    TestCard("unionpay", "6200000000000005", "unionpay", country="CN"),
    TestCard("br", "4000000760000002", country="BR"),
    TestCard("ca", "4000001240000000", country="CA"),
    TestCard("gb", "4000008260000000", country="GB"),
    TestCard("de", "4000002760000016", country="DE"),
    TestCard("fr", "4000002500000003", country="FR"),
    TestCard("in", "4000003560000008", country="IN"),
    # Declines on attach and on charge alike: the issuer refuses the check that attaching makes.
    TestCard("chargeDeclined", "4000000000000002", error_code="card_declined", decline_code="generic_decline", attach_declines=True,
             also=("visa_chargeDeclined",)),
    TestCard(
        "chargeDeclinedInsufficientFunds", "4000000000009995", error_code="card_declined", decline_code="insufficient_funds",
        advice_code="try_again_later", attach_declines=True, also=("visa_chargeDeclinedInsufficientFunds",),
    ),
    TestCard("visa_chargeDeclinedLostCard", "4000000000009987", error_code="card_declined", decline_code="lost_card",
             advice_code="do_not_try_again", attach_declines=True),
    TestCard("visa_chargeDeclinedStolenCard", "4000000000009979", error_code="card_declined", decline_code="stolen_card",
             advice_code="do_not_try_again", attach_declines=True),
    TestCard("chargeDeclinedExpiredCard", "4000000000000069", error_code="expired_card", decline_code="expired_card", attach_declines=True),
    TestCard("chargeDeclinedIncorrectCvc", "4000000000000127", error_code="incorrect_cvc", decline_code="incorrect_cvc", attach_declines=True),
    TestCard("chargeDeclinedProcessingError", "4000000000000119", error_code="processing_error", decline_code="processing_error",
             advice_code="try_again_later", attach_declines=True),
    # Radar always blocks it.
    TestCard("chargeDeclinedFraudulent", "4100000000000019", error_code="card_declined", decline_code="fraudulent", attach_declines=True,
             risk_level="highest", also=("radarBlock",)),
    # Charged too often or for too much.
    TestCard("visa_chargeDeclinedVelocityLimitExceeded", "4000000000006975", error_code="card_declined",
             decline_code="card_velocity_exceeded", attach_declines=True),
    # Attaches to a customer, then declines each charge.
    TestCard("chargeCustomerFail", "4000000000000341", error_code="card_declined", decline_code="generic_decline"),
    # 3-D Secure at every on-session confirm; off-session payments are declined with authentication_required.
    TestCard("authenticationRequired", "4000002760003184", secure=Secure.REQUIRED),
    # The same until a SetupIntent, or a payment with setup_future_usage=off_session, has set the card up for off-session payments.
    TestCard("authenticationRequiredOnSetup", "4000002500003155", secure=Secure.UNLESS_SET_UP),
    TestCard("authenticationRequiredSetupForOffSession", "4000003800000446", secure=Secure.SET_UP),
    # The cardholder authenticates, and the issuer declines all the same.
    TestCard("authenticationRequiredChargeDeclinedInsufficientFunds", "4000008260003178", error_code="card_declined",
             decline_code="insufficient_funds", advice_code="try_again_later", secure=Secure.REQUIRED),
    TestCard("threeDSecureRequiredChargeDeclined", "4000008400001629", error_code="card_declined", decline_code="generic_decline",
             secure=Secure.REQUIRED),
    # Whether 3-D Secure is required, possible, or fails.
    TestCard("threeDSecure2Required", "4000000000003220", secure=Secure.REQUIRED, country="IE", also=("threeDSecureRequired",)),
    TestCard("", "4000008400000027", secure=Secure.REQUIRED),
    TestCard("", "4000000032200000", secure=Secure.FRICTIONLESS),
    TestCard("threeDSecureRequiredProcessingError", "4000008400001280", secure=Secure.LOOKUP_FAILS),
    TestCard("threeDSecureOptional", "4000000000003055", secure=Secure.OPTIONAL),
    TestCard("threeDSecureOptionalProcessingError", "4000000000003097", secure=Secure.OPTIONAL_FAILS),
    # The refund succeeds, then fails; the refund is pending, then succeeds.
    TestCard("refundFail", "4000000000005126", refund_fails=True),
    TestCard("pendingRefund", "4000000000007726", refund_waits=True),
    # The money is available at once.
    TestCard("bypassPending", "4000000000000077", settles_at_once=True),
    # Charges succeed at an elevated risk.
    TestCard("riskLevelElevated", "4000000000009235", risk_level="elevated"),
    # The charge succeeds and is disputed later at Stripe; the sandbox does not serve disputes yet.
    TestCard("createDispute", "4000000000000259"),
    TestCard("createDisputeProductNotReceived", "4000000000002685"),
    TestCard("createDisputeInquiry", "4000000000001976"),
)  # fmt: skip

BY_TOKEN: Final = {f"pm_card_{token}": card for card in CARDS for token in (card.token, *card.also) if token}
BY_NUMBER: Final = {card.number: card for card in CARDS}
MESSAGES: Final = {
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "card_velocity_exceeded": "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "insufficient_funds": "Your card has insufficient funds.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}
"""What the cardholder is told, by decline code; others read "Your card was declined.", to give nothing away."""


def is_luhn_valid(number: str) -> bool:
    """Say whether a number has the check digit of a card number."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(d if place % 2 == 0 else sum(divmod(2 * d, 10)) for place, d in enumerate(digits)) % 10 == 0
