"""Fee plans of merchants: each replaces the one before it, and nothing that was captured before."""

from __future__ import annotations

from dataclasses import dataclass

from servers.kernel.errors import check_etag
from servers.payments import store
from servers.payments.domain import PLAN_LEAD, FeePlan, MerchantFeePlan
from servers.payments.usecases.deps import Deps
from servers.runtime.idempotency import IdempotentRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceFeePlan:
    """Somebody of the staff gives a merchant other terms. `expected` is the number of the version that they have seen."""

    merchant_id: str
    terms: FeePlan
    reason: str
    set_by: str
    expected: int | None


async def replace_fee_plan(deps: Deps, request: IdempotentRequest, command: ReplaceFeePlan) -> MerchantFeePlan:
    """Write a merchant's next fee plan. Raises EtagMismatch, ConcurrentUpdate."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            newest = await deps.fee_plans.newest(uow.conn, command.merchant_id)
            check_etag(command.merchant_id, expected=command.expected, version=newest.number)
            own = newest.followed_by(
                command.terms, reason=command.reason, set_by=command.set_by, now=deps.clock.now(), lead=PLAN_LEAD
            )
            store.insert_fee_plan(uow.conn, own)
            uow.outbox.append(deps.events.fee_plan(own))
            uow.idempotency.complete(request, own)
    return own
