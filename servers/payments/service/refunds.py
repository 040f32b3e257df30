"""Refunds: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import ResourceNotFound
from servers.payments import store
from servers.payments.render import refund_message
from servers.payments.service.base import Base, amount_of, owner
from servers.payments.usecases import CreateRefund, cancel_refund, create_refund, refresh_refund
from servers.runtime.call import current_call
from servers.runtime.requests import idempotent


class Refunds(Base):
    """Refunds, for merchants and those who get them."""

    async def CreateRefund(self, request: payments_pb2.CreateRefundRequest, context: Any) -> payments_pb2.Refund:
        """Refund a payment of the caller's merchant."""
        ticket = idempotent(request, render=refund_message)
        reason = request.reason or payments_pb2.Refund.CUSTOMER_REQUEST
        amount = amount_of(request.amount) if request.HasField("amount") else None
        command = CreateRefund(
            payment_id=request.payment_id,
            merchant_id=current_call().principal.merchant_id,
            amount=amount,
            reason=payments_pb2.Refund.Reason.Name(reason),
            metadata=dict(request.metadata),
        )
        return refund_message(await create_refund(self._deps, ticket, command))

    async def CancelRefund(self, request: payments_pb2.CancelRefundRequest, context: Any) -> payments_pb2.Refund:
        """Cancel a refund of the caller's merchant."""
        ticket = idempotent(request, render=refund_message)
        merchant_id = current_call().principal.merchant_id
        return refund_message(
            await cancel_refund(self._deps, ticket, refund_id=request.refund_id, merchant_id=merchant_id)
        )

    async def GetRefund(self, request: payments_pb2.GetRefundRequest, context: Any) -> payments_pb2.Refund:
        """Return a refund of a payment that the caller may see."""
        async with self._deps.db.read() as conn:
            refund = await store.refund(conn, request.refund_id)
        if refund is None:
            raise ResourceNotFound(request.refund_id)
        owner_id, customer_id = owner()
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, refund.payment_id, owner_id=owner_id, customer_id=customer_id)
        if payment is None:
            raise ResourceNotFound(request.refund_id)
        return self._shown_refund(await refresh_refund(self._deps, refund))

    async def ListRefunds(
        self, request: payments_pb2.ListRefundsRequest, context: Any
    ) -> payments_pb2.ListRefundsResponse:
        """List the merchant's refunds."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.refunds_of_merchant(
                conn,
                current_call().principal.merchant_id,
                state=payments_pb2.Refund.State.Name(request.state) if request.state else "",
                before=page.before,
                limit=page.size + 1,
            )
        return payments_pb2.ListRefundsResponse(
            refunds=[refund_message(refund) for refund in found[: page.size]],
            next_page_token=self._pages.token(request, [refund.id for refund in found], page.size),
        )

    async def ListPaymentRefunds(
        self, request: payments_pb2.ListPaymentRefundsRequest, context: Any
    ) -> payments_pb2.ListPaymentRefundsResponse:
        """List a payment's refunds."""
        page = self._pages.read(request)
        payment = await self._visible(request.payment_id)
        async with self._deps.db.read() as conn:
            found = await store.refunds(conn, payment, before=page.before, limit=page.size + 1)
        return payments_pb2.ListPaymentRefundsResponse(
            refunds=[self._shown_refund(refund) for refund in found[: page.size]],
            next_page_token=self._pages.token(request, [refund.id for refund in found], page.size),
        )
