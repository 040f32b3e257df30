"""Authorizations: captured whole, in part, several times, let go, and ended by time."""

from __future__ import annotations

import os
from typing import Any

import pytest
import stripe

from tests.support.sandbox import SandboxProcess, authorized, by_card, customer_with, error_of, eventually

DAY = 24 * 3600


async def held(client: stripe.StripeClient, card: str = "pm_card_visa", **params: Any) -> stripe.PaymentIntent:
    """Return a guest's authorized payment."""
    base = by_card(amount=1000, currency="usd", payment_method=card, confirm=True, capture_method="manual")
    intent = await client.v1.payment_intents.create_async(base | params)
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 1000, 0)
    return intent


def charge_of(sandbox: SandboxProcess, intent: stripe.PaymentIntent) -> Any:
    """Return the newest charge."""
    return sandbox.fetch(f"/v1/charges/{intent.latest_charge}")


async def test_a_capture_takes_all_unless_it_says_how_much(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    for params, received in (({}, 1000), ({"amount_to_capture": 400}, 400)):
        intent = await held(client)
        charge = charge_of(sandbox, intent)
        assert (charge["captured"], charge["amount_captured"], charge["balance_transaction"]) == (False, 0, None)
        given: Any = params | {"metadata": {"capture": "cap_1"}}
        intent = await client.v1.payment_intents.capture_async(intent.id, given)
        assert (intent.status, intent.amount_capturable, intent.amount_received) == ("succeeded", 0, received)
        assert intent.amount == 1000
        assert intent.metadata["capture"] == "cap_1"
        charge = charge_of(sandbox, intent)
        assert (charge["captured"], charge["amount_captured"]) == (True, received)
        expected = ["payment_intent.created", "payment_intent.amount_capturable_updated", "payment_intent.succeeded"]
        eventually(lambda: len(sandbox.hooks.types(intent.id)) == 3, "the webhooks")  # noqa: B023  # called at once
        assert sorted(sandbox.hooks.types(intent.id)) == sorted(expected)


async def test_what_was_not_captured_cannot_be_captured_or_refunded_later(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await held(client)
    await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 400})
    with pytest.raises(stripe.InvalidRequestError, match="has been released") as released:
        await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1})
    assert released.value.code == "payment_intent_unexpected_state"
    assert error_of(released.value)["payment_intent"]["id"] == intent.id
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 401})
    assert (await client.v1.refunds.create_async({"payment_intent": intent.id})).amount == 400


@pytest.mark.parametrize(
    ("amount", "code", "param"),
    [(1001, "amount_too_large", None), (0, "parameter_invalid_integer", "amount"), (-1, None, "amount_to_capture")],
)
async def test_an_amount_that_cannot_be_captured_changes_nothing(
    sandbox: SandboxProcess, amount: int, code: str | None, param: str | None
) -> None:
    client = sandbox.client()
    intent = await held(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": amount})
    assert (refused.value.code, refused.value.param) == (code, param)
    read = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (read.status, read.amount_capturable) == ("requires_capture", 1000)


@pytest.mark.parametrize("status", ["requires_payment_method", "requires_confirmation", "requires_action", "canceled"])
async def test_only_an_authorization_is_captured(sandbox: SandboxProcess, status: str) -> None:
    client = sandbox.client()
    params = by_card(amount=1000, currency="usd", capture_method="manual")
    if status == "requires_confirmation":
        params |= {"payment_method": "pm_card_visa"}
    if status == "requires_action":
        params |= {"payment_method": "pm_card_authenticationRequired", "confirm": True}
    intent = await client.v1.payment_intents.create_async(params)
    if status == "canceled":
        intent = await client.v1.payment_intents.cancel_async(intent.id)
    assert intent.status == status
    with pytest.raises(stripe.InvalidRequestError, match=f"status of {status}") as refused:
        await client.v1.payment_intents.capture_async(intent.id)
    assert refused.value.code == "payment_intent_unexpected_state"


async def test_a_capture_under_the_same_key_is_one_capture(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await authorized(client)
    key: Any = {"idempotency_key": f"k-{os.urandom(8).hex()}"}
    part: Any = {"amount_to_capture": 300, "final_capture": False}
    for _ in range(3):
        answer = await client.v1.payment_intents.capture_async(intent.id, part, key)
        assert (answer.amount_received, answer.amount_capturable) == (300, 700)
    assert len(sandbox.fetch(f"/v1/balance_transactions?source={intent.latest_charge}")["data"]) == 1


async def test_a_multicapture_ends_with_the_whole_the_final_one_or_the_last_one_that_is_left(
    sandbox: SandboxProcess,
) -> None:
    client = sandbox.client()
    whole, final = [await authorized(client) for _ in range(2)]
    more: Any = {"final_capture": False}
    part = await client.v1.payment_intents.capture_async(whole.id, more | {"amount_to_capture": 999})
    assert (part.status, part.amount_capturable) == ("requires_capture", 1)
    whole = await client.v1.payment_intents.capture_async(whole.id, more | {"amount_to_capture": 1})
    assert (whole.status, whole.amount_received) == ("succeeded", 1000)
    await client.v1.payment_intents.capture_async(final.id, more | {"amount_to_capture": 10})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.capture_async(final.id, more | {"amount_to_capture": 0})
    final = await client.v1.payment_intents.capture_async(final.id, {"amount_to_capture": 20})
    assert (final.status, final.amount_capturable, final.amount_received) == ("succeeded", 0, 30)
    eventually(lambda: sandbox.hooks.types(str(final.latest_charge)).count("charge.captured") == 2, "the webhooks")


async def test_a_payment_is_captured_fifty_times_at_most(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await authorized(client)
    part: Any = {"amount_to_capture": 1, "final_capture": False}
    for _ in range(49):
        intent = await client.v1.payment_intents.capture_async(intent.id, part)
    with pytest.raises(stripe.InvalidRequestError, match="50 times"):
        await client.v1.payment_intents.capture_async(intent.id, part)
    intent = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1})
    assert (intent.status, intent.amount_received) == ("succeeded", 50)


@pytest.mark.parametrize(
    ("card", "status"),
    [
        ("pm_card_visa", "available"),
        ("pm_card_amex", "available"),
        ("pm_card_mastercard_prepaid", "unavailable"),
        ("pm_card_jcb", "unavailable"),
    ],
)
async def test_multicapture_depends_on_the_card(sandbox: SandboxProcess, card: str, status: str) -> None:
    client = sandbox.client()
    options = {"card": {"request_multicapture": "if_available"}}
    intent = await held(client, card, payment_method_options=options)
    assert charge_of(sandbox, intent)["payment_method_details"]["card"]["multicapture"]["status"] == status


async def test_an_authorization_ends_when_its_charge_says(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    customer, method = await customer_with(client, "pm_card_visa")
    on = await held(client)
    off = await held(client, method, customer=customer, off_session=True)
    now = sandbox.fetch(f"/v1/charges/{on.latest_charge}")["created"]
    ends = [charge_of(sandbox, one)["payment_method_details"]["card"]["capture_before"] - now for one in (on, off)]
    assert [round(seconds / DAY) for seconds in ends] == [7, 5]
    sandbox.switch("clock", advance_seconds=6 * DAY)
    off = await client.v1.payment_intents.retrieve_async(off.id)
    assert (off.status, off.cancellation_reason, off.amount_capturable) == ("canceled", "automatic", 0)
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        await client.v1.payment_intents.capture_async(off.id)
    assert (await client.v1.payment_intents.capture_async(on.id)).status == "succeeded"
    eventually(lambda: "payment_intent.canceled" in sandbox.hooks.types(off.id), "the webhook")
    assert "charge.expired" in sandbox.hooks.types(str(off.latest_charge))


async def test_a_canceled_authorization_leaves_nothing_to_take(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent = await held(client)
    canceled = await client.v1.payment_intents.cancel_async(intent.id, {"cancellation_reason": "requested_by_customer"})
    assert (canceled.status, canceled.amount_capturable, canceled.amount_received) == ("canceled", 0, 0)
    assert (canceled.cancellation_reason, canceled.canceled_at is not None) == ("requested_by_customer", True)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert sandbox.fetch(f"/v1/balance_transactions?source={intent.latest_charge}")["data"] == []


@pytest.mark.parametrize(
    ("card", "amount", "asked", "most"),
    [
        ("pm_card_visa", 1000, "if_available", 1200),
        ("pm_card_mastercard", 1005, "if_available", 1206),
        ("pm_card_visa", 1000, "never", 1000),
        ("pm_card_amex", 1000, "if_available", 1000),
        ("pm_card_mastercard_prepaid", 1000, "if_available", 1000),
    ],
)
async def test_more_than_was_authorized_is_captured_where_it_was_granted(
    sandbox: SandboxProcess, card: str, amount: int, asked: str, most: int
) -> None:
    client = sandbox.client()
    params = by_card(amount=amount, currency="usd", payment_method=card, confirm=True, capture_method="manual")
    params |= {"payment_method_options": {"card": {"request_overcapture": asked}}}
    intent = await client.v1.payment_intents.create_async(params)
    granted = charge_of(sandbox, intent)["payment_method_details"]["card"]
    status = "available" if most > amount else "unavailable"
    assert granted["overcapture"] == {"maximum_amount_capturable": most, "status": status}
    assert granted["incremental_authorization"] == {"status": "unavailable"}
    with pytest.raises(stripe.InvalidRequestError, match="greater than the amount you can capture"):
        await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": most + 1})
    intent = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": most})
    assert (intent.status, intent.amount, intent.amount_received) == ("succeeded", amount, most)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.amount == most


async def test_only_the_last_capture_goes_beyond(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    options = {"card": {"request_overcapture": "if_available", "request_multicapture": "if_available"}}
    intent = await held(client, payment_method_options=options)
    part: Any = {"amount_to_capture": 400, "final_capture": False}
    await client.v1.payment_intents.capture_async(intent.id, part)
    for amount, final in ((700, False), (801, True)):
        too_much: Any = {"amount_to_capture": amount, "final_capture": final}
        with pytest.raises(stripe.InvalidRequestError, match="greater than the amount you can capture"):
            await client.v1.payment_intents.capture_async(intent.id, too_much)
    intent = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 800})
    assert intent.amount_received == 1200
