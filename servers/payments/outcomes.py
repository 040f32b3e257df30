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
from servers.payments.disputing import Disputing
from servers.payments.domain import (
    ATTEMPT,
    OPEN_REFUNDS,
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
    FeePlan,
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
    ReviewState,
    StillProcessing,
    Usage,
    UsedCard,
)
from servers.payments.events import Events
from servers.payments.render import next_action_place
from servers.payments.saving import Saving
from servers.runtime.db import UnitOfWork
from servers.runtime.sealed import Sealer

_log = structlog.get_logger("payments")
REVIEW_TIMED_OUT: Final = "REVIEW_TIMED_OUT"
SHORT_OF_BALANCE: Final = "INSUFFICIENT_MERCHANT_BALANCE"
_REFUND_PATHS: Final = {
    (RefundState.PENDING, RefundState.SUCCEEDED): ("succeed",),
    (RefundState.PENDING, RefundState.FAILED): ("fail",),
    (RefundState.PENDING, RefundState.CANCELED): ("cancel",),
    (RefundState.PENDING, RefundState.REQUIRES_ACTION): ("require_action",),
    (RefundState.REQUIRES_ACTION, RefundState.PENDING): ("pend",),
    (RefundState.REQUIRES_ACTION, RefundState.CANCELED): ("cancel",),
    (RefundState.REQUIRES_ACTION, RefundState.SUCCEEDED): ("pend", "succeed"),
    (RefundState.REQUIRES_ACTION, RefundState.FAILED): ("pend", "fail"),
    (RefundState.SUCCEEDED, RefundState.FAILED): ("fail",),
}
"""The arrows from what is known of a refund to what the processor says of it; where there are none it is no news."""


class Outcomes:
    """Applies answers of the processor."""

    def __init__(
        self, events: Events, fee_plan: FeePlan, clock: Clock, saving: Saving, sealer: Sealer, disputing: Disputing
    ) -> None:
        self._events = events
        self._disputing = disputing
        self._fee_plan = fee_plan
        self._clock = clock
        self._saving = saving
        self._sealer = sealer

    def fee_of(self, payment: Payment, amount: Money) -> Money:
        """Return what the platform keeps of one more capture; of a top-up it keeps nothing."""
        if payment.purpose is Purpose.TOP_UP:
            return Money.zero(amount.currency)
        return self._fee_plan.fee_of_capture(payment.captured, amount)

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
            capture_id=result.capture_id,
            fee=result.fee,
        )

    async def _authorized(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: Authorized, now: datetime
    ) -> Payment:
        if result.amount != payment.amount or payment.capture_method is not CaptureMethod.MANUAL:
            return await self._conflict(uow, payment, result.amount)
        payment = await self._succeeded(uow, payment, attempt, result.charge_id, result.used, now)
        ends = result.capture_before_time
        return await self.walk(
            uow,
            payment,
            *_steps(payment),
            "authorize",
            capturable_minor=payment.amount.amount_minor,
            multicapture=result.multicapture,
            capture_before_time=ends,
            due_time=replace(payment, capture_before_time=ends).capture_due_time,
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
        capture_id: str = "",
        fee: Money | None = None,
        **changes: Any,
    ) -> Payment:
        """Walk arrows that capture an amount: the capture, with its fee, is part of what the event tells. What the ledger has
        booked already, from a wallet, keeps the id and the fee that it has there."""
        amount = Money(amount_minor=amount_minor, currency=payment.amount.currency)
        capture = Capture(
            id=capture_id or new_id("cap", clock=self._clock, bucket=bucket_of(payment.owner_id)),
            amount=amount,
            fee=fee if fee is not None else self.fee_of(payment, amount),
            fee_plan_version=self._fee_plan.version,
            capture_time=self._clock.now(),
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
            capture_id=result.capture_id,
            fee=result.fee,
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
        """End a payment without money, or an authorization's window. A cardholder who was asked for 3-D Secure is asked no more,
        and nobody looks at it any more."""
        attempt, review = payment.latest_attempt, payment.review
        if review is not None and review.state is ReviewState.OPEN:
            ended_by = ReviewState.TIMED_OUT if reason == REVIEW_TIMED_OUT else ReviewState.REJECTED
            review = replace(review, state=ended_by)
        if attempt is not None and attempt.state in (AttemptState.REQUIRES_ACTION, AttemptState.IN_REVIEW):
            ended = await store.advance_attempt(
                uow.conn, attempt, "decline", now=self._clock.now(), decline=PAYMENT_CANCELED
            )
            payment = replace(payment, latest_attempt=ended)
        return await self.walk(
            uow,
            payment,
            trigger,
            capturable_minor=0,
            capture_pending_minor=0,
            cancellation_reason=reason,
            review=review,
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
        path: tuple[str, ...] = _REFUND_PATHS.get((refund.state, result.state), ())
        if refund.state is result.state is RefundState.PENDING and refund.pending_reason != result.pending_reason:
            path = ("wait",)
        for trigger in path:
            payment, refund = await self._walk_refund(uow, payment, refund, trigger, result)
        known = refund.stripe_refund_id == (result.stripe_refund_id or refund.stripe_refund_id)
        if refund.state in OPEN_REFUNDS and refund.state is result.state and (refund.uncertain or not known):
            return await store.note_refund(uow.conn, refund, uncertain=False, stripe_refund_id=result.stripe_refund_id)
        return refund

    async def refund_waits(self, uow: UnitOfWork, payment: Payment, refund: Refund, retry_time: datetime) -> Refund:
        """Apply that the merchant's balance does not cover a refund: nothing was sent, and it is tried again."""
        if refund.pending_reason == SHORT_OF_BALANCE:
            await store.postpone_refund(uow.conn, refund, retry_time)
            return replace(refund, retry_time=retry_time)
        waits = RefundResult(
            stripe_refund_id="", state=RefundState.PENDING, failure_reason="", pending_reason=SHORT_OF_BALANCE
        )
        return (await self._walk_refund(uow, payment, refund, "wait", waits, retry_time=retry_time))[1]

    async def _walk_refund(
        self,
        uow: UnitOfWork,
        payment: Payment,
        refund: Refund,
        trigger: str,
        result: RefundResult,
        *,
        retry_time: datetime | None = None,
    ) -> tuple[Payment, Refund]:
        now, amount = self._clock.now(), refund.amount.amount_minor
        arrow, was_open = REFUND.arrow(refund.state, trigger, refund.id), refund.state in OPEN_REFUNDS
        refund = await store.advance_refund(
            uow.conn,
            refund,
            trigger,
            stripe_refund_id=result.stripe_refund_id,
            failure_reason=result.failure_reason if arrow.target is RefundState.FAILED else "",
            pending_reason=result.pending_reason if arrow.target is RefundState.PENDING else "",
            retry_time=retry_time,
            now=now,
        )
        if not (was_open and refund.state in OPEN_REFUNDS):
            succeeded = refund.state is RefundState.SUCCEEDED
            payment = await store.move_refund_counters(
                uow.conn,
                payment,
                pending_minor=-amount if was_open else 0,
                refunded_minor=amount if succeeded else (0 if was_open else -amount),
                now=now,
            )
            await uow.outbox.append(self._events.payment("payment.updated", payment))
        await uow.outbox.append(self._events.refund(arrow.event, refund, payment))
        await self._disputing.refunded(uow, payment)
        return payment, refund


def _steps(payment: Payment) -> tuple[str, ...]:
    return ("return",) if payment.state is PaymentState.REQUIRES_ACTION else ()
