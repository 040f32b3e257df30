"""What staff decide: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.payments.render import refund_message
from servers.payments.service.base import Base
from servers.payments.usecases import Decider, Verdict, resolve_conflict, resolve_payment, resolve_refund
from servers.runtime.call import current_call
from servers.runtime.requests import idempotent


class Resolving(Base):
    """Conflicts, and outcomes that nobody knows."""

    async def ResolveConflict(self, request: payments_pb2.ResolveConflictRequest, context: Any) -> payments_pb2.Payment:
        """Decide a payment in conflict."""
        ticket = idempotent(request, render=self._renderer.payment)
        decision = payments_pb2.ResolveConflictRequest.Decision.Name(request.decision)
        payment = await resolve_conflict(self._deps, ticket, request.payment_id, Verdict[decision], _decider(request))
        return self._renderer.payment(payment)

    async def ResolvePayment(self, request: payments_pb2.ResolvePaymentRequest, context: Any) -> payments_pb2.Payment:
        """Look into what is open about a payment."""
        ticket = idempotent(request, render=self._renderer.payment)
        verdict = Verdict[payments_pb2.Resolution.Name(request.decision)]
        payment = await resolve_payment(self._deps, ticket, request.payment_id, verdict, _decider(request))
        return self._renderer.payment(payment)

    async def ResolveRefund(self, request: payments_pb2.ResolveRefundRequest, context: Any) -> payments_pb2.Refund:
        """Look into a refund."""
        ticket = idempotent(request, render=refund_message)
        verdict = Verdict[payments_pb2.Resolution.Name(request.decision)]
        refund = await resolve_refund(self._deps, ticket, request.refund_id, verdict, _decider(request))
        return refund_message(refund)


def _decider(
    request: payments_pb2.ResolveConflictRequest
    | payments_pb2.ResolvePaymentRequest
    | payments_pb2.ResolveRefundRequest,
) -> Decider:
    call = current_call()
    return Decider(
        actor_id=call.principal.subject,
        actor_role=call.principal.role,
        reason=request.reason,
        request_id=call.request_id,
    )
