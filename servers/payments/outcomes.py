"""What Stripe says, applied: the same transitions whether it was said to the call itself, to a webhook, or to the janitor.

The payment's row is locked by the caller. News that changes nothing is no news: late and repeated answers end here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, new_id
from servers.payments import store
from servers.payments.domain import (
    ATTEMPT,
    PAYMENT,
    REFUND,
    ActionRequired,
    Attempt,
    AttemptState,
    Capture,
    CardDeclined,
    Charged,
    ChargeResult,
    FeePlan,
    NotConfirmed,
    Payment,
    PaymentState,
    Refund,
    RefundResult,
    RefundState,
    StillProcessing,
)
from servers.payments.events import Events
from servers.runtime.db import UnitOfWork

_log = structlog.get_logger("payments")
_REFUND_TRIGGERS: Final = {
    RefundState.SUCCEEDED: "succeed",
    RefundState.FAILED: "fail",
    RefundState.CANCELED: "cancel",
}


class Outcomes:
    """Applies answers of the processor."""

    def __init__(self, events: Events, fee_plan: FeePlan, clock: Clock) -> None:
        self._events = events
        self._fee_plan = fee_plan
        self._clock = clock

    async def walk(self, uow: UnitOfWork, payment: Payment, *triggers: str, captured_minor: int = 0) -> Payment:
        """Walk the payment's arrows in order: a version and an outbox row each."""
        for trigger in triggers:
            arrow = PAYMENT.arrow(payment.state, trigger)
            payment = await store.advance(
                uow.conn,
                payment,
                trigger,
                now=self._clock.now(),
                captured_minor=captured_minor if trigger == "succeed" else 0,
            )
            await uow.outbox.append(self._events.payment(arrow.event, payment))
        return payment

    async def charge(self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: ChargeResult) -> Payment:
        """Apply what Stripe says of an attempt. Returns the payment as it is afterwards."""
        now = self._clock.now()
        if attempt.state in ATTEMPT.terminal or payment.state not in (
            PaymentState.PROCESSING,
            PaymentState.REQUIRES_ACTION,
        ):
            return payment
        match result:
            case Charged():
                return await self._charged(uow, payment, attempt, result, now)
            case CardDeclined():
                attempt = await store.advance_attempt(
                    uow.conn, attempt, "decline", now=now, decline=result.decline, charge_id=result.charge_id
                )
                return await self.walk(uow, replace(payment, latest_attempt=attempt), "decline")
            case ActionRequired():
                if attempt.state is AttemptState.REQUIRES_ACTION:
                    return payment
                attempt = await store.advance_attempt(
                    uow.conn, attempt, "require_action", now=now, next_action_url=result.url
                )
                return await self.walk(uow, replace(payment, latest_attempt=attempt), "require_action")
            case StillProcessing():
                if attempt.state is AttemptState.PENDING:
                    return payment
                attempt = await store.advance_attempt(uow.conn, attempt, "pend", now=now)
                payment = replace(payment, latest_attempt=attempt)
                return (
                    await self.walk(uow, payment, "return")
                    if payment.state is PaymentState.REQUIRES_ACTION
                    else payment
                )
            case NotConfirmed():
                return payment

    async def _charged(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: Charged, now: datetime
    ) -> Payment:
        steps = ("return",) if payment.state is PaymentState.REQUIRES_ACTION else ()
        if result.amount != payment.amount:
            # The processor says that it took something else than we asked for: nobody guesses, a person decides.
            _log.error("payment.conflicted", payment_id=payment.id, ours=str(payment.amount), theirs=str(result.amount))
            return await self.walk(uow, payment, *steps, "conflict")
        attempt = await store.advance_attempt(uow.conn, attempt, "succeed", now=now, charge_id=result.charge_id)
        capture = Capture(
            id=new_id("cap", clock=self._clock, bucket=bucket_of(payment.merchant_id)),
            amount=payment.amount,
            fee=self._fee_plan.fee(payment.amount),
            fee_plan_version=self._fee_plan.version,
            capture_time=now,
        )
        payment = replace(payment, latest_attempt=attempt, captures=(*payment.captures, capture))
        payment = await self.walk(uow, payment, *steps, "succeed", captured_minor=capture.amount.amount_minor)
        await store.insert_capture(uow.conn, payment, capture)
        return payment

    async def not_sent(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that Stripe provably never saw the confirm."""
        attempt = await store.advance_attempt(uow.conn, attempt, "not_sent", now=self._clock.now())
        return await self.walk(uow, replace(payment, latest_attempt=attempt), "not_sent")

    async def lost(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that the answer was lost: the payment stays in PROCESSING, no second attempt starts."""
        if attempt.state is not AttemptState.SENT:
            return payment
        attempt = await store.advance_attempt(uow.conn, attempt, "lose", now=self._clock.now())
        return replace(payment, latest_attempt=attempt)

    async def give_up(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that nothing could be learnt of an attempt within the plan."""
        attempt = await store.advance_attempt(uow.conn, attempt, "give_up", now=self._clock.now())
        return replace(payment, latest_attempt=attempt)

    async def refund(self, uow: UnitOfWork, payment: Payment, refund: Refund, result: RefundResult) -> Refund:
        """Apply what Stripe says of a refund, and move the payment's counters with it."""
        trigger = _REFUND_TRIGGERS.get(result.state)
        if trigger is None:
            if refund.state is RefundState.PENDING and (
                refund.uncertain or result.stripe_refund_id != refund.stripe_refund_id
            ):
                return await store.note_refund(
                    uow.conn, refund, uncertain=False, stripe_refund_id=result.stripe_refund_id
                )
            return refund
        if not REFUND.allows(refund.state, trigger):
            return refund
        now, amount = self._clock.now(), refund.amount.amount_minor
        event = REFUND.arrow(refund.state, trigger).event
        was_pending = refund.state is RefundState.PENDING
        refund = await store.advance_refund(
            uow.conn,
            refund,
            trigger,
            stripe_refund_id=result.stripe_refund_id,
            failure_reason=result.failure_reason,
            now=now,
        )
        succeeded = refund.state is RefundState.SUCCEEDED
        moved = await store.move_refund_counters(
            uow.conn,
            payment,
            pending_minor=-amount if was_pending else 0,
            refunded_minor=amount if succeeded else (0 if was_pending else -amount),
            now=now,
        )
        await uow.outbox.append(
            self._events.payment("payment.updated", moved), self._events.refund(event, refund, moved)
        )
        return refund
