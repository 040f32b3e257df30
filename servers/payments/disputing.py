"""What Stripe says of disputes, applied: the same arrows whether it was said to a webhook, to a call of ours, or to the janitor.

The payment's row is locked by the caller. A dispute has happened outside: it is recorded whatever the payment's counters say, and
what it takes from the payment is counted in the same transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import structlog
from prometheus_client import Counter

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    DISPUTE,
    Dispute,
    DisputeNews,
    DisputeStage,
    DisputeState,
    DisputeStateInvalid,
    FeePayer,
    FundsMovement,
    NoWay,
    Payment,
    Purpose,
    WarningNews,
    walk_of,
)
from servers.payments.events import Events
from servers.runtime.db import UnitOfWork
from servers.runtime.outbound import Answered

_log = structlog.get_logger("disputes")
_over_exposed = Counter(
    "paymesh_payments_over_exposed_total", "Payments refunded and disputed beyond what was captured"
)
_BEGINS_A_STAGE: Final = frozenset({"dispute", "escalate", "take_back", "reopen"})
"""Arrows after which a dispute has an amount of its own again."""


class Disputing:
    """Applies news of disputes."""

    def __init__(self, events: Events, clock: Clock, fee_payer: FeePayer) -> None:
        self._events = events
        self._clock = clock
        self._fee_payer = fee_payer

    async def apply(self, uow: UnitOfWork, payment: Payment, dispute: Dispute | None, news: DisputeNews) -> Dispute:
        """Walk to where Stripe says that a dispute is: a version and an outbox row for each arrow. Raises DisputeStateInvalid."""
        if dispute is None:
            # The charge's warning, if any, has become this dispute.
            dispute = next(iter(await store.open_warnings(uow.conn, payment)), None)
        state, stage, known, accepting = None, DisputeStage.INQUIRY, frozenset[str](), False
        if dispute is not None:
            state, stage, accepting = dispute.state, dispute.stage, dispute.accepting
            known = frozenset(one.id for one in dispute.movements)
        try:
            walk = walk_of(state, stage, news, known=known, accepting=accepting)
        except NoWay as error:
            identifier = dispute.id if dispute is not None else news.stripe_dispute_id
            raise DisputeStateInvalid(str(error), identifier, state.name if state is not None else "new") from error
        for trigger, then, movement in walk:
            if dispute is None:
                payment, dispute = self._open(uow, payment, self._new(payment, news, then), trigger)
            else:
                payment, dispute = self._step(uow, payment, dispute, trigger, then, news, movement)
        assert dispute is not None
        return self._note(uow, payment, dispute, news)

    async def warned(self, uow: UnitOfWork, payment: Payment, news: WarningNews) -> None:
        """Note an issuer's report of fraud, once; where the payment is refunded already, it is prevented at once."""
        if await store.dispute_by_warning(uow.conn, news.stripe_warning_id) is not None:
            return
        now = self._clock.now()
        dispute = Dispute(
            id=new_id("dsp", clock=self._clock, bucket=bucket_of(payment.owner_id)),
            payment_id=payment.id,
            owner_id=payment.owner_id,
            top_up_id=payment.top_up_id,
            stripe_dispute_id="",
            stripe_warning_id=news.stripe_warning_id,
            stage=DisputeStage.INQUIRY,
            state=DisputeState.EARLY_WARNING,
            amount=payment.amount,
            at_risk=payment.amount,
            reason=news.reason,
            evidence_due_time=None,
            has_evidence=False,
            past_due=False,
            submission_count=0,
            accepting=False,
            fee_payer=self._payer(payment),
            stage_time=news.create_time,
            version=1,
            create_time=now,
            update_time=now,
        )
        self._open(uow, payment, dispute, "warn")
        await self._prevent(uow, payment)

    async def refunded(self, uow: UnitOfWork, payment: Payment) -> None:
        """Apply that money of a payment went back: where all of it did, its early warnings have come to nothing. Where a refund and
        a chargeback pay the same cardholder, somebody is told."""
        await self._prevent(uow, payment)
        self._alert(payment)

    def concede(self, uow: UnitOfWork, payment: Payment, dispute: Dispute) -> Dispute:
        """Note that its merchant wants to accept a dispute. Raises DisputeStateInvalid."""
        return (self._walk(uow, payment, dispute, "concede", {"accepting": True}))[1]

    def let_go(self, uow: UnitOfWork, payment: Payment, dispute: Dispute) -> Dispute:
        """Note that the wish was not carried out."""
        return (self._walk(uow, payment, dispute, "let_go", {"accepting": False}))[1]

    async def _prevent(self, uow: UnitOfWork, payment: Payment) -> None:
        if payment.captured_minor and payment.refunded_minor == payment.captured_minor:
            for warning in await store.open_warnings(uow.conn, payment):
                self._walk(uow, payment, warning, "prevent", {})

    def _open(self, uow: UnitOfWork, payment: Payment, dispute: Dispute, trigger: str) -> tuple[Payment, Dispute]:
        payment = self._count(uow, payment, None, dispute)
        store.insert_dispute(uow.conn, dispute)
        uow.outbox.append(self._events.dispute(DISPUTE.arrow(None, trigger).event, dispute, payment))
        _log.info("dispute.opened", dispute_id=dispute.id, payment_id=payment.id, stage=dispute.stage.value)
        return payment, dispute

    def _step(
        self,
        uow: UnitOfWork,
        payment: Payment,
        dispute: Dispute,
        trigger: str,
        stage: DisputeStage,
        news: DisputeNews,
        movement: FundsMovement | None,
    ) -> tuple[Payment, Dispute]:
        changes: dict[str, Any] = {"stripe_dispute_id": news.stripe_dispute_id, **_evidence(news)}
        if trigger in _BEGINS_A_STAGE:
            began = news.create_time if trigger == "dispute" else self._clock.now()
            changes |= {"amount": news.amount, "at_risk": _at_risk(payment, news), "reason": news.reason}
            changes |= {"stage": stage, "stage_time": began}
        if DISPUTE.arrow(dispute.state, trigger, dispute.id).target is not DisputeState.NEEDS_RESPONSE:
            changes["accepting"] = False
        if movement is not None:
            store.add_movement(uow.conn, dispute, movement)
            changes["movements"] = (*dispute.movements, movement)
        payment, moved = self._walk(uow, payment, dispute, trigger, changes)
        if dispute.accepting and not moved.accepting:
            uow.outbound.settle(dispute.id, Answered(None))
        return payment, moved

    def _walk(
        self, uow: UnitOfWork, payment: Payment, dispute: Dispute, trigger: str, changes: dict[str, Any]
    ) -> tuple[Payment, Dispute]:
        """Walk one arrow: a version and an outbox row. Raises DisputeStateInvalid, or ConcurrentUpdate where the version moved."""
        arrow = DISPUTE.arrow(dispute.state, trigger, dispute.id)
        moved = replace(
            dispute, state=arrow.target, version=dispute.version + 1, update_time=self._clock.now(), **changes
        )
        payment = self._count(uow, payment, dispute, moved)
        store.save_dispute(uow.conn, moved, expected=dispute.version)
        uow.outbox.append(self._events.dispute(arrow.event, moved, payment))
        _log.info("dispute.moved", dispute_id=moved.id, state=moved.state.value, trigger=trigger)
        return payment, moved

    def _note(self, uow: UnitOfWork, payment: Payment, dispute: Dispute, news: DisputeNews) -> Dispute:
        """Note what has changed besides the state. What a chargeback takes stays what it took."""
        changes = _evidence(news)
        if dispute.stage is DisputeStage.INQUIRY:
            changes |= {"amount": news.amount, "at_risk": _at_risk(payment, news), "reason": news.reason}
        elif news.amount != dispute.amount:
            _log.error(
                "dispute.amount_changed", dispute_id=dispute.id, ours=str(dispute.amount), theirs=str(news.amount)
            )
        differs = any(getattr(dispute, name) != value for name, value in changes.items())
        if not differs or not DISPUTE.allows(dispute.state, "note"):
            return dispute
        return (self._walk(uow, payment, dispute, "note", changes))[1]

    def _count(self, uow: UnitOfWork, payment: Payment, before: Dispute | None, after: Dispute) -> Payment:
        """Count what a step takes from its payment or gives back."""
        disputed = after.counted_minor - (before.counted_minor if before is not None else 0)
        chargebacks = after.is_open_chargeback - (before.is_open_chargeback if before is not None else False)
        if not disputed and not chargebacks:
            return payment
        moved = store.move_dispute_counters(
            uow.conn, payment, disputed_minor=disputed, open_chargebacks=chargebacks, now=self._clock.now()
        )
        uow.outbox.append(self._events.payment("payment.updated", moved))
        self._alert(moved)
        return moved

    @staticmethod
    def _alert(payment: Payment) -> None:
        if payment.over_exposure_minor:
            _over_exposed.inc()
            _log.error("payment.over_exposed", payment_id=payment.id, over_exposure_minor=payment.over_exposure_minor)

    def _new(self, payment: Payment, news: DisputeNews, stage: DisputeStage) -> Dispute:
        now = self._clock.now()
        # The way begins where the first arrow leads, whatever Stripe says by now.
        state = DisputeState.EARLY_WARNING if news.state is DisputeState.PREVENTED else DisputeState.NEEDS_RESPONSE
        return Dispute(
            id=new_id("dsp", clock=self._clock, bucket=bucket_of(payment.owner_id)),
            payment_id=payment.id,
            owner_id=payment.owner_id,
            top_up_id=payment.top_up_id,
            stripe_dispute_id=news.stripe_dispute_id,
            stripe_warning_id="",
            stage=stage,
            state=state,
            amount=news.amount,
            at_risk=_at_risk(payment, news),
            reason=news.reason,
            accepting=False,
            fee_payer=self._payer(payment),
            stage_time=news.create_time,
            version=1,
            create_time=now,
            update_time=now,
            **_evidence(news),
        )

    def _payer(self, payment: Payment) -> FeePayer:
        return self._fee_payer if payment.purpose is Purpose.SALE else FeePayer.PLATFORM


def _at_risk(payment: Payment, news: DisputeNews) -> Money:
    """Return what a dispute may cost in the payment's currency. One in another currency may cost all of it: only Stripe's balance
    transactions will tell."""
    if news.amount.currency == payment.amount.currency:
        return news.amount
    return payment.captured if payment.captured_minor else payment.amount


def _evidence(news: DisputeNews) -> dict[str, Any]:
    return {
        "evidence_due_time": news.evidence_due_time,
        "has_evidence": news.has_evidence,
        "past_due": news.past_due,
        "submission_count": news.submission_count,
    }
