"""Weather, lies, slow and broken answers, rate limits: the money is right in the end, and the seed brings the same again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe.weather import PRESETS, REQUESTS, WEBHOOKS, Weather
from tests.support.sandbox import KEY, SandboxProcess, by_card, error_of, eventually


@pytest.fixture(autouse=True)
def fine_again(sandbox: SandboxProcess) -> Iterator[None]:
    """Leave no weather, no fault and no limit behind."""
    yield
    httpx.delete(f"{sandbox.url}/_sandbox/faults").raise_for_status()
    sandbox.switch("limits", reads_per_second=0, writes_per_second=0)


def drawn(weather: Weather, subjects: list[str]) -> list[Any]:
    """Return what comes to each subject in turn."""
    return [
        None if (fault := weather.request(subject)) is None else (fault.kind, fault.status, fault.delay_seconds)
        for subject in subjects
    ]


def test_the_same_seed_brings_the_same_whatever_goes_on_beside() -> None:
    confirms, reads = ["post /confirm"] * 200, ["get /intent"] * 200
    together, alone, other = Weather(), Weather(), Weather()
    for weather, seed in ((together, 7), (alone, 7), (other, 8)):
        weather.change({"seed": seed, "preset": "storm"})
    mixed = [subject for pair in zip(confirms, reads, strict=True) for subject in pair]
    assert drawn(together, mixed)[::2] == drawn(alone, confirms)
    assert drawn(other, confirms) != drawn(alone, confirms)
    assert alone.report()["drawn"][0]["subject"] == "post /confirm"
    alone.change(alone.report())
    first = drawn(alone, confirms)
    alone.change({"seed": 7, "preset": "storm"})
    assert drawn(alone, confirms) == first


def test_chances_are_what_they_say() -> None:
    weather = Weather()
    weather.change({"seed": 1, "requests": {"refuse": 0.25, "cut": 0.25}})
    kinds = [fault.kind for _ in range(4000) if (fault := weather.request("x"))]
    assert 850 < kinds.count("refuse") < 1150  # type: ignore[arg-type]
    assert 850 < kinds.count("cut") < 1150  # type: ignore[arg-type]
    assert len(weather.report()["drawn"]) == 1000
    weather.clear()
    assert weather.request("x") is None
    for preset in PRESETS.values():
        assert preset["requests"].keys() <= REQUESTS.keys()
        assert preset["webhooks"].keys() <= WEBHOOKS.keys()


@pytest.mark.parametrize(
    "body",
    [
        {"preset": "fog"},
        {"requests": {"hail": 0.1}},
        {"requests": {"cut": 0.6, "refuse": 0.5}},
        {"webhooks": {"drop": -1}},
    ],
)
def test_weather_that_makes_no_sense_is_refused(sandbox: SandboxProcess, body: dict[str, Any]) -> None:
    assert httpx.post(f"{sandbox.url}/_sandbox/weather", json=body).status_code == 400
    assert sandbox.weather()["requests"] == {}


async def until_answered(ask: Any) -> Any:
    """Ask until there is an answer that is no accident. Raises AssertionError after too many tries."""
    for _ in range(60):
        try:
            return await ask()
        except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as accident:
            if isinstance(accident, stripe.InvalidRequestError):
                raise
            await asyncio.sleep(0.01)
    raise AssertionError("no answer in sixty tries")


async def pay_through(client: stripe.StripeClient, number: int) -> str:
    """Pay once, as a careful client does: one key for one purpose, and after a stored 500 a look before another key."""
    params = by_card(amount=100 + number, currency="usd", metadata={"number": str(number)})
    intent = None
    for attempt in range(10):
        key: Any = {"idempotency_key": f"weather-create-{number}-{attempt}-{os.urandom(4).hex()}"}
        try:
            intent = await until_answered(lambda: client.v1.payment_intents.create_async(params, key))  # noqa: B023
            break
        except AssertionError:
            continue
    assert intent is not None
    for attempt in range(10):
        key = {"idempotency_key": f"weather-confirm-{intent.id}-{attempt}"}
        with contextlib.suppress(stripe.StripeError):
            await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}, key)
        read = await until_answered(lambda: client.v1.payment_intents.retrieve_async(intent.id))
        if read.status == "succeeded":
            return str(intent.id)
    raise AssertionError("never paid")


async def test_a_careful_client_pays_once_in_a_storm(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("weather", seed=11, preset="storm", max_delay_seconds=0.1)
    paid = await asyncio.gather(*(pay_through(client, number) for number in range(12)))
    report = sandbox.weather()
    assert len({one["kind"] for one in report["drawn"]}) >= 4
    httpx.delete(f"{sandbox.url}/_sandbox/weather").raise_for_status()
    assert sandbox.weather()["requests"] == {}
    charges = sandbox.stats()["paid_charges"]
    assert [charges[intent] for intent in paid] == [1] * 12
    for intent in paid:
        found = await client.v1.events.list_async({"type": "payment_intent.succeeded", "limit": 100})
        assert any(event.data.object["id"] == intent for event in found.data)


def outcomes(sandbox: SandboxProcess, seed: int) -> list[Any]:
    """Begin a storm, ask the same thirty times, and return what came."""
    sandbox.switch("weather", seed=seed, preset="storm", max_delay_seconds=0)
    came: list[Any] = []
    for _ in range(30):
        try:
            came.append(httpx.post(f"{sandbox.url}/v1/customers", auth=(KEY, "")).status_code)
        except httpx.TransportError as lost:
            came.append(type(lost).__name__)
    return came


def test_the_same_storm_comes_again(sandbox: SandboxProcess) -> None:
    first = outcomes(sandbox, 21)
    assert len(set(first)) >= 3
    assert outcomes(sandbox, 21) == first
    assert outcomes(sandbox, 22) != first


async def test_lost_webhooks_are_found_by_a_poller(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("weather", seed=3, webhooks={"drop": 1})
    since = sandbox.fetch("/v1/events?limit=1")["data"][0]["id"]
    made = [(await client.v1.customers.create_async({})).id for _ in range(3)]
    eventually(lambda: len(sandbox.weather()["drawn"]) >= 3, "three accidents")
    lost: Any = {"delivery_success": False, "ending_before": since, "types": ["customer.*"]}
    eventually(lambda: sandbox.fetch("/v1/events?limit=1")["data"][0]["pending_webhooks"] == 1, "the last event")
    found = [event async for event in (await client.v1.events.list_async(lost)).auto_paging_iter()]
    assert [event.data.object["id"] for event in found] == made  # upwards, the oldest comes first
    assert all(not sandbox.hooks.about(customer) for customer in made)


async def test_an_answer_trickles(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("faults", method="post", path="/v1/customers$", kind="trickle", delay_seconds=1)
    began = time.monotonic()
    customer = await client.v1.customers.create_async({"name": "Ada"})
    assert customer.name == "Ada"
    assert time.monotonic() - began >= 1


async def test_an_answer_breaks_off_and_the_work_is_done(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    key: Any = {"idempotency_key": f"cut-{os.urandom(8).hex()}"}
    sandbox.switch("faults", method="post", path="/v1/customers$", kind="cut")
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.customers.create_async({"name": "Ada"}, key)
    again = await client.v1.customers.create_async({"name": "Ada"}, key)
    assert again.last_response is not None
    assert (again.last_response.headers or {})["idempotent-replayed"] == "true"


async def test_an_answer_lies_and_the_truth_is_kept(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    key: Any = {"idempotency_key": f"lie-{os.urandom(8).hex()}"}
    params = by_card(amount=100, currency="usd")
    sandbox.switch("faults", method="post", path="intents$", kind="lie", set=["amount", "currency", "id"])
    wrong = await client.v1.payment_intents.create_async(params, key)
    assert (wrong.amount, wrong.currency, wrong.id) == (101, "eur", "pi_of_somebody_else")
    right = await client.v1.payment_intents.create_async(params, key)
    assert (right.amount, right.currency) == (100, "usd")
    sandbox.switch("faults", method="get", path=f"{right.id}$", kind="lie", set={"status": "succeeded"})
    read = [(await client.v1.payment_intents.retrieve_async(right.id)).status for _ in range(2)]
    assert read == ["succeeded", "requires_payment_method"]
    for body in ({"kind": "lie"}, {"kind": "lie", "set": 1}, {"kind": "error", "status": 429, "code": "bored"}):
        refused = httpx.post(f"{sandbox.url}/_sandbox/faults", json={"method": "get", "path": "x"} | body)
        assert refused.status_code == 400


async def test_a_webhook_lies_under_a_true_signature(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("webhooks/faults", type="^customer.created$", kind="lie", set={"email": "mallory@x.example"})
    customer = await client.v1.customers.create_async({"email": "ada@x.example"})
    eventually(lambda: bool(sandbox.hooks.about(customer.id)), "the webhook")
    event = sandbox.hooks.about(customer.id)[0].verified()
    assert event.data.object.email == "mallory@x.example"
    kept = await client.v1.events.retrieve_async(event.id)
    assert kept.data.object["email"] == "ada@x.example"
    assert httpx.post(f"{sandbox.url}/_sandbox/webhooks/faults", json={"type": "x", "kind": "lie"}).status_code == 400


async def test_an_object_may_be_locked(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    sandbox.switch("faults", method="post", path="/v1/customers$", kind="error", status=429, code="lock_timeout")
    with pytest.raises(stripe.RateLimitError, match="cannot be accessed right now") as locked:
        await client.v1.customers.create_async({})
    assert error_of(locked.value)["code"] == "lock_timeout"


async def test_reads_and_writes_have_their_limits(sandbox: SandboxProcess) -> None:
    sandbox.switch("limits", writes_per_second=3)
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as plain:
        written = await asyncio.gather(*(plain.post(f"{sandbox.url}/v1/customers") for _ in range(12)))
        read = await asyncio.gather(*(plain.get(f"{sandbox.url}/v1/balance") for _ in range(12)))
    limited = [answer for answer in written if answer.status_code == 429]
    assert 5 <= len(limited) <= 9
    assert {answer.json()["error"]["code"] for answer in limited} == {"rate_limit"}
    assert {answer.status_code for answer in read} == {200}
    eventually(lambda: httpx.post(f"{sandbox.url}/v1/customers", auth=(KEY, "")).is_success, "a token")
    assert httpx.post(f"{sandbox.url}/_sandbox/limits", json={"reads_per_second": -1}).status_code == 400


async def test_each_api_key_has_its_own_idempotency_keys(fresh: SandboxProcess) -> None:
    fresh.kill()
    fresh.start(STRIPE_SANDBOX_API_KEY=f"{KEY},sk_test_second", STRIPE_SANDBOX_READS_PER_SECOND="1000")
    idempotency = {"idempotency-key": "the-same"}
    made = [
        httpx.post(f"{fresh.url}/v1/customers", auth=(key, ""), headers=idempotency).json()
        for key in (KEY, "sk_test_second", KEY, "sk_test_second")
    ]
    assert made[0] == made[2] != made[1] == made[3]
    events = fresh.fetch("/v1/events")["data"]
    assert [event["request"]["idempotency_key"] for event in events] == ["the-same"] * 2
    for headers in (
        {"authorization": "Bearer sk_test_third"},
        {"authorization": "Basic !"},
        {"authorization": "Digest x"},
        {},
    ):
        assert httpx.get(f"{fresh.url}/v1/balance", headers=headers).status_code == 401
