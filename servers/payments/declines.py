"""Stripe's decline codes in our words: what is worth doing next, and a sentence for the cardholder that gives nothing away."""

from __future__ import annotations

from typing import Final

from servers.payments.domain import Decline

_LATER: Final = "RETRY_LATER"
_OTHER: Final = "USE_ANOTHER_CARD"
_STOP: Final = "STOP"
_AUTHENTICATE: Final = "AUTHENTICATE"
_GENERIC: Final = "The card was declined. Please use another card."

# Our code -> (recommended action, sentence). Lost, stolen and fraudulent read like any other decline: the person at the
# till must not learn that the issuer has noticed.
_CODES: Final = {
    "declined": (_OTHER, _GENERIC),
    "insufficient_funds": (_LATER, "The card does not have enough funds. Please try later or use another card."),
    "lost_card": (_STOP, _GENERIC),
    "stolen_card": (_STOP, _GENERIC),
    "suspected_fraud": (_STOP, _GENERIC),
    "expired_card": (_OTHER, "The card has expired. Please use another card."),
    "incorrect_cvc": (_OTHER, "The security code is not right. Please enter the card again."),
    "processing_error": (_LATER, "The card could not be processed just now. Please try again."),
    "limit_exceeded": (_LATER, "The card is over its limit. Please try later or use another card."),
    "authentication_required": (_AUTHENTICATE, "The card must be authenticated. Please pay again while you are here."),
    "authentication_failed": (_AUTHENTICATE, "The card was not authenticated. Please try again."),
    "not_permitted": (_OTHER, "The card does not allow this payment. Please use another card."),
}
# Stripe's code -> ours (the codes of Stripe's decline-code page; what it does not list is "declined").
_FROM_STRIPE: Final = {
    "insufficient_funds": "insufficient_funds",
    "lost_card": "lost_card",
    "stolen_card": "stolen_card",
    "pickup_card": "stolen_card",
    "fraudulent": "suspected_fraud",
    "merchant_blacklist": "suspected_fraud",
    "expired_card": "expired_card",
    "incorrect_cvc": "incorrect_cvc",
    "invalid_cvc": "incorrect_cvc",
    "processing_error": "processing_error",
    "issuer_not_available": "processing_error",
    "try_again_later": "processing_error",
    "reenter_transaction": "processing_error",
    "card_velocity_exceeded": "limit_exceeded",
    "withdrawal_count_limit_exceeded": "limit_exceeded",
    "authentication_required": "authentication_required",
    "setup_intent_authentication_failure": "authentication_failed",
    "payment_intent_authentication_failure": "authentication_failed",
    "card_not_supported": "not_permitted",
    "currency_not_supported": "not_permitted",
    "transaction_not_allowed": "not_permitted",
    "service_not_allowed": "not_permitted",
}


def decline_of(*, code: str, decline_code: str, advice_code: str) -> Decline:
    """Return the decline for what Stripe says. The issuer's "do not try again" wins over what the code suggests."""
    ours = _FROM_STRIPE.get(decline_code) or _FROM_STRIPE.get(code) or "declined"
    action, message = _CODES[ours]
    if advice_code == "do_not_try_again":
        action = _STOP
    return Decline(code=ours, recommended_action=action, message=message)


PAYMENT_CANCELED: Final = Decline(
    code="payment_canceled", recommended_action=_STOP, message="The payment was canceled."
)
"""Of an attempt that waited for the cardholder when its payment was canceled."""

SETTLED_BY_STAFF: Final = Decline(
    code="settled_by_staff", recommended_action=_OTHER, message="The payment did not go through. Please try again."
)
"""Of an attempt that a person has ended because Stripe says that it never happened."""

METHOD_REJECTED: Final = Decline(
    code="payment_method_rejected",
    recommended_action=_OTHER,
    message="The card cannot be used here. Please enter it again, or use another card.",
)
"""Of a payment method that Stripe does not know, or that belongs to somebody else."""

WALLET_SHORT: Final = Decline(
    code="insufficient_funds", recommended_action=_OTHER, message="The wallet does not hold enough."
)
"""Of a wallet that does not cover the payment."""

WALLET_UNUSABLE: Final = Decline(
    code="wallet_unusable", recommended_action=_OTHER, message="The wallet cannot pay this. Please use another one."
)
"""Of a wallet that is in another currency or is not the customer's."""


def rejected(code: str) -> Decline:
    """Return the decline of a payment that Stripe does not take at all, by Stripe's code."""
    amount = code in ("amount_too_small", "amount_too_large")
    message = "The amount is too small or too large for a card." if amount else "This cannot be paid by card."
    return Decline(code=code if amount else "payment_rejected", recommended_action=_STOP, message=message)
