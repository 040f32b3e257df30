"""The servers that wallets calls: payments, which charges cards."""

from __future__ import annotations

from typing import Final, Protocol

import grpc
from paymesh.payments.v1 import payments_pb2, top_ups_pb2, top_ups_pb2_grpc

from servers.kernel.errors import Kind, Refusal
from servers.runtime.channels import Channels, PeerUnavailable, outgoing_metadata, peer_answer
from servers.runtime.outbound import Failure
from servers.runtime.render import money
from servers.wallets.render_wallets import parse_news
from servers.wallets.resources import News, TopUp

PEER: Final = "payments"
_TOLD_ON: Final = frozenset(
    {Kind.INVALID, Kind.NOT_FOUND, Kind.PRECONDITION, Kind.EXHAUSTED, Kind.UNAVAILABLE, Kind.ABORTED}
)
"""What payments refuses because of what it was asked. That wallets itself may not ask is no news for a customer."""


class Charging(Protocol):
    """Whoever charges a card for a top-up."""

    async def charge(self, top_up: TopUp, *, stop: bool) -> News:
        """Charge, or say how it stands. With `stop`, only say: what was never sent is canceled."""

    async def rehearse(self, top_up: TopUp) -> None:
        """Refuse what a charge would be refused for, and do nothing."""


class PaymentsPeer:
    """Payments. The call carries the top-up's id, so that it may be repeated."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def charge(self, top_up: TopUp, *, stop: bool) -> News:
        """Charge the card for a top-up. Raises payments' own refusal, or AioRpcError where it gave no answer of its own."""
        request = _charge(top_up)
        request.stop = stop
        return parse_news(await self._ask(request))

    async def rehearse(self, top_up: TopUp) -> None:
        """Have payments check a charge. Raises payments' own refusal, or PeerUnavailable where it gave no answer of its own."""
        request = _charge(top_up)
        request.validate_only = True
        try:
            await self._ask(request)
        except grpc.aio.AioRpcError as error:
            raise PeerUnavailable(PEER) from error

    async def _ask(self, request: top_ups_pb2.ChargeTopUpRequest) -> payments_pb2.Payment:
        stub = self._channels.stub(PEER, top_ups_pb2_grpc.TopUpPaymentServiceStub)
        try:
            payment: payments_pb2.Payment = await stub.ChargeTopUp(request, metadata=outgoing_metadata())
        except grpc.aio.AioRpcError as error:
            refusal = peer_answer(error)
            if refusal is None or refusal.kind not in _TOLD_ON:
                raise
            raise refusal from error
        return payment


def _charge(top_up: TopUp) -> top_ups_pb2.ChargeTopUpRequest:
    return top_ups_pb2.ChargeTopUpRequest(
        top_up_id=top_up.id,
        customer_id=top_up.owner_id,
        amount=money(top_up.amount),
        payment_method_id=top_up.payment_method_id,
        return_url=top_up.return_url,
    )


def classify(error: Exception) -> tuple[Failure, float | None] | None:
    """Say what a failed call says about the card. None for a refusal: payments answered, and charged nothing."""
    if isinstance(error, grpc.aio.AioRpcError):
        return Failure.UNKNOWN, None
    if not isinstance(error, Refusal):
        return None
    if error.reason == "PROVIDER_UNAVAILABLE":
        return Failure.NOT_SENT, error.retry_after_seconds
    # Payments lost a server behind it, or somebody else is at this very payment: how that ends is not known yet.
    return (Failure.UNKNOWN, error.retry_after_seconds) if error.kind in (Kind.UNAVAILABLE, Kind.ABORTED) else None
