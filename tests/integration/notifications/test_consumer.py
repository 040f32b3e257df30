"""One mail per event and recipient, whatever is redelivered; and none about what happened long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

from paymesh.identity.v1 import identity_events_pb2, identity_pb2
from sqlalchemy import text

from servers.kernel.clock import SystemClock
from servers.kernel.ids import new_id
from servers.notifications.consumer import handlers
from servers.notifications.letters import Letter
from servers.notifications.peers import Directory
from servers.notifications.usecases import Deps
from servers.runtime.channels import Channels
from servers.runtime.db import Database
from servers.runtime.eventlog import Delivered, EventRecord
from servers.runtime.render import stamp
from tests.support.postgres import MakeDatabase

CLOCK = SystemClock()


class NoMail:
    """A gateway that nothing reaches in these tests."""

    async def send(self, letter: Letter, *, email_id: str, address: str, name: str) -> None:
        """Refuse to be used."""
        raise AssertionError(letter)


def deps_of(db: Database) -> Deps:
    """Return what the handlers need; no peer is called while an event is consumed."""
    channels: Channels = None  # type: ignore[assignment]
    return Deps(db=db, clock=CLOCK, gateway=NoMail(), directory=Directory(channels), public_url="https://x.example")


def registered(occur_time: datetime) -> Delivered:
    """Return the event of a registration."""
    user_id, event_id = new_id("usr", clock=CLOCK), new_id("evt", clock=CLOCK)
    event = identity_events_pb2.IdentityEvent(
        event_id=event_id, type="user.registered", subject=user_id, version=1, user=identity_pb2.User(id=user_id)
    )
    event.occur_time.CopyFrom(stamp(occur_time))
    record = EventRecord(
        topic="paymesh.identity.v1",
        key=user_id,
        event_id=event_id,
        type=event.type,
        source="paymesh/identity",
        subject=user_id,
        version=1,
        occur_time=occur_time,
        traceparent="",
        data=event.SerializeToString(),
    )
    return Delivered(record=record, partition=0, offset=0, generation=1)


async def queued(db: Database) -> tuple[int, int]:
    """Return how many mails and how many jobs there are."""
    async with db.read() as conn:
        mails = await conn.scalar(text("SELECT count(*) FROM emails"))
        jobs = await conn.scalar(text("SELECT count(*) FROM procrastinate_jobs"))
    return int(mails or 0), int(jobs or 0)


async def test_an_event_that_comes_again_has_one_mail(make_database: MakeDatabase) -> None:
    db = await make_database("notifications")
    handle = handlers(deps_of(db))["user.registered"]
    event = registered(CLOCK.now())
    for _ in range(3):
        async with db.uow() as uow:
            await handle(uow, event)
    assert await queued(db) == (1, 1)


async def test_nobody_gets_mail_about_what_happened_long_ago(make_database: MakeDatabase) -> None:
    db = await make_database("notifications")
    handle = handlers(deps_of(db))["user.registered"]
    async with db.uow() as uow:
        await handle(uow, registered(CLOCK.now() - timedelta(days=2)))
    assert await queued(db) == (0, 0)
