"""What every event log keeps. A new implementation is added to `event_log` and must pass unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from servers.runtime.connection import DatabaseOptions, engine_for
from servers.runtime.eventlog import Delivered, EventLog, EventRecord, LogConsumer, OwnershipLost
from servers.runtime.eventlog_postgres import PostgresEventLog
from tests.support.postgres import TestPostgres

TOPIC = "paymesh.test.v1"
LEASE_SECONDS = 1.0


@pytest.fixture(params=["postgres"])
async def event_log(request: pytest.FixtureRequest, postgres: TestPostgres) -> AsyncIterator[EventLog]:
    """Return an empty log of each implementation."""
    url = postgres.url(postgres.copy("eventlog"), "payments")
    log = PostgresEventLog(
        engine_for(url, DatabaseOptions(application_name="test", pool_size=10)), lease_seconds=LEASE_SECONDS
    )
    yield log
    await log.close()


def record(number: int, key: str = "k") -> EventRecord:
    """Return a record."""
    return EventRecord(
        topic=TOPIC,
        key=key,
        event_id=f"evt_{number}_{key}",
        type="test.happened",
        source="test",
        subject=key,
        version=number + 1,
        occur_time=datetime(2026, 1, 1, tzinfo=UTC),
        traceparent="00-1-1-01",
        data=bytes([number]),
    )


async def read_all(consumer: LogConsumer, wanted: int, *, commit: bool = True) -> list[Delivered]:
    """Read until `wanted` records came, within a bound."""
    found: list[Delivered] = []
    async with asyncio.timeout(10):
        while len(found) < wanted:
            batch = await consumer.poll(max_records=100)
            found += batch
            for delivered in batch if commit else ():
                await consumer.commit(delivered)
            if not batch:
                await asyncio.sleep(0.05)
    return found


async def test_a_record_comes_out_as_it_went_in(event_log: EventLog) -> None:
    await event_log.publish([record(1)])
    assert [d.record for d in await read_all(event_log.consumer(group="g", topics=[TOPIC]), 1)] == [record(1)]


async def test_each_key_keeps_its_order(event_log: EventLog) -> None:
    for start in range(0, 40, 10):
        await event_log.publish([record(n, key) for n in range(start, start + 10) for key in "abcdef"])
    found = await read_all(event_log.consumer(group="g", topics=[TOPIC]), 240)
    for key in "abcdef":
        assert [d.record.version for d in found if d.record.key == key] == list(range(1, 41))


async def test_what_is_published_twice_is_stored_once(event_log: EventLog) -> None:
    await event_log.publish([record(1), record(2)])
    await event_log.publish([record(2), record(3)])
    found = await read_all(event_log.consumer(group="g", topics=[TOPIC]), 3)
    assert [d.record.event_id for d in found] == ["evt_1_k", "evt_2_k", "evt_3_k"]


async def test_what_is_not_committed_is_delivered_again(event_log: EventLog) -> None:
    await event_log.publish([record(1), record(2)])
    first = event_log.consumer(group="g", topics=[TOPIC])
    both = await read_all(first, 2, commit=False)
    await first.commit(both[0])
    await first.close()
    again = await read_all(event_log.consumer(group="g", topics=[TOPIC]), 1)
    assert [d.record.event_id for d in again] == ["evt_2_k"]


async def test_groups_do_not_disturb_each_other(event_log: EventLog) -> None:
    await event_log.publish([record(1)])
    assert len(await read_all(event_log.consumer(group="g", topics=[TOPIC]), 1)) == 1
    assert len(await read_all(event_log.consumer(group="h", topics=[TOPIC]), 1)) == 1


async def test_members_of_a_group_share_the_partitions(event_log: EventLog) -> None:
    first, second = (event_log.consumer(group="g", topics=[TOPIC]) for _ in range(2))
    for _ in range(4):
        await first.poll(max_records=1)
        await second.poll(max_records=1)
    await event_log.publish([record(1, key) for key in "abcdefghijklmnop"])
    one, two = await first.poll(max_records=100), await second.poll(max_records=100)
    assert len(one) + len(two) == 16
    assert {d.partition for d in one}.isdisjoint({d.partition for d in two})
    assert one
    assert two


async def test_a_dead_members_partitions_go_to_another_and_its_late_commit_is_refused(event_log: EventLog) -> None:
    await event_log.publish([record(1)])
    dead = event_log.consumer(group="g", topics=[TOPIC])
    late = (await read_all(dead, 1, commit=False))[0]
    heir = event_log.consumer(group="g", topics=[TOPIC])
    assert len(await read_all(heir, 1)) == 1
    with pytest.raises(OwnershipLost):
        await dead.commit(late)


async def test_publishers_at_the_same_time_leave_no_gap(event_log: EventLog) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(event_log.publish([record(number, key) for key in "ab"]))
    found = await read_all(event_log.consumer(group="g", topics=[TOPIC]), 40)
    for partition in {d.partition for d in found}:
        offsets = [d.offset for d in found if d.partition == partition]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
