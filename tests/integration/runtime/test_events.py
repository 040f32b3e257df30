"""Outbox, relay, inbox: told once, in order, whatever repeats or fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from servers.runtime.connection import DatabaseOptions, engine_for
from servers.runtime.consumer import Consumer
from servers.runtime.db import Database, UnitOfWork
from servers.runtime.eventlog import Delivered, EventLog
from servers.runtime.eventlog_postgres import PostgresEventLog
from servers.runtime.outbox import OutboxEvent
from servers.runtime.relay import Relay
from tests.support.postgres import MakeDatabase, TestPostgres


@pytest.fixture
async def log(postgres: TestPostgres) -> AsyncIterator[EventLog]:
    """Return an empty log."""
    url = postgres.url(postgres.copy("eventlog"), "payments")
    made = PostgresEventLog(engine_for(url, DatabaseOptions(application_name="test", pool_size=5)))
    yield made
    await made.close()


def event(subject: str, version: int) -> OutboxEvent:
    """Return an event."""

    def render(event_id: str, occur_time: datetime) -> bytes:
        return f"{subject}:{version}".encode()

    return OutboxEvent(type="test.happened", root_id=subject, subject=subject, version=version, render=render)


async def append(db: Database, *events: OutboxEvent) -> None:
    """Write events in a transaction of their own."""
    async with db.uow() as uow:
        uow.outbox.append(*events)


async def test_events_reach_their_handler_once_and_in_order(make_database: MakeDatabase, log: EventLog) -> None:
    db = await make_database("payments")
    await append(db, *(event(subject, version) for version in range(1, 4) for subject in "ab"))
    await Relay(db, log).drain()
    seen: list[str] = []

    async def handle(_: UnitOfWork, delivered: Delivered) -> None:
        seen.append(delivered.record.data.decode())

    topics = ["paymesh.payments.v1"]
    consumer = Consumer(db, log, group="g", topics=topics, handlers={"test.happened": handle})
    await consumer.drain()
    await consumer.drain()
    for subject in "ab":
        assert [text for text in seen if text[0] == subject] == [f"{subject}:{n}" for n in (1, 2, 3)]
    async with db.read() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM outbox")) == 0
        assert await conn.scalar(text("SELECT count(*) FROM outbox_archive")) == 6


async def test_events_that_nobody_handles_are_passed_for_good(make_database: MakeDatabase, log: EventLog) -> None:
    db = await make_database("payments")
    await append(db, *(event(subject, version) for version in range(1, 6) for subject in "abcd"))
    await Relay(db, log).drain()
    topics = ["paymesh.payments.v1"]
    assert await Consumer(db, log, group="g", topics=topics, handlers={}).drain() == 20
    seen: list[str] = []

    async def handle(_: UnitOfWork, delivered: Delivered) -> None:
        seen.append(delivered.record.data.decode())

    await append(db, event("a", 6))
    await Relay(db, log).drain()
    consumer = Consumer(db, log, group="g", topics=topics, handlers={"test.happened": handle})
    assert await consumer.drain() == 1
    assert seen == ["a:6"]


async def test_a_change_is_told_once_or_not_at_all(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    await append(db, event("a", 1))
    for _ in range(12):  # more than the pool has connections
        with pytest.raises(IntegrityError):
            async with db.uow() as uow:
                await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
                uow.outbox.append(event("b", 1), event("a", 1), event("c", 1))
    async with db.read() as conn:
        told = (await conn.execute(text("SELECT subject FROM outbox"))).scalars()
        assert (list(told), await conn.scalar(text("SELECT count(*) FROM outbound_calls"))) == (["a"], 0)


async def test_a_change_that_is_rolled_back_is_not_told(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    with pytest.raises(RuntimeError):
        async with db.uow() as uow:
            uow.outbox.append(event("a", 1))
            raise RuntimeError("rolled back")
    async with db.read() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM outbox")) == 0


async def test_what_a_consumer_died_over_comes_again_and_takes_effect_once(
    make_database: MakeDatabase, log: EventLog
) -> None:
    db = await make_database("payments")
    await append(db, event("a", 1))
    await Relay(db, log).drain()
    seen: list[str] = []

    async def die(_: UnitOfWork, delivered: Delivered) -> None:
        raise asyncio.CancelledError  # as a process that is killed in the middle: nothing catches it

    async def handle(_: UnitOfWork, delivered: Delivered) -> None:
        seen.append(delivered.record.subject)

    topics = ["paymesh.payments.v1"]
    with pytest.raises(asyncio.CancelledError):
        await Consumer(db, log, group="g", topics=topics, handlers={"test.happened": die}).drain()
    for _ in range(2):
        await Consumer(db, log, group="g", topics=topics, handlers={"test.happened": handle}).drain()
    assert seen == ["a"]


async def test_poison_becomes_a_dead_letter_the_rest_go_on_and_a_replay_heals(
    make_database: MakeDatabase, log: EventLog
) -> None:
    db = await make_database("payments")
    await append(db, event("bad", 1), event("good", 1))
    await Relay(db, log).drain()
    healed = False
    seen: list[str] = []

    async def handle(_: UnitOfWork, delivered: Delivered) -> None:
        if delivered.record.subject == "bad" and not healed:
            raise RuntimeError("poison")
        seen.append(delivered.record.subject)

    topics = ["paymesh.payments.v1"]
    consumer = Consumer(db, log, group="g", topics=topics, handlers={"test.happened": handle}, tries=2)
    await consumer.drain()
    assert seen == ["good"]
    dead = log.consumer(group="watch", topics=["paymesh.payments.v1.dlq"])
    assert [d.record.subject for d in await dead.poll(max_records=10)] == ["bad"]
    healed = True
    assert await consumer.replay_dead_letters() == 1
    assert seen == ["good", "bad"]
    assert await consumer.replay_dead_letters() == 0
