"""An event about something that we do not have: tried later and later, then kept for a person, who has it applied once more."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from servers.payments import webhooks as module
from servers.payments.webhooks import EventSource
from servers.runtime import jobs
from servers.runtime.jobs import Worker
from tests.integration.payments.test_polling import alerts
from tests.support.postgres import MakeDatabase
from tests.support.stripe_feed import Intake, intake_on


async def fate(intake: Intake) -> list[tuple[str, int, str]]:
    """Return what became of each event, after how many tries, and why."""
    async with intake.db.read() as conn:
        rows = await conn.execute(text("SELECT state, tries, error FROM stripe_events ORDER BY id"))
        return [(row.state, row.tries, row.error) for row in rows]


async def until(intake: Intake, state: str) -> None:
    """Wait until the events are in a state, within a bound."""
    async with asyncio.timeout(30):
        while {found for found, _, _ in await fate(intake)} != {state}:
            await asyncio.sleep(0.05)


async def test_an_unknown_object_is_tried_again_then_dead_then_replayed(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BACKOFF_BASE_SECONDS", 0)
    monkeypatch.setattr(module, "TRIES", 3)
    intake = intake_on(await make_database("payments"))
    intake.feed.tell(2)
    for number in range(2):
        await intake.webhooks.receive(*intake.news(number), EventSource.WEBHOOK)
    before = alerts("webhook.dead")
    url = intake.db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    worker = asyncio.create_task(Worker(url, intake.webhooks.jobs(), application_name="test").run())
    try:
        await until(intake, "DEAD")
        assert await fate(intake) == [("DEAD", 3, "UnknownObject: pi_0"), ("DEAD", 3, "UnknownObject: pi_1")]
        assert alerts("webhook.dead") == before + 2
        assert await intake.webhooks.replay("evt_000001") == 1
        await until(intake, "DEAD")
        assert await intake.webhooks.replay("") == 2
        await until(intake, "DEAD")
        assert alerts("webhook.dead") == before + 5
        assert await intake.webhooks.replay("evt_000009") == 0
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
