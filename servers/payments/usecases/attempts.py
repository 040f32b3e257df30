"""Confirming: one attempt at a time, sent once, resolved by reading."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from servers.kernel.errors import ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    OPEN_ATTEMPTS,
    PAYMENT,
    Attempt,
    AttemptState,
    ChargeResult,
    MethodState,
    MethodStateInvalid,
    NotConfirmed,
    OperationInProgress,
    Payment,
    PaymentState,
    PaymentStateInvalid,
    ProviderUnavailable,
)
from servers.payments.usecases.deps import Deps, digest
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, OutboundCall, Outcome, Unknown
from servers.runtime.throttle import Limit

CONFIRM: Final = "stripe.confirm"
# Whoever tries stolen cards is declined again and again: twenty times at once, then once in three minutes.
DECLINES_OF_CUSTOMER: Final = Limit(name="declines_of_customer", burst=20, every_seconds=180)
declare(
    "payments.confirm.after_intent",
    "payments.confirm.before_send",
    "payments.confirm.after_send",
    "payments.confirm.after_outcome",
)


async def confirm_payment(
    deps: Deps, request: IdempotentRequest, *, payment_id: str, customer_id: str, method_id: str
) -> Payment:
    """Charge the customer's card. Raises ResourceNotFound, PaymentStateInvalid, MethodStateInvalid, OperationInProgress,
    ProviderUnavailable, and RateLimited after too many declines."""
    await deps.throttle.look(DECLINES_OF_CUSTOMER, customer_id)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        attempt: Attempt | None = None
        if claim.resource_id is not None:
            attempt = await store.attempt_by_id(uow.conn, claim.resource_id)
        if attempt is None or attempt.state is AttemptState.NOT_SENT:
            async with uow.refusals(request):
                attempt = await _begin_attempt(deps, uow, payment_id, customer_id, method_id)
            await uow.idempotency.advance(request, "confirming", attempt.id)
    crash_point("payments.confirm.after_intent")
    payment = await drive_attempt(deps, attempt.id, request)
    if payment.latest_attempt is not None and payment.latest_attempt.state is AttemptState.DECLINED:
        await deps.throttle.note(DECLINES_OF_CUSTOMER, customer_id)
    return payment


async def _begin_attempt(deps: Deps, uow: UnitOfWork, payment_id: str, customer_id: str, method_id: str) -> Attempt:
    payment = await store.payment(uow.conn, payment_id, customer_id=customer_id, lock=True)
    if payment is None:
        raise ResourceNotFound(payment_id)
    previous = payment.latest_attempt
    if payment.open_operation is not None or (previous is not None and previous.state in OPEN_ATTEMPTS):
        raise OperationInProgress(payment_id)
    triggers = ("attach", "send") if payment.state is PaymentState.REQUIRES_PAYMENT_METHOD else ("send",)
    if not PAYMENT.allows(payment.state, triggers[0]):
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} cannot be confirmed.",
            metadata={"payment_id": payment.id, "state": payment.state.name},
        )
    method = await store.method(uow.conn, customer_id, method_id)
    if method is None:
        raise ResourceNotFound(method_id)
    if method.state is not MethodState.ATTACHED:
        raise MethodStateInvalid(
            "The payment method is not attached.", metadata={"payment_method_id": method.id, "state": method.state.name}
        )
    now = deps.clock.now()
    attempt = Attempt(
        id=new_id("att", clock=deps.clock, bucket=bucket_of(payment.merchant_id)),
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        payment_method_id=method.id,
        stripe_payment_method_id=method.stripe_id,
        state=ATTEMPT.arrow(None, "create").target,
        charge_id="",
        # An attempt that was never sent has no charge of its own; Stripe still shows the one before it.
        prior_charge_id=(previous.charge_id or previous.prior_charge_id) if previous is not None else "",
        decline=None,
        next_action_url="",
        create_time=now,
        update_time=now,
    )
    await store.insert_attempt(uow.conn, attempt)
    await deps.outcomes.walk(uow, replace(payment, latest_attempt=attempt), *triggers)
    await uow.outbound.record(
        verb=CONFIRM, target=attempt.id, key=attempt.id, request_digest=digest(payment.id, method.stripe_id)
    )
    return attempt


async def learn_attempt(deps: Deps, attempt_id: str) -> Payment:
    """Ask Stripe about an attempt and write down what it says; never sends, because the confirm may be on its way right now: news
    of the attempt before it can arrive in the middle of this one."""
    attempt, payment = await _load_attempt(deps, attempt_id)
    if attempt.state in ATTEMPT.terminal or attempt.state is AttemptState.CREATED:
        return payment
    found = await _read(deps, payment, attempt)
    if not isinstance(found, Answered) or isinstance(found.value, NotConfirmed):
        return payment
    return await _record(deps, attempt_id, found, None)


async def drive_attempt(deps: Deps, attempt_id: str, request: IdempotentRequest | None = None) -> Payment:
    """Bring an attempt from where it is to what is known of it: send it if it never was, else ask Stripe."""
    attempt, payment = await _load_attempt(deps, attempt_id)
    if attempt.state is AttemptState.CREATED:
        outcome = await _prepare(deps, payment, attempt)
        if not isinstance(outcome, Answered):
            # An unconfirmed PaymentIntent charges nobody, so a lost answer to its creation is no risk: not sent.
            await _record(deps, attempt_id, NotSent(outcome.reason), None)
            raise ProviderUnavailable
        crash_point("payments.confirm.before_send")
        sent = await deps.outbound.execute(CONFIRM, lambda: _send(deps, outcome.value, attempt))
        crash_point("payments.confirm.after_send")
        payment = await _record(deps, attempt_id, sent, request)
        if isinstance(sent, NotSent):
            raise ProviderUnavailable
    elif attempt.state in ATTEMPT.terminal:
        async with deps.db.uow() as uow:
            if request is not None:
                await uow.idempotency.complete(request, payment)
    else:
        payment = await _record(deps, attempt_id, await read_attempt(deps, payment, attempt), request)
    crash_point("payments.confirm.after_outcome")
    return payment


async def _load_attempt(deps: Deps, attempt_id: str) -> tuple[Attempt, Payment]:
    async with deps.db.read() as conn:
        attempt = await store.attempt_by_id(conn, attempt_id)
        payment = await store.payment(conn, attempt.payment_id, merchant_id=attempt.merchant_id)
    invariant(payment is not None, "an attempt without its payment", attempt_id=attempt_id)
    assert payment is not None
    return attempt, payment


async def _prepare(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[str]:
    """Make sure that the payment has its PaymentIntent, and note durably that the confirm goes out now."""
    intent_id = payment.stripe_payment_intent_id
    if not intent_id:
        async with deps.db.read() as conn:
            customer_id = await store.stripe_customer(conn, payment.customer_id)
        invariant(customer_id is not None, "an attached method without a customer", payment_id=payment.id)
        made = await deps.outbound.execute(
            "stripe.create_intent", lambda: deps.gateway.create_intent(payment, customer_id or "")
        )
        if not isinstance(made, Answered):
            return made
        intent_id = made.value
    async with deps.db.uow() as uow:
        await store.save_intent_id(uow.conn, payment, intent_id)
        await store.advance_attempt(uow.conn, attempt, "send", now=deps.clock.now())
    return Answered(intent_id)


async def _send(deps: Deps, intent_id: str, attempt: Attempt) -> ChargeResult:
    return await deps.gateway.confirm(intent_id, attempt.stripe_payment_method_id, key=attempt.id)


async def _read(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[ChargeResult]:
    intent_id, prior = payment.stripe_payment_intent_id, attempt.prior_charge_id
    return await deps.outbound.execute(
        "stripe.read_intent", lambda: deps.gateway.read_intent(intent_id, prior_charge_id=prior)
    )


async def read_attempt(deps: Deps, payment: Payment, attempt: Attempt) -> Outcome[ChargeResult]:
    """Ask Stripe how an attempt ended. Where it was never carried out it is sent again, under the same key, while that is safe."""
    found = await _read(deps, payment, attempt)
    if not isinstance(found, Answered):
        return Unknown(found.reason)
    if not isinstance(found.value, NotConfirmed) or attempt.state is AttemptState.REQUIRES_ACTION:
        return found
    if not await _may_send_again(deps, attempt):
        return Unknown("not carried out, and too late to send again")
    again = await deps.outbound.execute(CONFIRM, lambda: _send(deps, payment.stripe_payment_intent_id, attempt))
    return Unknown(again.reason) if isinstance(again, NotSent) else again


async def _may_send_again(deps: Deps, attempt: Attempt) -> bool:
    """Say whether the same key is still safe: Stripe may forget keys after a day, and replays a 500 that it answered."""
    if deps.clock.now() - attempt.create_time >= RESEND_WITHIN:
        return False
    async with deps.db.uow() as uow:
        call = await uow.outbound.open_for(attempt.id)
    return call is not None and call.resendable


async def give_up_attempt(deps: Deps, uow: UnitOfWork, call: OutboundCall) -> None:
    """Note that every look of the plan was in vain: a person must decide, unless Stripe tells by itself."""
    attempt = await store.attempt_by_id(uow.conn, call.target)
    payment = await store.payment(uow.conn, attempt.payment_id, merchant_id=attempt.merchant_id, lock=True)
    attempt = await store.attempt_by_id(uow.conn, call.target)
    if payment is not None and ATTEMPT.allows(attempt.state, "give_up"):
        await deps.outcomes.give_up(uow, payment, attempt)


async def _record(
    deps: Deps, attempt_id: str, outcome: Outcome[ChargeResult], request: IdempotentRequest | None
) -> Payment:
    """Write down what is known now. The payment's row is locked first, so a webhook that tells the same waits and finds it done."""
    async with deps.db.uow() as uow:
        attempt = await store.attempt_by_id(uow.conn, attempt_id)
        payment = await store.payment(uow.conn, attempt.payment_id, merchant_id=attempt.merchant_id, lock=True)
        invariant(payment is not None, "an attempt without its payment", attempt_id=attempt_id)
        assert payment is not None
        attempt = await store.attempt_by_id(uow.conn, attempt_id)
        match outcome:
            case Answered():
                payment = await deps.outcomes.charge(uow, payment, attempt, outcome.value)
            case NotSent() if attempt.state in (AttemptState.CREATED, AttemptState.SENT):
                payment = await deps.outcomes.not_sent(uow, payment, attempt)
            case Unknown():
                payment = await deps.outcomes.lost(uow, payment, attempt)
            case _:
                pass
        call = await uow.outbound.open_for(attempt_id)
        if call is not None:
            await uow.outbound.settle(call.id, outcome, pending=_pending(payment, attempt_id))
        if request is not None and not isinstance(outcome, NotSent):
            await uow.idempotency.complete(request, payment)
    return payment


def _pending(payment: Payment, attempt_id: str) -> bool:
    """Tell whether Stripe answered but the attempt is not at its end."""
    latest = payment.latest_attempt
    if latest is None or latest.id != attempt_id:
        return False
    return latest.state in (AttemptState.PENDING, AttemptState.REQUIRES_ACTION, AttemptState.SENT, AttemptState.UNKNOWN)
