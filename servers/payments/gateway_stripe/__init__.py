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
from servers.payments.gateway_stripe.shapes import step_of

__all__ = ["API_VERSION", "Attached", "SignatureInvalid", "StripeGateway", "WebhookEvent", "classify", "step_of"]
