"""Money that Stripe took without being asked for it: kept in view as a suspense item until it goes back or a person accepts it.

The payment's row is locked by the caller. An item's id follows from how much Stripe has taken of the payment by then, so that
whoever finds the same money, a webhook, a poll or a read, finds the same item; a refund's id follows from its item, so that each
goes back once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from servers.kernel.clock import Clock
from servers.kernel.ids import bucket_of, derive_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import PAYMENT, Payment, Refund, SuspenseCause, SuspenseItem
from servers.payments.events import Events
from servers.runtime.alerts import alert
from servers.runtime.db import UnitOfWork
from servers.runtime.outbound import digest

REFUND_CALL: Final = "stripe.refund"
"""The verb of a refund's call; the janitor knows it."""
LATE: Final = "payment.late_capture"


class Suspense:
    """Finds such money and sends it back."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    def put(self, uow: UnitOfWork, payment: Payment, received: Money) -> Payment:
        """Write down what Stripe has taken of a payment beyond what is accounted for, if anything. Told by the caller's event."""
        extra = received.amount_minor - payment.taken_by_stripe(received.currency)
        if extra <= 0:
            return payment
        ended = payment.state in PAYMENT.terminal
        item = SuspenseItem(
            id=derive_id(
                "sus", payment.id, received.currency, str(received.amount_minor), bucket=bucket_of(payment.owner_id)
            ),
            amount=Money(amount_minor=extra, currency=received.currency),
            cause=SuspenseCause.LATE_CAPTURE if ended else SuspenseCause.CONFLICT,
            create_time=self._clock.now(),
        )
        store.insert_suspense_item(uow.conn, payment, item)
        return replace(payment, suspense=(*payment.suspense, item))

    async def found(self, uow: UnitOfWork, payment: Payment, received: Money) -> Payment:
        """Apply that Stripe has taken `received` in all of a payment that has ended, or is in conflict: its state stays. What came
        after the end goes back by itself."""
        after = self.put(uow, payment, received)
        if after is payment:
            return payment
        item = after.suspense[-1]
        after = store.touch(uow.conn, after, self._clock.now())
        uow.outbox.append(self._events.payment("payment.updated", after))
        if item.cause is SuspenseCause.LATE_CAPTURE:
            await self.give_back(uow, after, item)
            alert(
                LATE, payment_id=payment.id, state=payment.state.name, suspense_item_id=item.id, money=told(item.amount)
            )
        return after

    async def give_back(self, uow: UnitOfWork, payment: Payment, item: SuspenseItem) -> None:
        """Begin the refund of an item; the janitor sends it at once. It counts against nothing that was captured."""
        refund = Refund.of(
            payment,
            derive_id("ref", item.id, bucket=bucket_of(payment.owner_id)),
            item.amount,
            fee_returned=Money.zero(item.amount.currency),
            reason="OTHER",
            metadata={},
            now=self._clock.now(),
            suspense_item_id=item.id,
        )
        store.insert_refund(uow.conn, refund)
        uow.outbox.append(self._events.refund("refund.created", refund, payment))
        await uow.outbound.record(
            verb=REFUND_CALL,
            target=refund.id,
            key=refund.id,
            request_digest=digest(payment.id, str(item.amount.amount_minor)),
            at_once=True,
        )


def told(money: Money | None) -> str:
    """Return a sum as a log tells it."""
    return f"{money.amount_minor} {money.currency}" if money is not None else "nothing"
