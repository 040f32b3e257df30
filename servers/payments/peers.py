"""The servers that payments calls: the ledger."""

from __future__ import annotations

import grpc
from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc

from servers.payments.domain import Payment, Refund
from servers.runtime.channels import Channels, outgoing_metadata, peer_refusal
from servers.runtime.render import money, stamp


class LedgerPeer:
    """Wallets' ledger. Every call may raise PeerUnavailable, after which the same call may be repeated: facts carry their ids."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def reserve_refund(self, payment: Payment, refund: Refund) -> None:
        """Book the refund before Stripe is asked: an event could not refuse."""
        await self._post(
            ledger_pb2.PostFactRequest(
                refund_created=ledger_pb2.RefundCreatedFact(
                    refund_id=refund.id,
                    amount=money(refund.amount),
                    captures=[
                        ledger_pb2.CaptureFact(
                            capture_id=capture.id,
                            payment_id=payment.id,
                            merchant_id=payment.merchant_id,
                            amount=money(capture.amount),
                            fee=money(capture.fee),
                            capture_time=stamp(capture.capture_time),
                        )
                        for capture in payment.captures
                    ],
                    create_time=stamp(refund.create_time),
                )
            )
        )

    async def _post(self, request: ledger_pb2.PostFactRequest) -> None:
        stub = self._channels.stub("wallets", ledger_pb2_grpc.LedgerServiceStub)
        try:
            await stub.PostFact(request, metadata=outgoing_metadata())
        except grpc.aio.AioRpcError as error:
            refusal = peer_refusal("wallets", error)
            if refusal is None:
                raise
            raise refusal from error
