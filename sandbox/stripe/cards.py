"""Stripe's test cards, as its testing page documents them: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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
    authenticates: bool = False
    """Whether 3-D Secure is required at each confirm."""
    refund_fails: bool = False
    """Whether a refund succeeds at first and fails later."""
    funding: str = "credit"
    country: str = "US"


CARDS: Final = (
    TestCard("visa", "4242424242424242"),
    TestCard("visa_debit", "4000056655665556", funding="debit"),
    TestCard("mastercard", "5555555555554444", "mastercard"),
    TestCard("mastercard_debit", "5200828282828210", "mastercard", funding="debit"),
    TestCard("mastercard_prepaid", "5105105105105100", "mastercard", funding="prepaid"),
    TestCard("amex", "378282246310005", "amex"),
    TestCard("discover", "6011111111111117", "discover"),
    TestCard("gb", "4000008260000000", country="GB"),
    TestCard("de", "4000002760000016", country="DE"),
    # Declines. All but the first kind attach to a customer and decline when they are charged.
    TestCard("chargeDeclined", "4000000000000002", error_code="card_declined", decline_code="generic_decline", attach_declines=True),
    TestCard(
        "chargeDeclinedInsufficientFunds", "4000000000009995", error_code="card_declined", decline_code="insufficient_funds",
        advice_code="try_again_later", attach_declines=True,
    ),
    TestCard("visa_chargeDeclinedLostCard", "4000000000009987", error_code="card_declined", decline_code="lost_card",
             advice_code="do_not_try_again", attach_declines=True),
    TestCard("visa_chargeDeclinedStolenCard", "4000000000009979", error_code="card_declined", decline_code="stolen_card",
             advice_code="do_not_try_again", attach_declines=True),
    TestCard("chargeDeclinedExpiredCard", "4000000000000069", error_code="expired_card", decline_code="expired_card", attach_declines=True),
    TestCard("chargeDeclinedIncorrectCvc", "4000000000000127", error_code="incorrect_cvc", decline_code="incorrect_cvc", attach_declines=True),
    TestCard("chargeDeclinedProcessingError", "4000000000000119", error_code="processing_error", decline_code="processing_error",
             advice_code="try_again_later", attach_declines=True),
    TestCard("chargeDeclinedFraudulent", "4100000000000019", error_code="card_declined", decline_code="fraudulent", attach_declines=True),
    TestCard("visa_chargeDeclinedVelocityLimitExceeded", "4000000000006975", error_code="card_declined",
             decline_code="card_velocity_exceeded", attach_declines=True),
    # Attaches to a customer, then declines each charge.
    TestCard("chargeCustomerFail", "4000000000000341", error_code="card_declined", decline_code="generic_decline"),
    TestCard("authenticationRequired", "4000002500003155", authenticates=True),
    TestCard("refundFail", "4000000000005126", refund_fails=True),
)  # fmt: skip

BY_TOKEN: Final = {f"pm_card_{card.token}": card for card in CARDS}
BY_NUMBER: Final = {card.number: card for card in CARDS}
