"""Two processes that meet at one row, which is held until both wait for it: one of them wins, the other is told what it met, and
nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from servers.kernel.errors import EtagMismatch, Refusal
from servers.payments import store
from servers.payments.domain import (
    CardSaved,
    Manner,
    Payment,
    PaymentState,
    SetupCanceled,
    SetupIntent,
    SetupState,
    Source,
    Usage,
    UsedCard,
)
from servers.payments.usecases import (
    ConfirmPayment,
    Payer,
    confirm_payment,
    confirm_setup,
    create_setup,
    learn_setup,
    replace_settings,
    revoke_mandate,
)
from tests.support.fake_ledger import FakeLedger
from tests.support.fake_stripe import CARD, FakeStripe
from tests.support.payment_desk import MERCHANT, USER, WALLET, Desk, TickingClock, desk_of
from tests.support.payment_truth import check_invariants, check_once, rows_of, truth_of
from tests.support.postgres import TestPostgres, opened
from tests.support.valkey import ValkeyProcess
from tests.support.weather import Weather

OFF, ON = Usage.OFF_SESSION, Usage.ON_SESSION


@dataclass(frozen=True)
class Crossing:
    """Two processes with one database and one outside."""

    first: Desk
    second: Desk

    async def meet(self, row: str, first: Awaitable[Any], second: Awaitable[Any]) -> list[Any]:
        """Have two calls wait for a row, in this order, and let them go. Returns what each is told: its value, or the reason of
        its refusal."""
        table, _, name = row.partition(" ")
        calls: list[asyncio.Future[Any]] = []
        async with self.first.db.uow() as gate:
            held = await gate.conn.execute(text(f"SELECT 1 FROM {table} WHERE id = :id FOR UPDATE"), {"id": name})
            assert held.rowcount == 1
            for number, call in enumerate((first, second), 1):
                calls.append(asyncio.ensure_future(told(call)))
                await self.until_waiting(number)
        return list(await asyncio.gather(*calls))

    async def until_waiting(self, number: int) -> None:
        """Wait until that many sessions wait for a lock."""
        waiting = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(3):
            while (await self.first.rows(waiting))[0].n < number:
                await asyncio.sleep(0.01)

    async def setup(self) -> SetupIntent:
        """Begin to save a card for the merchant."""
        desk = self.first
        request = desk.ticket("setup", method="setup")
        return await create_setup(desk.deps, request, owner_id=USER, merchant_id=MERCHANT, usage=OFF)

    def confirm_setup(self, desk: Desk, setup: SetupIntent, card: str) -> Awaitable[SetupIntent]:
        """Confirm a setup intent as its user."""
        payer = Payer(customer_id=USER, limit_key=setup.id)
        return confirm_setup(
            desk.deps, desk.ticket(card, card), setup_id=setup.id, payer=payer, stripe_method_id=card, manner=Manner()
        )

    async def mandate(self, usage: Usage = OFF) -> tuple[str, str]:
        """Save a card by paying with it. Returns the mandate and the card."""
        desk = self.first
        payment = await desk.create("given", manual=False)
        source = Source(stripe_payment_method_id="pm_ok_given")
        await desk.confirm(desk.ticket("give"), payment, source, usage)
        [row] = await desk.rows("SELECT id, payment_method_id FROM mandates")
        return row.id, row.payment_method_id

    async def captured(self, amount: int = 1000) -> Payment:
        """Return a payment with money in it."""
        payment = await self.first.create("paid", manual=False, amount=amount)
        return await self.first.confirm(
            self.first.ticket("pay"), payment, Source(stripe_payment_method_id="pm_ok_paid")
        )

    async def authorized(self) -> Payment:
        """Return a payment whose money is held."""
        payment = await self.first.create("held", manual=True)
        return await self.first.confirm(
            self.first.ticket("hold"), payment, Source(stripe_payment_method_id="pm_ok_held")
        )

    async def check(self, payment_id: str) -> None:
        """Nothing was done twice, and the books hold."""
        check_once(self.first, await rows_of(self.first, payment_id), truth_of(self.first, payment_id))
        await check_invariants(self.first)


async def told(call: Awaitable[Any]) -> Any:
    """Return what a call returns, or the reason of its refusal."""
    try:
        return await call
    except Refusal as refusal:
        return refusal.reason


@pytest.fixture
async def crossing(postgres: TestPostgres, valkey: ValkeyProcess) -> AsyncIterator[Crossing]:
    """Return two processes."""
    clock = TickingClock()
    url = postgres.url(postgres.copy("payments"), "payments")
    stripe, ledger = FakeStripe(clock), FakeLedger(clock, WALLET, balance=5000)
    databases = [await opened(url, "payments", clock) for _ in range(2)]
    desks = [desk_of(db, stripe, ledger, valkey.url) for db in databases]
    yield Crossing(*desks)
    for desk in desks:
        await desk.deps.throttle.close()
        await desk.db.dispose()


async def test_of_two_confirms_of_a_setup_intent_one_saves_a_card(crossing: Crossing) -> None:
    setup = await crossing.setup()
    won, lost = await crossing.meet(
        f"setup_intents {setup.id}",
        crossing.confirm_setup(crossing.first, setup, "pm_ok_1"),
        crossing.confirm_setup(crossing.second, setup, "pm_ok_2"),
    )
    assert (won.state, lost) == (SetupState.SUCCEEDED, "OPERATION_IN_PROGRESS")
    assert [key for verb, key in crossing.first.stripe.sent if verb == "set_up"] == [won.confirm_key]
    assert len(await crossing.first.rows("SELECT 1 FROM payment_methods")) == 1
    assert len(await crossing.first.rows("SELECT 1 FROM mandates")) == 1
    again = await told(crossing.confirm_setup(crossing.second, setup, "pm_ok_3"))
    assert again == "SETUP_INTENT_STATE_INVALID"
    await check_invariants(crossing.first)


@pytest.mark.parametrize("news", ["saved", "canceled"])
async def test_a_setup_intent_hears_of_its_end_before_its_confirm_is_answered(crossing: Crossing, news: str) -> None:
    desk, setup = crossing.first, await crossing.setup()
    desk.weather(Weather.LATE)
    confirm = asyncio.ensure_future(crossing.confirm_setup(desk, setup, "pm_action"))
    await asyncio.wait_for(desk.stripe.forecast.blocked.wait(), 3)
    [key] = desk.stripe.setups
    end = SetupCanceled() if news == "canceled" else CardSaved(used=UsedCard(stripe_id="pm_action", card=CARD))
    desk.stripe.setups[key] = (desk.stripe.setups[key][0], end)
    learnt = await learn_setup(crossing.second.deps, setup.id)
    desk.stripe.forecast.let_through()
    answered = await confirm
    assert answered.state is learnt.state is (SetupState.CANCELED if news == "canceled" else SetupState.SUCCEEDED)
    assert answered.version == learnt.version
    assert not answered.next_action.sealed_secret, "who is done is asked for nothing"
    assert len(await desk.rows("SELECT 1 FROM mandates")) == (news == "saved")
    await check_invariants(desk)


@pytest.mark.parametrize("usages", [(OFF, OFF), (ON, OFF), (OFF, ON)])
async def test_two_payments_that_give_a_mandate_leave_one(crossing: Crossing, usages: tuple[Usage, Usage]) -> None:
    first, second = crossing.first, crossing.second
    card = await first.save_card("pm_ok")
    payments = [await first.create(f"new-{number}", manual=False) for number in range(2)]
    source = Source(payment_method_id=card.id)
    # The card is what both lock last: both have charged by then.
    paid = await asyncio.gather(
        told(first.confirm(first.ticket("1"), payments[0], source, usages[0])),
        told(second.confirm(second.ticket("2"), payments[1], source, usages[1])),
    )
    assert [payment.state for payment in paid] == [PaymentState.SUCCEEDED] * 2
    active = await first.rows("SELECT usage FROM mandates WHERE state = 'ACTIVE'")
    assert [row.usage for row in active] == ["OFF_SESSION"]
    assert len(first.stripe.charges) == 2
    await check_invariants(first)


@pytest.mark.parametrize("revoked_first", [True, False])
async def test_a_card_is_charged_off_session_before_its_mandate_is_revoked_or_never(
    crossing: Crossing, revoked_first: bool
) -> None:
    first, second = crossing.first, crossing.second
    mandate_id, method_id = await crossing.mandate()
    payment = await first.create("renewal", manual=False)
    before = list(first.stripe.charges)
    command = ConfirmPayment(
        payment_id=payment.id,
        payer=Payer(merchant_id=MERCHANT, limit_key=payment.id),
        source=Source(payment_method_id=method_id),
        manner=Manner(off_session=True),
    )
    charge = confirm_payment(second.deps, second.ticket("renew"), command)
    revoke = revoke_mandate(first.deps, first.ticket("revoke"), USER, mandate_id)
    calls = (revoke, charge) if revoked_first else (charge, revoke)
    answers = await crossing.meet(f"mandates {mandate_id}", *calls)
    charged = answers[1 if revoked_first else 0]
    if revoked_first:
        assert charged == "RESOURCE_NOT_FOUND"
        assert first.stripe.charges == before
    else:
        assert charged.state is PaymentState.SUCCEEDED
        assert len(first.stripe.charges) == len(before) + 1
    [row] = await first.rows("SELECT state, version FROM mandates")
    assert (row.state, row.version) == ("REVOKED", 2)
    await check_invariants(first)


@pytest.mark.parametrize("known", [True, False])
async def test_of_two_settings_with_one_etag_one_is_kept(crossing: Crossing, known: bool) -> None:
    first, second = crossing.first, crossing.second

    def put(desk: Desk, key: str, expected: int | None) -> Awaitable[Any]:
        origin = f"https://{key}.example"
        return replace_settings(desk.deps, desk.ticket(key, method="put"), MERCHANT, [origin], expected)

    version = (await put(first, "start", None)).version if known else 0
    answers = await asyncio.gather(told(put(first, "one", version)), told(put(second, "two", version)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    # Where there is nothing to wait for yet, the loser meets the winner's row as it writes its own.
    assert len(refused) == 1
    assert refused[0] in ({EtagMismatch.reason} if known else {EtagMismatch.reason, "CONCURRENT_UPDATE"})
    async with first.db.read() as conn:
        kept = await store.payment_settings(conn, MERCHANT)
    winner = next(answer for answer in answers if not isinstance(answer, str))
    assert (kept.version, kept.return_url_origins) == (version + 1, winner.return_url_origins)


@pytest.mark.parametrize(("amounts", "second_is"), [((700, 700), "REFUND_EXCEEDS_AVAILABLE"), ((400, 600), "ok")])
async def test_two_refunds_share_what_was_captured(
    crossing: Crossing, amounts: tuple[int, int], second_is: str
) -> None:
    first, second, payment = crossing.first, crossing.second, await crossing.captured()
    won, other = await crossing.meet(
        f"payments {payment.id}",
        first.refund(first.ticket("r1"), payment, amounts[0]),
        second.refund(second.ticket("r2"), payment, amounts[1]),
    )
    assert won.amount.amount_minor == amounts[0]
    assert (other if isinstance(other, str) else "ok") == second_is
    made = sorted(made.amount for made in first.stripe.refunds.values())
    assert made == sorted(amounts[: 1 if second_is != "ok" else 2])
    assert (await first.payment(payment.id)).refunded_minor == sum(made)
    await crossing.check(payment.id)


async def test_a_refund_asked_for_twice_under_one_key_at_once_is_made_once(crossing: Crossing) -> None:
    first, second, payment = crossing.first, crossing.second, await crossing.captured()
    answers = await crossing.meet(
        f"payments {payment.id}",
        first.refund(first.ticket("r", method="refund"), payment, 300),
        second.told(
            second.ticket("r", method="refund"), second.refund(second.ticket("r", method="refund"), payment, 300)
        ),
    )
    assert answers[0].amount.amount_minor == 300
    assert answers[1].reason == "IDEMPOTENCY_IN_PROGRESS" or answers[1].is_replayed
    assert [made.amount for made in first.stripe.refunds.values()] == [300]
    await crossing.check(payment.id)


Act = Callable[[Desk, Payment], Awaitable[Payment]]


def capture(desk: Desk, payment: Payment) -> Awaitable[Payment]:
    """Capture all."""
    return desk.capture(desk.ticket("capture"), payment, None)


def cancel(desk: Desk, payment: Payment) -> Awaitable[Payment]:
    """Cancel."""
    return desk.cancel(desk.ticket("cancel"), payment)


@pytest.mark.parametrize(
    ("winner", "loser", "ends_in"),
    [
        (capture, cancel, PaymentState.SUCCEEDED),
        (cancel, capture, PaymentState.CANCELED),
        (capture, capture, PaymentState.SUCCEEDED),
    ],
)
async def test_a_held_payment_is_captured_or_canceled_never_both(
    crossing: Crossing, winner: Act, loser: Act, ends_in: PaymentState
) -> None:
    payment = await crossing.authorized()
    row = f"payments {payment.id}"
    won, lost = await crossing.meet(row, winner(crossing.first, payment), loser(crossing.second, payment))
    assert won.state is ends_in
    assert lost == ("IDEMPOTENCY_IN_PROGRESS" if winner is loser else "OPERATION_IN_PROGRESS")
    captured = 1000 if ends_in is PaymentState.SUCCEEDED else 0
    truth = truth_of(crossing.first, payment.id)
    assert (truth.received, truth.held) == (captured, 0)
    assert (await crossing.first.payment(payment.id)).captured_minor == captured
    await crossing.check(payment.id)
