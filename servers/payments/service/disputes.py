"""Disputes: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import ResourceNotFound
from servers.payments import store
from servers.payments.service.base import Base
from servers.payments.usecases import accept_dispute, refresh_dispute
from servers.runtime.call import current_call
from servers.runtime.render import instant
from servers.runtime.requests import idempotent


class Disputes(Base):
    """Disputes, for the merchants whose payments they are about."""

    async def GetDispute(self, request: payments_pb2.GetDisputeRequest, context: Any) -> payments_pb2.Dispute:
        """Return a dispute of the caller's merchant."""
        async with self._deps.db.read() as conn:
            dispute = await store.dispute(conn, request.dispute_id, owner_id=current_call().principal.merchant_id)
        if dispute is None:
            raise ResourceNotFound(request.dispute_id)
        return self._renderer.dispute(await refresh_dispute(self._deps, dispute))

    async def ListDisputes(
        self, request: payments_pb2.ListDisputesRequest, context: Any
    ) -> payments_pb2.ListDisputesResponse:
        """List the merchant's disputes."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.disputes(
                conn,
                current_call().principal.merchant_id,
                state=payments_pb2.Dispute.State.Name(request.state) if request.state else "",
                stage=payments_pb2.Dispute.Stage.Name(request.stage) if request.stage else "",
                payment_id=request.payment_id,
                time_from=instant(request.create_time_from) if request.HasField("create_time_from") else None,
                time_to=instant(request.create_time_to) if request.HasField("create_time_to") else None,
                before=page.before,
                limit=page.size + 1,
            )
        return payments_pb2.ListDisputesResponse(
            disputes=[self._renderer.dispute(dispute) for dispute in found[: page.size]],
            next_page_token=self._pages.token(request, [dispute.id for dispute in found], page.size),
        )

    async def AcceptDispute(self, request: payments_pb2.AcceptDisputeRequest, context: Any) -> payments_pb2.Dispute:
        """Concede a dispute of the caller's merchant."""
        ticket = idempotent(request, render=self._renderer.dispute)
        merchant_id = current_call().principal.merchant_id
        return self._renderer.dispute(
            await accept_dispute(self._deps, ticket, dispute_id=request.dispute_id, merchant_id=merchant_id)
        )
