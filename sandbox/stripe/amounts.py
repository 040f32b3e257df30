"""Which amounts Stripe takes (https://docs.stripe.com/currencies)."""

from __future__ import annotations

from typing import Final

from sandbox.stripe.wire import invalid

LARGEST: Final = 99_999_999
MINIMUM: Final = {
    "usd": 50, "aed": 200, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250, "eur": 50, "gbp": 30, "hkd": 400,
    "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300, "nzd": 50, "pln": 200, "ron": 200, "sek": 300,
    "sgd": 50, "thb": 1000,
}  # fmt: skip
"""The smallest charge by currency; a currency without a row has no minimum here."""
CURRENCIES: Final = frozenset(
    MINIMUM.keys()
    | set(
        "afn all amd ang aoa ars awg azn bam bbd bdt bgn bhd bif bmd bnd bob bsd bwp byn bzd cdf clp cny cop crc cve djf dop dzd "
        "egp etb fjd fkp gel gip gmd gnf gtq gyd hnl htg idr ils isk jmd jod kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl "
        "mad mdl mga mkd mmk mnt mop mur mvr mwk mzn nad ngn nio npr omr pab pen pgk php pkr pyg qar rsd rub rwf sar sbd scr shp "
        "sle sos srd std szl tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw".split()
    )
)

ZERO_DECIMALS: Final = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
"""Currencies without a smaller unit (the same page, "Zero-decimal currencies"; UGX has two decimals on the wire)."""
THREE_DECIMALS: Final = frozenset({"bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"})
"""Currencies whose last decimal must be zero (the same page, "Three-decimal currencies")."""


def currency_of(given: str) -> str:
    """Return a currency as Stripe's objects carry it, or raise Stripe's 400."""
    code = given.lower()
    if code not in CURRENCIES:
        raise invalid(f"Invalid currency: {given[:20]}", param="currency")
    return code


def check_amount(amount: int, currency: str) -> None:
    """Raise Stripe's 400 for an amount that it would not charge."""
    if amount < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
        )
    if amount < MINIMUM.get(currency, 1):
        raise invalid(
            f"Amount must be at least {MINIMUM[currency]} in the smallest unit of {currency}.",
            code="amount_too_small",
            param="amount",
        )
    if currency in THREE_DECIMALS and amount % 10:
        raise invalid(
            f"Amounts in {currency} must be a multiple of 10: the last decimal is rounded.",
            code="parameter_invalid_integer",
            param="amount",
        )
    if amount > LARGEST:
        raise invalid(
            f"Amount must be no more than {LARGEST} in the smallest unit.", code="amount_too_large", param="amount"
        )
