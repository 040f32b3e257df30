"""Payouts and top-ups: money leaves for the bank, arrives, and comes back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from tests.support.sandbox import SandboxProcess, eventually, guest_payment

DAY = 24 * 3600


async def funded(client: stripe.StripeClient, amount: int = 10_000) -> None:
    """Have money that is available at once."""
    await guest_payment(client, "pm_card_bypassPending", amount)


def available(sandbox: SandboxProcess) -> int:
    """Return the available dollars."""
    amount: int = sandbox.fetch("/v1/balance")["available"][0]["amount"]
    return amount


async def test_a_payout_goes_out_and_arrives(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await funded(client)
    before = available(fresh)
    params: Any = {"amount": 5000, "currency": "usd", "metadata": {"payout": "out_1"}, "statement_descriptor": "SHOP"}
    payout = await client.v1.payouts.create_async(params)
    assert (payout.status, payout.amount, payout.automatic, payout.type) == ("pending", 5000, False, "bank_account")
    assert payout.reconciliation_status == "not_applicable"
    assert available(fresh) == before - 5000
    read: Any = await client.v1.payouts.retrieve_async(payout.id, {"expand": ["balance_transaction"]})
    booked = read.balance_transaction
    assert (booked.type, booked.amount, booked.net, booked.source) == ("payout", -5000, -5000, payout.id)
    fresh.switch("clock", advance_seconds=3601)
    assert (await client.v1.payouts.retrieve_async(payout.id)).status == "in_transit"
    fresh.switch("clock", advance_seconds=payout.arrival_date - payout.created)
    assert (await client.v1.payouts.retrieve_async(payout.id)).status == "paid"
    eventually(
        lambda: set(fresh.hooks.types(payout.id)) == {"payout.created", "payout.updated", "payout.paid"}, "webhooks"
    )
    assert available(fresh) == before - 5000


async def test_a_payout_that_the_bank_refuses_comes_back(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await funded(client)
    before = available(fresh)
    params: Any = {"amount": 5000, "currency": "usd", "destination": "ba_sandbox_account_closed"}
    payout = await client.v1.payouts.create_async(params)
    fresh.switch("clock", advance_seconds=3 * DAY)
    read: Any = await client.v1.payouts.retrieve_async(payout.id, {"expand": ["failure_balance_transaction"]})
    assert (read.status, read.failure_code) == ("failed", "account_closed")
    booked = read.failure_balance_transaction
    assert (booked.type, booked.reporting_category, booked.amount) == ("payout_failure", "payout_reversal", 5000)
    assert available(fresh) == before
    late = await client.v1.payouts.create_async({"amount": 100, "currency": "usd"})
    fresh.switch(f"payouts/{late.id}/pay")
    fresh.switch(f"payouts/{late.id}/fail", code="no_account")
    assert (await client.v1.payouts.retrieve_async(late.id)).failure_code == "no_account"
    assert httpx.post(f"{fresh.url}/_sandbox/payouts/{late.id}/fail", json={"code": "bored"}).status_code == 400
    assert available(fresh) == before
    eventually(lambda: fresh.hooks.types(late.id)[-1:] == ["payout.failed"], "the webhook")


async def test_a_payout_is_canceled_until_it_is_sent(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await funded(client)
    before = available(fresh)
    canceled, sent = [await client.v1.payouts.create_async({"amount": 100, "currency": "usd"}) for _ in range(2)]
    canceled = await client.v1.payouts.cancel_async(canceled.id)
    assert (canceled.status, canceled.failure_balance_transaction is not None) == ("canceled", True)
    fresh.switch(f"payouts/{sent.id}/send")
    with pytest.raises(stripe.InvalidRequestError, match="only be canceled while they are pending"):
        await client.v1.payouts.cancel_async(sent.id)
    assert available(fresh) == before - 100
    fresh.switch("clock", advance_seconds=3 * DAY)
    statuses = [one.status for one in (await client.v1.payouts.list_async({})).data]
    assert statuses == ["paid", "canceled"]
    [paid] = (await client.v1.payouts.list_async({"status": "paid"})).data
    assert paid.id == sent.id
    noted = await client.v1.payouts.update_async(sent.id, {"metadata": {"note": "seen"}})
    assert noted.metadata is not None
    assert noted.metadata["note"] == "seen"


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"amount": 10_000}, "balance_insufficient", None),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"amount": 1, "currency": "zzz"}, None, "currency"),
        ({"amount": 1, "destination": "ba_none"}, "resource_missing", "destination"),
    ],
)
async def test_what_cannot_be_paid_out_moves_nothing(
    fresh: SandboxProcess, params: dict[str, Any], code: str | None, param: str | None
) -> None:
    client = fresh.client()
    await funded(client)  # of which the fee is gone
    await guest_payment(client, "pm_card_visa", 50_000)  # pending
    given: Any = {"currency": "usd"} | params
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.payouts.create_async(given)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert (await client.v1.payouts.list_async({})).data == []


async def test_an_automatic_payout_says_what_it_pays_out(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await funded(client, 3000)
    waiting = await guest_payment(client, "pm_card_visa", 7000)
    manual = await client.v1.payouts.create_async({"amount": 500, "currency": "usd"})
    first = fresh.switch("payouts", currency="usd")
    assert (first["automatic"], first["amount"]) == (True, 3000 - 117 - 500)
    listed = (await client.v1.balance_transactions.list_async({"payout": first["id"]})).data
    assert {one.source for one in listed} >= {manual.id, first["id"]}
    assert sum(one.net for one in listed) == 0
    with pytest.raises(stripe.InvalidRequestError, match="pending and manual"):
        await client.v1.payouts.cancel_async(first["id"])
    assert httpx.post(f"{fresh.url}/_sandbox/payouts", json={"currency": "usd"}).status_code == 400
    fresh.switch("clock", advance_seconds=2 * DAY)
    second = fresh.switch("payouts", currency="usd")
    listed = (await client.v1.balance_transactions.list_async({"payout": second["id"]})).data
    assert {one.source for one in listed} == {waiting.latest_charge, second["id"]}
    read = await client.v1.payouts.retrieve_async(first["id"])
    assert (read.status, read.reconciliation_status) == ("paid", "completed")
    expected = {"payout.created", "payout.updated", "payout.paid", "payout.reconciliation_completed"}
    eventually(lambda: set(fresh.hooks.types(read.id)) == expected, "the webhooks")


async def test_the_bank_funds_the_balance(fresh: SandboxProcess) -> None:
    client = fresh.client()
    params: Any = {"amount": 2000, "currency": "usd", "description": "Float"}
    made, refused, dropped = [await client.v1.topups.create_async(params) for _ in range(3)]
    assert (made.status, made.balance_transaction) == ("pending", None)
    fresh.switch(f"topups/{refused.id}/fail")
    assert (await client.v1.topups.cancel_async(dropped.id)).status == "canceled"
    fresh.switch("clock", advance_seconds=DAY + 1)
    read: Any = await client.v1.topups.retrieve_async(made.id, {"expand": ["balance_transaction"]})
    assert (read.status, read.balance_transaction.type, read.balance_transaction.net) == ("succeeded", "topup", 2000)
    assert available(fresh) == 2000
    failed = await client.v1.topups.retrieve_async(refused.id)
    assert (failed.status, failed.failure_code) == ("failed", "insufficient_funds")
    with pytest.raises(stripe.InvalidRequestError, match="The top-up is succeeded"):
        await client.v1.topups.cancel_async(made.id)
    assert (await client.v1.topups.update_async(made.id, {"description": "More"})).description == "More"
    [listed] = (await client.v1.topups.list_async({"status": "succeeded", "amount": {"gte": 2000}})).data
    assert listed.id == made.id
    fresh.switch(f"topups/{made.id}/reverse")
    assert available(fresh) == 0
    eventually(
        lambda: set(fresh.hooks.types(made.id)) == {"topup.created", "topup.succeeded", "topup.reversed"}, "webhooks"
    )
