"""How a balance transaction compares with what is expected of it, as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from servers.kernel.money import Money
from servers.payments.domain import (
    BalanceTransaction,
    Break,
    ItemKind,
    ItemState,
    MatchMode,
    ReconciliationItem,
    judge,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def item(expected: int, *, state: ItemState = ItemState.EXPECTED, actual: int | None = None, age: int = 0,
         currency: str = "USD") -> ReconciliationItem:  # fmt: skip
    """Return an item that expects an amount."""
    return ReconciliationItem(
        id=f"rec_{expected}_{age}", owner_id="mer_1", kind=ItemKind.CAPTURE, state=state, break_type=Break.NONE,
        match_mode=MatchMode.NONE, payment_id="pay_1", source_id=f"cap_{expected}", stripe_source_id="ch_1",
        expected=Money(amount_minor=expected, currency=currency),
        actual=Money(amount_minor=actual, currency=currency) if actual is not None else None,
        due_time=NOW, reason="", resolved_by="", write_off=None, version=1,
        create_time=NOW - timedelta(seconds=age), update_time=NOW,
    )  # fmt: skip


def line(amount: int, currency: str = "USD", rate: str | None = None) -> BalanceTransaction:
    """Return what arrived."""
    return BalanceTransaction(
        id="txn_1", type="charge", source_id="ch_1", payment_intent_id="", amount=Money(amount_minor=amount, currency=currency),
        fee=Money.zero(currency), exchange_rate=Decimal(rate) if rate else None, create_time=NOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("items", "arrived", "outcome"),
    [
        ([item(500)], line(500), ("match", Break.NONE, 500)),
        ([item(500, state=ItemState.MISSING)], line(500), ("match", Break.NONE, 500)),
        ([item(500)], line(499), ("arrive_in_part", Break.AMOUNT_UNDER, 500)),
        ([item(500)], line(501), ("differ", Break.AMOUNT_OVER, 500)),
        ([item(500)], line(-500), ("differ", Break.DATA, 500)),
        ([item(-500)], line(-500), ("match", Break.NONE, -500)),
        ([item(-500)], line(-200), ("arrive_in_part", Break.AMOUNT_UNDER, -500)),
        # Another part meets what waits in suspense.
        ([item(500, state=ItemState.PARTIAL, actual=300)], line(200), ("differ", Break.SPLIT, 0)),
        ([item(500, state=ItemState.PARTIAL, actual=300)], line(100), ("arrive_in_part", Break.AMOUNT_UNDER, 0)),
        ([item(500, state=ItemState.PARTIAL, actual=300)], line(201), ("differ", Break.AMOUNT_OVER, 0)),
        ([item(500, state=ItemState.PARTIAL, actual=300)], line(-1), ("differ", Break.DATA, 0)),
        # Other currencies: with a rate it must fit, within a minor unit; without one it is another currency.
        ([item(1000, currency="EUR")], line(1100, rate="1.1"), ("match", Break.NONE, 1000)),
        ([item(1000, currency="EUR")], line(1101, rate="1.1"), ("match", Break.NONE, 1000)),
        ([item(1000, currency="EUR")], line(1102, rate="1.1"), ("differ", Break.DATA, 1000)),
        ([item(1000, currency="EUR")], line(1000), ("differ", Break.CURRENCY, 1000)),
        ([item(1000, currency="JPY")], line(655, rate="0.00655"), ("match", Break.NONE, 1000)),
        ([item(1_000, currency="KWD")], line(326, rate="3.26"), ("match", Break.NONE, 1_000)),
    ],
)  # fmt: skip
def test_what_arrives_is_compared_with_what_is_expected(
    items: list[ReconciliationItem], arrived: BalanceTransaction, outcome: tuple[str, Break, int]
) -> None:
    found = judge(items, arrived)
    assert found is not None
    assert (found.trigger, found.break_type, found.matched.amount_minor) == outcome


def test_one_that_fits_goes_before_one_that_is_older() -> None:
    older, fitting = item(700, age=60), item(500)
    found = judge([older, fitting], line(500))
    assert found is not None
    assert found.item is fitting


def test_of_two_that_fit_the_older_is_taken() -> None:
    younger, older = item(500), item(500, age=60)
    found = judge([younger, older], line(500))
    assert found is not None
    assert found.item is older


@pytest.mark.parametrize("state", [ItemState.MATCHED, ItemState.MISMATCH, ItemState.UNEXPECTED, ItemState.VOID])
def test_what_is_settled_takes_nothing_more(state: ItemState) -> None:
    assert judge([replace(item(500), state=state)], line(500)) is None


def test_what_belongs_to_nothing_is_unexpected() -> None:
    assert judge([], line(500)) is None
