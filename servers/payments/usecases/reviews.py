"""Reviews: a payment that a person looks at before its card is charged, and goes on with or ends."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from servers.kernel.errors import ResourceNotFound
from servers.payments import store
from servers.payments.domain import (
    Attempt,
    AttemptState,
    OperationInProgress,
    Payment,
    PaymentState,
    PaymentStateInvalid,
    ReviewState,
)
from servers.payments.usecases.attempts import begun_attempt
from servers.payments.usecases.confirm import begin_attempt, finish_confirm, promise_attempt
from servers.payments.usecases.deps import Deps
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest

declare("payments.approve.after_intent")


async def approve_payment(deps: Deps, request: IdempotentRequest, *, payment_id: str, merchant_id: str) -> Payment:
    """Let a payment in review go on: the attempt that waits is sent now, and the payment is not reviewed again. Raises
    ResourceNotFound, PaymentStateInvalid, OperationInProgress while it is being rejected, and what confirming raises."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        attempt = await begun_attempt(uow, claim)
        if attempt is None or attempt.state is AttemptState.NOT_SENT:
            async with uow.refusals(request):
                payment = await store.payment(uow.conn, payment_id, owner_id=merchant_id, lock=True)
                if payment is None:
                    raise ResourceNotFound(payment_id)
                if attempt is None:
                    attempt = await _approve(deps, uow, payment)
                else:
                    attempt = await begin_attempt(deps, uow, payment, attempt.source, attempt.manner)
            await uow.idempotency.advance(
                request, "confirming", attempt.id, shows=partial(store.payment, uow.conn, payment_id)
            )
    crash_point("payments.approve.after_intent")
    return await finish_confirm(deps, request, attempt, payment_id)


async def _approve(deps: Deps, uow: UnitOfWork, payment: Payment) -> Attempt:
    if payment.open_operation is not None:
        raise OperationInProgress(payment.id)
    attempt, review = payment.latest_attempt, payment.review
    if payment.state is not PaymentState.REQUIRES_REVIEW or attempt is None or review is None:
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} is not in review.", payment.id, payment.state.name
        )
    attempt = store.advance_attempt(uow.conn, attempt, "approve", now=deps.clock.now())
    approved = replace(review, state=ReviewState.APPROVED)
    deps.outcomes.walk(uow, replace(payment, latest_attempt=attempt), "approve", review=approved, due_time=None)
    await promise_attempt(uow, payment, attempt)
    return attempt
