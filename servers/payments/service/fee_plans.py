"""Fee plans: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import FieldInvalid
from servers.kernel.money import is_currency
from servers.payments.domain import FeePlan, FeeRefund
from servers.payments.render import fee_plan_message
from servers.payments.service.base import Base
from servers.payments.usecases import ReplaceFeePlan, replace_fee_plan
from servers.runtime.call import current_call
from servers.runtime.render import expected_version
from servers.runtime.requests import idempotent


class FeePlanVersions(Base):
    """Fee plans, set by staff and read by their merchants."""

    async def GetFeePlan(self, request: payments_pb2.GetFeePlanRequest, context: Any) -> payments_pb2.FeePlan:
        """Return the plan of the caller's merchant; who set it is the platform's."""
        message = await self._newest(current_call().principal.merchant_id)
        message.ClearField("set_by")
        return message

    async def GetMerchantFeePlan(
        self, request: payments_pb2.GetMerchantFeePlanRequest, context: Any
    ) -> payments_pb2.FeePlan:
        """Return a merchant's plan."""
        return await self._newest(request.merchant_id)

    async def ReplaceMerchantFeePlan(
        self, request: payments_pb2.ReplaceMerchantFeePlanRequest, context: Any
    ) -> payments_pb2.FeePlan:
        """Give a merchant the next version of its plan."""
        ticket = idempotent(request, render=fee_plan_message)
        command = ReplaceFeePlan(
            merchant_id=request.merchant_id,
            terms=terms_of(request),
            reason=request.reason,
            set_by=current_call().principal.subject,
            expected=expected_version(request.etag),
        )
        return fee_plan_message(await replace_fee_plan(self._deps, ticket, command))

    async def _newest(self, merchant_id: str) -> payments_pb2.FeePlan:
        async with self._deps.db.read() as conn:
            return fee_plan_message(await self._deps.fee_plans.newest(conn, merchant_id))


def terms_of(request: payments_pb2.ReplaceMerchantFeePlanRequest) -> FeePlan:
    """Return the terms that a request names. Raises FieldInvalid for a fixed part that cannot be."""
    fixed: dict[str, int] = {}
    for index, part in enumerate(request.fixed):
        if not is_currency(part.currency):
            raise FieldInvalid.of(f"fixed[{index}].currency", "must be an ISO 4217 currency")
        if part.currency in fixed:
            raise FieldInvalid.of(f"fixed[{index}].currency", "must be named once")
        if part.amount_minor < 0:
            raise FieldInvalid.of(f"fixed[{index}].amount_minor", "must be at least 0")
        fixed[part.currency] = part.amount_minor
    given = request.HasField("settlement_delay_seconds")
    return FeePlan(
        version="",  # it gets its name with its number
        basis_points=request.basis_points,
        fixed_minor=fixed,
        fee_refund=FeeRefund(payments_pb2.FeePlan.FeeRefund.Name(request.fee_refund)),
        settlement_delay_seconds=request.settlement_delay_seconds if given else None,
    )
