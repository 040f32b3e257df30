"""What Stripe tells: stored raw and once, answered, applied by a job that reads the object as it is now.

Order and repetition do not matter: an event says only which object to look at. How it came does not matter either, by a webhook or
by looking through Stripe's list.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final

import structlog
from prometheus_client import Counter

from servers.payments import store
from servers.payments.gateway_stripe import Fault, WebhookEvent, event_of
from servers.payments.usecases import (
    Deps,
    account_for,
    learn_dispute,
    learn_payment,
    learn_refund,
    learn_setup,
    learn_warning,
)
from servers.runtime.alerts import alert
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.jobs import Job
from servers.runtime.sql import Row

APPLY: Final = "payments.apply_stripe_event"
TRIES: Final = 8
REPLAYED_AT_ONCE_MAX: Final = 1000
Applier = Callable[[Row], Awaitable[None]]
"""Applies an event as it is stored. Raises what went wrong."""

declare("payments.webhook.after_store", "payments.webhook.before_applied")
_log = structlog.get_logger("webhooks")
_received = Counter("paymesh_stripe_events_total", "Stripe events", ["outcome"])
_refused = Counter(
    "paymesh_stripe_webhooks_refused_total", "Webhooks that Stripe did not sign, or not just now", ["why"]
)


class UnknownObject(Exception):
    """The event is about something that we do not have, or not yet."""


class EventSource(Enum):
    """How an event came."""

    WEBHOOK = "WEBHOOK"
    POLL = "POLL"


class Webhooks:
    """Intake and worker."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._appliers: Mapping[str, Applier] = {
            "payment_intent.": self._apply_intent,
            "refund.": self._apply_refund,
            "charge.refund.": self._apply_refund,
            "setup_intent.": self._apply_setup,
            "charge.dispute.": self._apply_dispute,
            "radar.early_fraud_warning.": self._apply_warning,
        }

    def jobs(self) -> Sequence[Job]:
        """Return the job that applies events."""
        return [Job(name=APPLY, run=self.apply, tries=TRIES, give_up=self.bury)]

    def refuse(self, fault: Fault) -> None:
        """Count a webhook whose signature does not hold."""
        _refused.labels(fault.value).inc()
        _log.warning("webhook.refused", why=fault.value)

    async def receive(self, event: WebhookEvent, body: bytes, source: EventSource) -> bool:
        """Store an event of Stripe's with the job that applies it, if it tells anything. A repeat changes nothing: False."""
        tells = self._applier(event.type) is not None
        row = {
            "id": event.id,
            "type": event.type,
            "object_id": event.object_id,
            "intent": event.payment_intent_id,
            "refund_id": event.metadata.get("paymesh_refund_id", ""),
            "setup_id": event.metadata.get("paymesh_setup_intent_id", ""),
            "body": body,
            "state": "STORED" if tells else "APPLIED",
            "source": source.value,
            "now": self._deps.clock.now(),
        }
        if tells:
            async with self._deps.db.uow() as uow:
                if new := await store.insert_stripe_event(uow.conn, row):
                    await uow.jobs.defer(APPLY, event_id=event.id)
        else:
            async with self._deps.db.autocommit() as conn:
                new = await store.insert_stripe_event(conn, row)
        crash_point("payments.webhook.after_store")
        _received.labels("repeat" if not new else "stored" if source is EventSource.WEBHOOK else "found").inc()
        return new

    async def replay(self, event_id: str) -> int:
        """Have an event applied once more, or every dead one where none is named. Returns how many."""
        async with self._deps.db.uow() as uow:
            replayed = await store.replay_stripe_events(uow.conn, event_id=event_id, limit=REPLAYED_AT_ONCE_MAX)
            for identifier in replayed:
                await uow.jobs.defer(APPLY, event_id=identifier)
        _log.info("webhooks.replayed", count=len(replayed))
        return len(replayed)

    async def apply(self, *, event_id: str) -> None:
        """Apply one stored event. Raises what went wrong."""
        async with self._deps.db.autocommit() as conn:
            row = await store.try_stripe_event(conn, event_id)
        if row is None:
            return
        if (applier := self._applier(row.type)) is not None:
            await applier(row)
        crash_point("payments.webhook.before_applied")
        await self._settle(event_id, "APPLIED", "")

    def _applier(self, kind: str) -> Applier | None:
        """Return what applies events of a type; None for one that says nothing that is not known, or told by another one: two of
        three that a payment brings."""
        if kind == "payment_intent.created":
            return None
        return next((apply for prefix, apply in self._appliers.items() if kind.startswith(prefix)), None)

    async def bury(self, *, event_id: str, error: str) -> None:
        """Keep an event that could not be applied as dead, for a person."""
        if await self._settle(event_id, "DEAD", error):
            alert("webhook.dead", event_id=event_id, error=error)

    async def _settle(self, event_id: str, state: str, error: str) -> bool:
        async with self._deps.db.autocommit() as conn:
            settled = await store.settle_stripe_event(conn, event_id, state, error)
        if settled:
            _received.labels(state.lower()).inc()
        return settled

    async def _apply_setup(self, row: Row) -> None:
        if not row.setup_intent_id:
            return  # not one of ours
        async with self._deps.db.read() as conn:
            setup = await store.setup(conn, row.setup_intent_id)
        if setup is None:
            raise UnknownObject(row.setup_intent_id)
        await learn_setup(self._deps, row.setup_intent_id)

    async def _apply_intent(self, row: Row) -> None:
        event = event_of(json.loads(row.body))
        async with self._deps.db.read() as conn:
            payment = await store.payment_by_intent(conn, event.payment_intent_id)
        if payment is None:
            raise UnknownObject(event.payment_intent_id)
        payment = await learn_payment(self._deps, payment, insist=True)
        if event.received is not None:
            await account_for(self._deps, payment, event.received)

    async def _apply_refund(self, row: Row) -> None:
        async with self._deps.db.read() as conn:
            refund = await store.refund(conn, row.refund_id) if row.refund_id else None
        if refund is None or await learn_refund(self._deps, refund) is None:
            raise UnknownObject(row.refund_id)

    async def _apply_dispute(self, row: Row) -> None:
        if not await learn_dispute(self._deps, row.object_id):
            raise UnknownObject(row.object_id)

    async def _apply_warning(self, row: Row) -> None:
        if not await learn_warning(self._deps, row.object_id):
            raise UnknownObject(row.object_id)
