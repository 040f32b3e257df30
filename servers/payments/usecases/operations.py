"""Captures and cancels: one at a time, reserved before Stripe is asked, resolved by reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from servers.kernel.errors import FieldInvalid, ProviderUnavailable, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    AUTHORIZED,
    OPEN_ATTEMPTS,
    OPERATION,
    PAYMENT,
    AttemptState,
    CaptureExceedsAvailable,
    IntentStatus,
    MulticaptureUnavailable,
    NotCarriedOut,
    Operation,
    OperationInProgress,
    OperationKind,
    OperationResult,
    OperationState,
    Payment,
    PaymentState,
    PaymentStateInvalid,
)
from servers.payments.outcomes import CLOSED
from servers.payments.usecases import wallet_rail
from servers.payments.usecases.attempts import learn_attempt
from servers.payments.usecases.deps import Deps
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest, is_claimed
from servers.runtime.outbound import RESEND_WITHIN, Answered, NotSent, OutboundCall, Outcome, Unknown, digest
from servers.runtime.sending import send, send_again

# Not what is on its way right now: whoever sends it writes down what becomes of it.
UNCERTAIN_OPERATIONS: Final = (OperationState.UNKNOWN, OperationState.NEEDS_OPERATOR)
UNCERTAIN_ATTEMPTS: Final = (AttemptState.UNKNOWN, AttemptState.PENDING, AttemptState.NEEDS_OPERATOR)
CAPTURE: Final = "stripe.capture"
CANCEL: Final = "stripe.cancel"
VERBS: Final = {OperationKind.CAPTURE: CAPTURE, OperationKind.CANCEL: CANCEL}
declare(
    "payments.capture.after_intent",
    "payments.capture.after_send",
    "payments.capture.after_outcome",
    "payments.cancel.after_intent",
    "payments.cancel.after_send",
    "payments.cancel.after_outcome",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePayment:
    """A merchant takes money that is authorized; no amount means all that is left."""

    payment_id: str
    merchant_id: str
    amount: Money | None
    final: bool


async def capture_payment(deps: Deps, request: IdempotentRequest, command: CapturePayment) -> Payment:
    """Capture. Raises ResourceNotFound, PaymentStateInvalid, OperationInProgress, CaptureExceedsAvailable,
    MulticaptureUnavailable, FieldInvalid, ProviderUnavailable."""
    await look_first(deps, request, command.payment_id, lambda payment: payment.owner_id == command.merchant_id)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        operation_id = await _resumed(uow, claim.resource_id)
        if operation_id is None:
            async with uow.refusals(request):
                operation_id = (await begin_capture(deps, uow, command)).id
            await uow.idempotency.advance(
                request, "capturing", operation_id, shows=partial(_begun, uow, command.payment_id)
            )
    crash_point("payments.capture.after_intent")
    return await drive_operation(deps, operation_id, request)


async def cancel_payment(
    deps: Deps, request: IdempotentRequest, *, payment_id: str, merchant_id: str, reason: str, in_review: bool = False
) -> Payment:
    """Cancel; `in_review` only what is in review. Raises ResourceNotFound, PaymentStateInvalid, OperationInProgress,
    ProviderUnavailable."""
    await look_first(deps, request, payment_id, lambda payment: payment.owner_id == merchant_id)
    async with deps.db.uow() as uow:
        claim = await uow.idempotency.claim(request)
        operation_id = await _resumed(uow, claim.resource_id)
        if operation_id is None:
            async with uow.refusals(request):
                payment = await _locked(uow, payment_id, merchant_id, "cancel")
                if in_review and payment.state is not PaymentState.REQUIRES_REVIEW:
                    raise PaymentStateInvalid(
                        f"A payment in {payment.state.name} is not in review.", payment.id, payment.state.name
                    )
                begun = await begin_cancel(deps, uow, payment, reason)
                if isinstance(begun, Payment):
                    uow.idempotency.complete(request, begun)
                    return begun
                operation_id = begun.id
            await uow.idempotency.advance(request, "canceling", operation_id, shows=partial(_begun, uow, payment_id))
    crash_point("payments.cancel.after_intent")
    return await drive_operation(deps, operation_id, request)


async def begin_cancel(deps: Deps, uow: UnitOfWork, payment: Payment, reason: str) -> Operation | Payment:
    """Write down the cancel that is about to be sent. Where nobody else has heard of the payment there is nobody to ask: it is
    canceled and returned. Its row is locked by the caller, who has seen that it allows it."""
    if not payment.stripe_payment_intent_id and payment.state is not PaymentState.REQUIRES_CAPTURE:
        return await deps.outcomes.canceled(uow, payment, "cancel", reason=reason)
    return await begin_operation(deps, uow, payment, OperationKind.CANCEL, reason=reason)


async def _begun(uow: UnitOfWork, payment_id: str) -> Payment:
    """Return a payment as a rehearsal shows it: what was begun is no uncertainty, because it goes no further."""
    payment = await store.payment(uow.conn, payment_id)
    assert payment is not None
    return replace(payment, open_operation=None)


async def _resumed(uow: UnitOfWork, operation_id: str | None) -> str | None:
    """Return the operation that a same-key call goes on with; a new one starts where Stripe provably never saw the old one."""
    if operation_id is None:
        return None
    operation = await store.operation_by_id(uow.conn, operation_id)
    return None if operation.state is OperationState.NOT_SENT else operation_id


async def _locked(uow: UnitOfWork, payment_id: str, merchant_id: str, *triggers: str) -> Payment:
    payment = await store.payment(uow.conn, payment_id, owner_id=merchant_id, lock=True)
    if payment is None:
        raise ResourceNotFound(payment_id)
    attempt = payment.latest_attempt
    if payment.open_operation is not None or (attempt is not None and attempt.state in OPEN_ATTEMPTS):
        raise OperationInProgress(payment_id)
    if not any(PAYMENT.allows(payment.state, trigger) for trigger in triggers):
        verb = "canceled" if "cancel" in triggers else "captured"
        raise PaymentStateInvalid(
            f"A payment in {payment.state.name} cannot be {verb}.", payment.id, payment.state.name
        )
    return payment


async def begin_capture(deps: Deps, uow: UnitOfWork, command: CapturePayment) -> Operation:
    """Write down the capture that is about to be sent, and reserve its amount. Raises what `capture_payment` refuses."""
    payment = await _locked(uow, command.payment_id, command.merchant_id, "capture_part", "capture_last")
    left = payment.capturable
    amount = command.amount if command.amount is not None else left
    if amount.currency != left.currency:
        raise FieldInvalid.of("amount.currency", f"must be the payment's currency, {left.currency}")
    if amount.amount_minor == 0 and not (command.final and payment.state is PaymentState.PARTIALLY_CAPTURED):
        raise FieldInvalid.of("amount.amount_minor", "must be at least 1; 0 only lets the rest go, with `final`")
    if amount.amount_minor > left.amount_minor:
        raise CaptureExceedsAvailable(left)
    if amount.amount_minor < left.amount_minor and not command.final and not payment.multicapture:
        raise MulticaptureUnavailable(payment.id)
    operation = await begin_operation(
        deps,
        uow,
        payment,
        OperationKind.CAPTURE,
        amount_minor=amount.amount_minor,
        final=command.final or amount.amount_minor == left.amount_minor,
    )
    if amount.amount_minor:
        reserved = store.reserve_capture(uow.conn, payment, amount.amount_minor, deps.clock.now())
        uow.outbox.append(deps.events.payment("payment.updated", reserved))
    return operation


async def begin_operation(
    deps: Deps,
    uow: UnitOfWork,
    payment: Payment,
    kind: OperationKind,
    *,
    amount_minor: int = 0,
    final: bool = False,
    reason: str = "",
) -> Operation:
    """Write down the capture or cancel that is about to be sent. The payment's row is locked by the caller."""
    now = deps.clock.now()
    operation = Operation(
        id=new_id("op", clock=deps.clock, bucket=bucket_of(payment.owner_id)),
        payment_id=payment.id,
        owner_id=payment.owner_id,
        kind=kind,
        amount_minor=amount_minor,
        final=final,
        captured_before_minor=payment.captured_minor,
        reason=reason,
        failure_code="",
        state=OPERATION.arrow(None, "create").target,
        create_time=now,
        update_time=now,
    )
    store.insert_operation(uow.conn, operation)
    await uow.outbound.record(
        verb=wallet_rail.WALLET_OPERATION if _from_wallet(payment) else VERBS[kind],
        target=operation.id,
        key=operation.id,
        request_digest=digest(payment.id, kind.value, str(amount_minor), str(final)),
    )
    return operation


async def drive_operation(deps: Deps, operation_id: str, request: IdempotentRequest | None = None) -> Payment:
    """Bring a capture or cancel to what is known of it: send it, or read and send again while that is safe."""
    operation, payment = await _load(deps, operation_id)
    if operation.state in OPERATION.terminal:
        return await _answer(deps, operation, payment, request)
    # A young one may be sent as it is: where it went out before a crash, Stripe recognises its key.
    young = operation.state is OperationState.CREATED and deps.clock.now() - operation.create_time < RESEND_WITHIN
    outcome = await (_send(deps, operation, payment) if young else _read_or_send(deps, operation, payment))
    point = operation.kind.value.lower()
    crash_point(f"payments.{point}.after_send")
    operation, payment = await record_operation(deps, operation_id, outcome)
    crash_point(f"payments.{point}.after_outcome")
    return await _answer(deps, operation, payment, request)


async def learn_operation(deps: Deps, operation_id: str, *, insist: bool = False) -> Payment:
    """Ask Stripe about an operation and write down what it says; never sends. `insist` as for an attempt."""
    operation, payment = await _load(deps, operation_id)
    if operation.state in (*OPERATION.terminal, OperationState.CREATED):
        return payment  # one that is CREATED is on its way right now, or the janitor's
    # The ledger knows the operation by its id: sending once more is reading.
    found = await (_send(deps, operation, payment) if _from_wallet(payment) else read_operation(deps, payment))
    if insist and not isinstance(found, Answered):
        raise ProviderUnavailable
    return (await record_operation(deps, operation_id, found))[1] if isinstance(found, Answered) else payment


async def _load(deps: Deps, operation_id: str) -> tuple[Operation, Payment]:
    async with deps.db.read() as conn:
        operation = await store.operation_by_id(conn, operation_id)
        payment = await store.payment(conn, operation.payment_id, owner_id=operation.owner_id)
    invariant(payment is not None, "an operation without its payment", operation_id=operation_id)
    assert payment is not None
    return operation, payment


async def _send(deps: Deps, operation: Operation, payment: Payment) -> Outcome[OperationResult]:
    return await send(deps.db, operation.id, lambda: _execute(deps, operation, payment))


async def _execute(deps: Deps, operation: Operation, payment: Payment) -> Outcome[OperationResult]:
    if _from_wallet(payment):
        return await wallet_rail.operate(deps, payment, operation)
    intent_id = payment.stripe_payment_intent_id
    if operation.kind is OperationKind.CANCEL:
        return await deps.outbound.execute(CANCEL, lambda: deps.gateway.cancel(intent_id, operation))
    return await deps.outbound.execute(
        CAPTURE,
        lambda: deps.gateway.capture(intent_id, operation, payment.amount.currency, multicapture=payment.multicapture),
    )


def _from_wallet(payment: Payment) -> bool:
    """Tell whether the money is held in a wallet; a wallet that was short holds nothing, and an intent of before may be open."""
    return bool(payment.wallet_id) and payment.state in AUTHORIZED


async def read_operation(deps: Deps, payment: Payment) -> Outcome[IntentStatus]:
    """Return how the payment stands at Stripe, or with the ledger: by it an operation is known."""
    if _from_wallet(payment):
        return await wallet_rail.status(deps, payment)
    return await read_intent(deps, payment)


async def read_intent(deps: Deps, payment: Payment) -> Outcome[IntentStatus]:
    """Return how the payment stands at Stripe."""
    return await deps.outbound.execute(
        "stripe.read_intent", lambda: deps.gateway.intent_status(payment.stripe_payment_intent_id)
    )


async def _read_or_send(deps: Deps, operation: Operation, payment: Payment) -> Outcome[OperationResult]:
    if _from_wallet(payment):
        return await _send(deps, operation, payment)
    found = await read_operation(deps, payment)
    if not isinstance(found, Answered):
        return Unknown(found.reason)
    if took_place(operation, found.value):
        return found
    return await send_again(deps.db, operation.id, lambda: _execute(deps, operation, payment))


def took_place(operation: Operation, result: IntentStatus) -> bool:
    """Tell whether an operation is decided: carried out, or impossible by now."""
    if result.status in CLOSED:
        return True
    expected = operation.captured_before_minor + operation.amount_minor
    return operation.amount_minor > 0 and result.received.amount_minor >= expected


async def record_operation(
    deps: Deps, operation_id: str, outcome: Outcome[OperationResult], *, never: str = ""
) -> tuple[Operation, Payment]:
    """Write down what is known now. The payment's row is locked first, as for everything that happens to it. `never`: the code
    under which an operation fails that did not take place by now, because a person says that it will not."""
    async with deps.db.uow() as uow:
        operation = await store.operation_by_id(uow.conn, operation_id)
        payment = await store.payment(uow.conn, operation.payment_id, owner_id=operation.owner_id, lock=True)
        assert payment is not None
        operation = await store.operation_by_id(uow.conn, operation_id)
        outcome = await uow.outbound.known(operation_id, outcome)
        if operation.state not in OPERATION.terminal:
            match outcome:
                case Answered() if never:
                    payment = deps.outcomes.operation_failed(uow, payment, operation, never)
                case Answered():
                    payment = await deps.outcomes.operation(uow, payment, operation, outcome.value)
                case NotSent() if operation.state is OperationState.CREATED:
                    payment = deps.outcomes.operation_failed(uow, payment, operation, "not_sent", trigger="not_sent")
                case Unknown() if operation.state is OperationState.CREATED:
                    store.advance_operation(uow.conn, operation, "lose", now=deps.clock.now())
                case _:
                    pass
        operation = await store.operation_by_id(uow.conn, operation_id)
        open_still = operation.state not in OPERATION.terminal and isinstance(outcome, Answered)
        known = Unknown("not carried out, or not yet") if open_still else outcome
        uow.outbound.settle(operation_id, known)
    return operation, payment


async def _answer(deps: Deps, operation: Operation, payment: Payment, request: IdempotentRequest | None) -> Payment:
    """Answer the caller, and keep the answer under the key: the payment, or why Stripe would not. One that was not sent leaves the
    key open."""
    if operation.state is OperationState.NOT_SENT:
        raise ProviderUnavailable
    if operation.state is OperationState.FAILED and request is not None:
        payment = await learn_payment(deps, payment)
        refusal = NotCarriedOut(payment.id, payment.state.name, operation.failure_code)
        async with deps.db.uow() as uow:
            uow.idempotency.refuse(request, refusal)
        raise refusal
    if request is not None:
        async with deps.db.uow() as uow:
            uow.idempotency.complete(request, payment)
    return payment


async def give_up_operation(deps: Deps, uow: UnitOfWork, call: OutboundCall) -> None:
    """Note that every look of the plan was in vain."""
    operation = await store.operation_by_id(uow.conn, call.target)
    await store.payment(uow.conn, operation.payment_id, owner_id=operation.owner_id, lock=True)
    operation = await store.operation_by_id(uow.conn, call.target)
    if OPERATION.allows(operation.state, "give_up"):
        store.advance_operation(uow.conn, operation, "give_up", now=deps.clock.now())


async def learn_payment(deps: Deps, payment: Payment, *, insist: bool = False) -> Payment:
    """Find out, by reading, what has become of a payment: its attempt, its open operation, or its authorization's window. With
    `insist`, raises ProviderUnavailable where Stripe does not tell."""
    if payment.open_operation is not None:
        return await learn_operation(deps, payment.open_operation.id, insist=insist)
    if payment.state in AUTHORIZED:
        return await _learn_window(deps, payment, insist=insist)
    if payment.latest_attempt is not None:
        return await learn_attempt(deps, payment.latest_attempt.id, insist=insist)
    return payment


async def look_first(
    deps: Deps, request: IdempotentRequest, payment_id: str, is_theirs: Callable[[Payment], bool]
) -> Payment | None:
    """Before something new is asked of a payment, find out what has become of what was asked before and has no certain outcome. A
    rehearsal asks nobody, and neither does a repeat: it has its answer, or goes on with what it began. Returns the payment, if it
    is theirs, as it is without a lock."""
    async with deps.db.read() as conn:
        payment = await store.payment(conn, payment_id)
    if payment is None or not is_theirs(payment):
        return None
    operation, attempt = payment.open_operation, payment.latest_attempt
    is_open = (operation is not None and operation.state in UNCERTAIN_OPERATIONS) or (
        attempt is not None and attempt.state in UNCERTAIN_ATTEMPTS
    )
    if not is_open or request.rehearsal:
        return payment
    async with deps.db.read() as conn:
        if await is_claimed(conn, request):
            return payment
    return await learn_payment(deps, payment)


async def _learn_window(deps: Deps, payment: Payment, *, insist: bool) -> Payment:
    found = await read_operation(deps, payment)
    if insist and not isinstance(found, Answered):
        raise ProviderUnavailable
    if not isinstance(found, Answered):
        return payment
    async with deps.db.uow() as uow:
        current = await store.payment(uow.conn, payment.id, owner_id=payment.owner_id, lock=True)
        assert current is not None
        if current.open_operation is not None or current.state not in AUTHORIZED:
            return current  # something else is under way, or was: it knows more
        if found.value.received.amount_minor > current.captured_minor:
            return await deps.outcomes.captured_elsewhere(uow, current, found.value)
        # Where Stripe holds less than we know of, this is not the end of the window.
        same = found.value.received == current.captured
        if found.value.status in CLOSED and same and PAYMENT.allows(current.state, "expire"):
            return await deps.outcomes.canceled(uow, current, "expire", reason="")
    return current


def _is_under_way(payment: Payment) -> bool:
    """Tell whether a call is on its way right now: whoever sends it will find the same news."""
    operation, attempt = payment.open_operation, payment.latest_attempt
    if operation is not None:
        return operation.state is OperationState.CREATED
    return attempt is not None and attempt.state in (AttemptState.CREATED, AttemptState.SENT)


class Unaccounted(Exception):
    """Stripe has taken money that no arrow of the payment accounts for."""


async def account_for(deps: Deps, payment: Payment, received: Money) -> Payment:
    """Find the place of all that Stripe says it has taken of a payment. Raises Unaccounted where there is none, or not yet: the
    news is kept and tried again, and at last a person looks."""
    if received.amount_minor <= payment.taken_by_stripe(received.currency) or _is_under_way(payment):
        return payment
    ended = (*PAYMENT.terminal, PaymentState.CONFLICTED)
    if payment.state not in ended:
        raise Unaccounted(payment.id)
    # What told of it is a snapshot; what counts is how the intent stands now.
    found = await read_intent(deps, payment)
    if not isinstance(found, Answered):
        raise Unaccounted(payment.id)
    async with deps.db.uow() as uow:
        current = await store.payment(uow.conn, payment.id, owner_id=payment.owner_id, lock=True)
        assert current is not None
        if current.state not in ended:
            raise Unaccounted(payment.id)
        return await deps.outcomes.suspense.found(uow, current, found.value.received)
