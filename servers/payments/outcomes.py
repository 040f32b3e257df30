"""What Stripe says, applied: the same transitions whether it was said to the call itself, to a webhook, or to the janitor.

The payment's row is locked by the caller. News that changes nothing is no news: late and repeated answers end here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, derive_id, new_id
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
    ReviewState,
    StillProcessing,
    SuspenseCause,
    Usage,
    UsedCard,
    differences,
    refund_differences,
)
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.render import next_action_place
from servers.payments.saving import Saving
from servers.payments.suspense import Suspense, told
from servers.runtime.alerts import alert
from servers.runtime.db import UnitOfWork
from servers.runtime.sealed import Sealer

REVIEW_TIMED_OUT: Final = "REVIEW_TIMED_OUT"
SHORT_OF_BALANCE: Final = "INSUFFICIENT_MERCHANT_BALANCE"
CLOSED: Final = ("canceled", "succeeded")
"""Stripe's words for an intent that takes no more captures."""
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
        self, events: Events, fee_plans: FeePlans, clock: Clock, saving: Saving, sealer: Sealer, disputing: Disputing
    ) -> None:
        self._events = events
        self._disputing = disputing
        self._fee_plans = fee_plans
        self._clock = clock
        self._saving = saving
        self._sealer = sealer
        self.suspense = Suspense(events, clock)

    def sealed(self, identifier: str, answer: ActionRequired) -> NextAction:
        """Return what the cardholder must do, with Stripe's secret sealed."""
        secret = answer.client_secret
        place = next_action_place(identifier)
        return NextAction(
            url=answer.url, sealed_secret=self._sealer.seal(secret.encode(), place=place) if secret else b""
        )

    def walk(self, uow: UnitOfWork, payment: Payment, *triggers: str, **changes: Any) -> Payment:
        """Walk the payment's arrows in order: a version and an outbox row each. `changes` come with the last one."""
        for trigger in triggers:
            arrow = PAYMENT.arrow(payment.state, trigger, payment.id)
            with_it = changes if trigger == triggers[-1] else {}
            payment = store.advance(uow.conn, payment, trigger, now=self._clock.now(), **with_it)
            uow.outbox.append(self._events.payment(arrow.event, payment))
        return payment

    async def charge(self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: ChargeResult) -> Payment:
        """Apply what Stripe says of an attempt. Returns the payment as it is afterwards."""
        now = self._clock.now()
        if attempt.state in ATTEMPT.terminal or payment.state not in (
            PaymentState.PROCESSING,
            PaymentState.REQUIRES_ACTION,
        ):
            return payment
        if what := differences(payment, result):
            return self._attempt_conflicts(uow, payment, attempt, result, what)
        match result:
            case Charged():
                return await self._charged(uow, payment, attempt, result, now)
            case Authorized():
                return await self._authorized(uow, payment, attempt, result, now)
            case CardDeclined():
                attempt = store.advance_attempt(
                    uow.conn, attempt, "decline", now=now, decline=result.decline, charge_id=result.charge_id
                )
                payment = self.walk(uow, replace(payment, latest_attempt=attempt), "decline")
                if payment.purpose is Purpose.TOP_UP:
                    # Who wants to try another card makes another top-up.
                    return await self.canceled(uow, payment, "cancel", reason="ABANDONED")
                return payment
            case ActionRequired():
                if attempt.state in (AttemptState.REQUIRES_ACTION, AttemptState.PENDING):
                    return payment  # who has answered already is not asked again: this was said before that
                attempt = store.advance_attempt(
                    uow.conn, attempt, "require_action", now=now, next_action=self.sealed(attempt.id, result)
                )
                return self.walk(uow, replace(payment, latest_attempt=attempt), "require_action")
            case StillProcessing():
                if attempt.state is AttemptState.PENDING:
                    return payment
                attempt = store.advance_attempt(uow.conn, attempt, "pend", now=now)
                payment = replace(payment, latest_attempt=attempt)
                return self.walk(uow, payment, "return") if payment.state is PaymentState.REQUIRES_ACTION else payment
            case NotConfirmed():
                return payment

    async def _charged(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: Charged, now: datetime
    ) -> Payment:
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
        payment = await self._succeeded(uow, payment, attempt, result.charge_id, result.used, now)
        ends = result.capture_before_time
        return self.walk(
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
        attempt = store.advance_attempt(uow.conn, attempt, "succeed", now=now, charge_id=charge_id, source=source)
        return replace(payment, latest_attempt=attempt)

    def _attempt_conflicts(
        self, uow: UnitOfWork, payment: Payment, attempt: Attempt, result: ChargeResult, what: tuple[str, ...]
    ) -> Payment:
        """Stripe speaks of something else than we asked for. An attempt that took or held money is over; any other may still do
        so."""
        if isinstance(result, Charged | Authorized):
            attempt = store.advance_attempt(
                uow.conn,
                attempt,
                "succeed",
                now=self._clock.now(),
                charge_id=result.charge_id,
                next_action=NextAction(),
            )
            payment = replace(payment, latest_attempt=attempt)
        received = result.amount if isinstance(result, Charged) else None
        return self._conflict(uow, payment, received, what)

    def _conflict(self, uow: UnitOfWork, payment: Payment, received: Money | None, what: tuple[str, ...]) -> Payment:
        """Nobody guesses, a person decides. `received`: what Stripe has taken in all, if anything; with another's id it is
        another's."""
        if received is not None and "id" not in what:
            payment = self.suspense.put(uow, payment, received)
        alert(
            "payment.conflicted",
            payment_id=payment.id,
            differs=what,
            ours=told(payment.amount),
            received=told(received),
        )
        return self.walk(uow, payment, *_steps(payment), "conflict")

    async def accept(self, uow: UnitOfWork, payment: Payment) -> Payment:
        """End a conflict by taking what Stripe took, in the payment's currency, for the payment's money."""
        attempt = payment.latest_attempt
        if attempt is not None and attempt.state not in ATTEMPT.terminal:
            attempt = store.advance_attempt(
                uow.conn, attempt, "succeed", now=self._clock.now(), next_action=NextAction()
            )
            payment = replace(payment, latest_attempt=attempt)
        captures = []
        for item in payment.suspense:
            accepted = await self._fee_plans.capture_now(
                uow.conn,
                payment,
                item.amount,
                capture_id=derive_id("cap", item.id, bucket=bucket_of(payment.owner_id)),
                now=self._clock.now(),
            )
            capture = replace(accepted, suspense_item_id=item.id)
            captured = payment.captured_minor + item.amount.amount_minor
            payment = replace(payment, captures=(*payment.captures, capture), captured_minor=captured)
            captures.append(capture)
        over = max(0, payment.captured_minor - payment.amount.amount_minor)
        payment = self.walk(uow, payment, "accept", overcapture_minor=over, capturable_minor=0, capture_pending_minor=0)
        for capture in captures:
            store.insert_capture(uow.conn, payment, capture)
        return payment

    async def captured_elsewhere(self, uow: UnitOfWork, payment: Payment, status: IntentStatus) -> Payment:
        """Apply that Stripe has captured more of an authorization than we asked for: by its own pages, or before our cancel
        arrived."""
        what = differences(payment, status)
        extra = status.received.amount_minor - payment.captured_minor
        if what or extra > payment.capturable_minor:
            return self._conflict(uow, payment, status.received, what or ("amount",))
        last = status.status in CLOSED or extra == payment.capturable_minor
        rest = 0 if last else payment.capturable_minor - extra
        return await self._captured(
            uow, payment, extra, "capture_last" if last else "capture_part", capturable_minor=rest
        )

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
        payment = self.walk(uow, payment, *triggers, **changes)
        store.insert_capture(uow.conn, payment, capture)
        return payment

    async def operation(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, result: OperationResult
    ) -> Payment:
        """Apply what Stripe says of a capture or cancel. What does not say that it took place leaves it open."""
        if operation.state in OPERATION.terminal:
            return payment
        if isinstance(result, OperationRefused):
            return self.operation_failed(uow, payment, operation, result.code)
        # A payment in conflict differs as it is: what cancels it is not compared again.
        what = differences(payment, result) if payment.state is not PaymentState.CONFLICTED else ()
        if what:
            return self._operation_conflicts(uow, payment, operation, result.received, what)
        if operation.kind is OperationKind.CANCEL:
            return await self._cancel_answered(uow, payment, operation, result)
        expected = operation.captured_before_minor + operation.amount_minor
        took_place = result.received.amount_minor >= expected and (
            operation.amount_minor > 0 or result.status == "succeeded"
        )
        if not took_place and result.status in CLOSED:
            return self.operation_failed(uow, payment, operation, "authorization_ended")
        if not took_place:
            return payment
        if result.received.amount_minor != expected:
            return self._operation_conflicts(uow, payment, operation, result.received, ("amount",))
        store.advance_operation(uow.conn, operation, "succeed", now=self._clock.now())
        last = operation.final or not payment.capturable_minor
        rest = 0 if last else payment.capturable_minor
        left = payment.capture_pending_minor - operation.amount_minor
        trigger = "capture_last" if last else "capture_part"
        payment = replace(payment, open_operation=None)
        changes = {"capturable_minor": rest, "capture_pending_minor": left}
        if operation.amount_minor == 0:
            return self.walk(uow, payment, trigger, **changes)
        return await self._captured(
            uow,
            payment,
            operation.amount_minor,
            trigger,
            booked=result.capture,
            **changes,
        )

    def _operation_conflicts(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, received: Money, what: tuple[str, ...]
    ) -> Payment:
        """Close a capture or cancel that Stripe answered with something else than was asked for, as if it had not been: what Stripe
        took is in suspense until a person decides."""
        payment = self.operation_failed(uow, payment, operation, "conflict")
        return self._conflict(uow, payment, received, what)

    async def _cancel_answered(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, result: IntentStatus
    ) -> Payment:
        if result.status == "succeeded":
            # The money was taken before the cancel arrived: that is applied instead, by whoever reads the attempt.
            return self.operation_failed(uow, payment, operation, "already_captured")
        if result.status != "canceled":
            return payment
        now = self._clock.now()
        store.advance_operation(uow.conn, operation, "succeed", now=now)
        payment = replace(payment, open_operation=None)
        trigger = "cancel_conflict" if payment.state is PaymentState.CONFLICTED else "cancel"
        return await self.canceled(uow, payment, trigger, reason=operation.reason)

    async def canceled(self, uow: UnitOfWork, payment: Payment, trigger: str, *, reason: str) -> Payment:
        """End a payment without money, an authorization's window, or a conflict. A cardholder who was asked for 3-D Secure is asked
        no more, nobody looks at it any more, and what a conflict left in suspense goes back."""
        attempt, review = payment.latest_attempt, payment.review
        if review is not None and review.state is ReviewState.OPEN:
            ended_by = ReviewState.TIMED_OUT if reason == REVIEW_TIMED_OUT else ReviewState.REJECTED
            review = replace(review, state=ended_by)
        asked = attempt is not None and attempt.state in (AttemptState.REQUIRES_ACTION, AttemptState.IN_REVIEW)
        if attempt is not None and (asked or (trigger == "cancel_conflict" and attempt.state not in ATTEMPT.terminal)):
            now, why = self._clock.now(), PAYMENT_CANCELED
            ended = store.advance_attempt(uow.conn, attempt, "decline", now=now, decline=why)
            payment = replace(payment, latest_attempt=ended)
        payment = self.walk(
            uow,
            payment,
            trigger,
            capturable_minor=0,
            capture_pending_minor=0,
            cancellation_reason=reason,
            review=review,
        )
        for item in payment.suspense:
            if item.cause is SuspenseCause.CONFLICT:
                await self.suspense.give_back(uow, payment, item)
        return payment

    def operation_failed(
        self, uow: UnitOfWork, payment: Payment, operation: Operation, code: str, *, trigger: str = "fail"
    ) -> Payment:
        """Apply that a capture or cancel did not take place: what it reserved is free again."""
        store.advance_operation(uow.conn, operation, trigger, now=self._clock.now(), failure_code=code)
        payment = replace(payment, open_operation=None)
        if operation.kind is OperationKind.CAPTURE and operation.amount_minor:
            payment = store.release_capture(uow.conn, payment, operation.amount_minor, self._clock.now())
            uow.outbox.append(self._events.payment("payment.updated", payment))
        return payment

    def not_sent(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that Stripe provably never saw the confirm."""
        attempt = store.advance_attempt(uow.conn, attempt, "not_sent", now=self._clock.now())
        return self.walk(uow, replace(payment, latest_attempt=attempt), "not_sent")

    def lost(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that the answer was lost: the payment stays in PROCESSING, no second attempt starts."""
        if attempt.state is not AttemptState.SENT:
            return payment
        attempt = store.advance_attempt(uow.conn, attempt, "lose", now=self._clock.now())
        return replace(payment, latest_attempt=attempt)

    def give_up(self, uow: UnitOfWork, payment: Payment, attempt: Attempt) -> Payment:
        """Apply that nothing could be learnt of an attempt within the plan."""
        given_up = store.advance_attempt(uow.conn, attempt, "give_up", now=self._clock.now())
        return replace(payment, latest_attempt=given_up)

    async def refund(self, uow: UnitOfWork, payment: Payment, refund: Refund, result: RefundResult) -> Refund:
        """Apply what Stripe says of a refund, with the payment's counters; what differs from what was asked waits for a person."""
        if what := refund_differences(refund, payment.stripe_payment_intent_id, result):
            theirs, ours = told(result.echo.amount if result.echo is not None else None), told(refund.amount)
            alert("refund.conflicted", refund_id=refund.id, differs=what, ours=ours, theirs=theirs)
            return refund if refund.uncertain else store.note_refund(uow.conn, refund, uncertain=True)
        path: tuple[str, ...] = _REFUND_PATHS.get((refund.state, result.state), ())
        if refund.state is result.state is RefundState.PENDING and refund.pending_reason != result.pending_reason:
            path = ("wait",)
        for trigger in path:
            payment, refund = await self._walk_refund(uow, payment, refund, trigger, result)
        known = refund.stripe_refund_id == (result.stripe_refund_id or refund.stripe_refund_id)
        if refund.state in OPEN_REFUNDS and refund.state is result.state and (refund.uncertain or not known):
            return store.note_refund(uow.conn, refund, uncertain=False, stripe_refund_id=result.stripe_refund_id)
        return refund

    async def refund_waits(self, uow: UnitOfWork, payment: Payment, refund: Refund, retry_time: datetime) -> Refund:
        """Apply that the merchant's balance does not cover a refund: nothing was sent, and it is tried again."""
        if refund.pending_reason == SHORT_OF_BALANCE:
            store.postpone_refund(uow.conn, refund, retry_time)
            return replace(refund, retry_time=retry_time)
        why = SHORT_OF_BALANCE
        waits = RefundResult(stripe_refund_id="", state=RefundState.PENDING, failure_reason="", pending_reason=why)
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
        refund = store.advance_refund(
            uow.conn,
            refund,
            trigger,
            stripe_refund_id=result.stripe_refund_id,
            failure_reason=result.failure_reason if arrow.target is RefundState.FAILED else "",
            pending_reason=result.pending_reason if arrow.target is RefundState.PENDING else "",
            retry_time=retry_time,
            now=now,
        )
        if refund.suspense_item_id:
            # It is of money that was never the payment's.
            uow.outbox.append(self._events.refund(arrow.event, refund, payment))
            if refund.state in (RefundState.FAILED, RefundState.CANCELED):
                alert("suspense.refund_failed", refund_id=refund.id, suspense_item_id=refund.suspense_item_id)
            return payment, refund
        if not (was_open and refund.state in OPEN_REFUNDS):
            succeeded = refund.state is RefundState.SUCCEEDED
            payment = store.move_refund_counters(
                uow.conn,
                payment,
                pending_minor=-amount if was_open else 0,
                refunded_minor=amount if succeeded else (0 if was_open else -amount),
                now=now,
            )
            uow.outbox.append(self._events.payment("payment.updated", payment))
        uow.outbox.append(self._events.refund(arrow.event, refund, payment))
        await self._disputing.refunded(uow, payment)
        return payment, refund


def _steps(payment: Payment) -> tuple[str, ...]:
    return ("return",) if payment.state is PaymentState.REQUIRES_ACTION else ()
