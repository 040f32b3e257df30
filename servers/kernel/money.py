"""Money: whole minor units with a currency, never a float, never a Decimal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from servers.kernel.invariant import invariant

# ISO 4217 minor-unit exponents of every currency that is not of two decimals; tests/unit/kernel compares the table with the
# standard. Stripe's own exceptions live in payments/gateway_stripe.py.
_EXPONENTS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # fmt: skip
_TWO_DECIMALS: Final = frozenset(
    [
        "AED",
        "AFN",
        "ALL",
        "AMD",
        "AOA",
        "ARS",
        "AUD",
        "AWG",
        "AZN",
        "BAM",
        "BBD",
        "BDT",
        "BMD",
        "BND",
        "BOB",
        "BRL",
        "BSD",
        "BTN",
        "BWP",
        "BYN",
        "BZD",
        "CAD",
        "CDF",
        "CHF",
        "CNY",
        "COP",
        "CRC",
        "CUP",
        "CVE",
        "CZK",
        "DKK",
        "DOP",
        "DZD",
        "EGP",
        "ERN",
        "ETB",
        "EUR",
        "FJD",
        "FKP",
        "GBP",
        "GEL",
        "GHS",
        "GIP",
        "GMD",
        "GTQ",
        "GYD",
        "HKD",
        "HNL",
        "HTG",
        "HUF",
        "IDR",
        "ILS",
        "INR",
        "IRR",
        "JMD",
        "KES",
        "KGS",
        "KHR",
        "KPW",
        "KYD",
        "KZT",
        "LAK",
        "LBP",
        "LKR",
        "LRD",
        "LSL",
        "MAD",
        "MDL",
        "MGA",
        "MKD",
        "MMK",
        "MNT",
        "MOP",
        "MRU",
        "MUR",
        "MVR",
        "MWK",
        "MXN",
        "MYR",
        "MZN",
        "NAD",
        "NGN",
        "NIO",
        "NOK",
        "NPR",
        "NZD",
        "PAB",
        "PEN",
        "PGK",
        "PHP",
        "PKR",
        "PLN",
        "QAR",
        "RON",
        "RSD",
        "RUB",
        "SAR",
        "SBD",
        "SCR",
        "SDG",
        "SEK",
        "SGD",
        "SHP",
        "SLE",
        "SOS",
        "SRD",
        "SSP",
        "STN",
        "SVC",
        "SYP",
        "SZL",
        "THB",
        "TJS",
        "TMT",
        "TOP",
        "TRY",
        "TTD",
        "TWD",
        "TZS",
        "UAH",
        "USD",
        "UYU",
        "UZS",
        "VES",
        "WST",
        "XCD",
        "YER",
        "ZAR",
        "ZMW",
        "ZWG",
    ]
)
CURRENCIES: Final = _TWO_DECIMALS | frozenset(_EXPONENTS)
"""Every currency that money can be held in."""
BPS: Final = 10_000  # basis points in one whole


class CurrencyMismatch(Exception):
    """Two amounts of different currencies met where there is no rate."""


class UnknownCurrency(Exception):
    """The code is not one that money can be held in."""


class Rounding(Enum):
    """What becomes of the part of a minor unit."""

    HALF_EVEN = "half_even"
    DOWN = "down"
    UP = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An amount in minor units of an ISO 4217 currency; may be negative as a difference, never in a request."""

    amount_minor: int
    currency: str

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Return nothing, in `currency`."""
        return cls(amount_minor=0, currency=currency)

    def __add__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(amount_minor=self.amount_minor + other.amount_minor, currency=self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(amount_minor=self.amount_minor - other.amount_minor, currency=self.currency)

    def __neg__(self) -> Money:
        """Return the same amount the other way."""
        return Money(amount_minor=-self.amount_minor, currency=self.currency)

    def _same_currency(self, other: Money) -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency}")


def is_currency(code: str) -> bool:
    """Tell whether `code` is a currency that money can be held in."""
    return code in CURRENCIES


def exponent(currency: str) -> int:
    """Return how many decimals the currency's major unit has: 0, 2 or 3. Raises UnknownCurrency."""
    if not is_currency(currency):
        raise UnknownCurrency(currency)
    return _EXPONENTS.get(currency, 2)


def decimal_text(amount: Money) -> str:
    """Return an amount as people write it: "10.50", with the currency's own number of decimals. For reading only."""
    digits = exponent(amount.currency)
    if digits == 0:
        return str(amount.amount_minor)
    text = str(abs(amount.amount_minor)).rjust(digits + 1, "0")
    sign = "-" if amount.amount_minor < 0 else ""
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def apply_bps(amount_minor: int, basis_points: int, *, rounding: Rounding) -> int:
    """Return `basis_points` / 10,000 of a non-negative amount, in minor units."""
    invariant(amount_minor >= 0 and basis_points >= 0, "rates apply to what is not negative", amount_minor=amount_minor)
    return share(amount_minor, basis_points, BPS, rounding=rounding)


def share(amount_minor: int, part: int, whole: int, *, rounding: Rounding) -> int:
    """Return `part` / `whole` of a non-negative amount, in minor units."""
    invariant(
        amount_minor >= 0 and part >= 0 and whole > 0, "shares are of what is not negative", part=part, whole=whole
    )
    quotient, rest = divmod(amount_minor * part, whole)
    match rounding:
        case Rounding.DOWN:
            return quotient
        case Rounding.UP:
            return quotient + (rest > 0)
        case Rounding.HALF_EVEN:
            return quotient + (rest * 2 > whole or (rest * 2 == whole and quotient % 2 == 1))


def split(total_minor: int, weights: Sequence[int]) -> list[int]:
    """Split a non-negative amount by weights; the parts sum to the whole (largest remainder, ties to the earlier part)."""
    invariant(total_minor >= 0 and all(w >= 0 for w in weights) and sum(weights) > 0, "nothing to split by")
    whole = sum(weights)
    shares = [divmod(total_minor * weight, whole) for weight in weights]
    parts = [share for share, _ in shares]
    by_remainder = sorted(range(len(weights)), key=lambda index: (-shares[index][1], index))
    for index in by_remainder[: total_minor - sum(parts)]:
        parts[index] += 1
    return parts
