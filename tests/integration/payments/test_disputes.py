"""Disputes on real Postgres: whatever Stripe says, in whatever order and however often, the counters are the rows' and every
change is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from servers.audit.invariants import DISPUTES, Check
from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.payments.disputing import Disputing
from servers.payments.domain import (
    Dispute,
    DisputeStateInvalid,
    FeePayer,
    FundsMovement,
    OperationInProgress,
    Payment,
    PaymentDisputed,
    RefundExceedsAvailable,
)
from servers.payments.gateway_stripe import WebhookEvent
from servers.payments.resolvers import resolvers
from servers.payments.usecases import ACCEPT, learn_dispute, learn_warning
from servers.payments.webhooks import EventSource, UnknownObject, Webhooks
from servers.runtime.idempotency import Replayed
from tests.support.disputing import (
    CUSTOMER,
    MERCHANT,
    NOW,
    Desk,
    LostAnswer,
    NeverLeft,
    open_desk,
    shuffled_answers,
    usd,
)
from tests.support.postgres import MakeDatabase, TestPostgres


@pytest.fixture
async def desk(make_database: MakeDatabase) -> AsyncIterator[Desk]:
    """Return a desk at which nothing has happened yet; at the end its books must be right."""
    made = await open_desk(make_database)
    yield made
    assert made.broken() == {}


Counters = tuple[int, int, int, int, int]


def movement(name: str, amount: int, fee: int = 0, *, minutes: int = 0) -> FundsMovement:
    """Return a balance transaction."""
    return FundsMovement(id=name, amount=usd(amount), fee=usd(fee), create_time=NOW + timedelta(minutes=minutes))


def counters(payment: Payment) -> Counters:
    """Return what is refunded, in refunds, disputed, in open chargebacks, and over."""
    return (
        payment.refunded_minor,
        payment.refund_pending_minor,
        payment.disputed_minor,
        payment.open_chargebacks,
        payment.over_exposure_minor,
    )


async def learn(desk: Desk, stripe_id: str) -> Dispute:
    """Read a dispute, as a webhook has us do."""
    found = await learn_dispute(desk.deps, stripe_id)
    assert found is not None
    return found


def states(disputes: list[Dispute]) -> list[tuple[str, str]]:
    """Return stage and state of each."""
    return [(one.stage.name, one.state.name) for one in disputes]


async def test_a_chargeback_takes_from_its_payment_until_it_is_won(desk: Desk) -> None:
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 600, evidence_due_time=NOW + timedelta(days=7))
    dispute = await learn(desk, du)
    assert (dispute.stage.name, dispute.state.name, dispute.version) == ("CHARGEBACK", "NEEDS_RESPONSE", 1)
    assert (dispute.merchant_id, dispute.fee_payer.name, dispute.stage_time) == (MERCHANT, "MERCHANT", NOW)
    assert dispute.evidence_due_time == NOW + timedelta(days=7)
    assert counters(await desk.payment(payment.id)) == (0, 0, 600, 1, 0)
    desk.issuer.move(du, "", movement("txn_1", -600, 1500))
    desk.issuer.move(du, "UNDER_REVIEW", has_evidence=True, submission_count=1)
    dispute = await learn(desk, du)
    assert (dispute.state.name, dispute.submission_count, dispute.fee) == ("UNDER_REVIEW", 1, usd(1500))
    desk.issuer.move(du, "WON", movement("txn_2", 600, minutes=9))
    dispute = await learn(desk, du)
    assert [one.id for one in dispute.movements] == ["txn_1", "txn_2"]
    payment = await desk.payment(payment.id)
    assert counters(payment) == (0, 0, 0, 0, 0)
    assert payment.refundable == usd(1000)
    assert [kind for kind in await desk.told() if kind.startswith("dispute.")] == [
        *("dispute.opened", "dispute.updated", "dispute.funds_withdrawn", "dispute.won", "dispute.funds_reinstated")
    ]


async def test_a_lost_one_is_never_refunded_again(desk: Desk) -> None:
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 600, "LOST", movements=(movement("txn_1", -600, 1500),))
    dispute = await learn(desk, du)
    assert (dispute.state.name, dispute.version) == ("LOST", 3)
    assert counters(await desk.payment(payment.id)) == (0, 0, 600, 0, 0)
    with pytest.raises(RefundExceedsAvailable):
        await desk.refund(payment, 401)
    assert (await desk.refund(payment)).amount == usd(400)
    assert counters(await desk.payment(payment.id)) == (400, 0, 600, 0, 0)


async def test_an_inquiry_takes_nothing_until_it_becomes_a_chargeback(desk: Desk) -> None:
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 700, is_inquiry=True)
    assert (await learn(desk, du)).stage.name == "INQUIRY"
    assert counters(await desk.payment(payment.id)) == (0, 0, 0, 0, 0)
    await desk.refund(payment, 100)
    desk.issuer.move(du, amount=usd(650))
    assert (await learn(desk, du)).amount == usd(650)
    desk.issuer.move(du, amount=usd(900), is_inquiry=False)
    dispute = await learn(desk, du)
    assert (dispute.stage.name, dispute.at_risk) == ("CHARGEBACK", usd(900))
    assert counters(await desk.payment(payment.id)) == (100, 0, 900, 1, 0)
    # What a chargeback takes stays what it took.
    desk.issuer.move(du, amount=usd(950))
    assert (await learn(desk, du)).at_risk == usd(900)


async def test_an_inquiry_that_closes_has_moved_no_money(desk: Desk) -> None:
    payment = await desk.paid()
    du = desk.issuer.dispute("a", payment, 1000, is_inquiry=True)
    await learn(desk, du)
    desk.issuer.move(du, "UNDER_REVIEW")
    desk.issuer.move(du, "CLOSED")
    assert states([await learn(desk, du)]) == [("INQUIRY", "CLOSED")]
    assert (await desk.payment(payment.id)).refundable == usd(1000)


async def test_what_was_won_may_come_back_once(desk: Desk) -> None:
    payment = await desk.paid()
    du = desk.issuer.dispute("a", payment, 1000, "WON")
    await learn(desk, du)
    desk.issuer.move(du, "NEEDS_RESPONSE")
    assert states([await learn(desk, du)]) == [("PRE_ARBITRATION", "NEEDS_RESPONSE")]
    assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 1, 0)
    desk.issuer.move(du, "WON")
    await learn(desk, du)
    desk.issuer.move(du, "NEEDS_RESPONSE")
    with pytest.raises(DisputeStateInvalid, match="no way leads there"):
        await learn(desk, du)
    assert counters(await desk.payment(payment.id)) == (0, 0, 0, 0, 0)


async def test_a_dispute_is_recorded_even_where_it_is_larger_than_the_payment(desk: Desk) -> None:
    payment = await desk.paid(1000)
    await desk.refund(payment)
    await learn(desk, desk.issuer.dispute("a", payment, 1000))
    assert counters(await desk.payment(payment.id)) == (1000, 0, 1000, 1, 1000)
    await learn(desk, desk.issuer.dispute("b", payment, 300))
    assert counters(await desk.payment(payment.id)) == (1000, 0, 1300, 2, 1300)
    desk.issuer.move("du_a", "WON")
    await learn(desk, "du_a")
    assert counters(await desk.payment(payment.id)) == (1000, 0, 300, 1, 300)


async def test_a_dispute_in_another_currency_may_cost_all_that_was_captured(desk: Desk) -> None:
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 1)
    desk.issuer.move(du, amount=replace(usd(90_000), currency="JPY"))
    dispute = await learn(desk, du)
    assert (dispute.amount.currency, dispute.at_risk) == ("JPY", usd(1000))


async def test_the_users_own_money_is_disputed_with_a_top_up(desk: Desk) -> None:
    payment = await desk.paid(1000, top_up=True)
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    assert (dispute.merchant_id, dispute.owner_id, dispute.top_up_id) == ("", CUSTOMER, payment.top_up_id)
    assert dispute.fee_payer.name == "PLATFORM"
    with pytest.raises(ResourceNotFound):
        await desk.accept(dispute)


async def test_news_of_what_we_do_not_have_waits(desk: Desk) -> None:
    payment = await desk.paid()
    du = desk.issuer.dispute("a", replace(payment, stripe_payment_intent_id="pi_nobody"), 1000)
    assert await learn_dispute(desk.deps, du) is None
    assert await learn_dispute(desk.deps, "du_never") is None
    assert not await learn_warning(desk.deps, "issfr_never")
    # Stripe may name the charge only.
    charge = payment.latest_attempt.charge_id if payment.latest_attempt is not None else ""
    desk.issuer.move(du, payment_intent_id="", charge_id=charge)
    assert (await learn(desk, du)).payment_id == payment.id


async def test_who_bears_the_fee_is_written_down_with_the_dispute(desk: Desk) -> None:
    disputing = Disputing(desk.deps.events, desk.deps.clock, FeePayer.PLATFORM)
    du = desk.issuer.dispute("a", await desk.paid(), 1000)
    dispute = await learn_dispute(replace(desk.deps, disputing=disputing), du)
    assert dispute is not None
    desk.issuer.move(du, "LOST")
    assert (await learn(desk, du)).fee_payer is FeePayer.PLATFORM


def told(event_id: str, kind: str, object_id: str) -> WebhookEvent:
    """Return an event about a dispute or a warning."""
    return WebhookEvent(
        id=event_id,
        type=kind,
        object_id=object_id,
        payment_intent_id="",
        metadata={},
        created=NOW,
        received=None,
    )


async def test_an_event_is_stored_once_and_waits_for_what_it_is_about(desk: Desk) -> None:
    webhooks, payment = Webhooks(desk.deps), await desk.paid()
    du, warning = desk.issuer.dispute("a", payment, 1000), desk.issuer.warn("w", payment)
    found = {du: desk.issuer.disputes.pop(du), warning: desk.issuer.warnings.pop(warning)}
    kinds = {"evt_1": ("charge.dispute.created", du), "evt_2": ("radar.early_fraud_warning.created", warning)}
    for event_id, (kind, object_id) in kinds.items():
        for _ in range(2):
            await webhooks.receive(told(event_id, kind, object_id), b"{}", EventSource.WEBHOOK)
        with pytest.raises(UnknownObject):
            await webhooks.apply(event_id=event_id)
    desk.issuer.disputes[du], desk.issuer.warnings[warning] = found[du], found[warning]  # type: ignore[assignment]  # as they were
    for event_id in (*kinds, *kinds):
        await webhooks.apply(event_id=event_id)
    assert states(await desk.disputes()) == [("CHARGEBACK", "NEEDS_RESPONSE"), ("INQUIRY", "EARLY_WARNING")]
    async with desk.deps.db.read() as conn:
        rows = (await conn.execute(text("SELECT state, tries FROM stripe_events ORDER BY id"))).all()
    assert [tuple(row) for row in rows] == [("APPLIED", 2), ("APPLIED", 2)]


async def test_news_that_no_way_leads_to_is_kept_for_a_person(desk: Desk) -> None:
    webhooks = Webhooks(desk.deps)
    du = desk.issuer.dispute("a", await desk.paid(), 1000, "LOST")
    await learn(desk, du)
    desk.issuer.move(du, "WON")
    await webhooks.receive(told("evt_1", "charge.dispute.closed", du), b"{}", EventSource.WEBHOOK)
    with pytest.raises(DisputeStateInvalid) as refused:
        await webhooks.apply(event_id="evt_1")
    await webhooks.bury(event_id="evt_1", error=str(refused.value))
    async with desk.deps.db.read() as conn:
        row = (await conn.execute(text("SELECT state, error FROM stripe_events"))).one()
    assert row.state == "DEAD"
    assert "no way leads there" in row.error


# Warnings


async def test_a_full_refund_in_time_prevents_what_was_warned_of(desk: Desk) -> None:
    payment = await desk.paid()
    warning = desk.issuer.warn("w", payment)
    for _ in range(3):
        assert await learn_warning(desk.deps, warning)
    assert states(await desk.disputes()) == [("INQUIRY", "EARLY_WARNING")]
    await desk.refund(payment, 400)
    assert states(await desk.disputes()) == [("INQUIRY", "EARLY_WARNING")]
    await desk.refund(payment)
    assert states(await desk.disputes()) == [("INQUIRY", "PREVENTED")]
    assert (await desk.told()).count("dispute.closed") == 1


async def test_a_warning_after_the_refund_is_prevented_at_once(desk: Desk) -> None:
    payment = await desk.paid()
    await desk.refund(payment)
    assert await learn_warning(desk.deps, desk.issuer.warn("w", payment))
    assert states(await desk.disputes()) == [("INQUIRY", "PREVENTED")]


async def test_a_warning_becomes_the_dispute_that_it_warned_of(desk: Desk) -> None:
    payment = await desk.paid()
    await learn_warning(desk.deps, desk.issuer.warn("w", payment))
    du = desk.issuer.dispute("a", payment, 800)
    dispute = await learn(desk, du)
    assert (dispute.version, dispute.stripe_warning_id, dispute.amount) == (2, "issfr_w", usd(800))
    await learn_warning(desk.deps, "issfr_w")
    assert states(await desk.disputes()) == [("CHARGEBACK", "NEEDS_RESPONSE")]
    assert counters(await desk.payment(payment.id)) == (0, 0, 800, 1, 0)


async def test_a_warning_of_what_is_not_captured_yet_takes_nothing(desk: Desk) -> None:
    payment = await desk.paid(captured=False)
    await learn_warning(desk.deps, desk.issuer.warn("w", payment))
    assert states(await desk.disputes()) == [("INQUIRY", "EARLY_WARNING")]
    assert counters(await desk.payment(payment.id)) == (0, 0, 0, 0, 0)


async def test_what_was_prevented_by_giving_the_money_back_is_as_good_as_refunded(desk: Desk) -> None:
    payment = await desk.paid()
    du = desk.issuer.dispute("a", payment, 800, "PREVENTED", is_inquiry=True)
    assert states([await learn(desk, du)]) == [("INQUIRY", "PREVENTED")]
    desk.issuer.move(du, "", movement("txn_1", -800), is_inquiry=False)
    dispute = await learn(desk, du)
    assert states([dispute]) == [("CHARGEBACK", "PREVENTED")]
    assert counters(await desk.payment(payment.id)) == (0, 0, 800, 0, 0)
    with pytest.raises(RefundExceedsAvailable):
        await desk.refund(payment, 201)
    assert await learn(desk, du) == dispute


# Orders and repeats

STORY = (
    lambda desk, du: None,
    lambda desk, du: desk.issuer.move(du, "", movement("txn_1", -700, 1500), is_inquiry=False),
    lambda desk, du: desk.issuer.move(du, "UNDER_REVIEW", has_evidence=True, submission_count=1),
    lambda desk, du: desk.issuer.move(du, "WON", movement("txn_2", 700, minutes=2)),
    lambda desk, du: desk.issuer.move(du, "NEEDS_RESPONSE", movement("txn_3", -700, 1500, minutes=4)),
    lambda desk, du: desk.issuer.move(du, "LOST"),
)


@pytest.mark.parametrize("seed", range(1, 9))
async def test_reads_that_overtake_each_other_come_to_one_state(desk: Desk, seed: int) -> None:
    """Each chapter of the story is read three times at once while the next ones happen; answers arrive in any order."""
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 700, is_inquiry=True)
    desk.issuer.holds_answers = shuffled_answers(seed)
    reading: list[asyncio.Task[Dispute | None]] = []
    for number, chapter in enumerate(STORY):
        chapter(desk, du)
        reading += [asyncio.create_task(learn_dispute(desk.deps, du)) for _ in range(3)]
        await asyncio.sleep((seed * (number + 3)) % 5 / 1000)
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    # A read that was overtaken more often than anybody waits for is tried again by its job.
    assert all(isinstance(one, Dispute) or "changed at the same time" in str(one) for one in outcomes), outcomes
    dispute = await learn(desk, du)
    assert dispute.state.name == "LOST"
    assert [one.id for one in dispute.movements] == ["txn_1", "txn_2", "txn_3"]
    assert counters(await desk.payment(payment.id)) == (0, 0, 700, 0, 0)
    assert len(await desk.disputes()) == 1


@pytest.mark.parametrize("skipped", range(1, len(STORY)))
async def test_missed_chapters_are_made_up_for(desk: Desk, skipped: int) -> None:
    """Only the end of the story is heard, and one chapter before."""
    payment = await desk.paid(1000)
    du = desk.issuer.dispute("a", payment, 700, is_inquiry=True)
    for number, chapter in enumerate(STORY):
        chapter(desk, du)
        if number == skipped:
            await learn(desk, du)
    dispute = await learn(desk, du)
    assert dispute.state.name == "LOST"
    assert {one.id for one in dispute.movements} == {"txn_1", "txn_2", "txn_3"}
    assert counters(await desk.payment(payment.id)) == (0, 0, 700, 0, 0)


async def test_a_warning_and_its_dispute_may_come_in_any_order_and_twice(desk: Desk) -> None:
    for number in range(6):
        payment = await desk.paid(1000)
        warning = desk.issuer.warn(f"w{number}", payment)
        du = desk.issuer.dispute(f"d{number}", payment, 1000)
        desk.issuer.holds_answers = shuffled_answers(number)
        both = [learn_warning(desk.deps, warning), learn_dispute(desk.deps, du)]
        await asyncio.gather(*(both[::-1] if number % 2 else both), learn_dispute(desk.deps, du))
        await learn_warning(desk.deps, warning)
        assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 1, 0)


# Refunds


async def test_a_refund_of_an_open_chargeback_is_refused(desk: Desk) -> None:
    payment = await desk.paid()
    await learn(desk, desk.issuer.dispute("a", payment, 10))
    for amount in (1, None):
        with pytest.raises(PaymentDisputed):
            await desk.refund(payment, amount)
    assert (await desk.payment(payment.id)).refundable == usd(0)
    assert desk.issuer.refunds == {}


async def test_a_dispute_that_opens_while_a_refund_is_on_its_way_fails_it(desk: Desk) -> None:
    payment = await desk.paid()
    du = desk.issuer.dispute("a", payment, 1000)
    seen: list[Counters] = []

    async def meanwhile() -> None:
        await learn(desk, du)
        seen.append(counters(await desk.payment(payment.id)))

    desk.issuer.before_refund = meanwhile
    refund = await desk.refund(payment, 400)
    assert seen == [(0, 400, 1000, 1, 400)]
    assert (refund.state.name, refund.failure_reason) == ("FAILED", "charge_disputed")
    assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 1, 0)


async def test_a_refund_that_stripe_made_before_the_dispute_stands_beside_it(desk: Desk) -> None:
    payment = await desk.paid()
    assert (await desk.refund(payment, 400)).state.name == "SUCCEEDED"
    await learn(desk, desk.issuer.dispute("a", payment, 1000))
    assert counters(await desk.payment(payment.id)) == (400, 0, 1000, 1, 400)


async def test_a_refund_after_a_won_dispute_goes_through(desk: Desk) -> None:
    payment = await desk.paid()
    await learn(desk, desk.issuer.dispute("a", payment, 1000, "WON"))
    assert (await desk.refund(payment)).state.name == "SUCCEEDED"
    assert counters(await desk.payment(payment.id)) == (1000, 0, 0, 0, 0)


async def test_refunds_and_a_dispute_at_once_never_both_begin_from_the_same_money(desk: Desk) -> None:
    for number in range(12):
        payment = await desk.paid()
        du = desk.issuer.dispute(f"r{number}", payment, 1000)
        calls = [desk.refund(payment, 600), learn_dispute(desk.deps, du), desk.refund(payment, 600)]
        outcomes = await asyncio.gather(*(calls if number % 2 else calls[::-1]), return_exceptions=True)
        # Whoever came first to the payment's row: a refund that began is refused by Stripe, whose charge is disputed.
        assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 1, 0)
        refused = {type(one) for one in outcomes if isinstance(one, Exception)}
        assert refused <= {PaymentDisputed, RefundExceedsAvailable}


# Accepting


async def test_an_accepted_dispute_is_lost(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    accepted = await desk.accept(dispute, key="k")
    assert (accepted.state.name, accepted.accepting, accepted.version) == ("LOST", False, 4)
    assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 0, 0)
    with pytest.raises(Replayed):
        await desk.accept(dispute, key="k")
    with pytest.raises(DisputeStateInvalid, match="LOST"):
        await desk.accept(dispute)
    assert len(desk.issuer.closed_with) == 1


async def test_who_asks_to_accept_what_cannot_be_is_told_why(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000, is_inquiry=True))
    with pytest.raises(DisputeStateInvalid, match="refund its payment instead") as refused:
        await desk.accept(dispute)
    assert refused.value.metadata == {"dispute_id": dispute.id, "state": "NEEDS_RESPONSE", "stage": "INQUIRY"}
    with pytest.raises(ResourceNotFound):
        await desk.accept(dispute, merchant_id="mer_other")
    assert desk.issuer.closed_with == []


async def test_a_lost_answer_is_found_by_reading(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    desk.issuer.fails = [LostAnswer()]
    unsure = await desk.accept(dispute)
    assert (unsure.state.name, unsure.accepting) == ("NEEDS_RESPONSE", True)
    with pytest.raises(OperationInProgress):
        await desk.accept(dispute)
    await look(desk, dispute)
    (known,) = await desk.disputes()
    assert (known.state.name, known.accepting) == ("LOST", False)
    assert len(desk.issuer.closed_with) == 1


async def look(desk: Desk, dispute: Dispute) -> None:
    """Look into an acceptance, as the janitor does."""
    async with desk.deps.db.uow() as uow:
        call = await uow.outbound.open_for(dispute.id)
    assert call is not None
    await resolvers(desk.deps)[ACCEPT].look(call)


async def test_what_never_arrived_is_sent_again_under_its_own_key(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    stripe_close, lost = desk.issuer.close_dispute, 0

    async def swallow(stripe_dispute_id: str, *, key: str) -> object:
        nonlocal lost
        lost += 1
        desk.issuer.close_dispute = stripe_close  # type: ignore[method-assign]  # only the first one is lost
        raise LostAnswer

    desk.issuer.close_dispute = swallow  # type: ignore[method-assign, assignment]  # as above
    await desk.accept(dispute)
    await look(desk, dispute)
    assert (await desk.disputes())[0].state.name == "LOST"
    assert (lost, len(desk.issuer.closed_with)) == (1, 1)


async def test_what_was_provably_not_sent_may_be_asked_again(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    desk.issuer.fails = [NeverLeft()]
    with pytest.raises(ProviderUnavailable):
        await desk.accept(dispute)
    (known,) = await desk.disputes()
    assert (known.state.name, known.accepting, known.available_actions) == ("NEEDS_RESPONSE", False, ("accept",))
    assert (await desk.accept(dispute)).state.name == "LOST"


async def test_what_stripe_refuses_is_refused_and_what_it_says_is_applied(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    desk.issuer.move("du_a", "UNDER_REVIEW")
    with pytest.raises(DisputeStateInvalid) as refused:
        await desk.accept(dispute)
    assert refused.value.metadata["code"] == "dispute_already_closed"
    assert states(await desk.disputes()) == [("CHARGEBACK", "UNDER_REVIEW")]


async def test_an_acceptance_and_the_webhook_of_its_loss_come_to_one_end(desk: Desk) -> None:
    for number in range(6):
        payment = await desk.paid()
        du = desk.issuer.dispute(f"b{number}", payment, 1000)
        dispute = await learn(desk, du)
        desk.issuer.holds_answers = shuffled_answers(number)
        accepted, *_ = await asyncio.gather(
            desk.accept(dispute), learn_dispute(desk.deps, du), learn_dispute(desk.deps, du)
        )
        desk.issuer.holds_answers = None
        assert accepted.state.name == "LOST"
        assert counters(await desk.payment(payment.id)) == (0, 0, 1000, 0, 0)
    assert len(desk.issuer.closed_with) == 6


async def test_two_who_accept_at_once_are_one(desk: Desk) -> None:
    payment = await desk.paid()
    dispute = await learn(desk, desk.issuer.dispute("a", payment, 1000))
    asked: list[asyncio.Task[Dispute]] = []

    async def until_the_others_are_answered() -> None:
        async with asyncio.timeout(20):
            while sum(task.done() for task in asked) < 3:
                await asyncio.sleep(0.001)

    desk.issuer.holds_answers = until_the_others_are_answered
    asked += [asyncio.create_task(desk.accept(dispute)) for _ in range(4)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    won = [one for one in outcomes if isinstance(one, Dispute)]
    refused = [type(one) for one in outcomes if not isinstance(one, Dispute)]
    assert (len(won), set(refused)) == (1, {OperationInProgress})
    assert len(desk.issuer.closed_with) == 1


# What the database itself refuses, and what the audit finds


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE disputes SET state = 'WON'", "cannot go from NEEDS_RESPONSE to WON"),
        ("UPDATE disputes SET stage = 'INQUIRY', accepting = true", "disputes_accepting"),
        ("UPDATE disputes SET at_risk_minor = 0", "at_risk_minor"),
        ("UPDATE disputes SET stripe_dispute_id = ''", "disputes_origin"),
        ("UPDATE dispute_movements SET amount_minor = 1", "permission denied"),
        ("UPDATE payments SET disputed_minor = -1", "disputed_minor"),
        ("UPDATE payments SET disputed_minor = 0", "payments_chargebacks"),
        ("UPDATE payments SET over_exposure_minor = 0", "over_exposure_minor"),
    ],
)
async def test_the_database_refuses_what_cannot_be(desk: Desk, statement: str, why: str) -> None:
    await learn(desk, desk.issuer.dispute("a", await desk.paid(), 1000, movements=(movement("txn_1", -1000),)))
    async with desk.deps.db.engine.connect() as conn:
        with pytest.raises(DBAPIError, match=why):
            await conn.execute(text(statement))


SABOTAGE = {
    "what is disputed is": "UPDATE payments SET disputed_minor = disputed_minor + 1",
    "no dispute is being accepted": "UPDATE disputes SET accepting = true",
    "every version of every dispute": "UPDATE disputes SET version = version + 1",
}


@pytest.mark.parametrize("check", DISPUTES, ids=lambda check: check.title)
async def test_each_check_of_the_audit_finds_what_was_changed_by_hand(
    make_database: MakeDatabase, postgres: TestPostgres, check: Check
) -> None:
    desk = await open_desk(make_database)
    await learn(desk, desk.issuer.dispute("a", await desk.paid(), 1000))
    assert desk.broken() == {}
    statement = next(sql for title, sql in SABOTAGE.items() if check.title.startswith(title))
    postgres.execute(statement, str(desk.deps.db.engine.url.database))
    assert desk.broken(check)
