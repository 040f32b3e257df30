"""Top-ups on real Postgres, with payments at the port: whatever is lost, repeated or late, the money is in the wallet once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from paymesh.wallets.v1 import wallets_events_pb2, wallets_pb2
from sqlalchemy import text

from servers.kernel.errors import (
    ConcurrentUpdate,
    FieldInvalid,
    Kind,
    ProviderUnavailable,
    ReferenceTaken,
    Refusal,
    ResourceNotFound,
)
from servers.kernel.ids import new_id
from servers.kernel.invariant import InvariantBroken
from servers.runtime.channels import PeerUnavailable
from servers.runtime.idempotency import IdempotencyInProgress, Replayed
from servers.runtime.janitor import Janitor
from servers.wallets import outcomes, wallet_store
from servers.wallets.domain import AccountKind
from servers.wallets.render_wallets import render_top_up
from servers.wallets.resolvers import resolvers
from servers.wallets.resources import TopUp, TopUpState
from servers.wallets.usecases import create_wallet, drive_top_up, refresh_top_up, top_ups
from servers.wallets.writer import LedgerOverloaded
from tests.support.charging import CLOCK, P, Till, lost_answer, told_on, wallet_ticket

S = TopUpState


async def balance(till: Till) -> int:
    """Return what is in the wallet."""
    return (await till.ledger.account(till.wallet.owner_id, AccountKind.CUSTOMER_WALLET)).balance


async def only(till: Till) -> TopUp:
    """Return the one top-up that there is."""
    async with till.db.read() as conn:
        found = await wallet_store.top_ups(conn, till.db.sealer, till.wallet, before="~", limit=9)
    assert len(found) == 1
    return found[0]


async def told(till: Till) -> list[str]:
    """Return the types of what was told, in order; every version is told once."""
    async with till.db.read() as conn:
        rows = (await conn.execute(text("SELECT type, subject, version FROM outbox ORDER BY position"))).all()
    mine = [row for row in rows if row.type.startswith("top_up.")]
    versions: dict[str, list[int]] = {}
    for row in mine:
        versions.setdefault(row.subject, []).append(row.version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    return [row.type for row in mine]


async def calls(till: Till) -> list[str]:
    """Return the states of the records of calls."""
    async with till.db.read() as conn:
        return list((await conn.execute(text("SELECT state FROM outbound_calls ORDER BY create_time"))).scalars())


async def test_the_money_is_there_when_it_is_said(till: Till) -> None:
    top_up = await till.top_up("k")
    assert (top_up.state, top_up.uncertain, top_up.version) == (S.SUCCEEDED, False, 2)
    assert await balance(till) == 500
    assert await told(till) == ["top_up.created", "top_up.succeeded"]
    assert await calls(till) == ["DONE"]
    with pytest.raises(Replayed) as replayed:
        await till.top_up("k")
    assert wallets_pb2.TopUp.FromString(replayed.value.answer).id == top_up.id
    assert len(till.payments.calls) == 1


async def test_of_64_duplicates_one_charges(till: Till) -> None:
    results = await asyncio.gather(*(till.top_up("k") for _ in range(64)), return_exceptions=True)
    assert sum(isinstance(result, TopUp) for result in results) == 1
    assert all(isinstance(result, TopUp | IdempotencyInProgress | Replayed) for result in results)
    assert await balance(till) == 500
    assert len(till.payments.payments) == 1


async def test_a_decline_is_an_answer(till: Till) -> None:
    till.payments.state = P.PROCESSING
    assert (await till.top_up("k")).state is S.PENDING
    top_up = await only(till)
    till.payments.move(top_up.id, P.CANCELED, decline="insufficient_funds")
    await till.hear(till.payments.event(top_up.id, "payment.canceled"))
    failed = await only(till)
    assert (failed.state, failed.failure_reason) == (S.FAILED, "declined")
    assert failed.decline is not None
    assert failed.decline.code == "insufficient_funds"
    assert await told(till) == ["top_up.created", "top_up.updated", "top_up.failed"]
    assert await balance(till) == 0
    assert await calls(till) == ["DONE"]


async def test_a_cardholder_authenticates_and_events_tell_no_secret(till: Till) -> None:
    till.payments.state = P.REQUIRES_ACTION
    waiting = await till.top_up("k")
    assert waiting.next_action is not None
    assert waiting.next_action.stripe_client_secret == "pi_1_secret_2"
    # The event of the same version comes later, without the secret: what is known is kept.
    await till.hear(till.payments.event(waiting.id, "payment.requires_action"))
    assert (await only(till)).next_action == waiting.next_action
    till.payments.move(waiting.id, P.PROCESSING)
    stale = till.payments.event(waiting.id, "payment.processing")
    await till.hear(stale)
    assert (await only(till)).state is S.PENDING
    till.payments.move(waiting.id, P.SUCCEEDED)
    paid = till.payments.event(waiting.id, "payment.succeeded")
    for event in (paid, stale, paid):
        await till.hear(event)
    assert (await only(till)).state is S.SUCCEEDED
    assert await balance(till) == 500
    kinds = ["top_up.created", "top_up.requires_action", "top_up.updated", "top_up.succeeded"]
    assert await told(till) == kinds
    async with till.db.read() as conn:
        stored = [bytes(row) for row in (await conn.execute(text("SELECT data FROM outbox"))).scalars()]
        stored += [bytes(row) for row in (await conn.execute(text("SELECT answer FROM idempotency_keys"))).scalars()]
    assert not any(b"pi_1_secret_2" in row for row in stored)
    with pytest.raises(Replayed) as replayed:
        await till.top_up("k")
    answer = wallets_pb2.TopUp.FromString(replayed.value.answer)
    assert answer.next_action.stripe_client_secret == "pi_1_secret_2"


async def test_an_event_may_come_first_and_an_old_answer_is_no_news(till: Till) -> None:
    till.payments.state = P.REQUIRES_ACTION
    waiting = await till.top_up("k")
    old = till.payments.payments[waiting.id]
    before = P()
    before.CopyFrom(old)
    till.payments.move(waiting.id, P.PROCESSING)
    await till.hear(till.payments.event(waiting.id, "payment.processing"))
    # An answer that was on its way meanwhile tells of the version before.
    till.payments.payments[waiting.id] = before
    assert (await drive_top_up(till.deps, waiting.owner_id, waiting.id)).state is S.PENDING


async def test_a_lost_answer_stays_pending_and_is_resolved_by_the_janitor(till: Till) -> None:
    till.payments.loses = lost_answer()
    unknown = await till.top_up("k")
    assert (unknown.state, unknown.uncertain) == (S.PENDING, True)
    assert (await balance(till), await calls(till)) == (0, ["UNKNOWN"])
    with pytest.raises(Replayed):
        await till.top_up("k")
    till.payments.loses = None
    await due(till)
    assert await Janitor(till.db, resolvers(till.deps)).round() == 1
    assert (await only(till)).state is S.SUCCEEDED
    assert (await balance(till), await calls(till)) == (500, ["DONE"])
    assert till.payments.calls[-1][1] is True


async def due(till: Till) -> None:
    """Let every open call be looked into now."""
    async with till.db.uow() as uow:
        await uow.conn.execute(
            text("UPDATE outbound_calls SET next_poll_time = '2020-01-01' WHERE next_poll_time IS NOT NULL")
        )


async def test_what_was_never_sent_is_ended_by_the_janitor(till: Till) -> None:
    till.payments.refuses = told_on(ProviderUnavailable())
    with pytest.raises(ProviderUnavailable):
        await till.top_up("k")
    top_up = await only(till)
    assert (top_up.state, top_up.uncertain) == (S.PENDING, False)
    till.payments.refuses = None
    await due(till)
    await Janitor(till.db, resolvers(till.deps)).round()
    failed = await only(till)
    assert (failed.state, failed.failure_reason) == (S.FAILED, "canceled")
    # The same key is told so; it charges nothing any more.
    await release(till)
    assert (await till.top_up("k")).state is S.FAILED
    assert await balance(till) == 0


async def test_the_same_key_sends_again_what_was_not_sent(till: Till) -> None:
    till.payments.refuses = told_on(ProviderUnavailable())
    with pytest.raises(ProviderUnavailable):
        await till.top_up("k")
    await release(till)
    till.payments.refuses = None
    assert (await till.top_up("k")).state is S.SUCCEEDED
    assert await balance(till) == 500
    await only(till)


async def release(till: Till) -> None:
    """Give keys back, as the interceptor does after a failure that trying again may cure, or a dead process by dying."""
    async with till.db.uow() as uow:
        await uow.conn.execute(
            text("UPDATE idempotency_keys SET lease_until = clock_timestamp() - interval '1 second'")
        )


@pytest.mark.parametrize(
    "refusal", [ResourceNotFound("pm_x"), FieldInvalid.of("return_url", "must be an https address")]
)
async def test_what_payments_refuses_is_told_on_and_stored(till: Till, refusal: Refusal) -> None:
    till.payments.refuses = told_on(refusal)
    with pytest.raises(Refusal) as refused:
        await till.top_up("k")
    assert (refused.value.reason, refused.value.metadata) == (refusal.reason, refusal.metadata)
    assert refused.value.violations == refusal.violations
    failed = await only(till)
    assert (failed.state, failed.failure_reason) == (S.FAILED, "not_sent")
    with pytest.raises(Replayed) as replayed:
        await till.top_up("k")
    assert replayed.value.refused
    assert await calls(till) == ["DONE"]


@pytest.mark.parametrize(
    "error",
    [
        lost_answer(grpc.StatusCode.UNAVAILABLE),
        lost_answer(grpc.StatusCode.INTERNAL),
        told_on(PeerUnavailable("stripe")),
        told_on(ConcurrentUpdate("pay_1")),
    ],
)
async def test_whatever_may_have_charged_leaves_it_open(till: Till, error: Exception) -> None:
    till.payments.refuses = error
    top_up = await till.top_up("k")
    assert (top_up.state, top_up.uncertain) == (S.PENDING, True)


async def test_too_many_declines_are_no_outcome(till: Till) -> None:
    till.payments.refuses = told_on(LedgerOverloaded())  # of the same kind: not now
    with pytest.raises(Refusal) as refused:
        await till.top_up("k")
    assert (refused.value.kind, refused.value.retry_after_seconds) == (Kind.EXHAUSTED, 0.5)
    await release(till)
    till.payments.refuses = None
    assert (await till.top_up("k")).state is S.SUCCEEDED


async def test_a_read_asks_payments_after_a_minute_and_not_more_often(till: Till) -> None:
    till.payments.state = P.PROCESSING
    top_up = await till.top_up("k")
    assert (await refresh_top_up(till.deps, top_up)).state is S.PENDING
    assert len(till.payments.calls) == 1
    async with till.db.uow() as uow:
        await uow.conn.execute(text("UPDATE outbound_calls SET change_time = '2020-01-01'"))
    till.payments.move(top_up.id, P.SUCCEEDED)
    assert (await refresh_top_up(till.deps, top_up)).state is S.SUCCEEDED
    assert await balance(till) == 500
    assert till.payments.calls[-1] == (top_up.id, True)


class Died(BaseException):
    """The process ends here."""


CRASHES = ["after_intent", "after_charge", "after_post", "after_outcome"]


def dying_at(monkeypatch: pytest.MonkeyPatch, point: str) -> Callable[[], None]:
    """Have a declared point raise instead of killing; the answer undoes it."""

    def pass_by(name: str) -> None:
        if name == f"wallets.top_up.{point}":
            raise Died

    for module in (top_ups, outcomes):
        monkeypatch.setattr(module, "crash_point", pass_by)
    return monkeypatch.undo


@pytest.mark.parametrize("resolve", ["same_key", "janitor", "event"])
@pytest.mark.parametrize("point", CRASHES)
async def test_a_crash_charges_and_books_once(
    till: Till, monkeypatch: pytest.MonkeyPatch, point: str, resolve: str
) -> None:
    live = dying_at(monkeypatch, point)
    with pytest.raises(Died):
        await till.top_up("k")
    live()
    await release(till)
    charged = point != "after_intent"
    if resolve == "janitor":
        await due(till)
        await Janitor(till.db, resolvers(till.deps)).round()
    elif resolve == "event" and charged:
        top_up = await only(till)
        await till.hear(till.payments.event(top_up.id, "payment.succeeded"))
    answer = await answer_of(lambda: till.top_up("k"))
    succeeded = charged or resolve != "janitor"
    assert answer.state == (wallets_pb2.TopUp.SUCCEEDED if succeeded else wallets_pb2.TopUp.FAILED)
    assert await balance(till) == (500 if succeeded else 0)
    await only(till)
    await told(till)
    assert await calls(till) == ["DONE"]


async def test_a_card_that_was_charged_before_a_crash_is_never_told_as_not_charged(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = dying_at(monkeypatch, "after_charge")
    with pytest.raises(Died):
        await till.top_up("k")
    live()
    await release(till)
    till.payments.refuses = told_on(ProviderUnavailable())
    unknown = await till.top_up("k")
    assert (unknown.state, unknown.uncertain) == (S.PENDING, True)
    till.payments.refuses = None
    await due(till)
    await Janitor(till.db, resolvers(till.deps)).round()
    assert ((await only(till)).state, await balance(till)) == (S.SUCCEEDED, 500)


async def answer_of(call: Callable[[], Awaitable[TopUp]]) -> wallets_pb2.TopUp:
    """Return what the caller is told, now or again."""
    try:
        return render_top_up(await call())
    except Replayed as replayed:
        return wallets_pb2.TopUp.FromString(replayed.answer)


async def test_the_answer_and_the_event_at_once_book_once(till: Till) -> None:
    for number in range(10):
        till.payments.state = P.REQUIRES_ACTION
        waiting = await till.top_up(f"k{number}")
        till.payments.move(waiting.id, P.SUCCEEDED)
        event = till.payments.event(waiting.id, "payment.succeeded")
        await asyncio.gather(drive_top_up(till.deps, waiting.owner_id, waiting.id), till.hear(event), till.hear(event))
    assert await balance(till) == 5000
    await told(till)


async def test_a_failed_top_up_that_is_charged_all_the_same_alarms(till: Till) -> None:
    till.payments.state = P.CANCELED
    failed = await till.top_up("k")
    till.payments.move(failed.id, P.SUCCEEDED)
    with pytest.raises(InvariantBroken):
        await till.hear(till.payments.event(failed.id, "payment.succeeded"))
    # The customer's money is in the customer's wallet, whatever a person decides.
    assert await balance(till) == 500


async def test_another_amount_than_asked_for_alarms(till: Till) -> None:
    till.payments.state = P.PROCESSING
    top_up = await till.top_up("k")
    till.payments.payments[top_up.id].amount.amount_minor = 501
    till.payments.move(top_up.id, P.SUCCEEDED)
    with pytest.raises(InvariantBroken):
        await till.hear(till.payments.event(top_up.id, "payment.succeeded"))
    assert (await only(till)).state is S.PENDING


async def test_sales_by_wallet_are_not_booked_from_their_events(till: Till) -> None:
    till.payments.state = P.PROCESSING
    top_up = await till.top_up("k")
    till.payments.move(top_up.id, P.SUCCEEDED)
    sale = till.payments.payments[top_up.id]
    sale.purpose, sale.merchant_id = P.SALE, new_id("mer", clock=CLOCK)
    sale.latest_attempt.wallet_id = till.wallet.id
    await till.hear(till.payments.event(top_up.id, "payment.succeeded"))
    async with till.db.read() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM transfers")) == 0


async def test_another_users_wallet_and_another_currency_are_refused(till: Till) -> None:
    with pytest.raises(ResourceNotFound):
        await till.top_up("a", owner_id=new_id("usr", clock=CLOCK))
    with pytest.raises(FieldInvalid):
        await till.top_up("b", currency="EUR")
    assert not till.payments.calls
    assert await told(till) == []


async def test_a_user_has_one_wallet_for_each_currency(till: Till) -> None:
    owner = till.wallet.owner_id
    with pytest.raises(ReferenceTaken) as taken:
        await create_wallet(till.deps, wallet_ticket("again"), owner_id=owner, currency="USD")
    assert taken.value.metadata == {"field": "currency"}
    with pytest.raises(FieldInvalid):
        await create_wallet(till.deps, wallet_ticket(), owner_id=owner, currency="ZZZ")
    racing = await asyncio.gather(
        *(create_wallet(till.deps, wallet_ticket(), owner_id=owner, currency="EUR") for _ in range(16)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, ReferenceTaken) for result in racing) == 15
    async with till.db.read() as conn:
        found = await wallet_store.wallets(conn, owner, before=None, limit=9)
        held = await wallet_store.holdings(conn, owner, found)
        events = [
            wallets_events_pb2.WalletEvent.FromString(bytes(row))
            for row in (await conn.execute(text("SELECT data FROM outbox WHERE type = 'wallet.created'"))).scalars()
        ]
    assert [wallet.currency for wallet in found] == ["EUR", "USD"]
    assert [held[wallet.id].account.balance for wallet in found] == [0, 0]
    assert {event.wallet.id for event in events} == {wallet.id for wallet in found}
    assert not any(event.wallet.HasField("balance") for event in events)


async def test_open_top_ups_are_pending_money(till: Till) -> None:
    till.payments.state = P.PROCESSING
    await till.top_up("a", 300)
    till.payments.state = P.REQUIRES_ACTION
    await till.top_up("b", 40)
    till.payments.state = P.SUCCEEDED
    await till.top_up("c", 5)
    async with till.db.read() as conn:
        held = (await wallet_store.holdings(conn, till.wallet.owner_id, [till.wallet]))[till.wallet.id]
    assert (held.pending_minor, held.account.balance) == (340, 5)
