"""Fees and declines."""

from __future__ import annotations

import pytest

from sandbox.stripe.cards import CARDS
from servers.kernel.money import Money
from servers.payments.declines import decline_of
from servers.payments.domain import FeePlan

PLAN = FeePlan(version="1", basis_points=150, fixed_minor={"USD": 25})


@pytest.mark.parametrize(
    ("amount", "currency", "fee"), [(2500, "USD", 63), (10, "USD", 10), (2500, "EUR", 38), (100, "EUR", 2)]
)
def test_a_fee_is_rounded_half_even_and_never_above_its_capture(amount: int, currency: str, fee: int) -> None:
    asked = Money(amount_minor=amount, currency=currency)
    assert PLAN.fee_of_next((), asked).amount == Money(amount_minor=fee, currency=currency)


@pytest.mark.parametrize("card", [card for card in CARDS if card.error_code], ids=lambda card: card.token)
def test_every_decline_of_the_test_cards_has_a_code_and_an_advice(card: object) -> None:
    decline = decline_of(code=card.error_code, decline_code=card.decline_code, advice_code=card.advice_code)  # type: ignore[attr-defined]
    assert decline.code
    assert decline.message.endswith(".")
    if card.advice_code == "do_not_try_again":  # type: ignore[attr-defined]
        assert decline.recommended_action == "STOP"


def test_a_stolen_card_reads_like_any_other_decline() -> None:
    stolen = decline_of(code="card_declined", decline_code="stolen_card", advice_code="")
    generic = decline_of(code="card_declined", decline_code="generic_decline", advice_code="")
    assert stolen.message == generic.message
