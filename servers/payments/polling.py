"""Looks through Stripe's list of events for what never arrived by a webhook.

The list is read from newer to older, so a round remembers where it wants to get to (the newest event that it saw) and where it
stands; only when it has come to what was seen before is everything up to there seen. A round looks a little further back than that,
because Stripe's list is not in order to the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from servers.payments import store
from servers.payments.gateway_stripe import EventPage, PlaceGone
from servers.payments.store import EventCursor
from servers.payments.usecases import Deps
from servers.payments.webhooks import EventSource, Webhooks
from servers.runtime.alerts import alert
from servers.runtime.jobs import Job
from servers.runtime.outbound import Answered

POLL: Final = "payments.poll_stripe_events"
POLL_CRON: Final = "*/3 * * * *"
OVERLAP: Final = timedelta(minutes=15)
PAGES_MAX: Final = 20
"""In one go, of a hundred events each; the rest is the next job's."""
KEPT_BY_STRIPE: Final = timedelta(days=30)

_log = structlog.get_logger("polling")


class StripeSilent(Exception):
    """Stripe does not answer now: the next round tries again."""


class Poller:
    """Looks through the list."""

    def __init__(self, deps: Deps, webhooks: Webhooks) -> None:
        self._deps = deps
        self._webhooks = webhooks

    def jobs(self) -> Sequence[Job]:
        """Return the job that polls: every few minutes, and when the server starts."""
        return [Job(name=POLL, run=self._run, cron=POLL_CRON, at_start=True, tries=1)]

    async def _run(self) -> None:
        try:
            await self.poll()
        except StripeSilent as silent:
            _log.warning("polling.interrupted", reason=str(silent))

    async def poll(self) -> int:
        """Look through what is new. Returns how many events had never arrived. Raises StripeSilent."""
        cursor = await self._cursor()
        found = 0
        for _ in range(PAGES_MAX):
            page = await self._page(cursor)
            found += await self._take(page)
            moved = self._after(cursor, page)
            async with self._deps.db.uow() as uow:
                mine = await store.move_event_cursor(uow.conn, cursor, moved)
            if not mine or not moved.after_id:
                return found  # at the end, or another process is at it
            cursor = moved
        async with self._deps.db.uow() as uow:
            await uow.jobs.defer(POLL)
        return found

    async def _cursor(self) -> EventCursor:
        now = self._deps.clock.now()
        async with self._deps.db.uow() as uow:
            cursor = await store.event_cursor(uow.conn, now)
        silence = now - cursor.complete_time
        if silence > KEPT_BY_STRIPE:
            # What Stripe has forgotten cannot be found by its events any more, only by reading each payment.
            alert("stripe_events.gap", days=silence.days, seen_time=cursor.seen_time.isoformat())
        return cursor

    async def _page(self, cursor: EventCursor) -> EventPage:
        deps = self._deps
        listed = await deps.outbound.execute(
            "stripe.list_events",
            lambda: deps.gateway.list_events(since=cursor.seen_time - OVERLAP, after_id=cursor.after_id),
        )
        if not isinstance(listed, Answered):
            raise StripeSilent(listed.reason)
        if isinstance(listed.value, PlaceGone):
            # The event that the round stood at is older than what Stripe keeps: it begins again.
            async with deps.db.uow() as uow:
                await store.move_event_cursor(uow.conn, cursor, replace(cursor, after_id="", target_time=None))
            raise StripeSilent("the round begins again")
        return listed.value

    async def _take(self, page: EventPage) -> int:
        async with self._deps.db.read() as conn:
            known = await store.known_stripe_events(conn, [event.id for event, _ in page.events])
        found = 0
        for event, body in page.events:
            if event.id not in known and await self._webhooks.receive(event, body, EventSource.POLL):
                found += 1
                _log.warning("stripe_event.found", event_id=event.id, type=event.type)
        return found

    def _after(self, cursor: EventCursor, page: EventPage) -> EventCursor:
        newest = max((event.created for event, _ in page.events), default=cursor.seen_time)
        target = cursor.target_time or max(newest, cursor.seen_time)
        if page.more and page.events:
            return replace(cursor, target_time=target, after_id=page.events[-1][0].id)
        return EventCursor(seen_time=target, target_time=None, after_id="", complete_time=self._deps.clock.now())
