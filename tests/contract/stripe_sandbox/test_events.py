"""The list of events: what a poller needs to find what never arrived."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from tests.support.sandbox import SandboxProcess, eventually

DAY = 24 * 3600


async def named(client: stripe.StripeClient) -> str:
    """Make a customer, whose event is the next one."""
    return (await client.v1.customers.create_async({})).id


async def newest(client: stripe.StripeClient) -> str:
    """Return the newest event."""
    return (await client.v1.events.list_async({"limit": 1})).data[0].id


async def test_events_are_found_by_type_and_time(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    first = await named(client)
    since = await newest(client)
    await client.v1.customers.update_async(first, {"name": "Ada"})
    await client.v1.customers.delete_async(first)
    after: Any = {"ending_before": since}
    for asked, types in (
        ({}, ["customer.deleted", "customer.updated"]),
        ({"type": "customer.updated"}, ["customer.updated"]),
        ({"type": "customer.*"}, ["customer.deleted", "customer.updated"]),
        ({"types": ["customer.deleted", "charge.*"]}, ["customer.deleted"]),
        ({"types": ["charge.*"]}, []),
        ({"created": {"gt": 1, "lte": 2}}, []),
    ):
        params: Any = after | asked
        assert [event.type for event in (await client.v1.events.list_async(params)).data] == types
    updated = (await client.v1.events.list_async(after | {"type": "customer.updated"})).data[0]
    changed: Any = updated.data.previous_attributes
    assert changed.to_dict() == {"name": None}


async def test_pages_go_both_ways_and_miss_nothing(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    await named(client)
    start = await newest(client)
    made = [await named(client) for _ in range(5)]
    upwards: Any = {"ending_before": start, "limit": 2}
    seen = [event async for event in (await client.v1.events.list_async(upwards)).auto_paging_iter()]
    assert [event.data.object["id"] for event in seen] == made
    downwards: Any = {"limit": 2, "type": "customer.created"}
    page = await client.v1.events.list_async(downwards)
    assert ([event.data.object["id"] for event in page.data], page.has_more) == ([made[4], made[3]], True)
    page = await client.v1.events.list_async(downwards | {"starting_after": page.data[-1].id})
    assert [event.data.object["id"] for event in page.data] == [made[2], made[1]]
    for wrong in (
        {"starting_after": "evt_none"},
        {"starting_after": start, "ending_before": start},
        {"type": "customer.created", "types": ["customer.*"]},
        {"types": ["a"] * 21},
        {"limit": 101},
    ):
        params: Any = wrong
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.events.list_async(params)


async def test_what_was_not_taken_is_told_apart_from_what_was(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    await named(client)
    start = await newest(client)
    sandbox.switch("webhooks", paused=True)
    waiting = await named(client)
    lost: Any = {"delivery_success": False, "ending_before": start}
    got: Any = {"delivery_success": True, "ending_before": start}
    assert [event.data.object["id"] for event in (await client.v1.events.list_async(lost)).data] == [waiting]
    assert (await client.v1.events.list_async(got)).data == []
    sandbox.switch("webhooks/faults", type="^customer.created$", kind="drop")
    sandbox.switch("webhooks/faults", type="^customer.created$", kind="swallow")
    sandbox.switch("webhooks", paused=False)
    eventually(lambda: httpx.get(f"{sandbox.url}/_sandbox/faults").json()["webhooks"][0]["times"] == 0, "the drop")
    swallowed = await named(client)
    eventually(
        lambda: len(sandbox.fetch(f"/v1/events?delivery_success=true&ending_before={start}")["data"]) == 1, "two"
    )
    [dropped] = (await client.v1.events.list_async(lost)).data
    assert (dropped.data.object["id"], dropped.pending_webhooks) == (waiting, 1)
    [believed] = (await client.v1.events.list_async(got)).data
    assert (believed.data.object["id"], believed.pending_webhooks) == (swallowed, 0)
    assert sandbox.hooks.about(waiting) == sandbox.hooks.about(swallowed) == []


async def test_events_are_kept_for_thirty_days(fresh: SandboxProcess) -> None:
    client = fresh.client()
    await named(client)
    event = await newest(client)
    fresh.switch("clock", advance_seconds=29 * DAY)
    assert (await client.v1.events.retrieve_async(event)).id == event
    fresh.switch("clock", advance_seconds=DAY)
    assert (await client.v1.events.list_async({})).data == []
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await client.v1.events.retrieve_async(event)
