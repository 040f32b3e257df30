"""One function per command. Each owns its transactions; none is open while Stripe or the ledger is called.

The intent is durable before the call. If the process dies in between, the same key resumes from the recovery point, and the
janitor resolves the call by reading even if nobody asks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from servers.kernel.clock import Clock
from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    METHOD,
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
    PaymentMethod,
    PaymentMethodRejected,
    PaymentState,
    PaymentStateInvalid,
    ProviderUnavailable,
    Refund,
    RefundExceedsAvailable,
    RefundResult,
    RefundState,
)
from servers.payments.events import Events
from servers.payments.gateway_stripe import Attached, StripeGateway
from servers.payments.outcomes import Outcomes
from servers.payments.peers import LedgerPeer
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import Database, UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, Outbound, OutboundCall, Outcome, Unknown

ATTACH: Final = "stripe.attach"
CONFIRM: Final = "stripe.confirm"
REFUND_CALL: Final = "stripe.refund"

declare(
    "payments.confirm.after_intent",
    "payments.confirm.before_send",
    "payments.confirm.after_send",
    "payments.confirm.after_outcome",
    "payments.refund.after_intent",
    "payments.refund.after_reserve",
    "payments.refund.after_send",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    gateway: StripeGateway
    outbound: Outbound
    ledger: LedgerPeer
    events: Events
    outcomes: Outcomes


def digest(*parts: str) -> str:
    """Return what tells one outside request from another, for its record."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# Payment methods


async def create_payment_method(deps: Deps, request: IdempotentRequest, owner_id: str, stripe_id: str) -> PaymentMethod:
    """Attach a Stripe payment method to the user. Raises PaymentMethodRejected, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is not None:
            method = await store.method_by_id(uow.conn, claim.resource_id)
        else:
            method = await _insert_method(deps, uow, owner_id, stripe_id)
            await uow.idempotency.advance(request, "attaching", method.id)
    return await attach_method(deps, method, request)


async def _insert_method(deps: Deps, uow: UnitOfWork, owner_id: str, stripe_id: str) -> PaymentMethod:
    now = deps.clock.now()
    method = PaymentMethod(
        id=new_id("pm", clock=deps.clock, bucket=bucket_of(owner_id)),
        owner_id=owner_id,
        stripe_id=stripe_id,
        state=METHOD.arrow(None, "create").target,
        card=None,
        version=1,
        create_time=now,
        update_time=now,
    )
    await store.insert_method(uow.conn, method)
    await uow.outbound.record(verb=ATTACH, target=method.id, key=method.id, request_digest=digest(owner_id, stripe_id))
    return method


async def attach_method(deps: Deps, method: PaymentMethod, request: IdempotentRequest | None = None) -> PaymentMethod:
    """Bring a payment method from ATTACHING to its end. Safe to repeat: both calls to Stripe carry ids of ours."""
    if method.state is MethodState.ATTACHING:
        outcome = await deps.outbound.execute(ATTACH, lambda: _attach(deps, method))
        refusal: PaymentMethodRejected | None = None
        async with deps.db.uow() as uow:
            current = await store.method(uow.conn, method.owner_id, method.id, lock=True)
            invariant(current is not None, "a payment method vanished", method_id=method.id)
            assert current is not None
            call = await uow.outbound.open_for(method.id)
            if call is not None:
                await uow.outbound.settle(call.id, outcome)
            match outcome:
                case Answered(value=Attached() as attached) if current.state is MethodState.ATTACHING:
                    current = await _save_method(deps, uow, current, "attach", attached)
                case Answered(value=PaymentMethodRejected() as refusal) if current.state is MethodState.ATTACHING:
                    current = await _save_method(deps, uow, current, "reject", None)
                case _:
                    pass
            method = current
            if request is not None and refusal is not None:
                await uow.idempotency.refuse(request, refusal)
            elif request is not None and not isinstance(outcome, NotSent):
                await uow.idempotency.complete(request, method)
        if refusal is not None:
            raise refusal
        if isinstance(outcome, NotSent):
            raise ProviderUnavailable
        return method
    if request is not None:
        async with deps.db.uow() as uow:
            await uow.idempotency.complete(request, method)
    return method


async def _attach(deps: Deps, method: PaymentMethod) -> Attached | PaymentMethodRejected:
    async with deps.db.read() as conn:
        customer_id = await store.stripe_customer(conn, method.owner_id)
    if customer_id is None:
        customer_id = await deps.gateway.create_customer(method.owner_id)
        async with deps.db.uow() as uow:
            await store.save_stripe_customer(uow.conn, method.owner_id, customer_id, deps.clock.now())
    try:
        return await deps.gateway.attach(method.stripe_id, customer_id, key=method.id)
    except PaymentMethodRejected as refusal:
        return refusal


async def _save_method(
    deps: Deps, uow: UnitOfWork, method: PaymentMethod, trigger: str, attached: Attached | None
) -> PaymentMethod:
    arrow = METHOD.arrow(method.state, trigger)
    moved = replace(
        method,
        state=arrow.target,
        version=method.version + 1,
        update_time=deps.clock.now(),
        stripe_id=attached.stripe_id if attached else method.stripe_id,
        card=attached.card if attached else None,
    )
    await store.update_method(uow.conn, moved, expected_version=method.version)
    if arrow.event:
        await uow.outbox.append(deps.events.method(arrow.event, moved))
    return moved


# Payments


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePayment:
    """A merchant wants money from a customer."""

    merchant_id: str
    customer_id: str
    amount: Money
    description: str
    metadata: Mapping[str, str]


async def create_payment(deps: Deps, request: IdempotentRequest, command: CreatePayment) -> Payment:
    """Create a payment that waits for its customer."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        now = deps.clock.now()
        arrow = PAYMENT.arrow(None, "create")
        payment = Payment(
            id=new_id("pay", clock=deps.clock, bucket=bucket_of(command.merchant_id)),
            merchant_id=command.merchant_id,
            customer_id=command.customer_id,
            amount=command.amount,
            state=arrow.target,
            captured_minor=0,
            refunded_minor=0,
            refund_pending_minor=0,
            stripe_payment_intent_id="",
            description=command.description,
            metadata=command.metadata,
            version=1,
            create_time=now,
            update_time=now,
        )
        await store.insert_payment(uow.conn, payment)
        await uow.outbox.append(deps.events.payment(arrow.event, payment))
        await uow.idempotency.complete(request, payment)
    return payment


async def confirm_payment(
    deps: Deps, request: IdempotentRequest, *, payment_id: str, customer_id: str, method_id: str
) -> Payment:
    """Charge the customer's card. Raises ResourceNotFound, PaymentStateInvalid, MethodStateInvalid, OperationInProgress,
    ProviderUnavailable."""
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
    return await drive_attempt(deps, attempt.id, request)


async def _begin_attempt(deps: Deps, uow: UnitOfWork, payment_id: str, customer_id: str, method_id: str) -> Attempt:
    payment = await store.payment(uow.conn, payment_id, customer_id=customer_id, lock=True)
    if payment is None:
        raise ResourceNotFound(payment_id)
    previous = payment.latest_attempt
    if previous is not None and previous.state in OPEN_ATTEMPTS:
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


async def refresh_payment(deps: Deps, payment: Payment) -> Payment:
    """Ask Stripe about a payment whose outcome has been open for more than a minute, for somebody who reads it."""
    attempt = payment.latest_attempt
    if attempt is None or attempt.state in ATTEMPT.terminal or attempt.state is AttemptState.CREATED:
        return payment
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(attempt.id):
            return payment
    return await learn_attempt(deps, attempt.id)


# Refunds


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
    payment = await store.payment(uow.conn, command.payment_id, merchant_id=command.merchant_id, lock=True)
    if payment is None:
        raise ResourceNotFound(command.payment_id)
    if payment.state is not PaymentState.SUCCEEDED:
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} has nothing to refund.",
            metadata={"payment_id": payment.id, "state": payment.state.name},
        )
    left = payment.refundable
    amount = command.amount if command.amount is not None else left
    if amount.currency != left.currency:
        raise FieldInvalid.of("amount.currency", f"must be the payment's currency, {left.currency}")
    now = deps.clock.now()
    reserved = await store.reserve_refund(uow.conn, payment, amount.amount_minor, now) if amount.amount_minor else None
    if reserved is None:
        raise RefundExceedsAvailable(left)
    refund = Refund(
        id=new_id("ref", clock=deps.clock, bucket=bucket_of(payment.merchant_id)),
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        amount=amount,
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
        deps.events.payment("payment.updated", reserved), deps.events.refund("refund.created", refund)
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
        payment = await store.payment(conn, refund.payment_id, merchant_id=refund.merchant_id)
        assert payment is not None
    if refund.state is not RefundState.PENDING:
        return await _record_refund(deps, refund_id, None, request)
    await deps.ledger.reserve_refund(payment, refund)
    crash_point("payments.refund.after_reserve")
    outcome = await deps.outbound.execute(REFUND_CALL, partial(_send_refund, deps, payment, refund))
    crash_point("payments.refund.after_send")
    refund = await _record_refund(deps, refund_id, outcome, request)
    if isinstance(outcome, NotSent):
        raise ProviderUnavailable
    return refund


async def _send_refund(deps: Deps, payment: Payment, refund: Refund) -> RefundResult:
    """Look for the refund at Stripe before it is sent: only then is a second try safe at any age of the key."""
    intent_id = payment.stripe_payment_intent_id
    if refund.uncertain or deps.clock.now() - refund.create_time > RESEND_WITHIN:
        found = await deps.gateway.find_refund(refund, intent_id)
        if found is not None:
            return found
    return await deps.gateway.create_refund(refund, intent_id)


async def _record_refund(
    deps: Deps, refund_id: str, outcome: Outcome[RefundResult] | None, request: IdempotentRequest | None
) -> Refund:
    async with deps.db.uow() as uow:
        found = await store.refund(uow.conn, refund_id)
        invariant(found is not None, "a refund vanished", refund_id=refund_id)
        assert found is not None
        # The payment is the root: its row is locked before its child's outbox row is written.
        payment = await store.payment(uow.conn, found.payment_id, merchant_id=found.merchant_id, lock=True)
        refund = await store.refund(uow.conn, refund_id, lock=True)
        assert payment is not None
        assert refund is not None
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
    return refund
