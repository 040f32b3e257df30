"""Paying from a wallet: the ledger is the processor. Each call carries the id of what it is for, so that it may be sent again at
any time, and its answer is the same: sending again is how a lost answer is read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from servers.kernel.ids import bucket_of, derive_id
from servers.kernel.money import Money
from servers.payments.declines import WALLET_SHORT, WALLET_UNUSABLE
from servers.payments.domain import (
    Attempt,
    Authorized,
    Capture,
    CaptureMethod,
    CardDeclined,
    Charged,
    ChargeResult,
    FeePlan,
    IntentStatus,
    Operation,
    OperationKind,
    OperationRefused,
    OperationResult,
    Payment,
)
from servers.payments.fees import capture_under
from servers.payments.peers import Booked
from servers.payments.usecases.deps import Deps
from servers.runtime.outbound import Outcome

WALLET_CONFIRM: Final = "wallets.confirm"
WALLET_OPERATION: Final = "wallets.operate"
WINDOW: Final = timedelta(days=7)
"""How long money stays held for a capture: what most card networks grant."""
SLACK: Final = timedelta(minutes=10)
"""The ledger's hold outlives the window, so that the payment lets go of it and not the other way round."""


async def pay(deps: Deps, payment: Payment, attempt: Attempt, plan: FeePlan) -> Outcome[ChargeResult]:
    """Hold the payment's amount, or take it at once where the capture is automatic, under the plan that was in force when the
    attempt was made."""
    return await deps.ledger_outbound.execute(WALLET_CONFIRM, lambda: _pay(deps, payment, attempt, plan))


async def _pay(deps: Deps, payment: Payment, attempt: Attempt, plan: FeePlan) -> ChargeResult:
    window_end = attempt.create_time + WINDOW
    if payment.capture_method is CaptureMethod.MANUAL:
        booked = await deps.ledger.hold(payment, attempt, window_end + SLACK)
        if not booked.done:
            return _declined(booked)
        return Authorized(charge_id="", amount=payment.amount, multicapture=True, capture_before_time=window_end)
    capture = _capture(deps, payment, attempt.id, payment.amount, plan)
    booked = await deps.ledger.capture_held(payment, attempt, capture, window_end + SLACK)
    if not booked.done:
        return _declined(booked)
    return Charged(charge_id="", amount=payment.amount, capture=_as_booked(capture, booked))


def _declined(booked: Booked) -> CardDeclined:
    short = booked.verdict in ("INSUFFICIENT_FUNDS", "BURNT")
    return CardDeclined(charge_id="", decline=WALLET_SHORT if short else WALLET_UNUSABLE)


async def operate(deps: Deps, payment: Payment, operation: Operation) -> Outcome[OperationResult]:
    """Capture from what is held, or let it go."""
    return await deps.ledger_outbound.execute(WALLET_OPERATION, lambda: _operate(deps, payment, operation))


async def _operate(deps: Deps, payment: Payment, operation: Operation) -> OperationResult:
    attempt = payment.latest_attempt
    assert attempt is not None
    if operation.kind is OperationKind.CANCEL:
        await deps.ledger.void(payment, attempt, operation.create_time)
        return IntentStatus(status="canceled", received=payment.captured)
    received = operation.captured_before_minor + operation.amount_minor
    taken: Capture | None = None
    if operation.amount_minor:
        amount = Money(amount_minor=operation.amount_minor, currency=payment.amount.currency)
        async with deps.db.read() as conn:
            plan = await deps.fee_plans.in_force(conn, payment, operation.create_time)
        capture = _capture(deps, payment, operation.id, amount, plan)
        booked = await deps.ledger.capture_held(payment, attempt, capture, attempt.create_time + WINDOW + SLACK)
        if not booked.done:
            return OperationRefused(code="authorization_ended")
        taken = _as_booked(capture, booked)
    if operation.final:
        await deps.ledger.void(payment, attempt, operation.create_time)
    return IntentStatus(
        status="succeeded" if operation.final else "requires_capture",
        received=Money(amount_minor=received, currency=payment.amount.currency),
        capture=taken,
    )


async def status(deps: Deps, payment: Payment) -> Outcome[IntentStatus]:
    """Return how the hold stands: it is let go where the window has ended."""
    return await deps.ledger_outbound.execute(WALLET_OPERATION, lambda: _status(deps, payment))


async def _status(deps: Deps, payment: Payment) -> IntentStatus:
    attempt = payment.latest_attempt
    assert attempt is not None
    if payment.capture_before_time is None or deps.clock.now() < payment.capture_before_time:
        return IntentStatus(status="requires_capture", received=payment.captured)
    await deps.ledger.void(payment, attempt, payment.capture_before_time)
    return IntentStatus(status="canceled", received=payment.captured)


def _capture(deps: Deps, payment: Payment, cause_id: str, amount: Money, plan: FeePlan) -> Capture:
    capture_id = derive_id("cap", cause_id, bucket=bucket_of(payment.owner_id))
    return capture_under(plan, payment, amount, capture_id=capture_id, now=deps.clock.now())


def _as_booked(capture: Capture, booked: Booked) -> Capture:
    """Return the capture with the fee that the ledger has for it, maybe since an earlier call."""
    return replace(capture, fee=booked.fee or Money.zero(capture.amount.currency))
