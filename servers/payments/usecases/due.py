"""What a payment's due date asks for: its scheduled capture, or the end of a review that nobody made."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from servers.kernel.errors import Refusal
from servers.payments import store
from servers.payments.domain import AUTHORIZED, Payment, PaymentState
from servers.payments.outcomes import REVIEW_TIMED_OUT
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.operations import CapturePayment, begin_cancel, begin_capture, drive_operation

DUE_MAX: Final = 100
FIRST_PAUSE: Final = timedelta(minutes=1)

_log = structlog.get_logger("due")


async def act_on_due(deps: Deps) -> int:
    """Do what is due: two processes at once wait for each other at the payment, and the second finds it done. Returns how many
    payments were looked at."""
    async with deps.db.read() as conn:
        due = await store.due_payments(conn, deps.clock.now(), DUE_MAX)
    for payment in due:
        try:
            await _act(deps, payment)
        except Refusal as refusal:
            # Somebody else is at it, or Stripe was not reached: the next due time is set.
            _log.info("due.postponed", payment_id=payment.id, reason=refusal.reason)
    return len(due)


async def _act(deps: Deps, payment: Payment) -> None:
    """Begin what is due, and drive it. The next look is set first, whatever comes of this one."""
    now = deps.clock.now()
    async with deps.db.uow() as uow:
        current = await store.payment(uow.conn, payment.id, owner_id=payment.owner_id, lock=True)
        if current is None or current.due_time is None or current.due_time > now:
            return
        store.postpone_payment(uow.conn, current, _next_look(current, now))
    if current.state in AUTHORIZED:
        await _capture(deps, current)
    elif current.state is PaymentState.REQUIRES_REVIEW:
        await _time_out(deps, current)


def _next_look(payment: Payment, now: datetime) -> datetime:
    """The pauses double: as long again as it has been due by now."""
    in_review = payment.state is PaymentState.REQUIRES_REVIEW and payment.review is not None
    first = payment.review.expire_time if in_review and payment.review is not None else payment.capture_due_time
    return now + max(FIRST_PAUSE, now - first if first is not None else FIRST_PAUSE)


async def _time_out(deps: Deps, payment: Payment) -> None:
    """Cancel a payment that nobody has looked at in time. Raises ProviderUnavailable."""
    async with deps.db.uow() as uow:
        current = await store.payment(uow.conn, payment.id, owner_id=payment.owner_id, lock=True)
        # Whoever approves or rejects it at the last moment has the row's lock first, or finds it canceled.
        if current is None or current.state is not PaymentState.REQUIRES_REVIEW or current.open_operation is not None:
            return
        begun = await begin_cancel(deps, uow, current, REVIEW_TIMED_OUT)
    if not isinstance(begun, Payment):
        await drive_operation(deps, begun.id)
    _log.info("payment.review_timed_out", payment_id=payment.id)


async def _capture(deps: Deps, payment: Payment) -> None:
    """Capture all that is left, as its merchant would. Raises what `capture_payment` raises."""
    command = CapturePayment(payment_id=payment.id, merchant_id=payment.owner_id, amount=None, final=True)
    async with deps.db.uow() as uow:
        operation = await begin_capture(deps, uow, command)
    captured = await drive_operation(deps, operation.id)
    _log.info("payment.captured_by_schedule", payment_id=payment.id, state=captured.state.name)
