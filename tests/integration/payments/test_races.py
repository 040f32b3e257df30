"""Two at once: of a card that is removed while it is charged, of first charges for one top-up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from servers.kernel.errors import Refusal
from servers.kernel.ids import new_id
from servers.payments.domain import PaymentState, Source, Usage
from servers.payments.usecases import ChargeTopUp, charge_top_up, detach_payment_method
from servers.payments.usecases.confirm import card_under_mandate, saved_card
from tests.support.payment_desk import USER, Desk, usd


async def reason_of(call: Awaitable[Any]) -> str:
    """Return "ok", or the reason of a refusal."""
    try:
        await call
    except Refusal as refusal:
        return refusal.reason
    return "ok"


def detach(desk: Desk, method_id: str) -> Awaitable[Any]:
    """Remove a card."""
    request = desk.ticket(f"remove-{method_id}", method="detach", secret=False)
    return detach_payment_method(desk.deps, request, USER, method_id)


async def test_a_card_is_charged_or_removed_never_both(desk: Desk) -> None:
    for number in range(12):
        method = await desk.save_card(f"pm_ok_{number}")
        payment = await desk.create(f"new-{number}", manual=False)
        source = Source(payment_method_id=method.id)
        charged, removed = await asyncio.gather(
            reason_of(desk.confirm(desk.ticket(f"pay-{number}"), payment, source)), reason_of(detach(desk, method.id))
        )
        assert (charged, removed) in {
            ("ok", "OPERATION_IN_PROGRESS"),  # charged; it can be removed afterwards
            ("ok", "ok"),  # charged first
            ("PAYMENT_METHOD_STATE_INVALID", "ok"),
        }
        if charged == "ok" and removed == "ok":
            [attempt] = await desk.rows("SELECT update_time FROM attempts WHERE payment_id = :id", id=payment.id)
            [gone] = await desk.rows("SELECT update_time FROM payment_methods WHERE id = :id", id=method.id)
            assert attempt.update_time < gone.update_time


@pytest.mark.parametrize("by", ["its user", "a merchant"])
async def test_a_card_that_is_about_to_be_charged_holds_up_its_removal(desk: Desk, by: str) -> None:
    saving = await desk.create("saving", manual=False)
    card = Source(stripe_payment_method_id="pm_ok_new")
    saving = await desk.confirm(desk.ticket("save"), saving, card, Usage.OFF_SESSION)
    assert saving.latest_attempt is not None
    method_id = saving.latest_attempt.source.payment_method_id
    payment = await desk.create("new", manual=False)
    async with desk.db.uow() as uow:
        if by == "its user":
            await saved_card(uow, USER, method_id)
        else:
            await card_under_mandate(uow, payment, method_id, off_session=True)
        removal = asyncio.ensure_future(reason_of(detach(desk, method_id)))
        done, _ = await asyncio.wait({removal}, timeout=0.3)
        assert not done
    assert await removal == "ok"
    assert await reason_of(desk.confirm(desk.ticket("pay"), payment, Source(payment_method_id=method_id))) == (
        "PAYMENT_METHOD_STATE_INVALID"
    )


@pytest.mark.parametrize("callers", [2, 6])
async def test_first_charges_for_a_top_up_at_once_charge_once_and_say_the_same(desk: Desk, callers: int) -> None:
    method = await desk.save_card("pm_ok")
    for _ in range(5):
        command = ChargeTopUp(
            top_up_id=new_id("top", clock=desk.deps.clock),
            customer_id=USER,
            amount=usd(700),
            payment_method_id=method.id,
            return_url="",
            stop=False,
        )
        answers = await asyncio.gather(
            *(charge_top_up(desk.deps, command) for _ in range(callers)), return_exceptions=True
        )
        told = [answer if isinstance(answer, BaseException) else answer.state.name for answer in answers]
        assert set(told) <= {"SUCCEEDED", "PROCESSING"}
        assert (await charge_top_up(desk.deps, command)).state is PaymentState.SUCCEEDED
        [intent] = desk.stripe.of((await charge_top_up(desk.deps, command)).id)
        assert (intent.paid, intent.received) == (1, 700)
