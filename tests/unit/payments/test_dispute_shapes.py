"""Stripe's disputes and warnings in our words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from servers.kernel.money import Money
from servers.payments.gateway_stripe.shapes import dispute_of, warning_of

CREATED = 1_767_225_600
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stripe_dispute(**more: Any) -> stripe.Dispute:
    """Return a dispute as the SDK makes it from Stripe's JSON."""
    values = {
        "id": "du_1", "object": "dispute", "amount": 1000, "currency": "usd", "charge": "ch_1", "payment_intent": "pi_1",
        "created": CREATED, "reason": "fraudulent", "status": "needs_response", "balance_transactions": [],
        "evidence_details": {"due_by": CREATED + 60, "has_evidence": False, "past_due": False, "submission_count": 0},
    } | more  # fmt: skip
    return stripe.Dispute.construct_from(values, "sk_test_1")


def transaction(amount: int, fee: int, currency: str = "usd") -> dict[str, Any]:
    """Return a balance transaction."""
    return {
        "id": "txn_1",
        "object": "balance_transaction",
        "amount": amount,
        "fee": fee,
        "currency": currency,
        "created": CREATED,
    }


@pytest.mark.parametrize(
    ("status", "is_inquiry", "state"),
    [
        ("warning_needs_response", True, "NEEDS_RESPONSE"),
        ("warning_under_review", True, "UNDER_REVIEW"),
        ("warning_closed", True, "CLOSED"),
        ("needs_response", False, "NEEDS_RESPONSE"),
        ("under_review", False, "UNDER_REVIEW"),
        ("won", False, "WON"),
        ("lost", False, "LOST"),
        ("prevented", True, "PREVENTED"),
    ],
)
def test_every_status_of_stripes_is_one_of_ours(status: str, is_inquiry: bool, state: str) -> None:
    news = dispute_of(stripe_dispute(status=status))
    assert (news.is_inquiry, news.state.name) == (is_inquiry, state)


def test_what_was_prevented_with_the_money_is_no_inquiry() -> None:
    assert not dispute_of(stripe_dispute(status="prevented", balance_transactions=[transaction(-1000, 0)])).is_inquiry


def test_money_and_fee_have_stripes_signs_in_their_own_currency() -> None:
    moved = [transaction(-100_000, 1500, "isk")]
    news = dispute_of(stripe_dispute(amount=100_000, currency="isk", balance_transactions=moved))
    assert news.amount == Money(amount_minor=1000, currency="ISK")
    (one,) = news.movements
    assert (one.amount.amount_minor, one.fee.amount_minor, one.trigger, one.create_time) == (-1000, 15, "withdraw", NOW)


@pytest.mark.parametrize(("details", "due"), [({"due_by": 0}, None), ({"due_by": None}, None), ({}, None)])
def test_no_deadline_means_that_no_response_is_possible(details: dict[str, Any], due: object) -> None:
    rest = {"has_evidence": True, "past_due": True, "submission_count": 1}
    news = dispute_of(stripe_dispute(evidence_details=details | rest))
    assert (news.evidence_due_time, news.has_evidence, news.past_due, news.submission_count) == (due, True, True, 1)


def test_stripe_may_name_what_it_could_expand() -> None:
    whole = {"id": "ch_2", "object": "charge"}
    assert dispute_of(stripe_dispute(charge=whole, payment_intent=None)).charge_id == "ch_2"
    values = {
        "id": "issfr_1",
        "charge": "ch_1",
        "created": CREATED,
        "fraud_type": "misc",
        "object": "radar.early_fraud_warning",
    }
    warning = warning_of(stripe.radar.EarlyFraudWarning.construct_from(values, "sk_test_1"))
    assert (warning.stripe_warning_id, warning.payment_intent_id, warning.charge_id) == ("issfr_1", "", "ch_1")
    assert (warning.reason, warning.create_time) == ("misc", NOW)
