"""Fees and declines."""

from __future__ import annotations

import pytest
from paymesh.payments.v1 import payments_pb2

from dev.declines import PAGE, page
from sandbox.stripe.cards import CARDS
from sandbox.stripe.declines import DECLINES, NEVER
from servers.kernel.money import Money
from servers.payments.declines import FROM_STRIPE, REASONS, decline_of, for_payers
from servers.payments.domain import FeePlan

PLAN = FeePlan(version="1", basis_points=150, fixed_minor={"USD": 25})


@pytest.mark.parametrize(
    ("amount", "currency", "fee"), [(2500, "USD", 63), (10, "USD", 10), (2500, "EUR", 38), (100, "EUR", 2)]
)
def test_a_fee_is_rounded_half_even_and_never_above_its_capture(amount: int, currency: str, fee: int) -> None:
    asked = Money(amount_minor=amount, currency=currency)
    assert PLAN.fee_of_next((), asked).amount == Money(amount_minor=fee, currency=currency)


@pytest.mark.parametrize("theirs", DECLINES)
def test_each_code_that_stripe_documents_has_one_of_ours_and_a_consistent_advice(theirs: str) -> None:
    documented = DECLINES[theirs]
    said = (
        {"code": theirs, "decline_code": ""}
        if documented.is_code
        else {"code": "card_declined", "decline_code": theirs}
    )
    decline = decline_of(**said, advice_code=documented.advice or "", network_decline_code=documented.network or "")
    assert theirs in REASONS[decline.code].stripe
    assert decline.network_code == (documented.network or "")
    assert decline.message == REASONS[decline.code].message
    if documented.advice == NEVER:
        assert (decline.recommended_action, decline.retry_after) == ("STOP", None)
    if documented.advice == "try_again_later":
        assert decline.retry_after is not None
    if documented.advice == "confirm_card_data":
        assert decline.recommended_action == "USE_ANOTHER_CARD"
    if documented.is_block or theirs in FRAUD:
        assert for_payers(decline) == for_payers(GENERIC)
        assert decline.recommended_action == "STOP"


FRAUD = {"lost_card", "stolen_card", "pickup_card", "restricted_card", "security_violation", "fraudulent"}
GENERIC = decline_of(code="card_declined", decline_code="generic_decline", advice_code="")


def test_the_table_of_declines_is_whole() -> None:
    assert set(DECLINES) <= set(FROM_STRIPE)
    assert len(REASONS) >= 45
    theirs = [code for reason in REASONS.values() for code in reason.stripe]
    assert len(theirs) == len(set(theirs))
    for code, reason in REASONS.items():
        assert (reason.retry_after is not None) == (reason.action == "RETRY_LATER"), code
        assert payments_pb2.Decline.RecommendedAction.Value(reason.action)
        words = reason.message.lower()
        assert reason.message.endswith(".")
        assert not any(word in words for word in ("fraud", "stolen", "lost", "suspicio", "block", "risk")), code
        if reason.hidden:
            assert (reason.action, reason.message) == ("STOP", REASONS["declined"].message)


def test_a_code_that_nobody_documents_is_a_plain_decline() -> None:
    for code in ("", "card_declined", "brand_new_code"):
        assert decline_of(code=code, decline_code="brand_new", advice_code="").code == "declined"
    advised = decline_of(code="", decline_code="brand_new", advice_code="do_not_try_again")
    assert advised.recommended_action == "STOP"


def test_the_page_of_declines_is_the_table() -> None:
    assert page() == PAGE.read_text()


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
