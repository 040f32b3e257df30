"""What staff decide where nobody else can: conflicts, and outcomes that no look has told.

A decision never overrules Stripe: it is asked first, and what it did is applied. The decision is written down, with who made it and
why, in the transaction that carries it out.
"""

from __future__ import annotations

from enum import Enum
from functools import partial

from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.payments import store
from servers.payments.declines import SETTLED_BY_STAFF
from servers.payments.domain import (
    OPEN_ATTEMPTS,
    AttemptState,
    CardDeclined,
    IntentStatus,
    NotConfirmed,
    OperationInProgress,
    OperationKind,
    OperationState,
    Payment,
    PaymentState,
    PaymentStateInvalid,
    Purpose,
    Refund,
    RefundResult,
    RefundState,
    RefundStateInvalid,
    differences,
)
from servers.payments.outcomes import CLOSED
from servers.payments.usecases.attempts import drive_attempt, read_attempt, record_attempt
from servers.payments.usecases.deciding import Decider, note_decision
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import (
    begin_operation,
    drive_operation,
    learn_payment,
    read_intent,
    read_operation,
    record_operation,
    took_place,
)
from servers.payments.usecases.refunds import drive_refund, find_refund, record_refund, to_wallet
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Answered

BY_STAFF = "settled_by_staff"
"""The code of what a person has ended because it never happened."""


class Verdict(Enum):
    """What may be decided; the names are those of the contract."""

    ACCEPT = "ACCEPT"
    CANCEL = "CANCEL"
    READ_AGAIN = "READ_AGAIN"
    FAIL = "FAIL"


def _refusal(payment: Payment, rule: str) -> PaymentStateInvalid:
    return PaymentStateInvalid(rule, payment.id, payment.state.name)


async def resolve_conflict(
    deps: Deps, request: IdempotentRequest, payment_id: str, verdict: Verdict, decider: Decider
) -> Payment:
    """Decide a payment in conflict. Raises ResourceNotFound, PaymentStateInvalid, OperationInProgress, ProviderUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        if claim.resource_id is None:
            async with uow.refusals(request):
                payment = await _in_conflict(uow, payment_id)
            if request.rehearsal:
                # What Stripe holds decides how it goes on, and a rehearsal asks nobody.
                uow.idempotency.complete(request, payment)
    if claim.resource_id is not None:
        return await drive_operation(deps, claim.resource_id, request)
    found = await read_intent(deps, payment)
    if not isinstance(found, Answered):
        raise ProviderUnavailable
    operation_id = ""
    async with deps.db.uow() as uow:
        async with uow.refusals(request):
            payment = await _in_conflict(uow, payment_id)
            note_decision(deps, uow, payment.owner_id, "resolve_conflict", payment.id, verdict.value, decider)
            foreign = "id" in differences(payment, found.value)
            if not foreign:
                # What was taken since, too, is what is decided about.
                payment = await deps.outcomes.suspense.found(uow, payment, found.value.received)
            if verdict is Verdict.ACCEPT:
                payment = await _accept(deps, uow, payment, found.value, foreign=foreign)
            elif payment.captured_minor:
                raise _refusal(
                    payment, "A part was captured before the conflict: accept it, then refund what is too much."
                )
            elif foreign or _is_over(found.value):
                payment = await deps.outcomes.canceled(uow, payment, "cancel_conflict", reason="")
            else:
                operation_id = (await begin_operation(deps, uow, payment, OperationKind.CANCEL)).id
                await uow.idempotency.advance(
                    request, "canceling", operation_id, shows=partial(store.payment, uow.conn, payment.id)
                )
        if not operation_id:
            uow.idempotency.complete(request, payment)
    return await drive_operation(deps, operation_id, request) if operation_id else payment


async def _in_conflict(uow: UnitOfWork, payment_id: str) -> Payment:
    payment = await store.payment(uow.conn, payment_id, lock=True)
    if payment is None:
        raise ResourceNotFound(payment_id)
    if payment.state is not PaymentState.CONFLICTED:
        raise _refusal(payment, "The payment is not in conflict.")
    if payment.open_operation is not None:
        raise OperationInProgress(payment_id)
    return payment


def _is_over(status: IntentStatus) -> bool:
    """Tell whether there is nothing left to cancel at Stripe. It cancels nothing of which it has taken a part: what it still holds
    of the rest goes back by itself when the authorization's window ends, and is late money if it should be taken after all."""
    return status.status in CLOSED or status.received.amount_minor > 0


async def _accept(deps: Deps, uow: UnitOfWork, payment: Payment, status: IntentStatus, *, foreign: bool) -> Payment:
    if payment.purpose is Purpose.TOP_UP:
        raise _refusal(payment, "A top-up fills a wallet with what was asked for or with nothing: cancel it.")
    if foreign or not _is_over(status):
        raise _refusal(payment, "Stripe has not taken the money: cancel it.")
    if not payment.suspense or any(item.amount.currency != payment.amount.currency for item in payment.suspense):
        raise _refusal(payment, "Stripe has taken nothing in the payment's currency: cancel it.")
    return await deps.outcomes.accept(uow, payment)


async def resolve_payment(
    deps: Deps, request: IdempotentRequest, payment_id: str, verdict: Verdict, decider: Decider
) -> Payment:
    """Look into a payment's attempt, capture or cancel whose outcome is not known. Raises ResourceNotFound, PaymentStateInvalid,
    ProviderUnavailable, PeerUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        async with uow.refusals(request):
            payment = await store.payment(uow.conn, payment_id, lock=True)
            if payment is None:
                raise ResourceNotFound(payment_id)
            # A same-key call goes on with what the first one has noted: by now nothing may be open any more.
            if claim.resource_id is None:
                _check_open(payment, verdict)
                note_decision(deps, uow, payment.owner_id, "resolve_payment", payment.id, verdict.value, decider)
        await uow.idempotency.advance(
            request, "resolving", payment.id, shows=partial(store.payment, uow.conn, payment.id)
        )
    if payment.wallet_id and payment.latest_attempt is not None and payment.latest_attempt.state in OPEN_ATTEMPTS:
        # The ledger knows it by its id: asking is reading.
        payment = await drive_attempt(deps, payment.latest_attempt.id)
    elif verdict is Verdict.READ_AGAIN:
        payment = await learn_payment(deps, payment)
    else:
        payment = await _fail(deps, payment)
    async with deps.db.uow() as uow:
        uow.idempotency.complete(request, payment)
    return payment


def _check_open(payment: Payment, verdict: Verdict) -> None:
    operation, attempt = payment.open_operation, payment.latest_attempt
    open_still = operation is not None or (attempt is not None and attempt.state in OPEN_ATTEMPTS)
    if not open_still:
        raise _refusal(payment, "Nothing about the payment is open.")
    lost = (operation is not None and operation.state is OperationState.NEEDS_OPERATOR) or (
        attempt is not None and attempt.state is AttemptState.NEEDS_OPERATOR
    )
    if verdict is Verdict.FAIL and not lost:
        raise _refusal(payment, "Only what is in NEEDS_OPERATOR is ended by hand: before that, it may still be sent.")
    if verdict is Verdict.FAIL and payment.wallet_id:
        raise _refusal(payment, "A wallet's ledger always knows: read again.")


async def _fail(deps: Deps, payment: Payment) -> Payment:
    """End what needs a person as failed, where Stripe says that it never happened; otherwise apply what Stripe says."""
    operation, attempt = payment.open_operation, payment.latest_attempt
    if operation is not None and operation.state is OperationState.NEEDS_OPERATOR:
        status = await read_operation(deps, payment)
        if not isinstance(status, Answered):
            raise ProviderUnavailable
        if took_place(operation, status.value):
            return (await record_operation(deps, operation.id, status))[1]
        return (await record_operation(deps, operation.id, status, never=BY_STAFF))[1]
    if attempt is None or attempt.state is not AttemptState.NEEDS_OPERATOR:
        return payment  # it was told meanwhile
    found = await read_attempt(deps, payment, attempt)
    if not isinstance(found, Answered):
        raise ProviderUnavailable
    never = isinstance(found.value, NotConfirmed)
    ended = CardDeclined(charge_id="", decline=SETTLED_BY_STAFF, echo=found.value.echo)
    return await record_attempt(deps, attempt.id, Answered(ended) if never else found, None)


async def resolve_refund(
    deps: Deps, request: IdempotentRequest, refund_id: str, verdict: Verdict, decider: Decider
) -> Refund:
    """Look into a refund whose outcome is not known. Raises ResourceNotFound, RefundStateInvalid, ProviderUnavailable,
    PeerUnavailable."""
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        async with uow.refusals(request):
            refund = await store.refund(uow.conn, refund_id)
            payment = await store.payment(uow.conn, refund.payment_id, lock=True) if refund is not None else None
            if refund is None or payment is None:
                raise ResourceNotFound(refund_id)
            call = await uow.outbound.open_for(refund_id)
            if claim.resource_id is None:
                waits = call is not None and call.state == "NEEDS_OPERATOR"
                if refund.state is not RefundState.PENDING or (verdict is Verdict.FAIL and not waits):
                    rule = "Only a refund in PENDING is looked into, and failed only where every look was in vain."
                    raise RefundStateInvalid(rule, refund.id, refund.state.name)
                note_decision(deps, uow, refund.owner_id, "resolve_refund", refund.id, verdict.value, decider)
        await uow.idempotency.advance(request, "resolving", refund.id, shows=partial(store.refund, uow.conn, refund.id))
    if to_wallet(payment, refund):
        # The ledger knows it by its id: sending once more is reading.
        return await drive_refund(deps, refund_id, request)
    found = await find_refund(deps, payment, refund)
    if not isinstance(found, Answered):
        raise ProviderUnavailable
    if found.value is not None:
        return await record_refund(deps, refund_id, Answered(found.value), request)
    if verdict is Verdict.FAIL:
        never = RefundResult(stripe_refund_id="", state=RefundState.FAILED, failure_reason=BY_STAFF)
        return await record_refund(deps, refund_id, Answered(never), request)
    async with deps.db.uow() as uow:
        uow.idempotency.complete(request, refund)
    return refund
