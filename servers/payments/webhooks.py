"""Stripe's webhooks: stored raw and once, answered, applied by a job that reads the object as it is now.

Order and repetition do not matter: an event says only which object to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from servers.payments import store
from servers.payments.domain import OPEN_REFUNDS
from servers.payments.gateway_stripe import WebhookEvent
from servers.payments.usecases import Deps, learn_dispute, learn_payment, learn_setup, learn_warning
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.jobs import Job
from servers.runtime.outbound import Answered

APPLY: Final = "payments.apply_stripe_event"
TRIES: Final = 8

declare("payments.webhook.after_store", "payments.webhook.before_applied")
_log = structlog.get_logger("webhooks")
_received = Counter("paymesh_stripe_events_total", "Stripe events", ["outcome"])

_STORE = text(
    """
    INSERT INTO stripe_events (id, type, object_id, payment_intent_id, refund_id, setup_intent_id, body, state,
                               receive_time)
    VALUES (:id, :type, :object_id, :intent, :refund_id, :setup_id, :body, 'STORED', :now) ON CONFLICT (id) DO NOTHING
    """
)
_TRY = text(
    """
    UPDATE stripe_events SET tries = tries + 1 WHERE id = :id AND state = 'STORED'
    RETURNING type, object_id, payment_intent_id, refund_id, setup_intent_id, tries
    """
)
_SETTLE = text("UPDATE stripe_events SET state = :state, error = :error WHERE id = :id AND state = 'STORED'")


class UnknownObject(Exception):
    """The event is about something that we do not have, or not yet."""


class Webhooks:
    """Intake and worker."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def jobs(self) -> Sequence[Job]:
        """Return the job that applies events."""
        return [Job(name=APPLY, run=self.apply, tries=TRIES)]

    async def receive(self, event: WebhookEvent, body: bytes) -> None:
        """Store a verified event with the job that applies it. A repeat changes nothing."""
        async with self._deps.db.uow() as uow:
            new = await uow.conn.execute(
                _STORE,
                {
                    "id": event.id,
                    "type": event.type,
                    "object_id": event.object_id,
                    "intent": event.payment_intent_id,
                    "refund_id": event.metadata.get("paymesh_refund_id", ""),
                    "setup_id": event.metadata.get("paymesh_setup_intent_id", ""),
                    "body": body,
                    "now": self._deps.clock.now(),
                },
            )
            if new.rowcount:
                await uow.jobs.defer(APPLY, event_id=event.id)
        crash_point("payments.webhook.after_store")
        _received.labels("stored" if new.rowcount else "repeat").inc()

    async def apply(self, *, event_id: str) -> None:
        """Apply one stored event. Raises what went wrong, until the last try keeps the event as dead for a person to see."""
        async with self._deps.db.uow() as uow:
            row = (await uow.conn.execute(_TRY, {"id": event_id})).one_or_none()
        if row is None:
            return
        try:
            await self._apply(row.type, row.object_id, row.payment_intent_id, row.refund_id, row.setup_intent_id)
            crash_point("payments.webhook.before_applied")
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:500]
            if row.tries < TRIES:
                raise
            _log.error("webhook.dead", event_id=event_id, type=row.type, error=error)
            await self._settle(event_id, "DEAD", error)
        else:
            await self._settle(event_id, "APPLIED", "")

    async def _settle(self, event_id: str, state: str, error: str) -> None:
        async with self._deps.db.uow() as uow:
            await uow.conn.execute(_SETTLE, {"state": state, "error": error, "id": event_id})
        _received.labels(state.lower()).inc()

    async def _apply(self, kind: str, object_id: str, intent_id: str, refund_id: str, setup_id: str) -> None:
        if kind.startswith(("refund.", "charge.refund.")):
            await self._apply_refund(refund_id)
        elif kind.startswith("payment_intent.") and kind != "payment_intent.created":
            await self._apply_intent(intent_id)
        elif kind.startswith("setup_intent.") and setup_id:
            await self._apply_setup(setup_id)
        elif kind.startswith("charge.dispute."):
            if not await learn_dispute(self._deps, object_id):
                raise UnknownObject(object_id)
        elif kind.startswith("radar.early_fraud_warning.") and not await learn_warning(self._deps, object_id):
            raise UnknownObject(object_id)

    async def _apply_setup(self, setup_id: str) -> None:
        async with self._deps.db.read() as conn:
            setup = await store.setup(conn, setup_id)
        if setup is None:
            raise UnknownObject(setup_id)
        await learn_setup(self._deps, setup_id)

    async def _apply_intent(self, intent_id: str) -> None:
        async with self._deps.db.read() as conn:
            payment = await store.payment_by_intent(conn, intent_id)
        if payment is None:
            raise UnknownObject(intent_id)
        await learn_payment(self._deps, payment)

    async def _apply_refund(self, refund_id: str) -> None:
        deps = self._deps
        async with deps.db.read() as conn:
            refund = await store.refund(conn, refund_id) if refund_id else None
            payment = await store.payment(conn, refund.payment_id, owner_id=refund.owner_id) if refund else None
        if refund is None or payment is None:
            raise UnknownObject(refund_id)
        intent_id = payment.stripe_payment_intent_id
        outcome = await deps.outbound.execute("stripe.find_refund", lambda: deps.gateway.find_refund(refund, intent_id))
        if not isinstance(outcome, Answered) or outcome.value is None:
            raise UnknownObject(refund_id)
        async with deps.db.uow() as uow:
            locked = await store.payment(uow.conn, payment.id, owner_id=payment.owner_id, lock=True)
            current = await store.refund(uow.conn, refund_id, lock=True)
            if locked is None or current is None:
                raise UnknownObject(refund_id)
            current = await deps.outcomes.refund(uow, locked, current, outcome.value)
            call = await uow.outbound.open_for(refund_id)
            if call is not None:
                await uow.outbound.settle(call.id, outcome, pending=current.state in OPEN_REFUNDS)
