"""Why a card was declined, in our words: what is worth doing next, from when on, and a sentence for the cardholder that gives
nothing away. One table; docs/declines.md is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from servers.payments.domain import Decline

LATER: Final = "RETRY_LATER"
OTHER: Final = "USE_ANOTHER_CARD"
STOP: Final = "STOP"
AUTHENTICATE: Final = "AUTHENTICATE"
_SOON, _HOUR, _DAY = timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)

_GENERIC: Final = "The card was declined. Please use another card."
_BANK: Final = "The bank did not approve the payment. Please ask your bank, or use another card."
_AGAIN: Final = "The card could not be processed just now. Please try again."
_LIMIT: Final = "The card is over its limit. Please try later or use another card."
_NOT_TAKEN: Final = "The card does not allow this payment. Please use another card."
_REENTER: Final = "The details of the card are not right. Please enter the card again."
_PIN: Final = "The card asks for its PIN, which cannot be entered here. Please use another card."
_REVOKED: Final = "The bank does not allow further payments of this kind. Please use another card."


@dataclass(frozen=True, slots=True)
class Reason:
    """A code of ours."""

    action: str
    """What is worth doing next."""
    message: str
    """What the cardholder is told."""
    stripe: tuple[str, ...] = ()
    """Stripe's codes for it: `decline_code`, or `code` where there is none."""
    retry_after: timedelta | None = None
    """How soon the same card may be tried again, where that is of use."""
    hidden: bool = False
    """Whether payers only see that the card was declined: who holds somebody else's card must not learn what its issuer knows."""


REASONS: Final[Mapping[str, Reason]] = {
    "declined": Reason(OTHER, _GENERIC, ("generic_decline", "card_declined")),
    "do_not_honor": Reason(OTHER, _BANK, ("do_not_honor",)),
    "do_not_try_again": Reason(STOP, _GENERIC, ("do_not_try_again",)),
    "call_issuer": Reason(OTHER, _BANK, ("call_issuer",)),
    "approve_with_id": Reason(LATER, _AGAIN, ("approve_with_id",), _SOON),
    "no_action_taken": Reason(LATER, _AGAIN, ("no_action_taken",), _HOUR),
    "try_again_later": Reason(LATER, _AGAIN, ("try_again_later",), _HOUR),
    "reenter_transaction": Reason(LATER, _AGAIN, ("reenter_transaction",), _SOON),
    "issuer_not_available": Reason(LATER, _AGAIN, ("issuer_not_available",), _SOON),
    "processing_error": Reason(LATER, _AGAIN, ("processing_error",), _SOON),
    "insufficient_funds": Reason(
        LATER,
        "The card does not have enough funds. Please try later or use another card.",
        ("insufficient_funds",),
        _DAY,
    ),
    "limit_exceeded": Reason(LATER, _LIMIT, ("card_velocity_exceeded",), _DAY),
    "withdrawal_limit_exceeded": Reason(LATER, _LIMIT, ("withdrawal_count_limit_exceeded",), _DAY),
    "duplicate_transaction": Reason(
        STOP,
        "The same payment was made a moment ago. Please check it before you pay again.",
        ("duplicate_transaction",),
    ),
    "expired_card": Reason(OTHER, "The card has expired. Please use another card.", ("expired_card",)),
    "incorrect_number": Reason(OTHER, _REENTER, ("incorrect_number", "invalid_number")),
    "incorrect_cvc": Reason(
        OTHER, "The security code is not right. Please enter the card again.", ("incorrect_cvc", "invalid_cvc")
    ),
    "incorrect_expiry": Reason(OTHER, _REENTER, ("invalid_expiry_month", "invalid_expiry_year")),
    "incorrect_address": Reason(OTHER, _REENTER, ("incorrect_address",)),
    "incorrect_postal_code": Reason(OTHER, _REENTER, ("incorrect_zip",)),
    "card_replaced": Reason(
        OTHER, "The card has been replaced. Please enter the new one.", ("new_account_information_available",)
    ),
    "incorrect_pin": Reason(OTHER, _PIN, ("incorrect_pin", "invalid_pin")),
    "pin_required": Reason(OTHER, _PIN, ("offline_pin_required", "online_or_offline_pin_required")),
    "pin_tries_exceeded": Reason(OTHER, _PIN, ("pin_try_exceeded",)),
    "invalid_account": Reason(STOP, _NOT_TAKEN, ("invalid_account",)),
    "invalid_amount": Reason(
        STOP, "The card does not allow this amount. Please use another card.", ("invalid_amount",)
    ),
    "card_not_supported": Reason(OTHER, _NOT_TAKEN, ("card_not_supported",)),
    "currency_not_supported": Reason(
        OTHER, "The card does not pay in this currency. Please use another card.", ("currency_not_supported",)
    ),
    "not_permitted": Reason(OTHER, _NOT_TAKEN, ("not_permitted",)),
    "service_not_allowed": Reason(OTHER, _NOT_TAKEN, ("service_not_allowed",)),
    "transaction_not_allowed": Reason(OTHER, _NOT_TAKEN, ("transaction_not_allowed",)),
    "authorization_revoked": Reason(STOP, _REVOKED, ("revocation_of_authorization",)),
    "all_authorizations_revoked": Reason(STOP, _REVOKED, ("revocation_of_all_authorizations",)),
    "payment_stopped": Reason(STOP, _REVOKED, ("stop_payment_order",)),
    "authentication_required": Reason(
        AUTHENTICATE,
        "The card must be authenticated. Please pay again while you are here.",
        ("authentication_required",),
    ),
    "device_authentication_required": Reason(
        AUTHENTICATE,
        "The card must be unlocked on your device. Please pay again and confirm it there.",
        ("mobile_device_authentication_required",),
    ),
    "authentication_failed": Reason(
        AUTHENTICATE,
        "The card was not authenticated. Please try again.",
        (
            "authentication_not_handled",
            "payment_intent_authentication_failure",
            "setup_intent_authentication_failure",
        ),
    ),
    "test_card": Reason(STOP, "This is a test card. Please use another card.", ("testmode_decline",)),
    "lost_card": Reason(STOP, _GENERIC, ("lost_card",), hidden=True),
    "stolen_card": Reason(STOP, _GENERIC, ("stolen_card",), hidden=True),
    "pickup_card": Reason(STOP, _GENERIC, ("pickup_card",), hidden=True),
    "restricted_card": Reason(STOP, _GENERIC, ("restricted_card",), hidden=True),
    "security_violation": Reason(STOP, _GENERIC, ("security_violation",), hidden=True),
    "suspected_fraud": Reason(STOP, _GENERIC, ("fraudulent",), hidden=True),
    "blocked": Reason(STOP, _GENERIC, ("merchant_blacklist",), hidden=True),
    # What no issuer says.
    "payment_method_rejected": Reason(
        OTHER, "The card cannot be used here. Please enter it again, or use another card."
    ),
    "amount_too_small": Reason(STOP, "The amount is too small or too large for a card."),
    "amount_too_large": Reason(STOP, "The amount is too small or too large for a card."),
    "payment_rejected": Reason(STOP, "This cannot be paid by card."),
    "payment_canceled": Reason(STOP, "The payment was canceled."),
    "settled_by_staff": Reason(OTHER, "The payment did not go through. Please try again."),
    "wallet_unusable": Reason(OTHER, "The wallet cannot pay this. Please use another one."),
}
FROM_STRIPE: Final = {theirs: ours for ours, reason in REASONS.items() for theirs in reason.stripe}


def _reason(code: str, *, network_code: str = "") -> Decline:
    reason = REASONS[code]
    return Decline(
        code=code,
        recommended_action=reason.action,
        message=reason.message,
        retry_after=reason.retry_after,
        network_code=network_code,
    )


def decline_of(*, code: str, decline_code: str, advice_code: str, network_decline_code: str = "") -> Decline:
    """Return the decline for what Stripe says; codes that are not documented are "declined". The issuer's advice wins over what
    the code suggests: "do not try again" stops, "try again later" says when, "confirm the card's data" does not repeat the same."""
    ours = FROM_STRIPE.get(decline_code) or FROM_STRIPE.get(code) or "declined"
    decline = _reason(ours, network_code=network_decline_code)
    match advice_code:
        case "do_not_try_again":
            return replace(decline, recommended_action=STOP, retry_after=None)
        case "try_again_later" if decline.recommended_action != STOP:
            return replace(decline, retry_after=decline.retry_after or _DAY)
        case "confirm_card_data":
            return replace(decline, retry_after=None)
    return decline


def for_payers(decline: Decline) -> Decline:
    """Return what a payer may know of a decline: of one that the issuer or a fraud rule has its suspicions about, only that the
    card was declined; and never the network's own code."""
    reason = REASONS.get(decline.code)
    shown = _reason("declined") if reason is not None and reason.hidden else decline
    return replace(shown, network_code="")


PAYMENT_CANCELED: Final = _reason("payment_canceled")
"""Of an attempt that waited for the cardholder when its payment was canceled."""

SETTLED_BY_STAFF: Final = _reason("settled_by_staff")
"""Of an attempt that a person has ended because Stripe says that it never happened."""

METHOD_REJECTED: Final = _reason("payment_method_rejected")
"""Of a payment method that Stripe does not know, or that belongs to somebody else."""

WALLET_SHORT: Final = Decline(
    code="insufficient_funds", recommended_action=OTHER, message="The wallet does not hold enough."
)
"""Of a wallet that does not cover the payment."""

WALLET_UNUSABLE: Final = _reason("wallet_unusable")
"""Of a wallet that is in another currency or is not the customer's."""


def rejected(code: str) -> Decline:
    """Return the decline of a payment that Stripe does not take at all, by Stripe's code."""
    return _reason(code if code in ("amount_too_small", "amount_too_large") else "payment_rejected")
