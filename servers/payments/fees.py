"""Which fee plan is in force for a payment, and what a capture is under it."""

from __future__ import annotations

from datetime import datetime

from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import Capture, FeePlan, MerchantFeePlan, Payment, Purpose
from servers.runtime.connection import Connection


class FeePlans:
    """The plans of merchants, and the platform's for those without one."""

    def __init__(self, platform: FeePlan) -> None:
        self._platform = platform
        # A top-up has no merchant: nothing is kept of it.
        self._of_top_ups = FeePlan(version=platform.version, basis_points=0)

    async def in_force(self, conn: Connection, payment: Payment, time: datetime) -> FeePlan:
        """Return the plan of a payment at an instant that has been: one look into an index."""
        if payment.purpose is Purpose.TOP_UP:
            return self._of_top_ups
        own = await store.fee_plan(conn, payment.owner_id, at=time)
        return own.plan if own is not None else self._platform

    async def newest(self, conn: Connection, merchant_id: str) -> MerchantFeePlan:
        """Return the newest version of a merchant's plan, in force or about to be."""
        own = await store.fee_plan(conn, merchant_id)
        return own or MerchantFeePlan(merchant_id=merchant_id, number=0, plan=self._platform)

    async def capture_now(
        self, conn: Connection, payment: Payment, amount: Money, *, capture_id: str, now: datetime
    ) -> Capture:
        """Return a capture that is made now."""
        plan = await self.in_force(conn, payment, now)
        return capture_under(plan, payment, amount, capture_id=capture_id, now=now)


def capture_under(plan: FeePlan, payment: Payment, amount: Money, *, capture_id: str, now: datetime) -> Capture:
    """Return a payment's next capture under a plan."""
    fee = plan.fee_of_next(payment.captures, amount)
    return Capture(
        id=capture_id,
        amount=amount,
        fee=fee.amount,
        fee_due_minor=fee.due_minor,
        fee_plan_version=plan.version,
        fee_refund=plan.fee_refund,
        settlement_delay_seconds=plan.settlement_delay_seconds,
        capture_time=now,
    )
