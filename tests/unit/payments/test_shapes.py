"""Stripe's objects as answers: whose failure an intent shows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import stripe

from servers.payments.domain import Attempt, AttemptState, CardDeclined, Manner, NextAction, NotConfirmed, Source
from servers.payments.gateway_stripe.shapes import result_of

S, NOW = AttemptState, datetime(2026, 11, 1, tzinfo=UTC)


def attempt_after(state: AttemptState, *, prior_charge_id: str, prior_uncharged: bool) -> Attempt:
    """Return an attempt, after others that failed."""
    return Attempt(
        id="att_1",
        payment_id="pay_1",
        owner_id="mer_1",
        source=Source(stripe_payment_method_id="pm_1"),
        manner=Manner(),
        state=state,
        charge_id="",
        prior_charge_id=prior_charge_id,
        prior_uncharged=prior_uncharged,
        decline=None,
        next_action=NextAction(),
        create_time=NOW,
        update_time=NOW,
    )


def failed(charge_id: str) -> stripe.PaymentIntent:
    """Return an intent whose last failure has this charge, or none; an earlier one had the charge "ch_1"."""
    error = {"type": "card_error", "code": "card_declined", **({"charge": charge_id} if charge_id else {})}
    return stripe.PaymentIntent.construct_from(
        {
            "id": "pi_1",
            "status": "requires_payment_method",
            "latest_charge": "ch_1",
            "last_payment_error": error,
            "amount": 1000,
            "currency": "usd",
            "metadata": {"paymesh_payment_id": "pay_1"},
        },
        None,
    )


@pytest.mark.parametrize("state", [S.SENT, S.UNKNOWN, S.NEEDS_OPERATOR, S.REQUIRES_ACTION, S.PENDING])
@pytest.mark.parametrize("shown", ["ch_1", "ch_2", ""])
@pytest.mark.parametrize(("prior", "uncharged"), [("", False), ("ch_1", False), ("", True), ("ch_1", True)])
def test_a_failure_is_this_attempts_unless_it_may_be_an_earlier_ones(
    state: AttemptState, shown: str, prior: str, uncharged: bool
) -> None:
    attempt = attempt_after(state, prior_charge_id=prior, prior_uncharged=uncharged)
    accepted = state in (S.REQUIRES_ACTION, S.PENDING)
    is_known = bool(shown and shown == prior) or (not shown and uncharged)
    found = result_of(failed(shown), attempt)
    assert isinstance(found, NotConfirmed if is_known and not accepted else CardDeclined)
    if isinstance(found, CardDeclined):
        assert found.charge_id == shown


def test_the_answer_to_a_confirm_is_its_own() -> None:
    assert isinstance(result_of(failed("ch_1"), None), CardDeclined)
