"""Races for the same money: whoever wins, no more is given back than was taken, and what is told is true."""

from __future__ import annotations

import asyncio
from typing import Any

from servers.payments.domain import PaymentState, Source
from tests.support.payment_desk import Desk
from tests.support.payment_truth import check_certain, check_sums, rows_of, truth_of
from tests.support.tally import Tally, size

CARD = Source(stripe_payment_method_id="pm_ok")
REFUSED = {"REFUND_EXCEEDS_AVAILABLE", "PAYMENT_STATE_INVALID", "OPERATION_IN_PROGRESS"}


async def holds(desk: Desk, payment_id: str) -> tuple[bool, str]:
    """Return whether our view of a payment is what was done, and what is wrong with it."""
    try:
        rows = await rows_of(desk, payment_id)
        check_sums(rows.payment)
        truth = truth_of(desk, payment_id)
        check_certain(desk, rows, truth)
        refunds = [made.refund_id for made in truth.refunds]
        assert sum(intent.paid for intent in truth.intents) == 1, "charged twice"
        assert len(refunds) == len(set(refunds)), "refunded twice"
        assert sum(made.amount for made in truth.refunds) <= truth.received == rows.payment.captured_minor
    except AssertionError as broken:
        return False, f"{payment_id}: {broken}"
    return True, ""


async def test_refunds_race_for_what_was_captured(desk: Desk, tally: Tally) -> None:
    for number in range(size(25, 34_000)):
        payment = await desk.create(f"new {number}", manual=False)
        await desk.confirm(desk.ticket(f"pay {number}"), payment, CARD)
        amounts = [tally.random.choice((200, 400, 600, 800, 1000)) for _ in range(4)]
        answers = await asyncio.gather(
            *(_refund(desk, payment, f"back {number} {index}", amount) for index, amount in enumerate(amounts))
        )
        given = sum(amount for amount, answer in zip(amounts, answers, strict=True) if answer.reason == "")
        told = {answer.reason for answer in answers} - {""}
        rest = [amount for amount, answer in zip(amounts, answers, strict=True) if answer.reason]
        fine, why = await holds(desk, payment.id)
        # What was refused did not fit beside what was given: at the least one had to win.
        tally.note(
            fine and given <= 1000 and told <= REFUSED and all(given + amount > 1000 for amount in rest),
            f"{amounts} gave {given} and {told}; {why}",
        )


async def _refund(desk: Desk, payment: Any, key: str, amount: int) -> Any:
    request = desk.ticket(key)
    return await desk.told(request, desk.refund(request, payment, amount))


async def test_a_capture_races_a_cancel(desk: Desk, tally: Tally) -> None:
    for number in range(size(25, 33_000)):
        payment = await desk.create(f"new {number}", manual=True)
        payment = await desk.confirm(desk.ticket(f"pay {number}"), payment, CARD)
        take, let_go = desk.ticket(f"take {number}"), desk.ticket(f"let go {number}")
        amount = tally.random.choice((None, 300, 1000))
        captured, canceled = await asyncio.gather(
            desk.told(take, desk.capture(take, payment, amount)), desk.told(let_go, desk.cancel(let_go, payment))
        )
        found = await desk.payment(payment.id)
        one = (captured.reason == "") != (canceled.reason == "")
        ended = PaymentState.CANCELED if canceled.reason == "" else None
        fine, why = await holds(desk, payment.id)
        tally.note(
            fine and one and (ended is None or (found.state is ended and found.captured_minor == 0)),
            f"capture {captured.reason or 'ok'}, cancel {canceled.reason or 'ok'}, {found.state.name}; {why}",
        )


async def test_parts_race_for_what_is_held(desk: Desk, tally: Tally) -> None:
    for number in range(size(25, 33_000)):
        payment = await desk.create(f"new {number}", manual=True)
        payment = await desk.confirm(desk.ticket(f"pay {number}"), payment, CARD)
        amounts = [tally.random.choice((300, 500, 700)) for _ in range(3)]
        requests = [desk.ticket(f"take {number} {index}") for index in range(3)]
        answers = await asyncio.gather(
            *(desk.told(r, desk.capture(r, payment, a)) for r, a in zip(requests, amounts, strict=True))
        )
        found = await desk.payment(payment.id)
        taken = sum(amount for amount, answer in zip(amounts, answers, strict=True) if answer.reason == "")
        fine, why = await holds(desk, payment.id)
        tally.note(
            fine and 0 < taken == found.captured_minor <= 1000,
            f"{amounts} took {taken} of {found.captured_minor}; {why}",
        )
