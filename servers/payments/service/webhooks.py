"""The intake of Stripe's webhooks."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.payments.gateway_stripe import SignatureInvalid
from servers.payments.service.base import Base
from servers.payments.webhooks import EventSource
from servers.runtime.call import CredentialInvalid, current_call


class Intake(Base):
    """Stripe, telling us."""

    async def ReceiveStripeWebhook(
        self, request: payments_pb2.ReceiveStripeWebhookRequest, context: Any
    ) -> payments_pb2.ReceiveStripeWebhookResponse:
        """Store an event that Stripe signed."""
        body = request.body.data
        try:
            signature = current_call().metadata.get("stripe-signature", "")
            event = self._deps.gateway.verify_webhook(body, signature, now=self._deps.clock.now())
        except SignatureInvalid as invalid:
            self._webhooks.refuse(invalid.fault)
            raise CredentialInvalid from invalid
        await self._webhooks.receive(event, body, EventSource.WEBHOOK)
        return payments_pb2.ReceiveStripeWebhookResponse(stripe_event_id=event.id)
