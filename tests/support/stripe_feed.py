"""Stripe's list of events, as long as a test wants it, and the intake on a real database."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from servers.kernel.clock import ManualClock
from servers.payments.gateway_stripe import EventPage, PlaceGone, WebhookEvent, event_of
from servers.payments.polling import Poller
from servers.payments.usecases import Deps
from servers.payments.webhooks import Webhooks
from servers.runtime.db import Database
from servers.runtime.outbound import Outbound

START = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 100


def event(number: int, at: datetime) -> dict[str, Any]:
    """Return an event about a PaymentIntent that nobody knows."""
    subject = {
        "object": "payment_intent",
        "id": f"pi_{number}",
        "amount_received": 0,
        "currency": "usd",
        "metadata": {},
    }
    return {
        "id": f"evt_{number:06}",
        "type": "payment_intent.processing",
        "created": int(at.timestamp()),
        "data": {"object": subject},
    }


@dataclass
class Feed:
    """Keeps events for 30 days and lists them newest first. `silent`: nothing answers."""

    clock: ManualClock
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    silent: bool = False

    def tell(self, count: int, *, every: timedelta = timedelta(seconds=1)) -> None:
        """Let time go by, with an event at each step."""
        for _ in range(count):
            self.clock.advance(every)
            self.events.insert(0, event(len(self.events), self.clock.now()))

    async def list_events(self, *, since: datetime, after_id: str) -> EventPage | PlaceGone:
        """Return a page."""
        self.asked.append(after_id)
        if self.silent:
            raise ConnectionError
        kept = [e for e in self.events if e["created"] >= (self.clock.now() - timedelta(days=30)).timestamp()]
        place = 0
        if after_id:
            ids = [e["id"] for e in kept]
            if after_id not in ids:
                return PlaceGone()
            place = ids.index(after_id) + 1
        fitting = [e for e in kept[place:] if e["created"] >= int(since.timestamp())]
        page = [(event_of(e), json.dumps(e).encode()) for e in fitting[:PAGE]]
        return EventPage(events=page, more=len(fitting) > PAGE)


@dataclass(frozen=True)
class Intake:
    """The poller, the intake and Stripe's list."""

    db: Database
    feed: Feed
    poller: Poller
    webhooks: Webhooks

    def news(self, number: int) -> tuple[WebhookEvent, bytes]:
        """Return an event of the list as a webhook brings it."""
        body = next(e for e in self.feed.events if e["id"] == f"evt_{number:06}")
        return event_of(body), json.dumps(body).encode()


def intake_on(db: Database) -> Intake:
    """Return an intake; of what it works with, it has what events of unknown objects need."""
    db.clock = clock = ManualClock(START)
    feed = Feed(clock)
    outbound = Outbound(target="stripe", classify=_classify, clock=clock, tries=1)
    parts = _Parts(db=db, clock=clock, gateway=feed, outbound=outbound)
    deps = cast(Deps, parts)
    webhooks = Webhooks(deps)
    return Intake(db, feed, Poller(deps, webhooks), webhooks)


@dataclass(frozen=True)
class _Parts:
    db: Database
    clock: ManualClock
    gateway: Feed
    outbound: Outbound


def _classify(error: Exception) -> Any:
    from servers.runtime.outbound import Failure

    return (Failure.NOT_SENT, None) if isinstance(error, ConnectionError) else None
