"""The sandbox through the unmodified SDK: flows, declines, idempotency, and objects that fit Stripe's own description."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import stripe

from dev.paths import ROOT
from sandbox.stripe.routes import KINDS
from tests.support.sandbox import (
    SandboxProcess,
    authorized,
    by_card,
    customer_with,
    error_of,
    guest_payment,
    paid_intent,
)


async def test_a_payment_and_its_refunds_add_up(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    before = sandbox.fetch("/v1/balance")
    intent = await paid_intent(client)
    assert intent.status == "succeeded"
    await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 500})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 2001})
    await client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert again.value.code == "charge_already_refunded"
    after = sandbox.fetch("/v1/balance")
    total = [sum(side["amount"] for kind in ("available", "pending") for side in b[kind]) for b in (before, after)]
    assert total[1] - total[0] == -103  # Stripe keeps its fee


async def test_a_decline_leaves_the_intent_ready_for_another_card(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, bad = await customer_with(client, "pm_card_chargeCustomerFail")
    intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", customer=customer))
    with pytest.raises(stripe.CardError):
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": bad})
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (read.status, read.last_payment_error is not None) == ("requires_payment_method", True)
    good = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    assert (await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": good.id})).status == "succeeded"


async def test_three_d_secure_goes_to_the_cardholder_and_back(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for succeed, status in ((True, "succeeded"), (False, "requires_payment_method")):
        customer, method = await customer_with(client, "pm_card_authenticationRequired")
        intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", customer=customer))
        intent = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
        assert intent.status == "requires_action"
        sandbox.switch(f"payment_intents/{intent.id}/authenticate", succeed=succeed)
        assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == status


async def test_manual_capture_in_part(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_visa")
    params: Any = by_card(amount=100, currency="usd", customer=customer, capture_method="manual")
    intent = await client.v1.payment_intents.create_async(params)
    await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    captured = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 60})
    assert (captured.status, captured.amount_received) == ("succeeded", 60)


async def test_several_captures_cost_what_one_costs(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await authorized(client)
    intent = await client.v1.payment_intents.capture_async(
        intent.id, {"amount_to_capture": 300, "final_capture": False}
    )
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 700, 300)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.payment_intents.cancel_async(intent.id)
    assert refused.value.code == "payment_intent_unexpected_state"
    intent = await client.v1.payment_intents.capture_async(
        intent.id, {"amount_to_capture": 200, "final_capture": False}
    )
    intent = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 0, "final_capture": True})
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("succeeded", 0, 500)
    booked = sandbox.fetch(f"/v1/balance_transactions?source={intent.latest_charge}")["data"]
    assert sum(one["amount"] for one in booked) == 500
    assert sum(one["fee"] for one in booked) == 45  # 2.9 % of 5.00, and the fixed part once


async def test_multicapture_is_only_where_it_was_granted(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await authorized(client)
    plain = await client.v1.payment_intents.create_async(
        {"amount": 1000, "currency": "usd", "capture_method": "manual", "payment_method_types": ["card"]}
    )
    plain = await client.v1.payment_intents.confirm_async(plain.id, {"payment_method": "pm_card_visa"})
    with pytest.raises(stripe.InvalidRequestError, match="multicapture"):
        await client.v1.payment_intents.capture_async(plain.id, {"amount_to_capture": 1, "final_capture": False})
    charge = sandbox.fetch(f"/v1/charges/{intent.latest_charge}")
    assert charge["payment_method_details"]["card"]["multicapture"] == {"status": "available"}


async def test_an_authorization_is_let_go_by_cancel_and_by_time(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    canceled, expiring, kept = [await authorized(client) for _ in range(3)]
    canceled = await client.v1.payment_intents.cancel_async(canceled.id, {"cancellation_reason": "abandoned"})
    assert (canceled.status, canceled.amount_capturable, canceled.cancellation_reason) == ("canceled", 0, "abandoned")
    await client.v1.payment_intents.capture_async(kept.id, {"amount_to_capture": 1, "final_capture": False})
    sandbox.switch("clock", advance_seconds=8 * 24 * 3600)
    expiring = await client.v1.payment_intents.retrieve_async(expiring.id)
    kept = await client.v1.payment_intents.retrieve_async(kept.id)
    assert (expiring.status, expiring.cancellation_reason) == ("canceled", "automatic")
    assert (kept.status, kept.amount_received) == ("succeeded", 1)


async def test_a_card_that_must_authenticate_declines_off_session_until_it_was_set_up(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_authenticationRequiredOnSetup")
    off: Any = by_card(amount=100, currency="usd", customer=customer, payment_method=method)
    off |= {"confirm": True, "off_session": True}
    with pytest.raises(stripe.CardError) as declined:
        await client.v1.payment_intents.create_async(off)
    assert (declined.value.code, error_of(declined.value)["decline_code"]) == ("authentication_required",) * 2
    setup = await client.v1.setup_intents.create_async(by_card(customer=customer, payment_method=method, confirm=True))
    assert setup.status == "requires_action"
    sandbox.switch(f"setup_intents/{setup.id}/authenticate", succeed=True)
    assert (await client.v1.setup_intents.retrieve_async(setup.id)).status == "succeeded"
    assert (await client.v1.payment_intents.create_async(off)).status == "succeeded"


async def test_an_answered_refusal_is_replayed_and_a_refused_parameter_is_not(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    key: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as absent:
            await client.v1.payment_intents.capture_async("pi_none", {}, key)
        assert absent.value.http_status == 404
    assert (absent.value.headers or {}).get("idempotent-replayed") == "true"
    colour: Any = {"colour": "red"}
    other: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.create_async(colour, other)
    assert (await client.v1.customers.create_async({"name": "Ada"}, other)).name == "Ada"


async def test_an_error_after_the_work_is_kept_and_one_before_it_did_nothing(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for after, status in ((True, "succeeded"), (False, "requires_payment_method")):
        intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd"))
        sandbox.switch("faults", method="post", path=f"{intent.id}/confirm", kind="error", status=500, after=after)
        key: Any = {"idempotency_key": f"k-{intent.id}"}
        for _ in range(2):
            with pytest.raises(stripe.APIError):
                await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}, key)
        assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == status


async def test_a_key_at_work_is_answered_409(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("faults", method="post", path="customers$", kind="delay", delay_seconds=0.5)
    key: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    slow = asyncio.create_task(client.v1.customers.create_async({"name": "Ada"}, key))
    await asyncio.sleep(0.2)
    with pytest.raises(stripe.StripeError) as busy:
        await client.v1.customers.create_async({"name": "Ada"}, key)
    assert busy.value.http_status == 409
    assert error_of(busy.value)["code"] == "idempotency_key_in_use"
    assert (await slow).name == "Ada"


async def test_the_banks_answer_to_a_refund_comes_later(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    refunds = {}
    for card in ("pm_card_refundFail", "pm_card_pendingRefund"):
        intent = await client.v1.payment_intents.create_async(by_card(amount=500, currency="usd"))
        intent = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": card})
        refunds[card] = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert [refund.status for refund in refunds.values()] == ["succeeded", "pending"]
    sandbox.switch("clock", advance_seconds=2 * 3600)
    later = [(await client.v1.refunds.retrieve_async(refund.id)).status for refund in refunds.values()]
    assert later == ["failed", "succeeded"]


async def test_both_directions_of_a_list_meet(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await paid_intent(client)
    ids = [(await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})).id for _ in range(5)][
        ::-1
    ]
    page = await client.v1.refunds.list_async({"payment_intent": intent.id, "ending_before": ids[4], "limit": 2})
    assert ([one.id for one in page.data], page.has_more) == (ids[2:4], True)
    page = await client.v1.refunds.list_async({"payment_intent": intent.id, "starting_after": ids[2]})
    assert ([one.id for one in page.data], page.has_more) == (ids[3:], False)


async def test_a_parameter_of_stripes_that_is_not_served_is_named(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    with pytest.raises(stripe.APIError, match="on_behalf_of"):
        await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", on_behalf_of="acct_1"))


async def test_the_same_key_charges_once(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_visa")
    intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", customer=customer))
    options: Any = {"idempotency_key": f"k-{intent.id}"}
    await asyncio.gather(
        *(client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method}, options) for _ in range(16))
    )
    assert sandbox.stats()["paid_charges"][intent.id] == 1
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}, options)


async def test_what_stripe_refuses_is_refused(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    params: Any = by_card(amount=100, currency="usd", colour="red")
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.payment_intents.create_async(params)
    assert (unknown.value.code, unknown.value.param) == ("parameter_unknown", "colour")
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await client.v1.payment_intents.create_async({"currency": "usd"})  # type: ignore[typeddict-item]
    assert missing.value.code == "parameter_missing"
    with pytest.raises(stripe.InvalidRequestError) as absent:
        await client.v1.payment_intents.retrieve_async("pi_none")
    assert absent.value.http_status == 404
    with pytest.raises(stripe.APIError, match="does not serve GET /v1/invoices"):
        await client.v1.invoices.list_async()
    assert httpx.get(f"{sandbox.url}/v1/balance", headers={"authorization": "Bearer sk_test_wrong"}).status_code == 401


async def test_a_lost_answer_is_lost_but_the_work_is_done(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_visa")
    intent = await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd", customer=customer))
    sandbox.switch("faults", method="post", path=f"{intent.id}/confirm", kind="lose_response")
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method})
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


async def test_what_was_answered_survives_a_kill(sandbox: SandboxProcess) -> None:
    intent = await paid_intent(sandbox.client())
    sandbox.kill()
    sandbox.start()
    assert (await sandbox.client().v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


async def test_lists_have_pages(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await paid_intent(client)
    for _ in range(3):
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})
    page = await client.v1.refunds.list_async({"payment_intent": intent.id, "limit": 2})
    assert (len(page.data), page.has_more) == (2, True)
    assert len([refund async for refund in page.auto_paging_iter()]) == 3


async def test_every_object_fits_stripes_own_description(
    sandbox: SandboxProcess, check: Callable[[SandboxProcess], set[str]]
) -> None:
    client = sandbox.client()
    intent = await paid_intent(client)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})
    sandbox.switch(f"refunds/{refund.id}/fail")
    await authorized(client)
    await client.v1.setup_intents.create_async(by_card(payment_method="pm_card_visa", confirm=True))
    await guest_payment(client, "pm_card_createDispute", 1000)
    await guest_payment(client, "pm_card_createIssuerFraudRecord", 1000)
    await guest_payment(client, "pm_card_bypassPending", 5_000_000)
    await client.v1.payouts.create_async({"amount": 1, "currency": "usd"})
    await client.v1.topups.create_async({"amount": 100, "currency": "usd"})
    evidence: Any = {"purpose": "dispute_evidence", "file": io.BytesIO(b"%PDF")}
    evidence["file"].name = "receipt.pdf"
    await client.v1.files.create_async(evidence)
    assert check(sandbox) == set(KINDS.values())


def test_it_does_not_run_in_production() -> None:
    env = {"PATH": os.environ["PATH"], "PAYMESH_PROFILE": "production"}
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.stripe"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "production" in done.stderr
