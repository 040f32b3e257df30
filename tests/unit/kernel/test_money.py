"""Money: the exponent table, rates and splits."""

from __future__ import annotations

import iso4217
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.kernel.money import (
    CurrencyMismatch,
    Money,
    Rounding,
    UnknownCurrency,
    apply_bps,
    exponent,
    is_currency,
    split,
)


def test_every_exponent_is_the_standards() -> None:
    known = {currency.code: currency.exponent for currency in iso4217.Currency if is_currency(currency.code)}
    assert len(known) > 150
    assert {code: exponent(code) for code in known} == known


def test_a_code_outside_the_standard_is_refused() -> None:
    with pytest.raises(UnknownCurrency):
        exponent("ZZZ")


def test_currencies_do_not_mix() -> None:
    with pytest.raises(CurrencyMismatch):
        Money(amount_minor=1, currency="USD") + Money(amount_minor=1, currency="EUR")


@pytest.mark.parametrize(
    ("amount", "bps", "rounding", "expected"),
    [
        (50, 100, Rounding.HALF_EVEN, 0),
        (150, 100, Rounding.HALF_EVEN, 2),
        (250, 100, Rounding.HALF_EVEN, 2),
        (151, 100, Rounding.HALF_EVEN, 2),
        (199, 100, Rounding.DOWN, 1),
        (101, 100, Rounding.UP, 2),
        (0, 290, Rounding.UP, 0),
    ],
)
def test_a_rate_rounds_as_it_says(amount: int, bps: int, rounding: Rounding, expected: int) -> None:
    assert apply_bps(amount, bps, rounding=rounding) == expected


@given(st.integers(0, 10**12), st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(lambda w: sum(w) > 0))
def test_parts_sum_to_the_whole_and_differ_from_their_share_by_less_than_one(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    assert all(
        abs(part * sum(weights) - total * weight) < sum(weights) for part, weight in zip(parts, weights, strict=True)
    )
