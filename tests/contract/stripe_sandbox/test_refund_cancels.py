"""Our gateway on Stripe's wire: a cancel that Stripe refuses tells how the refund stands instead."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from servers.kernel.money import Money
from servers.payments.domain import Refund, RefundState
from servers.payments.gateway_stripe import StripeGateway
from tests.support.sandbox import KEY, SandboxProcess, customer_with

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("card", "state", "waits_for"),
    [("pm_card_pendingRefund", RefundState.PENDING, "PROCESSING"), ("pm_card_visa", RefundState.SUCCEEDED, "")],
)
async def test_what_cannot_be_canceled_is_read(
    sandbox: SandboxProcess, card: str, state: RefundState, waits_for: str
) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, card)
    intent = await client.v1.payment_intents.create_async(
        {"amount": 1000, "currency": "usd", "customer": customer, "payment_method_types": ["card"]}
    )
    await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    gateway = StripeGateway(KEY, api_base=sandbox.url, webhook_secrets=[], public_url="https://pay.example")
    refund = Refund(
        id=f"ref_{card}", payment_id="pay_1", owner_id="mer_1", amount=Money(amount_minor=400, currency="USD"),
        fee_returned=Money.zero("USD"), reason="GUARANTEE", state=RefundState.PENDING, stripe_refund_id="",
        failure_reason="", uncertain=False, metadata={}, version=1, create_time=NOW, update_time=NOW,
    )  # fmt: skip
    made = await gateway.create_refund(refund, intent.id)
    assert (made.state, made.pending_reason) == (state, waits_for)
    there = sandbox.fetch(f"/v1/refunds/{made.stripe_refund_id}")
    assert (there["reason"], there["metadata"]["paymesh_reason"]) == (None, "GUARANTEE")
    assert await gateway.cancel_refund(replace(refund, stripe_refund_id=made.stripe_refund_id)) == made
    await gateway.close()
