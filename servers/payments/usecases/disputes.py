"""Disputes: learnt by reading Stripe, and conceded to it.

An event says only which dispute to look at. Two reads may overtake each other on their way here, so each is applied only to the
version that it was begun with: where the dispute has moved meanwhile, Stripe is asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from servers.kernel.errors import ConcurrentUpdate, ProviderUnavailable, ResourceNotFound
from servers.kernel.invariant import invariant
from servers.payments import store
from servers.payments.domain import (
    DISPUTE,
    AcceptNotCarriedOut,
    Dispute,
    DisputeNews,
    DisputeNotAcceptable,
    DisputeStage,
    DisputeState,
    OperationInProgress,
    OperationRefused,
    Payment,
)
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import learn_payment
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Answered, NotSent, OutboundCall, Outcome, Unknown, digest
from servers.runtime.sending import send, send_again

ACCEPT: Final = "stripe.close_dispute"
READS_MAX: Final = 5
_Answer = DisputeNews | OperationRefused
declare("payments.dispute.after_read", "payments.accept.after_intent", "payments.accept.after_send")


async def learn_dispute(deps: Deps, stripe_dispute_id: str) -> Dispute | None:
    """Ask Stripe about a dispute and walk to where it is; None where we have no such payment, or not yet, or Stripe no such
    dispute. Raises ProviderUnavailable, DisputeStateInvalid, ConcurrentUpdate."""
    for _ in range(READS_MAX):
        async with deps.db.read() as conn:
            known = await store.dispute_by_stripe_id(conn, stripe_dispute_id)
        outcome = await deps.outbound.execute(
            "stripe.read_dispute", lambda: deps.gateway.read_dispute(stripe_dispute_id)
        )
        crash_point("payments.dispute.after_read")
        if not isinstance(outcome, Answered):
            raise ProviderUnavailable
        if outcome.value is None:
            return None
        await _catch_up(deps, outcome.value)
        async with deps.db.uow() as uow:
            payment = await _disputed_payment(uow, outcome.value.payment_intent_id, outcome.value.charge_id)
            if payment is None:
                return None
            applied = await _apply(deps, uow, payment, outcome.value, known.version if known is not None else 0)
            if applied is not None:
                return applied
    raise ConcurrentUpdate(stripe_dispute_id)


async def _catch_up(deps: Deps, news: DisputeNews) -> None:
    """A charge that is disputed was captured: where its payment has not heard of that yet, it hears of it first."""
    async with deps.db.read() as conn:
        payment = await store.payment_by_intent(conn, news.payment_intent_id) if news.payment_intent_id else None
    if payment is not None and not payment.captured_minor:
        await learn_payment(deps, payment)


async def learn_warning(deps: Deps, stripe_warning_id: str) -> bool:
    """Ask Stripe about an early fraud warning and note it; False where we have no such payment, or not yet. Raises
    ProviderUnavailable."""
    outcome = await deps.outbound.execute("stripe.read_warning", lambda: deps.gateway.read_warning(stripe_warning_id))
    if not isinstance(outcome, Answered):
        raise ProviderUnavailable
    if outcome.value is None:
        return False
    async with deps.db.uow() as uow:
        payment = await _disputed_payment(uow, outcome.value.payment_intent_id, outcome.value.charge_id)
        if payment is not None:
            await deps.disputing.warned(uow, payment, outcome.value)
    return payment is not None


async def _disputed_payment(uow: UnitOfWork, intent_id: str, charge_id: str) -> Payment | None:
    """Return the payment of a charge, locked: whatever happens to one of its disputes waits here."""
    found = await store.payment_by_intent(uow.conn, intent_id) if intent_id else None
    if found is None:
        found = await store.payment_by_charge(uow.conn, charge_id)
    if found is None:
        return None
    return await store.payment(uow.conn, found.id, owner_id=found.owner_id, lock=True)


async def _apply(deps: Deps, uow: UnitOfWork, payment: Payment, news: DisputeNews, seen: int) -> Dispute | None:
    """Apply news that was read while the dispute was at version `seen`; None where it has moved since."""
    dispute = await store.dispute_by_stripe_id(uow.conn, news.stripe_dispute_id, lock=True)
    if (dispute.version if dispute is not None else 0) != seen:
        return None
    return await deps.disputing.apply(uow, payment, dispute, news)


async def refresh_dispute(deps: Deps, dispute: Dispute) -> Dispute:
    """Ask Stripe about a dispute whose acceptance has had no outcome for more than a minute, for somebody who reads it."""
    if not dispute.accepting:
        return dispute
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(dispute.id):
            return dispute
    try:
        return await learn_dispute(deps, dispute.stripe_dispute_id) or dispute
    except ProviderUnavailable:
        return dispute


async def accept_dispute(deps: Deps, request: IdempotentRequest, *, dispute_id: str, merchant_id: str) -> Dispute:
    """Concede a chargeback. Raises ResourceNotFound, DisputeStateInvalid, OperationInProgress, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        begun = claim.resource_id is not None and await _is_begun(uow, dispute_id)
        if not begun:
            async with uow.refusals(request):
                await _begin(deps, uow, dispute_id, merchant_id)
            await uow.idempotency.advance(request, "accepting", dispute_id, shows=partial(_begun, uow, dispute_id))
    crash_point("payments.accept.after_intent")
    return await drive_accept(deps, dispute_id, request, fresh=not begun)


async def _begun(uow: UnitOfWork, dispute_id: str) -> Dispute:
    """Return a dispute as a rehearsal shows it: what was begun is no uncertainty, because it goes no further."""
    return replace(await _existing(uow, dispute_id), accepting=False)


async def _is_begun(uow: UnitOfWork, dispute_id: str) -> bool:
    """Tell whether a same-key call goes on with what it began; it begins again where Stripe provably never saw it."""
    dispute = await store.dispute(uow.conn, dispute_id)
    return dispute is not None and (dispute.accepting or dispute.state is DisputeState.LOST)


async def _begin(deps: Deps, uow: UnitOfWork, dispute_id: str, merchant_id: str) -> None:
    found = await store.dispute(uow.conn, dispute_id, owner_id=merchant_id)
    if found is None:
        raise ResourceNotFound(dispute_id)
    payment = await store.payment(uow.conn, found.payment_id, owner_id=found.owner_id, lock=True)
    dispute = await store.dispute(uow.conn, dispute_id, lock=True)
    assert payment is not None
    assert dispute is not None
    if dispute.accepting:
        raise OperationInProgress(dispute.id)
    if dispute.stage is DisputeStage.INQUIRY or not DISPUTE.allows(dispute.state, "concede"):
        raise DisputeNotAcceptable(dispute.id, dispute.state.name, dispute.stage.name)
    dispute = deps.disputing.concede(uow, payment, dispute)
    await uow.outbound.record(
        verb=ACCEPT,
        target=dispute.id,
        # What Stripe refused once is asked anew under another key: it would replay its refusal for the old one.
        key=f"{dispute.id}-{dispute.version}",
        request_digest=digest(dispute.stripe_dispute_id),
    )


async def drive_accept(
    deps: Deps, dispute_id: str, request: IdempotentRequest | None = None, *, fresh: bool = False
) -> Dispute:
    """Bring an acceptance to what is known of it. One that may have been sent before is read first, and only then sent again.
    Raises ProviderUnavailable, DisputeStateInvalid where Stripe refuses."""
    async with deps.db.uow() as uow:
        dispute = await _existing(uow, dispute_id)
        call = await uow.outbound.open_for(dispute_id)
    if not dispute.accepting or call is None:
        return await _complete(deps, dispute, request)
    execute = _sender(deps, dispute, call)
    sent = await (send(deps.db, dispute.id, execute) if fresh else _read_or_send(deps, dispute, execute))
    crash_point("payments.accept.after_send")
    dispute, known = await _record(deps, dispute, sent)
    if isinstance(known, NotSent):
        raise ProviderUnavailable
    if isinstance(known, Answered) and isinstance(known.value, OperationRefused):
        dispute = await learn_dispute(deps, dispute.stripe_dispute_id) or dispute
        return await _refuse(deps, dispute, known.value.code, request)
    return await _complete(deps, dispute, request)


def _sender(deps: Deps, dispute: Dispute, call: OutboundCall) -> Callable[[], Awaitable[Outcome[_Answer]]]:
    async def execute() -> Outcome[_Answer]:
        return await deps.outbound.execute(
            ACCEPT, lambda: deps.gateway.close_dispute(dispute.stripe_dispute_id, key=call.key)
        )

    return execute


async def _read_or_send(
    deps: Deps, dispute: Dispute, execute: Callable[[], Awaitable[Outcome[_Answer]]]
) -> Outcome[_Answer]:
    found = await deps.outbound.execute(
        "stripe.read_dispute", lambda: deps.gateway.read_dispute(dispute.stripe_dispute_id)
    )
    if not isinstance(found, Answered) or found.value is None:
        return Unknown("Stripe cannot be read")
    if found.value.state is not DisputeState.NEEDS_RESPONSE:
        return Answered(found.value)
    return await send_again(deps.db, dispute.id, execute)


async def _record(deps: Deps, seen: Dispute, outcome: Outcome[_Answer]) -> tuple[Dispute, Outcome[_Answer]]:
    """Write down what is known now, and return it; what was read or answered before the dispute moved is asked again."""
    async with deps.db.uow() as uow:
        payment = await store.payment(uow.conn, seen.payment_id, owner_id=seen.owner_id, lock=True)
        dispute = await store.dispute(uow.conn, seen.id, lock=True)
        assert payment is not None
        assert dispute is not None
        outcome = await uow.outbound.known(dispute.id, outcome)
        call = await uow.outbound.open_for(dispute.id)
        if not dispute.accepting or call is None:
            return dispute, outcome  # somebody else has learnt how it ended
        match outcome:
            case Answered(value=OperationRefused()) | NotSent():
                dispute = deps.disputing.let_go(uow, payment, dispute)
                uow.outbound.settle(dispute.id, outcome)
                return dispute, outcome
            case Answered(value=DisputeNews() as news):
                applied = await _apply(deps, uow, payment, news, seen.version)
                if applied is not None:
                    uow.outbound.settle(dispute.id, outcome, pending=applied.accepting)
                    return applied, outcome
            case _:
                uow.outbound.settle(dispute.id, outcome)
                return dispute, outcome
    return await learn_dispute(deps, seen.stripe_dispute_id) or seen, outcome


async def _complete(deps: Deps, dispute: Dispute, request: IdempotentRequest | None) -> Dispute:
    if request is not None:
        async with deps.db.uow() as uow:
            uow.idempotency.complete(request, dispute)
    return dispute


async def _refuse(deps: Deps, dispute: Dispute, code: str, request: IdempotentRequest | None) -> Dispute:
    """Answer the caller why Stripe would not: unless it says by now that the dispute is lost, which is what was wanted."""
    lost = dispute.state is DisputeState.LOST
    refusal = AcceptNotCarriedOut(dispute.id, dispute.state.name, code)
    if request is not None:
        async with deps.db.uow() as uow:
            if lost:
                uow.idempotency.complete(request, dispute)
            else:
                uow.idempotency.refuse(request, refusal)
    if not lost:
        raise refusal
    return dispute


async def _existing(uow: UnitOfWork, dispute_id: str) -> Dispute:
    dispute = await store.dispute(uow.conn, dispute_id)
    invariant(dispute is not None, "a dispute vanished", dispute_id=dispute_id)
    assert dispute is not None
    return dispute
