"""Topping up: the intent is written down, payments charges the card, the money goes into the wallet, and then it is said.

No transaction is open while payments is called or the ledger writes. Where the process dies in between, the same key goes on from
the top-up that it made; if nobody asks again, the janitor has payments say how it stands, and cancel what was never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid, ProviderUnavailable, Refusal, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Answered, NotSent, Outcome, Unknown, digest
from servers.runtime.sending import send
from servers.wallets import wallet_store
from servers.wallets.events import top_up_event
from servers.wallets.resources import TOP_UP, News, TopUp
from servers.wallets.usecases.deps import Deps

CHARGE: Final = "payments.charge_top_up"
declare("wallets.top_up.after_intent", "wallets.top_up.after_charge", "wallets.top_up.after_outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopUp:
    """A user adds money to a wallet from a saved card."""

    owner_id: str
    wallet_id: str
    amount: Money
    payment_method_id: str
    return_url: str


async def create_top_up(deps: Deps, request: IdempotentRequest, command: CreateTopUp) -> TopUp:
    """Top up. Raises ResourceNotFound for the wallet, FieldInvalid for another currency than the wallet's, ProviderUnavailable,
    LedgerOverloaded, and what payments refuses: ResourceNotFound for the card, FieldInvalid for the return URL…"""
    if request.rehearsal:
        return await _rehearse(deps, request, command)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        top_up_id = claim.resource_id
        if top_up_id is None:
            async with uow.refusals(request):
                top_up_id = (await _begin(deps, uow, command)).id
            await uow.idempotency.advance(request, "charging", top_up_id)
    crash_point("wallets.top_up.after_intent")
    return await drive_top_up(deps, command.owner_id, top_up_id, request)


async def _rehearse(deps: Deps, request: IdempotentRequest, command: CreateTopUp) -> TopUp:
    """Say what would become of a top-up. What payments would refuse is for payments to say."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        top_up = await _begin(deps, uow, command)
    await deps.payments.rehearse(top_up)
    return top_up


async def _begin(deps: Deps, uow: UnitOfWork, command: CreateTopUp) -> TopUp:
    wallet = await wallet_store.wallet(uow.conn, command.owner_id, command.wallet_id, lock=True)
    if wallet is None:
        raise ResourceNotFound(command.wallet_id)
    if command.amount.currency != wallet.currency:
        raise FieldInvalid.of("amount.currency", f"must be the wallet's currency, {wallet.currency}")
    now, arrow = deps.clock.now(), TOP_UP.arrow(None, "create")
    top_up = TopUp(
        id=new_id("top", clock=deps.clock, bucket=bucket_of(command.owner_id)),
        owner_id=command.owner_id,
        wallet_id=wallet.id,
        amount=command.amount,
        payment_method_id=command.payment_method_id,
        return_url=command.return_url,
        state=arrow.target,
        uncertain=False,
        payment_id="",
        payment_version=0,
        next_action=None,
        decline=None,
        failure_reason="",
        version=1,
        create_time=now,
        update_time=now,
    )
    wallet_store.insert_top_up(uow.conn, top_up)
    uow.outbox.append(top_up_event(arrow.event, top_up))
    await uow.outbound.record(
        verb=CHARGE,
        target=top_up.id,
        key=top_up.id,
        request_digest=digest(top_up.id, top_up.payment_method_id, str(top_up.amount)),
    )
    return top_up


async def drive_top_up(
    deps: Deps, owner_id: str, top_up_id: str, request: IdempotentRequest | None = None, *, stop: bool = False
) -> TopUp:
    """Bring a top-up from where it is to what is known of it: have its card charged, or with `stop` only ask how it stands. Raises
    what `create_top_up` raises but what it checks itself."""
    async with deps.db.read() as conn:
        top_up = await wallet_store.top_up(conn, deps.db.sealer, owner_id, top_up_id)
    invariant(top_up is not None, "a top-up vanished", top_up_id=top_up_id)
    assert top_up is not None
    if top_up.state in TOP_UP.terminal:
        return (await _record(deps, top_up, None, request))[0]
    try:
        ask = partial(deps.payments.charge, top_up, stop=stop)
        outcome = await send(deps.db, top_up.id, lambda: deps.outbound.execute(CHARGE, ask))
    except Refusal as refusal:
        if refusal.stored:
            await _refuse(deps, top_up, refusal, request)
        else:  # "not now": the key stays open, and the janitor ends what nobody asks for again
            await _record(deps, top_up, NotSent(refusal.reason), None)
        raise
    crash_point("wallets.top_up.after_charge")
    if isinstance(outcome, Answered):
        _mind(top_up, outcome.value)
        await deps.outcomes.book(outcome.value)
    top_up, known = await _record(deps, top_up, outcome, request)
    crash_point("wallets.top_up.after_outcome")
    if isinstance(known, NotSent):
        raise ProviderUnavailable
    return top_up


def _mind(top_up: TopUp, news: News) -> None:
    ours = (news.top_up_id, news.owner_id) == (top_up.id, top_up.owner_id)
    invariant(ours, "payments answered for another top-up", top_up_id=top_up.id, payment_id=news.payment_id)


async def _record(
    deps: Deps, top_up: TopUp, outcome: Outcome[News] | None, request: IdempotentRequest | None
) -> tuple[TopUp, Outcome[News] | None]:
    """Write down what is known now, and return it with the top-up. The row is locked first, so an event that tells the same waits
    and finds it done."""
    async with deps.db.uow() as uow:
        top_up = await _locked(deps, uow, top_up)
        outcome = await uow.outbound.known(top_up.id, outcome) if outcome is not None else None
        match outcome:
            case Answered():
                top_up = deps.outcomes.apply(uow, top_up, outcome.value, asked=True)
            case Unknown():
                top_up = deps.outcomes.lost(uow, top_up)
            case _:
                pass
        if top_up.state in TOP_UP.terminal:
            _close_call(uow, top_up)
        elif outcome is not None:
            # One that was not sent may be sent by the same key; where nobody asks again, the janitor ends it.
            known = Unknown(outcome.reason) if isinstance(outcome, NotSent) else outcome
            uow.outbound.settle(top_up.id, known, pending=True)
        if request is not None and not isinstance(outcome, NotSent):
            uow.idempotency.complete(request, top_up)
    return top_up, outcome


async def _refuse(deps: Deps, top_up: TopUp, refusal: Refusal, request: IdempotentRequest | None) -> None:
    """Write down that payments will not charge this card; the caller is told why, now and under the same key."""
    async with deps.db.uow() as uow:
        top_up = deps.outcomes.refused(uow, await _locked(deps, uow, top_up))
        _close_call(uow, top_up)
        if request is not None:
            uow.idempotency.refuse(request, refusal)


def _close_call(uow: UnitOfWork, top_up: TopUp) -> None:
    """Note that there is nothing to look into any more: the top-up is at its end."""
    uow.outbound.settle(top_up.id, Answered(None))


async def _locked(deps: Deps, uow: UnitOfWork, top_up: TopUp) -> TopUp:
    locked = await wallet_store.top_up(uow.conn, deps.db.sealer, top_up.owner_id, top_up.id, lock=True)
    invariant(locked is not None, "a top-up vanished", top_up_id=top_up.id)
    assert locked is not None
    return locked


async def hear_of_payment(deps: Deps, uow: UnitOfWork, news: News) -> None:
    """Apply what an event tells of a top-up's payment; the money is booked before. Old news and repeats are no news."""
    top_up = await wallet_store.top_up(uow.conn, deps.db.sealer, news.owner_id, news.top_up_id, lock=True)
    invariant(top_up is not None, "a payment for a top-up that is not there", payment_id=news.payment_id)
    assert top_up is not None
    top_up = deps.outcomes.apply(uow, top_up, news, asked=False)
    if top_up.state in TOP_UP.terminal:
        _close_call(uow, top_up)


async def refresh_top_up(deps: Deps, top_up: TopUp) -> TopUp:
    """Ask payments about a top-up whose outcome has been open for more than a minute, for somebody who reads it. Where nothing can
    be learnt, what is known is the answer."""
    if top_up.state in TOP_UP.terminal:
        return top_up
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(top_up.id):
            return top_up
    try:
        return await drive_top_up(deps, top_up.owner_id, top_up.id, stop=True)
    except Refusal:
        async with deps.db.read() as conn:
            return await wallet_store.top_up_by_id(conn, deps.db.sealer, top_up.id)
