"""Refunds: reserved here and in the ledger before Stripe is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid, ProviderUnavailable, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    Payment,
    PaymentState,
    PaymentStateInvalid,
    Refund,
    RefundExceedsAvailable,
    RefundResult,
    RefundState,
    fee_to_return,
)
from servers.payments.usecases.deps import Deps
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, Outcome, Unknown, digest
from servers.runtime.sending import send

REFUND_CALL: Final = "stripe.refund"
declare(
    "payments.refund.after_intent",
    "payments.refund.after_reserve",
    "payments.refund.after_send",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRefund:
    """A merchant gives money back; no amount means all that is left."""

    payment_id: str
    merchant_id: str
    amount: Money | None
    reason: str
    metadata: Mapping[str, str]


async def create_refund(deps: Deps, request: IdempotentRequest, command: CreateRefund) -> Refund:
    """Refund: reserve here, reserve in the ledger, ask Stripe, note the outcome. Raises ResourceNotFound, PaymentStateInvalid,
    RefundExceedsAvailable, FieldInvalid, PeerUnavailable, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is None:
            async with uow.refusals(request):
                refund_id = (await _begin_refund(deps, uow, command)).id
            await uow.idempotency.advance(request, "refunding", refund_id)
        else:
            refund_id = claim.resource_id
    crash_point("payments.refund.after_intent")
    return await drive_refund(deps, refund_id, request)


async def _begin_refund(deps: Deps, uow: UnitOfWork, command: CreateRefund) -> Refund:
    payment = await store.payment(uow.conn, command.payment_id, owner_id=command.merchant_id, lock=True)
    if payment is None:
        raise ResourceNotFound(command.payment_id)
    if payment.state is not PaymentState.SUCCEEDED:
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} has nothing to refund.", payment.id, payment.state.name
        )
    left = payment.refundable
    amount = command.amount if command.amount is not None else left
    if amount.currency != left.currency:
        raise FieldInvalid.of("amount.currency", f"must be the payment's currency, {left.currency}")
    now = deps.clock.now()
    returned = await store.returned_fees(uow.conn, payment)
    reserved = await store.reserve_refund(uow.conn, payment, amount.amount_minor, now) if amount.amount_minor else None
    if reserved is None:
        raise RefundExceedsAvailable(left)
    refund = Refund(
        id=new_id("ref", clock=deps.clock, bucket=bucket_of(payment.owner_id)),
        payment_id=payment.id,
        owner_id=payment.owner_id,
        amount=amount,
        # The payment's row is locked: no other refund of it comes between.
        fee_returned=fee_to_return(
            payment.captures,
            refunded_minor=payment.refunded_minor + payment.refund_pending_minor,
            returned_minor=returned,
            amount=amount,
        ),
        reason=command.reason,
        state=RefundState.PENDING,
        stripe_refund_id="",
        failure_reason="",
        uncertain=False,
        metadata=command.metadata,
        version=1,
        create_time=now,
        update_time=now,
    )
    await store.insert_refund(uow.conn, refund)
    await uow.outbox.append(
        deps.events.payment("payment.updated", reserved), deps.events.refund("refund.created", refund, reserved)
    )
    await uow.outbound.record(
        verb=REFUND_CALL, target=refund.id, key=refund.id, request_digest=digest(payment.id, str(amount.amount_minor))
    )
    return refund


async def drive_refund(deps: Deps, refund_id: str, request: IdempotentRequest | None = None) -> Refund:
    """Bring a refund to what is known of it. Every step carries the refund's id, so that each may be repeated."""
    async with deps.db.read() as conn:
        refund = await store.refund(conn, refund_id)
        invariant(refund is not None, "a refund vanished", refund_id=refund_id)
        assert refund is not None
        payment = await store.payment(conn, refund.payment_id, owner_id=refund.owner_id)
        assert payment is not None
    if refund.state is not RefundState.PENDING:
        return await _record_refund(deps, refund_id, None, request)
    booked = await deps.ledger.reserve_refund(payment, refund)
    # Nothing that we ask for is refused there; if it is, nothing is sent, and the janitor calls for a person.
    invariant(booked.done, "the ledger refused a refund", refund_id=refund_id, verdict=booked.verdict)
    crash_point("payments.refund.after_reserve")
    outcome: Outcome[RefundResult]
    if payment.wallet_id:
        # What the ledger took from the merchant, it has given to the wallet in the same step.
        outcome = Answered(RefundResult(stripe_refund_id="", state=RefundState.SUCCEEDED, failure_reason=""))
    else:
        outcome = await _read_or_send(deps, payment, refund)
    crash_point("payments.refund.after_send")
    return await _record_refund(deps, refund_id, outcome, request)


async def _read_or_send(deps: Deps, payment: Payment, refund: Refund) -> Outcome[RefundResult]:
    """Look for the refund at Stripe before it is sent: only then is a second try safe at any age of the key. After an error that
    Stripe answered it is only looked for: the same key would be told the same, and under another one it might be made twice."""
    intent_id = payment.stripe_payment_intent_id
    if refund.uncertain or deps.clock.now() - refund.create_time > RESEND_WITHIN:
        found = await deps.outbound.execute("stripe.find_refund", lambda: deps.gateway.find_refund(refund, intent_id))
        if not isinstance(found, Answered):
            return Unknown(found.reason)
        if found.value is not None:
            return Answered(found.value)
        async with deps.db.uow() as uow:
            call = await uow.outbound.open_for(refund.id)
        if call is None or not call.resendable:
            return Unknown("not found, and not to be sent again")
    create = partial(deps.gateway.create_refund, refund, intent_id)
    return await send(deps.db, refund.id, lambda: deps.outbound.execute(REFUND_CALL, create))


async def _record_refund(
    deps: Deps, refund_id: str, outcome: Outcome[RefundResult] | None, request: IdempotentRequest | None
) -> Refund:
    """Write down what is known now. Raises ProviderUnavailable where it provably was not sent."""
    async with deps.db.uow() as uow:
        found = await store.refund(uow.conn, refund_id)
        invariant(found is not None, "a refund vanished", refund_id=refund_id)
        assert found is not None
        # The payment is the root: its row is locked before its child's outbox row is written.
        payment = await store.payment(uow.conn, found.payment_id, owner_id=found.owner_id, lock=True)
        refund = await store.refund(uow.conn, refund_id, lock=True)
        assert payment is not None
        assert refund is not None
        outcome = await uow.outbound.known(refund_id, outcome) if outcome is not None else None
        if isinstance(outcome, Answered):
            refund = await deps.outcomes.refund(uow, payment, refund, outcome.value)
        elif isinstance(outcome, Unknown) and refund.state is RefundState.PENDING:
            refund = await store.note_refund(uow.conn, refund, uncertain=True)
        call = await uow.outbound.open_for(refund_id)
        if call is not None and outcome is not None:
            # A refund that was not sent stays promised: the janitor sends it, whether or not its merchant asks again.
            kept = Unknown(outcome.reason) if isinstance(outcome, NotSent) else outcome
            await uow.outbound.settle(call.id, kept, pending=refund.state is RefundState.PENDING)
        if request is not None and not isinstance(outcome, NotSent):
            await uow.idempotency.complete(request, refund)
    if isinstance(outcome, NotSent):
        raise ProviderUnavailable
    return refund
