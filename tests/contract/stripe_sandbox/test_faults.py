"""The switches: what goes wrong on purpose, how often, and what the sandbox remembers of the requests."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stripe

from tests.support.sandbox import SandboxProcess, by_card, error_of, eventually


@pytest.fixture(autouse=True)
def all_well_again(sandbox: SandboxProcess) -> Iterator[None]:
    """Leave no fault behind."""
    yield
    httpx.delete(f"{sandbox.url}/_sandbox/faults").raise_for_status()


def fresh_key() -> Any:
    """Return request options with a key of its own."""
    return {"idempotency_key": f"k-{os.urandom(8).hex()}"}


async def unpaid(client: stripe.StripeClient) -> str:
    """Return a payment that waits for its confirm."""
    return (await client.v1.payment_intents.create_async(by_card(amount=100, currency="usd"))).id


async def status_of(client: stripe.StripeClient, intent: str) -> str:
    """Return how a payment stands."""
    return (await client.v1.payment_intents.retrieve_async(intent)).status


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"kind": "refuse"}, "requires_payment_method"), ({"kind": "lose_response"}, "succeeded")],
)
async def test_an_answer_is_lost_before_the_work_or_after_it(
    sandbox: SandboxProcess, fault: dict[str, Any], status: str
) -> None:
    client = sandbox.client()
    intent, key = await unpaid(client), fresh_key()
    sandbox.switch("faults", method="post", path=f"{intent}/confirm$", **fault)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, key)
    assert await status_of(client, intent) == status
    again = await client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, key)
    assert again.status == "succeeded"
    assert sandbox.stats()["paid_charges"][intent] == 1
    lost, answered = sandbox.log(f"{intent}/confirm$")
    assert (lost["status"], lost["fault"]) == (None, fault["kind"])
    assert (answered["status"], answered["replayed"]) == (200, status == "succeeded")


@pytest.mark.parametrize(("after", "status"), [(False, "requires_payment_method"), (True, "succeeded")])
async def test_a_request_hangs_before_its_work_or_after_it(sandbox: SandboxProcess, after: bool, status: str) -> None:
    client = sandbox.client()
    intent = await unpaid(client)
    sandbox.switch("faults", method="post", path=f"{intent}/confirm$", kind="delay", delay_seconds=2, after=after)
    confirm = client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, fresh_key())
    slow = asyncio.create_task(confirm)
    await asyncio.sleep(0.5)
    assert await status_of(client, intent) == status
    assert (await slow).status == "succeeded"


async def test_too_many_requests_say_when_to_come_again(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    intent, key = await unpaid(client), fresh_key()
    sandbox.switch("faults", method="post", path=f"{intent}/confirm$", kind="error", status=429, retry_after=7, times=2)
    for _ in range(2):
        with pytest.raises(stripe.RateLimitError) as limited:
            await client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, key)
        assert (limited.value.headers or {})["retry-after"] == "7"
        assert error_of(limited.value)["code"] == "rate_limit"
    # A refused request keeps no key.
    paid = await client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, key)
    assert paid.status == "succeeded"


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize(("after", "result"), [(False, "requires_payment_method"), (True, "succeeded")])
async def test_stripe_breaks_before_the_work_or_after_it(
    sandbox: SandboxProcess, status: int, after: bool, result: str
) -> None:
    client = sandbox.client()
    intent, key = await unpaid(client), fresh_key()
    sandbox.switch("faults", method="post", path=f"{intent}/confirm$", kind="error", status=status, after=after)
    for _ in range(2):  # the second time it is the stored answer
        with pytest.raises(stripe.APIError) as broken:
            await client.v1.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"}, key)
        assert broken.value.http_status == status
    assert await status_of(client, intent) == result


async def test_a_fault_is_for_its_endpoint_and_as_often_as_it_says(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("faults", method="get", path="/v1/balance$", kind="error", status=500, times=2)
    assert sandbox.fetch("/v1/charges?limit=1")["object"] == "list"
    left = httpx.get(f"{sandbox.url}/_sandbox/faults").json()["requests"]
    assert {"method": "get", "path": "/v1/balance$", "kind": "error", "times": 2} in left
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.balance.retrieve_async()
    assert (await client.v1.balance.retrieve_async()).object == "balance"


async def test_a_fault_that_makes_no_sense_is_refused(sandbox: SandboxProcess) -> None:
    for body in (
        {"method": "post", "path": "x", "kind": "error", "status": 429, "after": True},
        {"method": "post", "path": "x", "kind": "explode"},
        {"path": "x", "kind": "refuse"},
    ):
        assert httpx.post(f"{sandbox.url}/_sandbox/faults", json=body).status_code == 400
    assert httpx.post(f"{sandbox.url}/_sandbox/webhooks/faults", json={"kind": "drop"}).status_code == 400
    assert httpx.get(f"{sandbox.url}/_sandbox/log", params={"path": "("}).status_code == 400


async def named(sandbox: SandboxProcess) -> str:
    """Make a customer, whose event is the next one."""
    return (await sandbox.client().v1.customers.create_async({})).id


async def test_a_webhook_comes_twice(sandbox: SandboxProcess) -> None:
    sandbox.switch("webhooks/faults", type="^customer.created$", kind="duplicate", copies=3)
    first, second = [await named(sandbox) for _ in range(2)]
    eventually(lambda: len(sandbox.hooks.about(first)) == 3, "three copies")
    assert len({hook.verified().id for hook in sandbox.hooks.about(first)}) == 1
    eventually(lambda: len(sandbox.hooks.about(second)) == 1, "one copy")


async def test_a_webhook_comes_late(sandbox: SandboxProcess) -> None:
    sandbox.switch("webhooks/faults", type="^customer", kind="delay", delay_seconds=2)
    began = time.monotonic()
    late, prompt = [await named(sandbox) for _ in range(2)]
    eventually(lambda: bool(sandbox.hooks.about(prompt)), "the second event")
    assert sandbox.hooks.about(late) == []
    eventually(lambda: bool(sandbox.hooks.about(late)), "the first event")
    assert time.monotonic() - began >= 2
    assert sandbox.hooks.about(late)[0].is_true()


async def test_a_webhook_never_comes_and_the_event_is_there_to_be_read(sandbox: SandboxProcess) -> None:
    sandbox.switch("webhooks/faults", type="customer", kind="drop")
    dropped, next_one = [await named(sandbox) for _ in range(2)]
    eventually(lambda: bool(sandbox.hooks.about(next_one)), "the next event")
    assert sandbox.hooks.about(dropped) == []
    events = await sandbox.client().v1.events.list_async({"type": "customer.created", "limit": 2})
    event: Any = events.data[1]
    assert event.data.object["id"] == dropped
    sandbox.switch(f"events/{event.id}/resend")
    eventually(lambda: bool(sandbox.hooks.about(dropped)), "the event sent again")


async def test_a_webhook_is_overtaken_by_the_next(sandbox: SandboxProcess) -> None:
    sandbox.switch("webhooks/faults", type="customer.created", kind="overtake")
    first, second = [await named(sandbox) for _ in range(2)]
    eventually(lambda: bool(sandbox.hooks.about(first)), "the first event")
    came = [hook.event["data"]["object"]["id"] for hook in list(sandbox.hooks.came)]
    assert came.index(second) < came.index(first)


@pytest.mark.parametrize(("signature", "taken"), [("true", True), ("forge", False), ("stale", False)])
async def test_an_event_that_never_happened_is_sent_and_kept_nowhere(
    sandbox: SandboxProcess, signature: str, taken: bool
) -> None:
    customer = {"id": f"cus_invented_{signature}", "object": "customer"}
    sent = sandbox.switch("webhooks/invent", type="customer.created", object=customer, signature=signature)
    assert sent["taken"] is taken
    [hook] = sandbox.hooks.about(customer["id"])
    assert (hook.event["id"], hook.is_true()) == (sent["event"]["id"], taken)
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await sandbox.client().v1.events.retrieve_async(sent["event"]["id"])
    wrong = {"type": "customer.created", "object": customer, "signature": "drop"}
    assert httpx.post(f"{sandbox.url}/_sandbox/webhooks/invent", json=wrong).status_code == 400


@pytest.mark.parametrize("kind", ["forge", "stale"])
async def test_a_webhook_that_does_not_verify_is_followed_by_one_that_does(sandbox: SandboxProcess, kind: str) -> None:
    sandbox.switch("webhooks/faults", type="customer.created", kind=kind)
    customer = await named(sandbox)
    eventually(lambda: len(sandbox.hooks.about(customer)) == 2, "the retry")
    false, true = sandbox.hooks.about(customer)
    assert (false.is_true(), true.is_true()) == (False, True)
    reason = "Timestamp outside the tolerance" if kind == "stale" else "No signatures found matching"
    with pytest.raises(stripe.SignatureVerificationError, match=reason):
        false.verified()


async def test_what_was_asked_is_remembered(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    key = fresh_key()
    params = by_card(amount=100, currency="usd", metadata={"payment": "pay_1"}, payment_method="pm_card_visa")
    intent = await client.v1.payment_intents.create_async(params | {"confirm": True}, key)
    [entry] = [one for one in sandbox.log("/v1/payment_intents$") if one["idempotency_key"] == key["idempotency_key"]]
    assert entry["params"] == {
        "amount": "100",
        "currency": "usd",
        "confirm": "true",
        "metadata": {"payment": "pay_1"},
        "payment_method": "pm_card_visa",
        "payment_method_types": ["card"],
    }
    assert (entry["method"], entry["status"], entry["id"]) == ("post", 200, intent.last_response.request_id)  # type: ignore[union-attr]
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.retrieve_async("pi_gone")
    assert [one["status"] for one in sandbox.log("pi_gone", "get")] == [404]


async def test_no_card_data_is_remembered_and_not_more_than_a_thousand_requests(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    card: Any = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "737"}
    await client.v1.payment_methods.create_async({"type": "card", "card": card})
    text = str(sandbox.log(""))
    assert "4242424242424242" not in text
    assert "737" not in str([one["params"] for one in sandbox.log("/v1/payment_methods$")])
    async with httpx.AsyncClient() as plain:
        for _ in range(10):
            await asyncio.gather(*(plain.get(f"{sandbox.url}/v1/nothing") for _ in range(105)))
    assert len(sandbox.log("", "")) == 1000
    httpx.delete(f"{sandbox.url}/_sandbox/log").raise_for_status()
    assert sandbox.log("", "") == []
