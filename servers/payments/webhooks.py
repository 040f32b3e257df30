"""Stripe's webhooks: stored raw and once, answered, applied by a worker that reads the object as it is now.

Order and repetition do not matter: an event says only which object to look at.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from servers.payments import store
from servers.payments.domain import ATTEMPT, RefundState
from servers.payments.gateway_stripe import WebhookEvent
from servers.payments.usecases import Deps, drive_attempt
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.outbound import Answered

ROUND_SECONDS: Final = 0.5
TRIES: Final = 8
LEASE: Final = timedelta(seconds=30)

declare("payments.webhook.after_store", "payments.webhook.before_applied")
_log = structlog.get_logger("webhooks")
_received = Counter("paymesh_stripe_events_total", "Stripe events", ["outcome"])

_STORE = text(
    """
    INSERT INTO stripe_events (id, type, object_id, payment_intent_id, refund_id, body, state, next_time, receive_time)
    VALUES (:id, :type, :object_id, :intent, :refund_id, :body, 'STORED', :now, :now) ON CONFLICT (id) DO NOTHING
    """
)
_DUE = text(
    """
    UPDATE stripe_events SET tries = tries + 1, next_time = :lease
    WHERE id IN (SELECT id FROM stripe_events WHERE state = 'STORED' AND next_time <= :now
                 ORDER BY next_time LIMIT 20 FOR UPDATE SKIP LOCKED)
    RETURNING id, type, payment_intent_id, refund_id, tries
    """
)


class UnknownObject(Exception):
    """The event is about something that we do not have, or not yet."""


class Webhooks:
    """Intake and worker."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._wake = asyncio.Event()

    async def receive(self, event: WebhookEvent, body: bytes) -> None:
        """Store a verified event. A repeat changes nothing."""
        async with self._deps.db.uow() as uow:
            new = await uow.conn.execute(
                _STORE,
                {
                    "id": event.id,
                    "type": event.type,
                    "object_id": event.object_id,
                    "intent": event.payment_intent_id,
                    "refund_id": event.metadata.get("paymesh_refund_id", ""),
                    "body": body,
                    "now": self._deps.clock.now(),
                },
            )
        crash_point("payments.webhook.after_store")
        _received.labels("stored" if new.rowcount else "repeat").inc()
        self._wake.set()

    async def run(self) -> None:
        """Apply stored events until cancelled."""
        while True:
            self._wake.clear()
            try:
                applied = await self.round()
            except SQLAlchemyError as error:
                _log.warning("webhooks.interrupted", error=type(error).__name__)
                applied = 0
            if not applied:
                try:
                    async with asyncio.timeout(ROUND_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def round(self) -> int:
        """Apply the events that are due. Returns how many there were."""
        now = self._deps.clock.now()
        async with self._deps.db.uow() as uow:
            rows = (await uow.conn.execute(_DUE, {"now": now, "lease": now + LEASE})).all()
        for row in rows:
            error = ""
            try:
                await self._apply(row.type, row.payment_intent_id, row.refund_id)
                crash_point("payments.webhook.before_applied")
            except Exception as failure:
                # The loop is the last line: the event is tried again, and in the end kept as dead for a person to see.
                error = f"{type(failure).__name__}: {failure}"[:500]
                _log.warning("webhook.failed", event_id=row.id, type=row.type, error=error, tries=row.tries)
            await self._settle(row.id, row.tries, error)
        return len(rows)

    async def _settle(self, event_id: str, tries: int, error: str) -> None:
        state = "APPLIED" if not error else "DEAD" if tries >= TRIES else "STORED"
        async with self._deps.db.uow() as uow:
            await uow.conn.execute(
                text("UPDATE stripe_events SET state = :state, error = :error, next_time = :next WHERE id = :id"),
                {
                    "state": state,
                    "error": error,
                    "next": self._deps.clock.now() + timedelta(seconds=2**tries),
                    "id": event_id,
                },
            )
        _received.labels(state.lower()).inc()

    async def _apply(self, kind: str, intent_id: str, refund_id: str) -> None:
        if kind.startswith(("refund.", "charge.refund.")):
            await self._apply_refund(refund_id)
        elif kind.startswith("payment_intent.") and kind != "payment_intent.created":
            await self._apply_intent(intent_id)

    async def _apply_intent(self, intent_id: str) -> None:
        async with self._deps.db.read() as conn:
            payment = await store.payment_by_intent(conn, intent_id)
        if payment is None or payment.latest_attempt is None:
            raise UnknownObject(intent_id)
        if payment.latest_attempt.state in ATTEMPT.terminal:
            return
        await drive_attempt(self._deps, payment.latest_attempt.id)

    async def _apply_refund(self, refund_id: str) -> None:
        deps = self._deps
        async with deps.db.read() as conn:
            refund = await store.refund(conn, refund_id) if refund_id else None
            payment = await store.payment(conn, refund.payment_id, merchant_id=refund.merchant_id) if refund else None
        if refund is None or payment is None:
            raise UnknownObject(refund_id)
        intent_id = payment.stripe_payment_intent_id
        outcome = await deps.outbound.execute("stripe.find_refund", lambda: deps.gateway.find_refund(refund, intent_id))
        if not isinstance(outcome, Answered) or outcome.value is None:
            raise UnknownObject(refund_id)
        async with deps.db.uow() as uow:
            locked = await store.payment(uow.conn, payment.id, merchant_id=payment.merchant_id, lock=True)
            current = await store.refund(uow.conn, refund_id, lock=True)
            if locked is None or current is None:
                raise UnknownObject(refund_id)
            current = await deps.outcomes.refund(uow, locked, current, outcome.value)
            call = await uow.outbound.open_for(refund_id)
            if call is not None:
                await uow.outbound.settle(call.id, outcome, pending=current.state is RefundState.PENDING)
