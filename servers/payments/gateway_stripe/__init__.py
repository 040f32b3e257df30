"""The only place that knows Stripe: its verbs, its shapes, its amounts, its errors."""

from __future__ import annotations

from servers.payments.gateway_stripe.client import (
    API_VERSION,
    Attached,
    StripeGateway,
    classify,
)
from servers.payments.gateway_stripe.events import EventPage, PlaceGone, WebhookEvent, event_of
from servers.payments.gateway_stripe.shapes import step_of
from servers.payments.gateway_stripe.signatures import Fault, SignatureInvalid

__all__ = [
    "API_VERSION",
    "Attached",
    "EventPage",
    "Fault",
    "PlaceGone",
    "SignatureInvalid",
    "StripeGateway",
    "WebhookEvent",
    "classify",
    "event_of",
    "step_of",
]
