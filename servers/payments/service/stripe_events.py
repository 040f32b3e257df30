"""What Stripe told, for whoever runs the platform on its machine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from paymesh.payments.v1 import stripe_events_pb2, stripe_events_pb2_grpc

from servers.kernel.errors import ProviderUnavailable, ResourceNotFound
from servers.payments import store
from servers.payments.polling import Poller, StripeSilent
from servers.payments.store import StripeEvent
from servers.payments.usecases import Deps
from servers.payments.webhooks import Webhooks
from servers.runtime.pagination import START, Pages
from servers.runtime.render import stamp

_E = stripe_events_pb2.StripeEvent


class StripeEventService(stripe_events_pb2_grpc.StripeEventServiceServicer):
    """Stripe's events, as they are stored."""

    def __init__(self, deps: Deps, pages: Pages, webhooks: Webhooks, poller: Poller) -> None:
        self._deps = deps
        self._pages = pages
        self._webhooks = webhooks
        self._poller = poller

    async def ListStripeEvents(
        self, request: stripe_events_pb2.ListStripeEventsRequest, context: Any
    ) -> stripe_events_pb2.ListStripeEventsResponse:
        """List events, those that came last first."""
        page = self._pages.read(request)
        # Their ids are Stripe's and tell no order: the page token carries the time too.
        time, _, identifier = page.before.partition(" ")
        before = None if page.before == START else (datetime.fromisoformat(time), identifier)
        state = _E.State.Name(request.state) if request.state else ""
        async with self._deps.db.read() as conn:
            found = await store.stripe_events(conn, state=state, before=before, limit=page.size + 1)
        places = [f"{event.receive_time.isoformat()} {event.id}" for event in found]
        return stripe_events_pb2.ListStripeEventsResponse(
            stripe_events=[_message(event) for event in found[: page.size]],
            next_page_token=self._pages.token(request, places, page.size),
        )

    async def GetStripeEvent(self, request: stripe_events_pb2.GetStripeEventRequest, context: Any) -> _E:
        """Return an event with its body."""
        async with self._deps.db.read() as conn:
            event = await store.stripe_event(conn, request.stripe_event_id)
        if event is None:
            raise ResourceNotFound(request.stripe_event_id)
        message = _message(event)
        message.body = event.body
        return message

    async def ReplayStripeEvents(
        self, request: stripe_events_pb2.ReplayStripeEventsRequest, context: Any
    ) -> stripe_events_pb2.ReplayStripeEventsResponse:
        """Have events applied once more."""
        replayed = await self._webhooks.replay(request.stripe_event_id)
        if request.stripe_event_id and not replayed:
            raise ResourceNotFound(request.stripe_event_id)
        return stripe_events_pb2.ReplayStripeEventsResponse(replayed=replayed)

    async def PollStripeEvents(
        self, request: stripe_events_pb2.PollStripeEventsRequest, context: Any
    ) -> stripe_events_pb2.PollStripeEventsResponse:
        """Look for what never arrived."""
        try:
            return stripe_events_pb2.PollStripeEventsResponse(found=await self._poller.poll())
        except StripeSilent as silent:
            raise ProviderUnavailable from silent


def _message(event: StripeEvent) -> _E:
    return _E(
        id=event.id,
        type=event.type,
        object_id=event.object_id,
        state=_E.State.Value(event.state),
        source=_E.Source.Value(event.source),
        tries=event.tries,
        error=event.error,
        receive_time=stamp(event.receive_time),
    )
