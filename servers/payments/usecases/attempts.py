"""Attempts: sent once, resolved by reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from servers.kernel.errors import ConcurrentUpdate, ProviderUnavailable, Refusal
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    UNCERTAIN,
    Attempt,
    AttemptState,
    CardDeclined,
    ChargeResult,
    NotConfirmed,
    Payment,
    PaymentState,
)
from servers.payments.usecases import wallet_rail
from servers.payments.usecases.deps import Deps
from servers.runtime.channels import PeerUnavailable
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import Claim, IdempotentRequest
from servers.runtime.outbound import Answered, NotSent, OutboundCall, Outcome, Unknown
from servers.runtime.sending import LEARNT, send_again

Refuse = Callable[[Payment, Attempt], Refusal | None]
"""Says which refusal an attempt's end is to its caller, if it is one."""

CONFIRM: Final = "stripe.confirm"
declare(
    "payments.confirm.before_send",
    "payments.confirm.after_send",
    "payments.confirm.after_outcome",
)


async def begun_attempt(uow: UnitOfWork, claim: Claim) -> Attempt | None:
    """Return the attempt that an earlier call under the same key has begun, if any."""
    return await store.attempt_by_id(uow.conn, claim.resource_id) if claim.resource_id is not None else None


async def learn_attempt(deps: Deps, attempt_id: str, *, insist: bool = False) -> Payment:
    """Ask Stripe about an attempt and write down what it says; never sends, because the confirm may be on its way right now: news
    of the attempt before it can arrive in the middle of this one. With `insist`, raises ProviderUnavailable where Stripe does not
    tell."""
    attempt, payment = await _load_attempt(deps, attempt_id)
    if attempt.state in (*ATTEMPT.terminal, AttemptState.CREATED, AttemptState.IN_REVIEW):
        return payment
    if attempt.source.wallet_id:
        # The ledger knows the attempt by its id: sending once more is reading.
        return await record_attempt(deps, attempt_id, await _pay(deps, payment, attempt), None)
    found = await read_attempt(deps, payment, attempt)
    if insist and not isinstance(found, Answered):
        raise ProviderUnavailable
    if not isinstance(found, Answered) or isinstance(found.value, NotConfirmed):
        return payment
    return await record_attempt(deps, attempt_id, found, None)


async def drive_attempt(
    deps: Deps, attempt_id: str, request: IdempotentRequest | None = None, *, refuse: Refuse | None = None
) -> Payment:
    """Bring an attempt from where it is to what is known of it: send it if it never was, else ask. Raises ProviderUnavailable
    where it provably was not sent, PeerUnavailable where the ledger did not answer, and what `refuse` says of its end."""
    attempt, payment = await _load_attempt(deps, attempt_id)
    if attempt.state is AttemptState.NOT_SENT and request is not None:
        raise ProviderUnavailable
    if attempt.state in ATTEMPT.terminal or attempt.state is AttemptState.IN_REVIEW:
        refusal = await _answer(deps, payment, attempt_id, request, refuse)
    elif attempt.source.wallet_id:
        payment, refusal = await _drive_wallet(deps, payment, attempt, request, refuse)
    elif attempt.state is AttemptState.CREATED:
        try:
            payment = await _send_first(deps, payment, attempt, request)
        except ConcurrentUpdate:
            # Somebody else sends it: another call for the same top-up, or the janitor for a call that was slow.
            return await drive_attempt(deps, attempt_id, request, refuse=refuse)
        refusal = None
    else:
        payment = await record_attempt(deps, attempt_id, await _read_or_send(deps, payment, attempt), request)
        refusal = None
    crash_point("payments.confirm.after_outcome")
    if refusal is not None:
        raise refusal
    return payment


async def _send_first(deps: Deps, payment: Payment, attempt: Attempt, request: IdempotentRequest | None) -> Payment:
    outcome = await _prepare(deps, payment, attempt)
    if not isinstance(outcome, Answered):
        # An unconfirmed PaymentIntent charges nobody, so a lost answer to its creation is no risk: not sent.
        await record_attempt(deps, attempt.id, NotSent(outcome.reason), None, sends=0)
        raise ProviderUnavailable
    if isinstance(outcome.value, CardDeclined):
        return await record_attempt(deps, attempt.id, Answered(outcome.value), request)
    intent_id = outcome.value
    crash_point("payments.confirm.before_send")
    sent = await _send(deps, intent_id, attempt)
    crash_point("payments.confirm.after_send")
    payment = await record_attempt(deps, attempt.id, sent, request)
    if payment.latest_attempt is not None and payment.latest_attempt.state is AttemptState.NOT_SENT:
        raise ProviderUnavailable
    return payment


async def _drive_wallet(
    deps: Deps, payment: Payment, attempt: Attempt, request: IdempotentRequest | None, refuse: Refuse | None
) -> tuple[Payment, Refusal | None]:
    outcome = await _pay(deps, payment, attempt)
    crash_point("payments.confirm.after_send")
    payment = await record_attempt(deps, attempt.id, outcome, None)
    if not isinstance(outcome, Answered):
        # The key stays open: its caller asks again, and the janitor does if nobody else.
        raise PeerUnavailable("wallets")
    return payment, await _answer(deps, payment, attempt.id, request, refuse)


async def _pay(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[ChargeResult]:
    async with deps.db.uow() as uow:
        if attempt.state is AttemptState.CREATED:
            store.advance_attempt(uow.conn, attempt, "send", now=deps.clock.now())
        if not await uow.outbound.note_send(attempt.id):
            return LEARNT
        plan = await deps.fee_plans.in_force(uow.conn, payment, attempt.create_time)
    crash_point("payments.confirm.before_send")
    return await wallet_rail.pay(deps, payment, attempt, plan)


async def _answer(
    deps: Deps, payment: Payment, attempt_id: str, request: IdempotentRequest | None, refuse: Refuse | None
) -> Refusal | None:
    """Keep the answer to the caller under the key: the payment, or the refusal that the attempt's end is to them."""
    latest = payment.latest_attempt
    mine = latest if latest is not None and latest.id == attempt_id else None
    refusal = refuse(payment, mine) if refuse is not None and mine is not None else None
    if request is not None:
        async with deps.db.uow() as uow:
            if refusal is not None:
                uow.idempotency.refuse(request, refusal)
            else:
                uow.idempotency.complete(request, payment)
    return refusal


async def _load_attempt(deps: Deps, attempt_id: str) -> tuple[Attempt, Payment]:
    async with deps.db.read() as conn:
        payment, attempt = await store.payment_of_attempt(conn, attempt_id)
    return attempt, payment


async def _prepare(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[str | CardDeclined]:
    """Make sure that the payment has its PaymentIntent, and note durably that the confirm goes out now. Where Stripe would not make
    one, say why."""
    intent_id: str | CardDeclined = payment.stripe_payment_intent_id
    if not intent_id:
        made = await deps.outbound.execute("stripe.create_intent", lambda: _create_intent(deps, payment, attempt))
        if not isinstance(made, Answered):
            return made
        intent_id = made.value
    async with deps.db.uow() as uow:
        if isinstance(intent_id, str):
            store.save_intent_id(uow.conn, payment, intent_id)
        store.advance_attempt(uow.conn, attempt, "send", now=deps.clock.now())
        await uow.outbound.note_send(attempt.id)
    return Answered(intent_id)


async def _create_intent(deps: Deps, payment: Payment, attempt: Attempt) -> str | CardDeclined:
    # Under a key of the attempt's: Stripe answers an error that it made again for a day. An intent more, where an answer was lost,
    # is never confirmed and charges nobody.
    customer_id = await ensure_customer(deps, payment.customer_id, attempt.id) if payment.customer_id else ""
    return await deps.gateway.create_intent(payment, customer_id, key=f"intent-{attempt.id}")


async def ensure_customer(deps: Deps, owner_id: str, needed_for: str) -> str:
    """Return the Stripe customer of a user, made where there is none: the same for every try of what it is needed for, and the one
    that was remembered first for everybody."""
    async with deps.db.read() as conn:
        customer_id = await store.stripe_customer(conn, owner_id)
    if customer_id is None:
        made = await deps.gateway.create_customer(owner_id, key=f"customer-{needed_for}")
        async with deps.db.uow() as uow:
            customer_id = await store.save_stripe_customer(uow.conn, owner_id, made, deps.clock.now())
    return customer_id


async def _send(deps: Deps, intent_id: str, attempt: Attempt) -> Outcome[ChargeResult]:
    return await deps.outbound.execute(CONFIRM, lambda: deps.gateway.confirm(intent_id, attempt))


async def read_attempt(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[ChargeResult]:
    """Return what Stripe says of an attempt now."""
    intent_id = payment.stripe_payment_intent_id
    return await deps.outbound.execute("stripe.read_intent", lambda: deps.gateway.read_intent(intent_id, attempt))


async def _read_or_send(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[ChargeResult]:
    """Ask Stripe how an attempt ended. Where it was never carried out it is sent again, under the same key, while that is safe."""
    found = await read_attempt(deps, payment, attempt)
    if not isinstance(found, Answered):
        return Unknown(found.reason)
    if not isinstance(found.value, NotConfirmed) or attempt.state is AttemptState.REQUIRES_ACTION:
        return found
    return await send_again(deps.db, attempt.id, lambda: _send(deps, payment.stripe_payment_intent_id, attempt))


async def give_up_attempt(deps: Deps, uow: UnitOfWork, call: OutboundCall) -> None:
    """Note that every look of the plan was in vain: a person must decide, unless Stripe tells by itself."""
    payment, attempt = await store.payment_of_attempt(uow.conn, call.target, lock=True)
    if ATTEMPT.allows(attempt.state, "give_up"):
        deps.outcomes.give_up(uow, payment, attempt)


async def record_attempt(
    deps: Deps, attempt_id: str, outcome: Outcome[ChargeResult], request: IdempotentRequest | None, *, sends: int = 1
) -> Payment:
    """Write down what is known now. The payment's row is locked first, so a webhook that tells the same waits and finds it done.
    `sends` is 0 where it did not come to a sending."""
    async with deps.db.uow() as uow:
        payment, attempt = await store.payment_of_attempt(uow.conn, attempt_id, lock=True)
        outcome = await uow.outbound.known(attempt_id, outcome, sends=sends)
        match outcome:
            case Answered():
                payment = await deps.outcomes.charge(uow, payment, attempt, outcome.value)
            case NotSent() if attempt.state in (AttemptState.CREATED, AttemptState.SENT):
                payment = deps.outcomes.not_sent(uow, payment, attempt)
            case Unknown():
                payment = deps.outcomes.lost(uow, payment, attempt)
            case _:
                pass
        known, pending = _of_call(payment, attempt_id, outcome)
        uow.outbound.settle(attempt_id, known, pending=pending)
        if request is not None and not isinstance(outcome, NotSent):
            uow.idempotency.complete(request, payment)
    return payment


def _of_call(payment: Payment, attempt_id: str, outcome: Outcome[ChargeResult]) -> tuple[Outcome[ChargeResult], bool]:
    """Return what is known of an attempt's call, and whether Stripe is not done with it. An answer that leaves the attempt as
    uncertain as it was is none; in conflict, the payment is what a person looks at."""
    latest = payment.latest_attempt
    mine = latest is not None and latest.id == attempt_id and payment.state is not PaymentState.CONFLICTED
    if latest is None or not mine or not isinstance(outcome, Answered):
        return outcome, False
    if latest.state in UNCERTAIN:
        return Unknown("not carried out, or not yet"), False
    return outcome, latest.state in (AttemptState.PENDING, AttemptState.REQUIRES_ACTION)
