"""What a payment goes through, the same on every Stripe there is: the fake of the model, the sandbox, and the test mode of Stripe
itself where STRIPE_API_KEY is a test key. Use cases, SDK and gateway are the real ones; only what answers differs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from servers.payments.domain import AttemptState, Payment, PaymentState, RefundState, Source
from servers.payments.gateway_stripe import StripeGateway
from tests.support.fake_ledger import FakeLedger
from tests.support.fake_stripe import FakeStripe
from tests.support.payment_desk import USER, WALLET, Desk, TickingClock, desk_of
from tests.support.postgres import TestPostgres, opened
from tests.support.sandbox import KEY, SECRET, SandboxProcess
from tests.support.valkey import ValkeyProcess

REAL_KEY = os.environ.get("STRIPE_API_KEY", "")
IMPLEMENTATIONS = ("fake", "sandbox", "stripe")


@dataclass(frozen=True)
class Flow:
    """A desk before one of the Stripes, and its cards."""

    desk: Desk
    good: str
    declined: str
    asking: str

    async def received(self, payment: Payment) -> int:
        """Return what Stripe took for a payment."""
        found = await self.desk.payment(payment.id)
        return (await self.desk.stripe.intent_status(found.stripe_payment_intent_id)).received.amount_minor

    async def settled(self, payment: Payment, state: PaymentState) -> Payment:
        """Wait for a payment that Stripe takes a moment for."""
        for _ in range(20):
            payment = await self.desk.payment(payment.id)
            if payment.state is state:
                break
            await self.desk.janitor(after_hours=2)
            await asyncio.sleep(0.2)
        assert payment.state is state
        return payment


def _gateway(name: str, request: pytest.FixtureRequest) -> StripeGateway:
    if name == "sandbox":
        sandbox: SandboxProcess = request.getfixturevalue("sandbox")
        return StripeGateway(KEY, api_base=sandbox.url, webhook_secrets=[SECRET], public_url="https://pay.example")
    if not REAL_KEY.startswith(("sk_test_", "rk_test_")):
        pytest.skip("no key: STRIPE_API_KEY is not a test key of Stripe's")
    return StripeGateway(REAL_KEY, api_base="", webhook_secrets=["whsec_none"], public_url="https://pay.example")


@pytest.fixture(params=IMPLEMENTATIONS)
async def flow(request: pytest.FixtureRequest, postgres: TestPostgres, valkey: ValkeyProcess) -> AsyncIterator[Flow]:
    """Return a desk before each of them."""
    clock = TickingClock()
    db = await opened(postgres.url(postgres.copy("payments"), "payments"), "payments", clock)
    ledger = FakeLedger(clock, WALLET, balance=5000)
    if request.param == "fake":
        desk = desk_of(db, FakeStripe(clock), ledger, valkey.url)
        yield Flow(desk, "pm_ok", "pm_declined", "pm_action")
    else:
        gateway = _gateway(request.param, request)
        desk = desk_of(db, gateway, ledger, valkey.url)
        yield Flow(desk, "pm_card_visa", "pm_card_visa_chargeDeclined", "pm_card_authenticationRequired")
        await gateway.close()
    await desk.deps.throttle.close()
    await db.dispose()


async def confirmed(flow: Flow, payment: Payment, card: str, key: str = "pay") -> Payment:
    """Confirm with a new card."""
    source = Source(stripe_payment_method_id=card)
    return await flow.desk.confirm(flow.desk.ticket(key), payment, source)


async def test_a_payment_is_taken_at_once(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=False)
    payment = await confirmed(flow, payment, flow.good)
    assert (payment.state, payment.captured_minor) == (PaymentState.SUCCEEDED, 1000)
    assert await flow.received(payment) == 1000


async def test_a_declined_card_leaves_the_payment_open_for_another(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=False)
    payment = await confirmed(flow, payment, flow.declined)
    attempt = payment.latest_attempt
    assert attempt is not None
    assert (payment.state, attempt.state) == (PaymentState.REQUIRES_PAYMENT_METHOD, AttemptState.DECLINED)
    assert attempt.decline is not None
    assert attempt.decline.message
    payment = await confirmed(flow, payment, flow.good, "again")
    assert payment.state is PaymentState.SUCCEEDED
    assert await flow.received(payment) == 1000


async def test_a_cardholder_is_asked(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=False)
    payment = await confirmed(flow, payment, flow.asking)
    attempt = payment.latest_attempt
    assert attempt is not None
    assert (payment.state, attempt.state) == (PaymentState.REQUIRES_ACTION, AttemptState.REQUIRES_ACTION)
    assert attempt.next_action.url or attempt.next_action.sealed_secret


async def test_money_is_held_then_taken_in_part_and_the_rest_let_go(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=True)
    payment = await confirmed(flow, payment, flow.good)
    assert (payment.state, payment.capturable_minor) == (PaymentState.REQUIRES_CAPTURE, 1000)
    assert payment.capture_before_time is not None
    payment = await flow.desk.capture(flow.desk.ticket("take"), payment, 600, final=True)
    assert (payment.state, payment.captured_minor) == (PaymentState.SUCCEEDED, 600)
    assert await flow.received(payment) == 600


async def test_money_that_is_held_is_let_go(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=True)
    payment = await confirmed(flow, payment, flow.good)
    payment = await flow.desk.cancel(flow.desk.ticket("let go"), payment)
    assert payment.state is PaymentState.CANCELED
    assert await flow.received(payment) == 0


async def test_refunds_in_parts(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=False)
    payment = await confirmed(flow, payment, flow.good)
    for number, amount in enumerate((400, 600)):
        refund = await flow.desk.refund(flow.desk.ticket(f"back {number}"), payment, amount)
        assert refund.state is RefundState.SUCCEEDED
        assert refund.stripe_refund_id
        found = await flow.desk.stripe.find_refund(refund, payment.stripe_payment_intent_id)
        assert found is not None
        assert found.stripe_refund_id == refund.stripe_refund_id
    request = flow.desk.ticket("too much")
    assert (await flow.desk.told(request, flow.desk.refund(request, payment, 1))).reason == "REFUND_EXCEEDS_AVAILABLE"
    assert (await flow.desk.payment(payment.id)).refunded_minor == 1000


async def test_a_repeat_is_the_same_charge(flow: Flow) -> None:
    payment = await flow.desk.create("new", manual=False)
    source = Source(stripe_payment_method_id=flow.good)
    request = flow.desk.ticket("pay")
    first = await flow.desk.told(request, flow.desk.confirm(request, payment, source))
    again = await flow.desk.told(request, flow.desk.confirm(request, payment, source))
    assert (first.body, again.is_replayed) == (again.body, True)
    attempt = (await flow.desk.payment(payment.id)).latest_attempt
    assert attempt is not None
    # Stripe knows the confirm by its key: sent once more, it answers what it answered, and charges nobody.
    intent_id = (await flow.desk.payment(payment.id)).stripe_payment_intent_id
    await flow.desk.stripe.confirm(intent_id, attempt)
    assert await flow.received(payment) == 1000


async def test_a_saved_card_pays_again(flow: Flow) -> None:
    method = await flow.desk.save_card(flow.good, owner_id=USER)
    payment = await flow.desk.create("new", manual=False)
    source = Source(payment_method_id=method.id)
    payment = await flow.desk.confirm(flow.desk.ticket("pay"), payment, source)
    assert (await flow.settled(payment, PaymentState.SUCCEEDED)).captured_minor == 1000
