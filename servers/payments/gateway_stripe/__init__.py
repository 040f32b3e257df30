"""The only place that knows Stripe: its verbs, its shapes, its amounts, its errors."""

from __future__ import annotations

from servers.payments.gateway_stripe.client import (
    API_VERSION,
    Attached,
    SignatureInvalid,
    StripeGateway,
    WebhookEvent,
    classify,
)

__all__ = ["API_VERSION", "Attached", "SignatureInvalid", "StripeGateway", "WebhookEvent", "classify"]
