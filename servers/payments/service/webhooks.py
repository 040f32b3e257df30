"""The intake of Stripe's webhooks."""

from __future__ import annotations

from typing import Any

from paymesh.payments.v1 import payments_pb2

from servers.payments.gateway_stripe import SignatureInvalid
from servers.payments.service.base import Base
from servers.runtime.call import CredentialInvalid, current_call


class Intake(Base):
    """Stripe, telling us."""

    async def ReceiveStripeWebhook(
        self, request: payments_pb2.ReceiveStripeWebhookRequest, context: Any
    ) -> payments_pb2.ReceiveStripeWebhookResponse:
        """Store an event that Stripe signed."""
        body = request.body.data
        try:
            event = self._deps.gateway.verify_webhook(body, current_call().metadata.get("stripe-signature", ""))
        except SignatureInvalid as error:
            raise CredentialInvalid from error
        await self._webhooks.receive(event, body)
        return payments_pb2.ReceiveStripeWebhookResponse(stripe_event_id=event.id)
