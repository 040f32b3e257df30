"""Canceling refunds: at once while nothing went out for certain, at Stripe while it waits for its customer, else not at all."""

from __future__ import annotations

from functools import partial
from typing import Final

from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.kernel.invariant import invariant
from servers.payments import store
from servers.payments.domain import (
    OPEN_REFUNDS,
    REFUND,
    OperationInProgress,
    Refund,
    RefundResult,
    RefundState,
    RefundStateInvalid,
)
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.refunds import lock_refund
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Answered, NotSent, Outcome, Unknown, digest
from servers.runtime.sending import LEARNT, send

CANCEL_REFUND: Final = "stripe.cancel_refund"
_SUFFIX: Final = ":cancel"
_CANCELED: Final = RefundResult(stripe_refund_id="", state=RefundState.CANCELED, failure_reason="")


async def cancel_refund(deps: Deps, request: IdempotentRequest, *, refund_id: str, merchant_id: str) -> Refund:
    """Cancel a refund; its amount can be refunded again. Raises ResourceNotFound, RefundStateInvalid where Stripe carries it out or
    has, OperationInProgress while it is being sent, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is None:
            async with uow.refusals(request):
                if await store.refund(uow.conn, refund_id, owner_id=merchant_id) is None:
                    raise ResourceNotFound(refund_id)
                payment, refund = await lock_refund(uow, refund_id)
                if await _unsent(uow, refund):
                    refund = await deps.outcomes.refund(uow, payment, refund, _CANCELED)
                    uow.idempotency.complete(request, refund)
                    return refund
        await _promise(uow, refund_id)
        await uow.idempotency.advance(request, "canceling", refund_id, shows=partial(store.refund, uow.conn, refund_id))
    return await drive_refund_cancel(deps, refund_id, request)


async def _promise(uow: UnitOfWork, refund_id: str) -> None:
    """Write down that Stripe is about to be asked; where it was not reached before, it is tried again."""
    target = refund_id + _SUFFIX
    await uow.outbound.record(verb=CANCEL_REFUND, target=target, key=target, request_digest=digest(target))


async def _unsent(uow: UnitOfWork, refund: Refund) -> bool:
    """Tell whether nobody but us knows of a refund, and see to it that it stays so; False where Stripe waits for its customer.
    Raises RefundStateInvalid, OperationInProgress."""
    if refund.suspense_item_id:
        raise RefundStateInvalid(
            "Money that nobody asked for goes back: its refund cannot be canceled.", refund.id, refund.state.name
        )
    if refund.state is RefundState.REQUIRES_ACTION:
        return False
    if not REFUND.allows(refund.state, "cancel") or refund.stripe_refund_id:
        raise _not_any_more(refund)
    # Locked: whoever wants to send it waits, and finds it settled.
    call = await uow.outbound.open_for(refund.id, lock=True)
    if call is not None and call.sends:
        raise OperationInProgress(refund.payment_id)
    if call is not None:
        uow.outbound.settle(refund.id, NotSent("canceled"))
    return True


def _not_any_more(refund: Refund) -> RefundStateInvalid:
    return RefundStateInvalid(
        f"A refund in {refund.state.name} that Stripe carries out, or has, cannot be canceled.",
        refund.id,
        refund.state.name,
    )


def refund_of_cancel(target: str) -> str:
    """Return the refund that a cancel's call is for."""
    return target.removesuffix(_SUFFIX)


async def drive_refund_cancel(deps: Deps, refund_id: str, request: IdempotentRequest | None = None) -> Refund:
    """Have Stripe cancel a refund, and note how it stands then. Safe to repeat: Stripe cancels once, and refuses what it cannot
    cancel any more."""
    async with deps.db.read() as conn:
        refund = await store.refund(conn, refund_id)
    invariant(refund is not None, "a refund vanished", refund_id=refund_id)
    assert refund is not None
    outcome: Outcome[RefundResult] | None = None
    if refund.state in OPEN_REFUNDS:
        ask = partial(deps.gateway.cancel_refund, refund)
        outcome = await send(deps.db, refund_id + _SUFFIX, lambda: deps.outbound.execute(CANCEL_REFUND, ask))
    return await _record(deps, refund_id, outcome, request)


async def _record(
    deps: Deps, refund_id: str, outcome: Outcome[RefundResult] | None, request: IdempotentRequest | None
) -> Refund:
    """Write down what is known now, and keep the answer under the key: the refund, or that it goes on. Raises RefundStateInvalid,
    ProviderUnavailable where the cancel provably was not sent."""
    refusal: RefundStateInvalid | None = None
    async with deps.db.uow() as uow:
        payment, refund = await lock_refund(uow, refund_id)
        if outcome is LEARNT:
            outcome = None  # it stands in the refund
        if outcome is not None:
            outcome = await uow.outbound.known(refund_id + _SUFFIX, outcome)
        if isinstance(outcome, Answered):
            refund = await deps.outcomes.refund(uow, payment, refund, outcome.value)
        elif isinstance(outcome, Unknown) and refund.state in OPEN_REFUNDS:
            refund = store.note_refund(uow.conn, refund, uncertain=True)
        if outcome is not None:
            uow.outbound.settle(refund_id + _SUFFIX, outcome)
        if isinstance(outcome, Answered | None) and refund.state is not RefundState.CANCELED:
            refusal = _not_any_more(refund)
        if request is not None and not isinstance(outcome, NotSent):
            if refusal is not None:
                uow.idempotency.refuse(request, refusal)
            else:
                uow.idempotency.complete(request, refund)
    if isinstance(outcome, NotSent):
        raise ProviderUnavailable
    if refusal is not None and request is not None:
        raise refusal
    return refund
