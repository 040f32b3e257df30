"""What Stripe says, applied: the same transitions whether it was said to the call itself, to a webhook, or to the janitor.

The payment's row is locked by the caller. News that changes nothing is no news: late and repeated answers end here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.declines import PAYMENT_CANCELED
from servers.payments.domain import (
    ATTEMPT,
    OPERATION,
    PAYMENT,
    REFUND,
    ActionRequired,
    Attempt,
    AttemptState,
    Authorized,
    Capture,
    CaptureMethod,
    CardDeclined,
    Charged,
    ChargeResult,
    IntentStatus,
    NextAction,
    NotConfirmed,
    Operation,
    OperationKind,
    OperationRefused,
    OperationResult,
    Payment,
    PaymentState,
    Purpose,
    Refund,
    RefundResult,
    RefundState,
    StillProcessing,
    Usage,
    UsedCard,
)
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.render import next_action_place
from servers.payments.saving import Saving
from servers.runtime.db import UnitOfWork
from servers.runtime.sealed import Sealer

_log = structlog.get_logger("payments")
_REFUND_TRIGGERS: Final = {
    RefundState.SUCCEEDED: "succeed",
    RefundState.FAILED: "fail",
    RefundState.CANCELED: "cancel",
}


class Outcomes:
    """Applies answers of the processor."""

    def __init__(self, events: Events, fee_plans: FeePlans, clock: Clock, saving: Saving, sealer: Sealer) -> None:
        self._events = events
        self._fee_plans = fee_plans
        self._clock = clock
        self._saving = saving
        self._sealer = sealer

    def sealed(self, identifier: str, answer: ActionRequired) -> NextAction:
        """Return what the cardholder must do, with Stripe's secret sealed."""
        secret = answer.client_secret
        place = next_action_place(identifier)
        return NextAction(
            url=answer.url, sealed_secret=self._sealer.seal(secret.encode(), place=place) if secret else b""
        )

    async def walk(self, uow: UnitOfWork, payment: Payment, *triggers: str, **changes: Any) -> Payment:
        """Walk the payment's arrows in order: a version and an outbox row each. `changes` come with the last one."""
        for trigger in triggers:
            arrow = PAYMENT.arrow(payment.state, trigger, payment.id)
            with_it = changes if trigger == triggers[-1] else {}
            payment = await store.advance(uow.conn, payment, trigger, now=self._clock.now(), **with_it)
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
            case Authorized():
                return await self._authorized(uow, payment, attempt, result, now)
            case CardDeclined():
                attempt = await store.advance_attempt(
                    uow.conn, attempt, "decline", now=now, decline=result.decline, charge_id=result.charge_id
                )
                payment = await self.walk(uow, replace(payment, latest_attempt=attempt), "decline")
                if payment.purpose is Purpose.TOP_UP:
                    # Who wants to try another card makes another top-up.
                    return await self.canceled(uow, payment, "cancel", reason="ABANDONED")
                return payment
            case ActionRequired():
                if attempt.state in (AttemptState.REQUIRES_ACTION, AttemptState.PENDING):
                    return payment  # who has answered already is not asked again: this was said before that
                attempt = await store.advance_attempt(
                    uow.conn, attempt, "require_action", now=now, next_action=self.sealed(attempt.id, result)
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
        if result.amount != payment.amount:
            return await self._conflict(uow, payment, result.amount)
        payment = await self._succeeded(uow, payment, attempt, result.charge_id, result.used, now)
        return await self._captured(
            uow,
            payment,
            payment.amount.amount_minor,
            *_steps(payment),
            "succeed",
            booked=result.capture,
        )

    async def _authorized(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: Authorized, now: datetime
    ) -> Payment:
        if result.amount != payment.amount or payment.capture_method is not CaptureMethod.MANUAL:
            return await self._conflict(uow, payment, result.amount)
        payment = await self._succeeded(uow, payment, attempt, result.charge_id, result.used, now)
        return await self.walk(
            uow,
            payment,
            *_steps(payment),
            "authorize",
            capturable_minor=payment.amount.amount_minor,
            multicapture=result.multicapture,
            capture_before_time=result.capture_before_time,
        )

    async def _succeeded(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, charge_id: str, used: UsedCard | None, now: datetime
    ) -> Payment:
        """Note that the attempt went through, and save its card where its payer asked for that."""
        source, usage = attempt.source, attempt.manner.save_for
        if usage is not Usage.NONE and payment.customer_id and (source.payment_method_id or used is not None):
            if not source.payment_method_id and used is not None:
                method = await self._saving.adopt(uow, payment.customer_id, used)
                source = replace(source, payment_method_id=method.id)
            await self._saving.give(
                uow,
                owner_id=payment.customer_id,
                merchant_id=payment.merchant_id,
                method_id=source.payment_method_id,
                usage=usage,
            )
        attempt = await store.advance_attempt(uow.conn, attempt, "succeed", now=now, charge_id=charge_id, source=source)
        return replace(payment, latest_attempt=attempt)

    async def _conflict(self, uow: UnitOfWork, payment: Payment, theirs: Money) -> Payment:
        """The processor says that it took something else than we asked for: nobody guesses, a person decides."""
        _log.error("payment.conflicted", payment_id=payment.id, ours=str(payment.amount), theirs=str(theirs))
        return await self.walk(uow, payment, *_steps(payment), "conflict")

    async def _captured(
        self,
        uow: UnitOfWork,
        payment: Payment,
        amount_minor: int,
        *triggers: str,
        booked: Capture | None = None,
        **changes: Any,
    ) -> Payment:
        """Walk arrows that capture an amount: the capture, with its fee, is part of what the event tells. What the ledger has
        booked already, from a wallet, is that."""
        amount = Money(amount_minor=amount_minor, currency=payment.amount.currency)
        capture = booked or await self._fee_plans.capture_now(
            uow.conn,
            payment,
            amount,
            capture_id=new_id("cap", clock=self._clock, bucket=bucket_of(payment.owner_id)),
            now=self._clock.now(),
        )
        payment = replace(payment, captures=(*payment.captures, capture))
        changes["captured_minor"] = payment.captured_minor + amount_minor
        payment = await self.walk(uow, payment, *triggers, **changes)
        await store.insert_capture(uow.conn, payment, capture)
        return payment

    async def operation(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, result: OperationResult
    ) -> Payment:
        """Apply what Stripe says of a capture or cancel. What does not say that it took place leaves it open."""
        if operation.state in OPERATION.terminal:
            return payment
        if isinstance(result, OperationRefused):
            return await self.operation_failed(uow, payment, operation, result.code)
        if operation.kind is OperationKind.CANCEL:
            return await self._cancel_answered(uow, payment, operation, result)
        expected = operation.captured_before_minor + operation.amount_minor
        took_place = result.received.amount_minor >= expected and (
            operation.amount_minor > 0 or result.status == "succeeded"
        )
        if not took_place and result.status in ("canceled", "succeeded"):
            return await self.operation_failed(uow, payment, operation, "authorization_ended")
        if not took_place:
            return payment
        if result.received.amount_minor != expected or result.received.currency != payment.amount.currency:
            _log.error("capture.differs", payment_id=payment.id, ours=expected, theirs=result.received.amount_minor)
            return payment
        await store.advance_operation(uow.conn, operation, "succeed", now=self._clock.now())
        last = operation.final or not payment.capturable_minor
        rest = 0 if last else payment.capturable_minor
        left = payment.capture_pending_minor - operation.amount_minor
        trigger = "capture_last" if last else "capture_part"
        payment = replace(payment, open_operation=None)
        changes = {"capturable_minor": rest, "capture_pending_minor": left}
        if operation.amount_minor == 0:
            return await self.walk(uow, payment, trigger, **changes)
        return await self._captured(
            uow,
            payment,
            operation.amount_minor,
            trigger,
            booked=result.capture,
            **changes,
        )

    async def _cancel_answered(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, result: IntentStatus
    ) -> Payment:
        if result.status == "succeeded":
            # The money was taken before the cancel arrived: that is applied instead, by whoever reads the attempt.
            return await self.operation_failed(uow, payment, operation, "already_captured")
        if result.status != "canceled":
            return payment
        now = self._clock.now()
        await store.advance_operation(uow.conn, operation, "succeed", now=now)
        payment = replace(payment, open_operation=None)
        return await self.canceled(uow, payment, "cancel", reason=operation.reason)

    async def canceled(self, uow: UnitOfWork, payment: Payment, trigger: str, *, reason: str) -> Payment:
        """End a payment without money, or an authorization's window. A cardholder who was asked for 3-D Secure is asked no more."""
        attempt = payment.latest_attempt
        if attempt is not None and attempt.state is AttemptState.REQUIRES_ACTION:
            ended = await store.advance_attempt(
                uow.conn, attempt, "decline", now=self._clock.now(), decline=PAYMENT_CANCELED
            )
            payment = replace(payment, latest_attempt=ended)
        return await self.walk(
            uow, payment, trigger, capturable_minor=0, capture_pending_minor=0, cancellation_reason=reason
        )

    async def operation_failed(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, code: str, *, trigger: str = "fail"
    ) -> Payment:
        """Apply that a capture or cancel did not take place: what it reserved is free again."""
        await store.advance_operation(uow.conn, operation, trigger, now=self._clock.now(), failure_code=code)
        payment = replace(payment, open_operation=None)
        if operation.kind is OperationKind.CAPTURE and operation.amount_minor:
            payment = await store.release_capture(uow.conn, payment, operation.amount_minor, self._clock.now())
            await uow.outbox.append(self._events.payment("payment.updated", payment))
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
        event = REFUND.arrow(refund.state, trigger, refund.id).event
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


def _steps(payment: Payment) -> tuple[str, ...]:
    return ("return",) if payment.state is PaymentState.REQUIRES_ACTION else ()
