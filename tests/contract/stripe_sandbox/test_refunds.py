"""Refunds that wait, fail after they succeeded, ask the customer something, and are taken back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from tests.support.sandbox import SandboxProcess, eventually, guest_payment

HOUR = 3600


async def refunded(sandbox: SandboxProcess, client: stripe.StripeClient, **plan: Any) -> stripe.Refund:
    """Refund 300 of 1000, and have it go by a plan."""
    intent = await guest_payment(client, "pm_card_visa", 1000)
    sandbox.switch("refunds", charge=intent.latest_charge, **plan)
    return await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})


def booked(sandbox: SandboxProcess, refund: stripe.Refund) -> list[tuple[str, int]]:
    """Return what a refund has moved, oldest first."""
    found = sandbox.fetch(f"/v1/balance_transactions?source={refund.id}")["data"]
    return [(one["type"], one["amount"]) for one in reversed(found)]


async def left_to_refund(client: stripe.StripeClient, refund: stripe.Refund) -> int:
    """Return what is left of the charge."""
    charge = await client.v1.charges.retrieve_async(str(refund.charge))
    return charge.amount_captured - charge.amount_refunded


async def test_a_refund_that_succeeded_fails_later(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    refund = await refunded(sandbox, client, then="failed", failure_reason="expired_or_canceled_card", after_seconds=60)
    assert (refund.status, await left_to_refund(client, refund)) == ("succeeded", 700)
    sandbox.switch("clock", advance_seconds=61)
    read: Any = await client.v1.refunds.retrieve_async(refund.id, {"expand": ["failure_balance_transaction"]})
    assert (read.status, read.failure_reason) == ("failed", "expired_or_canceled_card")
    assert read.failure_balance_transaction.type == "refund_failure"
    assert booked(sandbox, refund) == [("refund", -300), ("refund_failure", 300)]
    assert await left_to_refund(client, refund) == 1000
    expected = {"refund.created", "refund.updated", "charge.refund.updated", "refund.failed"}
    eventually(lambda: set(sandbox.hooks.types(refund.id)) == expected, "the webhooks")
    again = await client.v1.refunds.create_async({"charge": str(refund.charge)})
    assert (again.amount, again.status) == (1000, "succeeded")


@pytest.mark.parametrize(("then", "moves"), [("succeeded", [("refund", -300)]), ("failed", [])])
async def test_a_refund_waits_for_money_that_is_not_there(
    sandbox: SandboxProcess, then: str, moves: list[tuple[str, int]]
) -> None:
    client = sandbox.client()
    refund = await refunded(sandbox, client, status="pending", pending_reason="insufficient_funds", then=then)
    assert (refund.status, refund.pending_reason, refund.balance_transaction) == ("pending", "insufficient_funds", None)
    assert (booked(sandbox, refund), await left_to_refund(client, refund)) == ([], 700)
    sandbox.switch("clock", advance_seconds=HOUR)
    read = await client.v1.refunds.retrieve_async(refund.id)
    assert (read.status, hasattr(read, "pending_reason")) == (then, False)
    assert booked(sandbox, refund) == moves
    assert hasattr(read, "failure_balance_transaction") is False


async def test_a_refund_that_is_processed_has_taken_its_money(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    refund = await refunded(sandbox, client, status="pending")
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert booked(sandbox, refund) == [("refund", -300)]
    sandbox.switch("clock", advance_seconds=100 * HOUR)
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "pending"  # nothing was arranged
    sandbox.switch(f"refunds/{refund.id}/settle")
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"


async def test_a_refund_asks_the_customer_and_is_canceled(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    refund = await refunded(sandbox, client, status="requires_action", times=2)
    assert refund.status == "requires_action"
    assert refund.next_action is not None
    assert refund.next_action.display_details is not None
    assert refund.next_action.display_details.email_sent.email_sent_to == "customer@sandbox.example"
    canceled = await client.v1.refunds.cancel_async(refund.id)
    assert (canceled.status, canceled.failure_reason) == ("canceled", "merchant_request")
    assert booked(sandbox, refund) == [("refund", -300), ("refund_failure", 300)]
    assert await left_to_refund(client, refund) == 1000
    expected = {"refund.created", "refund.updated", "charge.refund.updated"}
    eventually(lambda: set(sandbox.hooks.types(refund.id)) == expected, "the webhooks")
    mailed: Any = {"charge": str(refund.charge), "amount": 200, "instructions_email": "ada@shop.example"}
    second = await client.v1.refunds.create_async(mailed)
    assert (second.status, second.instructions_email) == ("requires_action", "ada@shop.example")
    sandbox.switch(f"refunds/{second.id}/settle")
    assert (await client.v1.refunds.retrieve_async(second.id)).status == "succeeded"
    for done in (canceled, second):
        with pytest.raises(stripe.InvalidRequestError, match="Canceling this refund is unsupported"):
            await client.v1.refunds.cancel_async(done.id)


async def test_a_refund_that_nobody_acts_on_expires(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    by_time, by_helper = [await refunded(sandbox, client, status="requires_action") for _ in range(2)]
    expired = await client.v1.test_helpers.refunds.expire_async(by_helper.id)
    assert (expired.status, expired.failure_reason) == ("failed", "unknown")
    with pytest.raises(stripe.InvalidRequestError, match="requires action expires"):
        await client.v1.test_helpers.refunds.expire_async(by_helper.id)
    sandbox.switch("clock", advance_seconds=46 * 24 * HOUR)
    assert (await client.v1.refunds.retrieve_async(by_time.id)).status == "failed"


async def test_a_charge_lists_its_refunds(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_visa", 1000)
    made = [(await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})).id for _ in range(3)]
    page = sandbox.fetch(f"/v1/charges/{intent.latest_charge}/refunds?limit=2")
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([made[2], made[1]], True)


async def test_a_plan_that_makes_no_sense_is_refused(sandbox: SandboxProcess) -> None:
    for body in ({"status": "lost"}, {"then": "pending"}, {"colour": "red"}, {"failure_reason": "bored"}):
        assert httpx.post(f"{sandbox.url}/_sandbox/refunds", json=body).status_code == 400
    client = sandbox.client()
    refund = await refunded(sandbox, client)
    assert httpx.post(f"{sandbox.url}/_sandbox/refunds/{refund.id}/fail", json={"reason": "x"}).status_code == 400
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"


async def test_what_was_arranged_can_be_taken_back(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await guest_payment(client, "pm_card_visa", 1000)
    sandbox.switch("refunds", status="pending", charge=intent.latest_charge)
    httpx.delete(f"{sandbox.url}/_sandbox/faults").raise_for_status()
    assert (await client.v1.refunds.create_async({"payment_intent": intent.id})).status == "succeeded"
