"""Creating and reading payments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    PAYMENT,
    AttemptState,
    CaptureMethod,
    Payment,
    PaymentState,
)
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import learn_payment
from servers.runtime.idempotency import IdempotentRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePayment:
    """A merchant wants money from a customer."""

    merchant_id: str
    customer_id: str
    amount: Money
    capture_method: CaptureMethod
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
            capture_method=command.capture_method,
            capturable_minor=0,
            capture_pending_minor=0,
            multicapture=False,
            capture_before_time=None,
            cancellation_reason="",
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


async def refresh_payment(deps: Deps, payment: Payment) -> Payment:
    """Ask Stripe about a payment whose outcome has been open for more than a minute, or whose authorization should have ended, for
    somebody who reads it."""
    target = _uncertain(payment, deps.clock.now())
    if target is None:
        return payment
    async with deps.db.uow() as uow:
        if not await uow.outbound.may_read(target):
            return payment
    return await learn_payment(deps, payment)


def _uncertain(payment: Payment, now: datetime) -> str | None:
    """Return the id of what should be looked into, if anything."""
    attempt = payment.latest_attempt
    if payment.open_operation is not None:
        return payment.open_operation.id
    if attempt is None or attempt.state is AttemptState.CREATED:
        return None
    authorized = payment.state in (PaymentState.REQUIRES_CAPTURE, PaymentState.PARTIALLY_CAPTURED)
    over = authorized and payment.capture_before_time is not None and payment.capture_before_time <= now
    return attempt.id if over or attempt.state not in ATTEMPT.terminal else None
