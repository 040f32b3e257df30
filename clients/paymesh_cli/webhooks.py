"""`paymesh webhooks`: what Stripe told, and what became of it (docs/runbook.md)."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from paymesh_cli.operator import SECONDS, channel_to

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command(name="list")
def list_events(
    state: Annotated[str, typer.Option(help="stored, applied or dead; all where empty")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> None:
    """List what Stripe told, newest first."""
    from paymesh.payments.v1 import stripe_events_pb2, stripe_events_pb2_grpc

    states = {"": 0, "stored": 1, "applied": 2, "dead": 3}
    if state not in states:
        print(f"--state {state}: must be one of stored, applied, dead", file=sys.stderr)
        raise typer.Exit(2)
    request = stripe_events_pb2.ListStripeEventsRequest(page_size=limit)
    request.state = states[state]  # type: ignore[assignment]  # an int of the enum
    with channel_to("payments") as channel:
        stub = stripe_events_pb2_grpc.StripeEventServiceStub(channel)
        found = stub.ListStripeEvents(request, timeout=SECONDS)
    for event in found.stripe_events:
        _print(event)
    if found.next_page_token:
        print(f"and more: --limit shows up to 1000 (here {limit})")


@app.command()
def show(event_id: str) -> None:
    """Show an event, with its body as Stripe sent it."""
    from paymesh.payments.v1 import stripe_events_pb2, stripe_events_pb2_grpc

    with channel_to("payments") as channel:
        stub = stripe_events_pb2_grpc.StripeEventServiceStub(channel)
        event = stub.GetStripeEvent(stripe_events_pb2.GetStripeEventRequest(stripe_event_id=event_id), timeout=SECONDS)
    _print(event)
    print(event.body.decode())


@app.command()
def replay(
    event_id: Annotated[str, typer.Argument(help="one event")] = "",
    dead: Annotated[bool, typer.Option("--dead", help="every dead event")] = False,
) -> None:
    """Have one event, or every dead one, applied once more."""
    from paymesh.payments.v1 import stripe_events_pb2, stripe_events_pb2_grpc

    if bool(event_id) == dead:
        print("name one event, or give --dead", file=sys.stderr)
        raise typer.Exit(2)
    request = stripe_events_pb2.ReplayStripeEventsRequest(stripe_event_id=event_id, all_dead=dead)
    with channel_to("payments") as channel:
        answer = stripe_events_pb2_grpc.StripeEventServiceStub(channel).ReplayStripeEvents(request, timeout=SECONDS)
    print(f"{answer.replayed} will be applied once more; see `paymesh webhooks list`")


@app.command()
def poll() -> None:
    """Look through Stripe's list of events now for what never arrived."""
    from paymesh.payments.v1 import stripe_events_pb2, stripe_events_pb2_grpc

    with channel_to("payments") as channel:
        stub = stripe_events_pb2_grpc.StripeEventServiceStub(channel)
        answer = stub.PollStripeEvents(stripe_events_pb2.PollStripeEventsRequest(), timeout=SECONDS)
    print(f"{answer.found} had never arrived")


def _print(event: object) -> None:
    from paymesh.payments.v1 import stripe_events_pb2

    assert isinstance(event, stripe_events_pb2.StripeEvent)
    kinds = stripe_events_pb2.StripeEvent
    time = event.receive_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    state, source = kinds.State.Name(event.state).lower(), kinds.Source.Name(event.source).lower()
    print(f"{time}Z  {state:<7} {source:<7} {event.id}  {event.type}  {event.object_id}  tries {event.tries}")
    if event.error:
        print(f"                      {event.error}")
