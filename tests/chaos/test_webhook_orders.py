"""Every order in which a payment's webhooks may come, each of them twice, ends in the one state that Stripe is in.

The answers to the calls themselves are lost, so that reading brings the flow on; its webhooks come late and all together.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from servers.payments.domain import Payment, RefundState, Source
from servers.payments.gateway_stripe import WebhookEvent
from servers.payments.webhooks import EventSource, UnknownObject, Webhooks
from tests.support.fake_stripe import body_of
from tests.support.payment_desk import Desk
from tests.support.tally import Tally, size
from tests.support.weather import Weather

LOST = (Weather.LOST,) * 3
LEAST, MOST = 4, 6
"""How many webhooks of a flow are put into every order: the last ones, which tell the most."""


async def authenticated(desk: Desk, name: str) -> Payment:
    """A card that asks for 3-D Secure, which fails once and then goes through; a part is refunded, and the bank sends it back."""
    payment = await desk.create(f"new {name}", manual=False)
    for number, succeeds in enumerate((False, True)):
        await pay(desk, payment, f"pm_action_{name}_{number}")
        [intent] = desk.stripe.of(payment.id)
        desk.stripe.settle(intent, succeed=succeeds, authenticated=succeeds)
        await desk.janitor(after_hours=2)
    return await refunded(desk, payment, name)


async def in_parts(desk: Desk, name: str) -> Payment:
    """Money that is held, captured in two parts, and partly refunded."""
    payment = await desk.create(f"new {name}", manual=True)
    await pay(desk, payment, f"pm_ok_{name}")
    for part, final in ((300, False), (400, True)):
        await lost(desk, desk.capture(desk.ticket(f"take {name} {part}"), payment, part, final=final))
        await desk.janitor()
    return await refunded(desk, payment, name)


async def declined_first(desk: Desk, name: str) -> Payment:
    """A card that is declined, then one that is slow to say yes, and a refund."""
    payment = await desk.create(f"new {name}", manual=False)
    await pay(desk, payment, f"pm_declined_{name}")
    await pay(desk, payment, f"pm_slow_{name}")
    [intent] = desk.stripe.of(payment.id)
    desk.stripe.settle(intent, succeed=True)
    await desk.janitor(after_hours=2)
    return await refunded(desk, payment, name)


async def pay(desk: Desk, payment: Payment, card: str) -> None:
    """Confirm, with the answer lost; the intent is there. Then the janitor looks."""
    known = bool((await desk.payment(payment.id)).stripe_payment_intent_id)
    confirm = desk.confirm(desk.ticket(f"pay {card}"), payment, Source(stripe_payment_method_id=card))
    await lost(desk, confirm, *(() if known else (Weather.FINE,)))
    await desk.janitor()


async def refunded(desk: Desk, payment: Payment, name: str) -> Payment:
    """Refund an odd amount, which the bank is slow to take, and have it come back."""
    await lost(desk, desk.refund(desk.ticket(f"back {name}"), payment, 201))
    for made in list(desk.stripe.refunds.values()):
        if made.intent_id.endswith(payment.id) and made.state is RefundState.PENDING:
            desk.stripe.end_refund(made, RefundState.SUCCEEDED)
            desk.stripe.end_refund(made, RefundState.FAILED)
    return payment


async def lost(desk: Desk, call: Awaitable[Any], *before: Weather) -> None:
    """Make a call whose answer is lost at Stripe."""
    desk.stripe.forecast.be(*before, *LOST)
    with suppress(Exception):
        await call
    desk.weather()


FLOWS: dict[str, Callable[[Desk, str], Awaitable[Payment]]] = {
    "authenticated": authenticated,
    "in_parts": in_parts,
    "declined_first": declined_first,
}


def orders(tally: Tally, events: Sequence[WebhookEvent]) -> list[tuple[WebhookEvent, ...]]:
    """Return the orders that are tried: all of them in a long run, some of them else."""
    every = list(itertools.permutations(events[-MOST:]))
    wanted = size(12, len(every))
    return every if wanted >= len(every) else tally.random.sample(every, wanted)


async def deliver(webhooks: Webhooks, event: WebhookEvent) -> None:
    """Have a webhook arrive and be applied; what it is about may not be known yet."""
    await webhooks.receive(event, body_of(event), EventSource.WEBHOOK)
    with suppress(UnknownObject):
        await webhooks.apply(event_id=event.id)


async def view(desk: Desk, payment: Payment) -> tuple[Any, ...]:
    """Return what we say of a payment, without times and ids of our own."""
    found = await desk.payment(payment.id)
    refunds = await desk.rows(
        "SELECT state, amount_minor FROM refunds WHERE payment_id = :id ORDER BY id", id=payment.id
    )
    attempts = await desk.rows("SELECT state FROM attempts WHERE payment_id = :id ORDER BY id", id=payment.id)
    return (
        found.state.value, found.captured_minor, found.refunded_minor, found.refund_pending_minor,
        tuple(map(tuple, refunds)), tuple(map(tuple, attempts)),
    )  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS)
async def test_every_order_of_webhooks_ends_in_one_state(desk: Desk, tally: Tally, flow: str) -> None:
    webhooks = Webhooks(desk.deps)
    views: dict[tuple[Any, ...], str] = {}
    plan: list[tuple[int, ...]] | None = None
    number = 0
    while plan is None or number < len(plan):
        before = len(desk.stripe.news)
        payment = await FLOWS[flow](desk, f"{flow}_{number}")
        events = [event for event in desk.stripe.news[before:] if event.type != "payment_intent.created"]
        if plan is None:
            assert len(events) >= LEAST, "a flow with too little to tell"
            chosen = orders(tally, events)
            plan = [tuple(events.index(event) for event in order) for order in chosen]
        for index in plan[number]:
            for _ in range(2):
                await deliver(webhooks, events[index])
        found = await view(desk, payment)
        views.setdefault(found, f"{flow}: order {plan[number]} gives {found}")
        captured = sum(intent.received for intent in desk.stripe.of(payment.id))
        tally.note(len(views) == 1 and found[1] == captured, f"{list(views.values())}, Stripe has {captured}")
        number += 1
