"""What Stripe tells, as far as it is needed: which object to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from servers.kernel.money import Money
from servers.payments.gateway_stripe.shapes import from_stripe


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What the worker needs of an event: which object to read."""

    id: str
    type: str
    object_id: str
    payment_intent_id: str
    metadata: dict[str, str]
    created: datetime
    received: Money | None
    """Of a PaymentIntent: what Stripe had taken by then."""


@dataclass(frozen=True, slots=True)
class PlaceGone:
    """The event after which a page was asked for is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A page of Stripe's list of events: each with its bytes."""

    events: Sequence[tuple[WebhookEvent, bytes]]
    more: bool


def event_of(body: dict[str, Any]) -> WebhookEvent:
    """Return the event of Stripe's JSON, read as it came: the SDK's objects hide which keys an event's object has. Raises KeyError,
    TypeError or ValueError for what is none."""
    subject: dict[str, Any] = body["data"]["object"]
    is_intent = subject.get("object") == "payment_intent"
    return WebhookEvent(
        id=str(body["id"]),
        type=str(body["type"]),
        object_id=str(subject.get("id") or ""),
        payment_intent_id=str((subject["id"] if is_intent else subject.get("payment_intent")) or ""),
        metadata=dict(subject.get("metadata") or {}),
        received=from_stripe(int(subject["amount_received"]), str(subject["currency"])) if is_intent else None,
        created=datetime.fromtimestamp(int(body["created"]), UTC),
    )
