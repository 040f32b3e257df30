"""Creating and reading payments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    AUTHORIZED,
    PAYMENT,
    Attempt,
    AttemptState,
    CaptureMethod,
    Manner,
    Payment,
    Purpose,
)
from servers.payments.risk import CLEAR, Assessment, Question
from servers.payments.usecases.confirm import (
    DECLINES_OF_PAYER,
    begin_attempt,
    card_under_mandate,
    check_return_url,
    finish_confirm,
)
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import learn_payment
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest

WINDOWS_MAX: Final = 100
declare("payments.create.after_intent")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePayment:
    """A merchant wants money from a customer, or from whoever it gives the secret to."""

    merchant_id: str
    customer_id: str
    amount: Money
    capture_method: CaptureMethod
    payment_method_id: str
    confirm: bool
    manner: Manner
    statement_descriptor_suffix: str
    description: str
    metadata: Mapping[str, str]
    capture_deadline: datetime | None = None


async def create_payment(deps: Deps, request: IdempotentRequest, command: CreatePayment) -> Payment:
    """Create a payment that waits to be confirmed, or confirm it at once. Raises ResourceNotFound for a card without a mandate,
    FieldInvalid, MethodStateInvalid; with `confirm` also what confirming raises."""
    assessment = CLEAR
    if command.confirm:
        await deps.throttle.look(DECLINES_OF_PAYER, command.payment_method_id)
        assessment = await deps.screening.assess(
            Question(
                payment_id="",
                merchant_id=command.merchant_id,
                customer_id=command.customer_id,
                amount=command.amount,
                off_session=command.manner.off_session,
                from_wallet=False,
            )
        )
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        attempt: Attempt | None
        async with uow.refusals(request):
            if claim.resource_id is not None:
                attempt = await _resumed(deps, uow, claim.resource_id, command, assessment)
            else:
                payment, attempt = await _create(deps, uow, command, assessment)
        if attempt is None:
            uow.idempotency.complete(request, payment)
            return payment
        await uow.idempotency.advance(
            request, "confirming", attempt.id, shows=partial(store.payment, uow.conn, attempt.payment_id)
        )
    crash_point("payments.create.after_intent")
    return await finish_confirm(deps, request, attempt, command.payment_method_id)


async def _create(
    deps: Deps, uow: UnitOfWork, command: CreatePayment, assessment: Assessment
) -> tuple[Payment, Attempt | None]:
    check_deadline(deps, command.capture_deadline)
    payment, event = new_payment(
        deps,
        identifier=new_id("pay", clock=deps.clock, bucket=bucket_of(command.merchant_id)),
        owner_id=command.merchant_id,
        customer_id=command.customer_id,
        amount=command.amount,
        capture_method=command.capture_method,
        payment_method_id=command.payment_method_id,
        statement_descriptor_suffix=command.statement_descriptor_suffix,
        description=command.description,
        metadata=command.metadata,
        capture_deadline=command.capture_deadline,
    )
    source = None
    if command.payment_method_id:
        off_session = command.manner.off_session
        source = await card_under_mandate(uow, payment, command.payment_method_id, off_session=off_session)
    await check_return_url(deps, uow, command.merchant_id, command.manner.return_url)
    invariant(await store.insert_payment(uow.conn, payment), "a new payment's id is taken", payment_id=payment.id)
    uow.outbox.append(deps.events.payment(event, payment))
    if not command.confirm or source is None:
        return payment, None
    return payment, await begin_attempt(deps, uow, payment, source, command.manner, assessment)


async def _resumed(
    deps: Deps, uow: UnitOfWork, attempt_id: str, command: CreatePayment, assessment: Assessment
) -> Attempt:
    """Return the attempt that a same-key call goes on with; a new one begins where Stripe provably never saw the old one."""
    attempt = await store.attempt_by_id(uow.conn, attempt_id)
    if attempt.state is not AttemptState.NOT_SENT:
        return attempt
    payment = await store.payment(uow.conn, attempt.payment_id, owner_id=attempt.owner_id, lock=True)
    assert payment is not None
    source = await card_under_mandate(uow, payment, command.payment_method_id, off_session=command.manner.off_session)
    return await begin_attempt(deps, uow, payment, source, command.manner, assessment)


def new_payment(
    deps: Deps,
    *,
    identifier: str,
    owner_id: str,
    customer_id: str,
    amount: Money,
    capture_method: CaptureMethod,
    purpose: Purpose = Purpose.SALE,
    top_up_id: str = "",
    payment_method_id: str = "",
    statement_descriptor_suffix: str = "",
    description: str = "",
    metadata: Mapping[str, str] | None = None,
    capture_deadline: datetime | None = None,
) -> tuple[Payment, str]:
    """Return a payment at its start, with the type of the event that tells of it."""
    arrow, now = PAYMENT.arrow(None, "create_with_method" if payment_method_id else "create"), deps.clock.now()
    payment = Payment(
        id=identifier,
        owner_id=owner_id,
        customer_id=customer_id,
        purpose=purpose,
        top_up_id=top_up_id,
        payment_method_id=payment_method_id,
        statement_descriptor_suffix=statement_descriptor_suffix,
        amount=amount,
        state=arrow.target,
        capture_method=capture_method,
        capturable_minor=0,
        capture_pending_minor=0,
        multicapture=False,
        capture_before_time=None,
        cancellation_reason="",
        captured_minor=0,
        refunded_minor=0,
        refund_pending_minor=0,
        capture_deadline=capture_deadline,
        due_time=None,
        stripe_payment_intent_id="",
        description=description,
        metadata=metadata or {},
        version=1,
        create_time=now,
        update_time=now,
    )
    return payment, arrow.event


def check_deadline(deps: Deps, deadline: datetime | None) -> None:
    """Refuse a deadline for the capture that is over. Raises FieldInvalid."""
    if deadline is not None and deadline <= deps.clock.now():
        raise FieldInvalid.of("capture_before", "must be in the future")


async def end_windows(deps: Deps) -> int:
    """Look into authorizations whose time is over: what was held goes back, what was captured stays. Returns how many."""
    async with deps.db.read() as conn:
        over = await store.ended_windows(conn, deps.clock.now(), WINDOWS_MAX)
    for payment in over:
        await refresh_payment(deps, payment)
    return len(over)


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
    if attempt is None or attempt.state in (AttemptState.CREATED, AttemptState.IN_REVIEW):
        return None
    over = (
        payment.state in AUTHORIZED and payment.capture_before_time is not None and payment.capture_before_time <= now
    )
    return attempt.id if over or attempt.state not in ATTEMPT.terminal else None
