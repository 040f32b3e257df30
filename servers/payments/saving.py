"""Cards that are saved by using them, and the mandates that come with it.

The caller holds the lock of the payment or setup intent that saves the card, so that each happens once.
"""

from __future__ import annotations

from dataclasses import replace

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, new_id
from servers.payments import store
from servers.payments.domain import MANDATE, METHOD, Mandate, PaymentMethod, Usage, UsedCard
from servers.payments.events import Events
from servers.runtime.db import UnitOfWork


class Saving:
    """Saves cards and gives mandates."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    async def adopt(self, uow: UnitOfWork, owner_id: str, used: UsedCard) -> PaymentMethod:
        """Return the user's payment method for a card that Stripe has attached itself; it is written down where it is new."""
        known = await store.method_by_stripe_id(uow.conn, owner_id, used.stripe_id)
        if known is not None:
            return known
        arrow, now = METHOD.arrow(None, "adopt"), self._clock.now()
        method = PaymentMethod(
            id=new_id("pm", clock=self._clock, bucket=bucket_of(owner_id)),
            owner_id=owner_id,
            stripe_id=used.stripe_id,
            state=arrow.target,
            card=used.card,
            is_default=False,
            version=1,
            create_time=now,
            update_time=now,
        )
        store.insert_method(uow.conn, method)
        uow.outbox.append(self._events.method(arrow.event, method))
        return method

    async def give(self, uow: UnitOfWork, *, owner_id: str, merchant_id: str, method_id: str, usage: Usage) -> Mandate:
        """Give a merchant a mandate; one that permits less gives way, one that permits as much stays."""
        # Two of the user's payments may give it at once: they wait for each other at the card.
        await store.method(uow.conn, owner_id, method_id, lock=True)
        active = await store.active_mandates(
            uow.conn, owner_id=owner_id, merchant_id=merchant_id, method_id=method_id, lock=True
        )
        for mandate in active:
            if mandate.usage.covers(usage):
                return mandate
            self.revoke(uow, mandate)
        arrow, now = MANDATE.arrow(None, "give"), self._clock.now()
        given = Mandate(
            id=new_id("man", clock=self._clock, bucket=bucket_of(owner_id)),
            owner_id=owner_id,
            merchant_id=merchant_id,
            payment_method_id=method_id,
            usage=usage,
            state=arrow.target,
            version=1,
            create_time=now,
            update_time=now,
            revoke_time=None,
        )
        store.insert_mandate(uow.conn, given)
        uow.outbox.append(self._events.mandate(arrow.event, given))
        return given

    def revoke(self, uow: UnitOfWork, mandate: Mandate) -> Mandate:
        """Revoke a mandate; its row is locked by the caller. Raises MandateStateInvalid."""
        arrow, now = MANDATE.arrow(mandate.state, "revoke", mandate.id), self._clock.now()
        moved = replace(mandate, state=arrow.target, version=mandate.version + 1, update_time=now, revoke_time=now)
        store.update_mandate(uow.conn, moved, expected_version=mandate.version)
        uow.outbox.append(self._events.mandate(arrow.event, moved))
        return moved
