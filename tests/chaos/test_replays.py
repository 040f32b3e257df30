"""A key has one answer: every verb, asked again under its key, answers the same bytes; with another body it is refused."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from servers.payments.domain import Payment, Source
from servers.runtime.idempotency import IdempotentRequest
from tests.support.payment_desk import Desk
from tests.support.tally import Tally, size
from tests.support.weather import Weather

CARDS = ("pm_ok", "pm_declined", "pm_action", "pm_slow", "pm_rejected")
WEATHERS = (
    (),
    (),
    (),
    (Weather.FINE, Weather.LOST, Weather.LOST, Weather.LOST),
    (Weather.LOST,),
    (Weather.BROKE_AFTER,),
)
Call = Callable[[IdempotentRequest], Awaitable[Any]]


async def test_a_repeat_is_byte_identical(desk: Desk, tally: Tally) -> None:
    wanted = size(150, 10_000)
    number = 0
    while tally.tried < wanted:
        number += 1
        payment = await desk.create(f"new {number}", manual=tally.random.random() < 0.5)
        for verb in range(tally.random.randint(1, 4)):
            key, call = _call(desk, tally, payment, f"{number} {verb}")
            desk.weather(*tally.random.choice(WEATHERS))
            request = desk.ticket(key, key)
            first = await desk.told(request, call(request))
            desk.weather()
            if first.body is None:
                continue  # not kept: asking again may help
            for _ in range(tally.random.randint(1, 3)):
                again = replace(request, token=secrets.token_hex(8))
                repeat = await desk.told(again, call(again))
                tally.note(
                    repeat.is_replayed and (repeat.body, repeat.is_refusal) == (first.body, first.is_refusal),
                    f"{key}: {first} then {repeat}",
                )
            other = replace(desk.ticket(key, "another body"), token=secrets.token_hex(8))
            refused = await desk.told(other, call(other))
            tally.note(refused.reason == "IDEMPOTENCY_KEY_REUSED", f"{key} with another body: {refused}")


async def test_one_key_of_two_callers_is_two_payments(desk: Desk, tally: Tally) -> None:
    for number in range(size(5, 100)):
        payments = [await desk.create(f"new {number} {caller}", manual=False) for caller in range(2)]
        for caller, payment in enumerate(payments):
            request = replace(desk.ticket(f"same {number}", caller), tenant=f"caller {caller}")
            card = Source(stripe_payment_method_id=f"pm_ok_{number}_{caller}")
            answer = await desk.told(request, desk.confirm(request, payment, card))
            [intent] = desk.stripe.of(payment.id)
            tally.note(answer.reason == "" and intent.paid == 1, f"caller {caller}: {answer}, paid {intent.paid} times")


def _call(desk: Desk, tally: Tally, payment: Payment, name: str) -> tuple[str, Call]:
    amount = tally.random.choice((None, 1, 200, 5_000))
    match tally.random.choice(("confirm", "confirm", "capture", "cancel", "refund")):
        case "confirm":
            card = Source(stripe_payment_method_id=f"{tally.random.choice(CARDS)}_{name}")
            return f"confirm {name}", lambda request: desk.confirm(request, payment, card)
        case "capture":
            return f"capture {name}", lambda request: desk.capture(request, payment, amount)
        case "cancel":
            return f"cancel {name}", lambda request: desk.cancel(request, payment)
        case _:
            return f"refund {name}", lambda request: desk.refund(request, payment, amount)
