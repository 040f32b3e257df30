"""What never arrived by a webhook is found in Stripe's list: all of it, once, in bounded pages, over failures and gaps."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from servers.payments import polling
from servers.payments.polling import OVERLAP, StripeSilent
from servers.payments.webhooks import EventSource
from tests.support.postgres import MakeDatabase
from tests.support.stripe_feed import Intake, intake_on


@pytest.fixture
async def intake(make_database: MakeDatabase) -> Intake:
    """Return an intake whose platform has just started to look."""
    intake = intake_on(await make_database("payments"))
    assert await intake.poller.poll() == 0
    return intake


async def stored(intake: Intake) -> dict[str, str]:
    """Return how each stored event came."""
    async with intake.db.read() as conn:
        rows = await conn.execute(text("SELECT id, source FROM stripe_events ORDER BY id"))
        return {row.id: row.source for row in rows}


async def jobs_of(intake: Intake) -> dict[str, int]:
    """Return how many jobs wait, by kind."""
    async with intake.db.read() as conn:
        rows = await conn.execute(text("SELECT task_name, count(*) AS n FROM procrastinate_jobs GROUP BY task_name"))
        return {row.task_name: row.n for row in rows}


def alerts(name: str) -> float:
    """Return how often an alert was raised."""
    return REGISTRY.get_sample_value("paymesh_alerts_total", {"alert": name}) or 0.0


async def test_only_what_never_arrived_is_stored_and_each_event_has_one_job(intake: Intake) -> None:
    intake.feed.tell(5)
    for number in (0, 2, 4):
        await intake.webhooks.receive(*intake.news(number), EventSource.WEBHOOK)
    assert await intake.poller.poll() == 2
    assert await intake.poller.poll() == 0
    sources = await stored(intake)
    assert [sources[f"evt_{number:06}"] for number in range(5)] == ["WEBHOOK", "POLL", "WEBHOOK", "POLL", "WEBHOOK"]
    assert await jobs_of(intake) == {"payments.apply_stripe_event": 5}
    # The webhook that comes after all is a repeat.
    assert not await intake.webhooks.receive(*intake.news(1), EventSource.WEBHOOK)


async def test_what_shows_up_late_in_the_list_is_found_by_looking_further_back(intake: Intake) -> None:
    intake.feed.tell(3)
    late = intake.feed.events.pop(1)
    assert await intake.poller.poll() == 2
    intake.feed.clock.advance(OVERLAP / 2)
    intake.feed.events.insert(1, late)
    assert await intake.poller.poll() == 1


async def test_a_long_outage_is_caught_up_in_bounded_steps(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "PAGES_MAX", 3)
    intake.feed.tell(950, every=timedelta(minutes=30))
    steps = []
    while not steps or steps[-1]:
        steps.append(await intake.poller.poll())
        # While one step waits for the next, events go on to come.
        intake.feed.tell(1) if len(steps) == 1 else None
    assert steps[:3] == [300, 300, 300]
    assert sum(steps) == 951
    assert len(await stored(intake)) == 951
    # Three pages at the most in each step, and each unfinished one asks for the next.
    assert (await jobs_of(intake))["payments.poll_stripe_events"] == 3


async def test_a_round_that_is_interrupted_goes_on_where_it_stood(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "PAGES_MAX", 2)
    intake.feed.tell(450, every=timedelta(minutes=10))
    assert await intake.poller.poll() == 200
    intake.feed.silent = True
    with pytest.raises(StripeSilent):
        await intake.poller.poll()
    intake.feed.silent = False
    assert await intake.poller.poll() == 200
    assert await intake.poller.poll() == 50
    assert len(await stored(intake)) == 450


async def test_a_place_that_stripe_has_forgotten_begins_the_round_again(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "PAGES_MAX", 1)
    intake.feed.tell(250, every=timedelta(hours=2))
    assert await intake.poller.poll() == 100
    intake.feed.clock.advance(timedelta(days=25))
    with pytest.raises(StripeSilent):
        await intake.poller.poll()
    intake.feed.tell(1)
    assert await intake.poller.poll() == 1
    assert await intake.poller.poll() == 0


async def test_a_gap_longer_than_stripe_remembers_is_an_alert(intake: Intake) -> None:
    before = alerts("stripe_events.gap")
    intake.feed.tell(3, every=timedelta(days=9))
    intake.feed.clock.advance(timedelta(days=2, hours=23))
    assert await intake.poller.poll() == 3
    assert alerts("stripe_events.gap") == before
    intake.feed.tell(3, every=timedelta(days=11))
    assert await intake.poller.poll() == 3  # what is left of it
    assert alerts("stripe_events.gap") == before + 1
    assert await intake.poller.poll() == 0
    assert alerts("stripe_events.gap") == before + 1


async def test_two_pollers_at_once_store_everything_once(intake: Intake) -> None:
    import asyncio

    intake.feed.tell(250)
    found = await asyncio.gather(*(intake.poller.poll() for _ in range(4)))
    assert len(await stored(intake)) == 250
    assert (await jobs_of(intake))["payments.apply_stripe_event"] == 250
    assert sum(found) == 250
