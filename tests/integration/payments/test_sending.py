"""What was sent is never told as not sent, whoever goes on with it: only the one and only sending of a call proves that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from servers.kernel.errors import ProviderUnavailable
from servers.kernel.ids import new_id
from servers.payments import store
from servers.payments.domain import Payment, PaymentState, SetupIntent, SetupState, Source, Usage
from servers.payments.usecases import ChargeTopUp, charge_top_up, create_setup, learn_payment
from servers.runtime.idempotency import IdempotentRequest
from tests.support.payment_desk import USER, WALLET, Desk, usd
from tests.support.weather import Weather

W = Weather
NEVER = [W.REFUSED] * 3
CARD = Source(stripe_payment_method_id="pm_ok")
FROM_WALLET = Source(wallet_id=WALLET.id)
Ask = Callable[[IdempotentRequest, Payment], Awaitable[Any]]


async def authorized(desk: Desk, source: Source = CARD) -> Payment:
    """Return a payment whose money is held."""
    payment = await desk.create("new", manual=True)
    return await desk.confirm(desk.ticket("pay"), payment, source)


async def states(desk: Desk, table: str) -> list[str]:
    """Return the states of a table's rows, in order."""
    return [row.state for row in await desk.rows(f"SELECT state FROM {table} ORDER BY id")]


def capture(desk: Desk) -> Ask:
    """Take a part."""
    return lambda request, payment: desk.capture(request, payment, 300)


def cancel(desk: Desk) -> Ask:
    """Let go."""
    return desk.cancel


@pytest.mark.parametrize(("ask", "kept", "received"), [(capture, 700, 300), (cancel, 0, 0)])
@pytest.mark.parametrize("source", [CARD, FROM_WALLET], ids=["card", "wallet"])
async def test_an_operation_that_took_place_before_a_crash_is_never_told_as_not_sent(
    desk: Desk, ask: Callable[[Desk], Ask], kept: int, received: int, source: Source
) -> None:
    payment = await authorized(desk, source)
    request = desk.ticket("op")
    desk.weather(W.DIED)
    assert (await desk.told(request, ask(desk)(request, payment))).reason == "DIED"
    await desk.unreachable()
    again = await desk.told(request, ask(desk)(request, payment))
    assert await states(desk, "operations") == ["UNKNOWN"]
    assert again.body is not None, "the answer is that nobody knows yet"
    desk.reachable()
    await desk.janitor()
    assert await states(desk, "operations") == ["SUCCEEDED"]
    payment = await desk.payment(payment.id)
    assert (payment.captured_minor, payment.capturable_minor) == (received, kept)


async def test_the_janitor_never_tells_a_capture_as_not_sent(desk: Desk) -> None:
    payment = await authorized(desk)
    request = desk.ticket("op")
    desk.weather(W.DIED)
    await desk.told(request, desk.capture(request, payment, 300))
    desk.weather(*NEVER)
    await desk.janitor()
    assert await states(desk, "operations") == ["UNKNOWN"]


async def test_a_capture_that_the_first_call_could_not_send_is_not_sent(desk: Desk) -> None:
    payment = await authorized(desk)
    request = desk.ticket("op")
    desk.weather(*NEVER)
    answer = await desk.told(request, desk.capture(request, payment, 300))
    assert (answer.reason, await states(desk, "operations")) == ("PROVIDER_UNAVAILABLE", ["NOT_SENT"])
    answer = await desk.told(request, desk.capture(request, payment, 300))
    assert (answer.reason, await states(desk, "operations")) == ("", ["NOT_SENT", "SUCCEEDED"])


async def test_a_call_that_comes_to_nothing_beside_another_one_that_arrives_is_not_told_as_not_sent(desk: Desk) -> None:
    payment = await authorized(desk)
    request = desk.ticket("op")
    desk.weather(W.DIED_BEFORE)
    await desk.told(request, desk.capture(request, payment, 300))
    desk.weather(W.LATE)
    late = asyncio.ensure_future(desk.told(request, desk.capture(request, payment, 300)))
    await desk.stripe.forecast.blocked.wait()
    desk.weather(*NEVER)
    await desk.janitor()
    assert await states(desk, "operations") == ["UNKNOWN"]
    desk.stripe.forecast.let_through()
    assert (await late).body is not None
    assert await states(desk, "operations") == ["SUCCEEDED"]


async def test_a_wallet_that_paid_before_a_crash_pays_once(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    request = desk.ticket("pay")
    desk.weather(W.DIED)
    await desk.told(request, desk.confirm(request, payment, FROM_WALLET))
    await desk.unreachable()
    again = await desk.told(request, desk.confirm(request, payment, FROM_WALLET))
    assert (again.reason, await states(desk, "attempts")) == ("PEER_UNAVAILABLE", ["UNKNOWN"])
    desk.reachable()
    again = await desk.told(request, desk.confirm(request, payment, FROM_WALLET))
    assert (again.reason, await states(desk, "attempts")) == ("", ["SUCCEEDED"])
    assert desk.ledger.captured(payment.id) == 1000


async def test_whoever_reads_about_a_wallet_does_not_tell_that_it_was_not_asked(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    request = desk.ticket("pay")
    desk.weather(W.DIED)
    await desk.told(request, desk.confirm(request, payment, FROM_WALLET))
    await desk.unreachable()
    await learn_payment(desk.deps, await desk.payment(payment.id))
    assert await states(desk, "attempts") == ["UNKNOWN"]


async def test_a_wallet_that_was_never_asked_may_be_asked_under_the_same_key(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    request = desk.ticket("pay")
    await desk.unreachable()
    answer = await desk.told(request, desk.confirm(request, payment, FROM_WALLET))
    assert (answer.reason, await states(desk, "attempts")) == ("PEER_UNAVAILABLE", ["NOT_SENT"])
    desk.reachable()
    assert (await desk.told(request, desk.confirm(request, payment, FROM_WALLET))).reason == ""
    assert desk.ledger.captured(payment.id) == 1000


async def test_a_top_up_that_was_never_sent_and_was_stopped_is_told_as_canceled_ever_after(desk: Desk) -> None:
    method = await desk.save_card("pm_ok")
    command = ChargeTopUp(
        top_up_id=new_id("top", clock=desk.deps.clock),
        customer_id=USER,
        amount=usd(700),
        payment_method_id=method.id,
        return_url="",
        stop=False,
    )
    desk.weather(*NEVER)
    with pytest.raises(ProviderUnavailable):
        await charge_top_up(desk.deps, command)
    assert (await charge_top_up(desk.deps, replace(command, stop=True))).state is PaymentState.CANCELED
    assert (await charge_top_up(desk.deps, command)).state is PaymentState.CANCELED
    assert not [intent for intent in desk.stripe.intents.values() if intent.paid]


async def setup_of(desk: Desk) -> SetupIntent:
    """Return a setup intent of the user's own."""
    request = desk.ticket("new", method="create_setup")
    return await create_setup(desk.deps, request, owner_id=USER, merchant_id="", usage=Usage.OFF_SESSION)


async def test_a_card_that_was_saved_before_a_crash_is_never_told_as_not_saved(desk: Desk) -> None:
    setup = await setup_of(desk)
    request = desk.ticket("set up")
    desk.weather(W.DIED)
    await desk.told(request, desk.confirm_setup(request, setup))
    await desk.unreachable()
    await desk.told(request, desk.confirm_setup(request, setup))
    async with desk.db.read() as conn:
        found = await store.setup(conn, setup.id)
    assert found is not None
    assert (found.state, found.uncertain) == (SetupState.PROCESSING, True)
    desk.reachable()
    await desk.janitor()
    async with desk.db.read() as conn:
        found = await store.setup(conn, setup.id)
    assert found is not None
    assert found.state is SetupState.SUCCEEDED


async def test_a_card_that_was_attached_before_a_crash_is_told_as_unknown(desk: Desk) -> None:
    request = desk.ticket(f"{USER}-pm_ok", method="save")
    desk.weather(W.DIED)
    await desk.told(request, desk.save_card("pm_ok"))
    await desk.unreachable()
    await desk.told(request, desk.save_card("pm_ok"))
    assert [row.state for row in await desk.rows("SELECT state FROM outbound_calls")] == ["UNKNOWN"]
    desk.reachable()
    await desk.janitor()
    assert await states(desk, "payment_methods") == ["ATTACHED"]


async def test_a_refund_that_was_made_before_a_crash_is_never_told_as_not_made(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    request = desk.ticket("refund")
    desk.stripe.forecast.be(W.DIED)
    await desk.told(request, desk.refund(request, payment, 400))
    desk.stripe.forecast.be(*NEVER)
    await desk.told(request, desk.refund(request, payment, 400))
    assert [row.uncertain for row in await desk.rows("SELECT uncertain FROM refunds")] == [True]
    await desk.janitor()
    assert await states(desk, "refunds") == ["SUCCEEDED"]
    assert [made.amount for made in desk.stripe.refunds.values()] == [400]


async def test_a_refund_that_never_arrived_is_told_so_however_often_it_is_tried(desk: Desk) -> None:
    payment = await desk.create("new", manual=False)
    payment = await desk.confirm(desk.ticket("pay"), payment, CARD)
    request = desk.ticket("refund")
    for _ in range(2):
        desk.stripe.forecast.be(*NEVER)
        answer = await desk.told(request, desk.refund(request, payment, 400))
        assert answer.reason == "PROVIDER_UNAVAILABLE"
        assert [row.uncertain for row in await desk.rows("SELECT uncertain FROM refunds")] == [False]
        desk.reachable()
    desk.weather()
    assert (await desk.told(request, desk.refund(request, payment, 400))).body is not None
