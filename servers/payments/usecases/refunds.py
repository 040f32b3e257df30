"""Refunds: reserved here and in the ledger before Stripe is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid, ProviderUnavailable, Refusal, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    OPEN_REFUNDS,
    Payment,
    PaymentDisputed,
    PaymentState,
    PaymentStateInvalid,
    Refund,
    RefundExceedsAvailable,
    RefundResult,
    RefundState,
    fee_to_return,
    refund_differences,
)
from servers.payments.outcomes import SHORT_OF_BALANCE
from servers.payments.suspense import REFUND_CALL
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import look_first
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, Outcome, Unknown, digest
from servers.runtime.sending import LEARNT, send

FIND_REFUND: Final = "stripe.find_refund"
RETRY_AFTER: Final = timedelta(minutes=1)
"""How long a refund that the merchant's balance does not cover waits before it is tried again."""
RETRIES_MAX: Final = 100
_WAITS_NO_MORE: Final = RefundResult(stripe_refund_id="", state=RefundState.PENDING, failure_reason="")
declare(
    "payments.refund.after_intent",
    "payments.refund.after_reserve",
    "payments.refund.after_send",
)


@dataclass(frozen=True, slots=True)
class ShortOfBalance(NotSent):
    """The merchant's balance does not cover the refund, and it may not go below zero: nothing was sent."""

    sends: int
    """How often it had gone out by then, if nobody else has sent it."""


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
    PaymentDisputed, RefundExceedsAvailable, FieldInvalid, PeerUnavailable, ProviderUnavailable."""
    await look_first(deps, request, command.payment_id, lambda payment: payment.owner_id == command.merchant_id)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is None:
            async with uow.refusals(request):
                refund_id = (await _begin_refund(deps, uow, command)).id
            await uow.idempotency.advance(
                request, "refunding", refund_id, shows=partial(store.refund, uow.conn, refund_id)
            )
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
    if payment.open_chargebacks:
        raise PaymentDisputed(payment.id)
    left = payment.refundable
    amount = command.amount if command.amount is not None else left
    if amount.currency != left.currency:
        raise FieldInvalid.of("amount.currency", f"must be the payment's currency, {left.currency}")
    now = deps.clock.now()
    returned = await store.returned_fees(uow.conn, payment)
    reserved = await store.reserve_refund(uow.conn, payment, amount.amount_minor, now) if amount.amount_minor else None
    if reserved is None:
        raise RefundExceedsAvailable(left)
    refund = Refund.of(
        payment,
        new_id("ref", clock=deps.clock, bucket=bucket_of(payment.owner_id)),
        amount,
        # The payment's row is locked: no other refund of it comes between.
        fee_returned=fee_to_return(
            payment.captures,
            refunded_minor=payment.refunded_minor + payment.refund_pending_minor,
            returned_minor=returned,
            amount=amount,
        ),
        reason=command.reason,
        metadata=command.metadata,
        now=now,
    )
    store.insert_refund(uow.conn, refund)
    uow.outbox.append(
        deps.events.payment("payment.updated", reserved), deps.events.refund("refund.created", refund, reserved)
    )
    await _promise(uow, payment, refund)
    return refund


async def drive_refund(deps: Deps, refund_id: str, request: IdempotentRequest | None = None) -> Refund:
    """Bring a refund to what is known of it. Every step carries the refund's id, so that each may be repeated."""
    payment, refund, waits = await _load(deps, refund_id)
    if refund.state not in OPEN_REFUNDS:
        return await record_refund(deps, refund_id, None, request)
    outcome: Outcome[RefundResult] | None
    if refund.stripe_refund_id:
        # Stripe has it: how it stands is read, because its key would only repeat what was said first.
        outcome = await _read_refund(deps, payment, refund)
    elif to_wallet(payment, refund):
        outcome = await _give_to_wallet(deps, payment, refund, waits=waits)
    else:
        outcome = await _give_to_card(deps, payment, refund, waits=waits)
    crash_point("payments.refund.after_send")
    return await record_refund(deps, refund_id, outcome, request)


async def _load(deps: Deps, refund_id: str) -> tuple[Payment, Refund, bool]:
    """Return a refund with its payment, and whether it waits where the merchant's balance does not cover it."""
    async with deps.db.read() as conn:
        refund = await store.refund(conn, refund_id)
        invariant(refund is not None, "a refund vanished", refund_id=refund_id)
        assert refund is not None
        payment = await store.payment(conn, refund.payment_id, owner_id=refund.owner_id)
        assert payment is not None
        settings = await store.payment_settings(conn, refund.owner_id)
    return payment, refund, deps.refunds_wait or settings.refunds_wait


async def _give_to_card(deps: Deps, payment: Payment, refund: Refund, *, waits: bool) -> Outcome[RefundResult] | None:
    """Reserve in the ledger, then ask Stripe."""
    reserved = await _reserve(deps, payment, refund, waits=waits, sends=0)
    if not isinstance(reserved, Answered):
        return reserved
    if refund.pending_reason == SHORT_OF_BALANCE:
        async with deps.db.uow() as uow:
            await deps.outcomes.refund(uow, *await lock_refund(uow, refund.id), _WAITS_NO_MORE)
    return await _read_or_send(deps, payment, refund)


async def _give_to_wallet(deps: Deps, payment: Payment, refund: Refund, *, waits: bool) -> Outcome[RefundResult] | None:
    """What the ledger takes from the merchant, it gives to the wallet in the same step: the ledger is who it is sent to."""
    async with deps.db.uow() as uow:
        if not await uow.outbound.note_send(refund.id):
            return LEARNT
    return await _reserve(deps, payment, refund, waits=waits, sends=1)


async def _reserve(
    deps: Deps, payment: Payment, refund: Refund, *, waits: bool, sends: int
) -> Answered[RefundResult] | ShortOfBalance | None:
    """Take a refund from the merchant in the ledger. Returns that it succeeded, as far as the ledger is concerned, that the balance
    does not cover it, or None for one that was canceled meanwhile and is burnt."""
    booked = await deps.ledger.reserve_refund(payment, refund, within_balance=waits)
    crash_point("payments.refund.after_reserve")
    if waits and booked.verdict == "INSUFFICIENT_FUNDS":
        return ShortOfBalance("the merchant's balance does not cover it", sends=sends)
    if not booked.done:
        # Nothing else is refused there; if it is, nothing is sent, and the janitor calls for a person.
        invariant(booked.verdict == "BURNT", "the ledger refused a refund", refund_id=refund.id, verdict=booked.verdict)
        return None
    return Answered(RefundResult(stripe_refund_id="", state=RefundState.SUCCEEDED, failure_reason=""))


def to_wallet(payment: Payment, refund: Refund) -> bool:
    """Tell whether the money goes back to a wallet: Stripe has nothing to do with it."""
    return bool(payment.wallet_id) and not refund.suspense_item_id


async def learn_refund(deps: Deps, refund: Refund) -> Refund | None:
    """Ask Stripe about a refund and write down what it says; never sends. None where Stripe does not tell, or knows none: it may be
    on its way."""
    async with deps.db.read() as conn:
        payment = await store.payment(conn, refund.payment_id, owner_id=refund.owner_id)
    assert payment is not None
    if to_wallet(payment, refund):
        return None
    found = await find_refund(deps, payment, refund)
    if not isinstance(found, Answered) or found.value is None:
        return None
    return await record_refund(deps, refund.id, Answered(found.value), None)


async def find_refund(deps: Deps, payment: Payment, refund: Refund) -> Outcome[RefundResult | None]:
    """Return what Stripe has of a refund, None where it knows none."""
    intent_id = payment.stripe_payment_intent_id
    return await deps.outbound.execute(FIND_REFUND, lambda: deps.gateway.find_refund(refund, intent_id))


async def refresh_refund(deps: Deps, refund: Refund) -> Refund:
    """Ask Stripe about a refund whose outcome has been open for more than a minute, for somebody who reads it."""
    if refund.state not in OPEN_REFUNDS:
        return refund
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(refund.id):
            return refund
    return await learn_refund(deps, refund) or refund


async def _read_refund(deps: Deps, payment: Payment, refund: Refund) -> Answered[RefundResult] | None:
    found = await find_refund(deps, payment, refund)
    if not isinstance(found, Answered):
        return None
    invariant(found.value is not None, "Stripe has lost a refund", refund_id=refund.id)
    assert found.value is not None
    return Answered(found.value)


async def _read_or_send(deps: Deps, payment: Payment, refund: Refund) -> Outcome[RefundResult]:
    """Look for the refund at Stripe before it is sent: only then is a second try safe at any age of the key. After an error that
    Stripe answered it is only looked for: the same key would be told the same, and under another one it might be made twice."""
    intent_id = payment.stripe_payment_intent_id
    if refund.uncertain or deps.clock.now() - refund.create_time > RESEND_WITHIN:
        found = await find_refund(deps, payment, refund)
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


async def lock_refund(uow: UnitOfWork, refund_id: str) -> tuple[Payment, Refund]:
    """Return a refund with its payment, both locked. The payment is the root: its row is locked before its child's outbox row is
    written."""
    found = await store.refund(uow.conn, refund_id)
    invariant(found is not None, "a refund vanished", refund_id=refund_id)
    assert found is not None
    payment = await store.payment(uow.conn, found.payment_id, owner_id=found.owner_id, lock=True)
    refund = await store.refund(uow.conn, refund_id, lock=True)
    assert payment is not None
    assert refund is not None
    return payment, refund


async def record_refund(
    deps: Deps, refund_id: str, outcome: Outcome[RefundResult] | None, request: IdempotentRequest | None
) -> Refund:
    """Write down what is known now. Raises ProviderUnavailable where it provably was not sent."""
    async with deps.db.uow() as uow:
        payment, refund = await lock_refund(uow, refund_id)
        if outcome is not None:
            sends = outcome.sends if isinstance(outcome, ShortOfBalance) else 1
            outcome = await uow.outbound.known(refund_id, outcome, sends=sends)
        waiting = isinstance(outcome, ShortOfBalance)
        if isinstance(outcome, Answered):
            refund = await deps.outcomes.refund(uow, payment, refund, outcome.value)
        elif isinstance(outcome, ShortOfBalance) and refund.state is RefundState.PENDING:
            refund = await deps.outcomes.refund_waits(uow, payment, refund, deps.clock.now() + RETRY_AFTER)
        elif isinstance(outcome, Unknown) and refund.state is RefundState.PENDING:
            refund = store.note_refund(uow.conn, refund, uncertain=True)
        if outcome is not None:
            # A refund that was not sent stays promised: the janitor sends it, whether or not its merchant asks again. One that
            # waits for money is the sweep's.
            kept = Unknown(outcome.reason) if isinstance(outcome, NotSent) and not waiting else outcome
            uow.outbound.settle(refund_id, kept, pending=refund.state in OPEN_REFUNDS)
            intent_id = payment.stripe_payment_intent_id
            differs = isinstance(outcome, Answered) and refund_differences(refund, intent_id, outcome.value)
            if differs and (call := await uow.outbound.open_for(refund_id)) is not None:
                uow.outbound.hand_over(call.id)
        unsent = isinstance(outcome, NotSent) and not waiting
        if request is not None and not unsent:
            uow.idempotency.complete(request, refund)
    if unsent:
        raise ProviderUnavailable
    return refund


async def retry_refunds(deps: Deps) -> int:
    """Try refunds again that wait for their merchant's balance and are due. Returns how many."""
    async with deps.db.read() as conn:
        due = await store.waiting_refunds(conn, deps.clock.now(), RETRIES_MAX)
    for refund in due:
        if await _take_up(deps, refund.id):
            try:
                await drive_refund(deps, refund.id)
            except Refusal:
                continue  # the call that was taken up is the janitor's now
    return len(due)


async def _take_up(deps: Deps, refund_id: str) -> bool:
    """Promise the call of a refund that waits once more, unless somebody else did."""
    async with deps.db.uow() as uow:
        payment, refund = await lock_refund(uow, refund_id)
        now = deps.clock.now()
        if refund.retry_time is None or refund.retry_time > now:
            return False
        store.postpone_refund(uow.conn, refund, now + RETRY_AFTER)
        await _promise(uow, payment, refund)
    return True


async def _promise(uow: UnitOfWork, payment: Payment, refund: Refund) -> None:
    """Write down that a refund is about to be sent."""
    asked = digest(payment.id, str(refund.amount.amount_minor))
    await uow.outbound.record(verb=REFUND_CALL, target=refund.id, key=refund.id, request_digest=asked)
