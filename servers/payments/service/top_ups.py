"""Top-ups, for the wallets server."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2, top_ups_pb2, top_ups_pb2_grpc

from servers.payments.render import Renderer
from servers.payments.service.base import amount_of
from servers.payments.usecases import ChargeTopUp, Deps, charge_top_up


class TopUpPaymentService(top_ups_pb2_grpc.TopUpPaymentServiceServicer):
    """Card money for wallets."""

    def __init__(self, deps: Deps, renderer: Renderer) -> None:
        self._deps = deps
        self._renderer = renderer

    async def ChargeTopUp(self, request: top_ups_pb2.ChargeTopUpRequest, context: Any) -> payments_pb2.Payment:
        """Charge a card for a top-up, or say how it stands."""
        command = ChargeTopUp(
            top_up_id=request.top_up_id,
            customer_id=request.customer_id,
            amount=amount_of(request.amount),
            payment_method_id=request.payment_method_id,
            return_url=request.return_url,
            stop=request.stop,
            rehearsal=request.validate_only,
        )
        return self._renderer.payment(await charge_top_up(self._deps, command))
