"""Why cards are declined: every code of Stripe's decline-code page (https://docs.stripe.com/declines/codes).

The advice follows https://docs.stripe.com/declines/card#retrying-issuer-declines; the networks' codes are those that have the same
meaning on https://docs.stripe.com/declines/network-codes. A network's advice code is Mastercard's, and the cards that decline are
Visa's: it is always null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_DECLINED: Final = "Your card was declined."
LATER: Final = "try_again_later"
NEVER: Final = "do_not_try_again"
CHECK: Final = "confirm_card_data"


@dataclass(frozen=True, slots=True)
class Decline:
    """One reason."""

    advice: str | None = None
    """The `advice_code`."""
    network: str | None = None
    """The `network_decline_code`."""
    message: str = _DECLINED
    """What the cardholder is told; most read alike, to give nothing away."""
    is_code: bool = False
    """Whether the error's `code` says it by itself: there is no `decline_code` then."""
    is_block: bool = False
    """Whether Radar blocked the charge, and the network never saw it."""


DECLINES: Final = {
    "approve_with_id": Decline(LATER),
    "authentication_not_handled": Decline(network="1A"),
    # The error's `code` and its `decline_code` both say it.
    "authentication_required": Decline(
        network="1A", message="Your card was declined. This transaction requires authentication."
    ),
    "call_issuer": Decline(LATER, "01"),
    "card_not_supported": Decline(network="57", message="Your card is not supported."),
    "card_velocity_exceeded": Decline(
        LATER,
        "65",
        "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    ),
    "currency_not_supported": Decline(message="Your card does not support the currency of this payment."),
    "do_not_honor": Decline(LATER, "05"),
    "do_not_try_again": Decline(NEVER),
    "duplicate_transaction": Decline(
        network="94",
        message="A transaction with identical amount and credit card information was submitted very recently.",
    ),
    "expired_card": Decline(CHECK, "54", "Your card has expired.", is_code=True),
    "fraudulent": Decline(is_block=True),
    "generic_decline": Decline(LATER, "01"),
    "incorrect_address": Decline(CHECK, message="Your card's address is incorrect.", is_code=True),
    "incorrect_cvc": Decline(CHECK, "N7", "Your card's security code is incorrect.", is_code=True),
    "incorrect_number": Decline(CHECK, "14", "Your card number is incorrect.", is_code=True),
    "incorrect_pin": Decline(CHECK, "55"),
    "incorrect_zip": Decline(CHECK, message="Your card's zip code failed validation.", is_code=True),
    "insufficient_funds": Decline(LATER, "51", "Your card has insufficient funds."),
    "invalid_account": Decline(NEVER, "14"),
    "invalid_amount": Decline(network="13"),
    "invalid_cvc": Decline(CHECK, "N7", "Your card's security code is invalid.", is_code=True),
    "invalid_expiry_month": Decline(CHECK, message="Your card's expiration month is invalid.", is_code=True),
    "invalid_expiry_year": Decline(CHECK, message="Your card's expiration year is invalid.", is_code=True),
    "invalid_number": Decline(CHECK, "14", "Your card number is not a valid credit card number.", is_code=True),
    "invalid_pin": Decline(CHECK, "55"),
    "issuer_not_available": Decline(LATER, "91"),
    "lost_card": Decline(NEVER, "41"),
    "merchant_blacklist": Decline(is_block=True),
    "mobile_device_authentication_required": Decline(),
    "new_account_information_available": Decline(CHECK),
    "no_action_taken": Decline(LATER, "21"),
    "not_permitted": Decline(network="57"),
    "offline_pin_required": Decline(),
    "online_or_offline_pin_required": Decline(),
    "pickup_card": Decline(NEVER, "04"),
    "pin_try_exceeded": Decline(network="75"),
    "processing_error": Decline(
        LATER, "96", "An error occurred while processing your card. Try again in a little bit.", is_code=True
    ),
    "reenter_transaction": Decline(LATER, "19"),
    "restricted_card": Decline(NEVER, "62"),
    "revocation_of_all_authorizations": Decline(NEVER, "R3"),
    "revocation_of_authorization": Decline(NEVER, "R1"),
    "security_violation": Decline(NEVER, "63"),
    "service_not_allowed": Decline(network="57"),
    "stolen_card": Decline(NEVER, "43"),
    "stop_payment_order": Decline(NEVER, "R0"),
    "testmode_decline": Decline(),
    "transaction_not_allowed": Decline(NEVER, "57", "Your card does not support this type of purchase."),
    "try_again_later": Decline(LATER),
    "withdrawal_count_limit_exceeded": Decline(LATER, "65"),
}
