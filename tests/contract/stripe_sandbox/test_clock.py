"""The clock: moved forward only, and what becomes due on the way happens at its own time."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.sandbox import SandboxProcess, guest_payment

DAY = 24 * 3600


async def test_what_is_due_on_the_way_happens_at_its_time(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await guest_payment(client, "pm_card_bypassPending", 10_000)
    payout = await client.v1.payouts.create_async(
        {"amount": 100, "currency": "usd", "destination": "ba_sandbox_declined"}
    )
    intent = await guest_payment(client, "pm_card_createDisputeInquiry", 1000)
    [inquiry] = (await client.v1.disputes.list_async({"payment_intent": intent.id})).data
    text: Any = {"evidence": {"uncategorized_text": "escalate_inquiry_evidence"}}
    await client.v1.disputes.update_async(inquiry.id, text)
    fresh.switch("clock", advance_seconds=30 * DAY)
    # The escalation made a deadline that passed on the way, too.
    dispute = await client.v1.disputes.retrieve_async(inquiry.id)
    assert dispute.status == "lost"
    withdrawn = dispute.balance_transactions[0]
    assert 5 <= withdrawn.created - inquiry.created <= 10
    closed = (await client.v1.events.list_async({"type": "charge.dispute.closed"})).data[0]
    assert abs(closed.created - dispute.evidence_details.due_by - DAY) <= 2  # type: ignore[operator]
    failed: Any = await client.v1.payouts.retrieve_async(payout.id, {"expand": ["failure_balance_transaction"]})
    assert abs(failed.failure_balance_transaction.created - payout.arrival_date) <= 2


async def test_the_clock_goes_forward_only_and_survives_a_kill(fresh: SandboxProcess) -> None:
    before = httpx.get(f"{fresh.url}/_sandbox/clock").json()["now"]
    now = fresh.switch("clock", now=before + DAY)["now"]
    assert now - before - DAY <= 2
    for body in ({"advance_seconds": -1}, {"now": before}):
        assert httpx.post(f"{fresh.url}/_sandbox/clock", json=body).status_code == 400
    fresh.kill()
    fresh.start()
    assert httpx.get(f"{fresh.url}/_sandbox/clock").json()["now"] >= now
