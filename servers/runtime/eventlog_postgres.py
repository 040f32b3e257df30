"""The event log on Postgres: the embedded default.

A partition's head row is locked until the publishing transaction commits, so offsets become visible without gaps and
"offset > committed" misses nothing. A partition is owned by lease and generation; a commit by an earlier owner is refused.
"""

from __future__ import annotations

import secrets
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from servers.runtime.connection import Connection, transaction
from servers.runtime.eventlog import PARTITIONS, Delivered, EventLogUnavailable, EventRecord, OwnershipLost
from servers.runtime.sql import Row, text

LEASE_SECONDS: Final = 10
FRESH: Final = 2 / 3  # how much of a lease is left, at least, where it is not renewed yet

_HEAD = text(
    """
    INSERT INTO heads (topic, partition, next_offset) VALUES (:topic, :partition, 0) ON CONFLICT DO NOTHING
    """
)
_LOCK_HEAD = text("SELECT next_offset FROM heads WHERE topic = :topic AND partition = :partition FOR UPDATE")
_APPEND = text(
    """
    WITH appended AS (
        INSERT INTO records (topic, partition, record_offset, key, event_id, type, source, subject, version, occur_time,
                             traceparent, data)
        SELECT :topic, :partition, :next_offset + row_number() OVER (ORDER BY n.place) - 1, n.key, n.event_id, n.type, n.source,
               n.subject, n.version, n.occur_time, n.traceparent, n.data
        FROM unnest(CAST(:keys AS text[]), CAST(:event_ids AS text[]), CAST(:types AS text[]), CAST(:sources AS text[]),
                    CAST(:subjects AS text[]), CAST(:versions AS bigint[]), CAST(:occur_times AS timestamptz[]),
                    CAST(:traceparents AS text[]), CAST(:datas AS bytea[])) WITH ORDINALITY
             AS n(key, event_id, type, source, subject, version, occur_time, traceparent, data, place)
        WHERE NOT EXISTS (SELECT FROM records r
                          WHERE r.topic = :topic AND r.partition = :partition AND r.event_id = n.event_id)
        RETURNING record_offset)
    UPDATE heads SET next_offset = next_offset + (SELECT count(*) FROM appended)
    WHERE topic = :topic AND partition = :partition
    """
)

_SEEN = text(
    """
    INSERT INTO members (group_name, member, seen_until)
    VALUES (:group, :member, clock_timestamp() + make_interval(secs => :lease))
    ON CONFLICT (group_name, member) DO UPDATE SET seen_until = excluded.seen_until
    """
)
_FORGET = text("DELETE FROM members WHERE group_name = :group AND seen_until < clock_timestamp()")
_MEMBERS = text("SELECT count(*) FROM members WHERE group_name = :group")
_OFFER = text(
    """
    INSERT INTO claims (group_name, topic, partition, committed, generation, lease_until)
    SELECT :group, topic, partition, 0, 0, 'epoch' FROM unnest(CAST(:topics AS text[])) AS topic,
           generate_series(0, :partitions - 1) AS partition
    ON CONFLICT DO NOTHING
    """
)
_RENEW = text(
    """
    UPDATE claims SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE group_name = :group AND owner = :member AND lease_until > clock_timestamp()
    """
)
_TAKE = text(
    """
    UPDATE claims SET owner = :member, generation = generation + 1,
                      lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE (group_name, topic, partition) IN (
        SELECT group_name, topic, partition FROM claims
        WHERE group_name = :group AND lease_until <= clock_timestamp() AND topic = ANY(:topics)
        ORDER BY topic, partition LIMIT :wanted FOR UPDATE SKIP LOCKED)
    """
)
_YIELD = text(
    """
    UPDATE claims SET lease_until = 'epoch', owner = NULL
    WHERE (group_name, topic, partition) IN (
        SELECT group_name, topic, partition FROM claims WHERE group_name = :group AND owner = :member
        ORDER BY topic DESC, partition DESC LIMIT :surplus)
    """
)
_STATE = text(
    """
    SELECT (SELECT count(*) FROM members WHERE group_name = :group AND seen_until >= clock_timestamp()) AS members,
           (SELECT count(*) FROM members WHERE group_name = :group AND member = :member
            AND seen_until > clock_timestamp() + make_interval(secs => :fresh)) AS fresh,
           count(*) FILTER (WHERE owner = :member AND lease_until > clock_timestamp()) AS owned,
           count(*) FILTER (WHERE lease_until <= clock_timestamp()) AS free
    FROM claims WHERE group_name = :group AND topic = ANY(:topics)
    """
)
_READ = text(
    """
    SELECT c.topic, c.generation, r.*
    FROM claims c CROSS JOIN LATERAL (
        SELECT partition, record_offset, key, event_id, type, source, subject, version, occur_time, traceparent, data
        FROM records WHERE topic = c.topic AND partition = c.partition AND record_offset >= c.committed
        ORDER BY record_offset LIMIT :max_records) r
    WHERE c.group_name = :group AND c.owner = :member AND c.lease_until > clock_timestamp()
    ORDER BY c.topic, c.partition, r.record_offset LIMIT :max_records
    """
)
_COMMIT = text(
    """
    UPDATE claims SET committed = :next
    WHERE group_name = :group AND topic = :topic AND partition = :partition
      AND owner = :member AND generation = :generation AND committed <= :next
    """
)
_LEAVE = text("UPDATE claims SET owner = NULL, lease_until = 'epoch' WHERE group_name = :group AND owner = :member")
_GONE = text("DELETE FROM members WHERE group_name = :group AND member = :member")


def partition_of(key: str) -> int:
    """Return the partition of a key: the same in every process."""
    return zlib.crc32(key.encode()) % PARTITIONS


class PostgresEventLog:
    """EventLog on a Postgres database of its own."""

    def __init__(self, engine: AsyncEngine, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds

    async def publish(self, records: Sequence[EventRecord]) -> None:
        """Append records; those whose event id the partition has already are left out."""
        parts: dict[tuple[str, int], list[EventRecord]] = defaultdict(list)
        for record in records:
            parts[record.topic, partition_of(record.key)].append(record)
        try:
            async with transaction(self._engine) as conn:
                # Sorted, so that two publishers cannot each hold the head the other waits for.
                for topic, partition in sorted(parts):
                    await self._append(conn, topic, partition, parts[topic, partition])
        except (OperationalError, InterfaceError) as error:
            raise EventLogUnavailable from error

    @staticmethod
    async def _append(conn: Connection, topic: str, partition: int, records: list[EventRecord]) -> None:
        place = {"topic": topic, "partition": partition}
        offset: int | None = (await conn.execute(_LOCK_HEAD, place)).scalar()
        if offset is None:  # the partition's first record
            await conn.execute(_HEAD, place)
            offset = (await conn.execute(_LOCK_HEAD, place)).scalar_one()
        # A statement of its own behind the lock: its snapshot shows what every earlier publisher has appended.
        unique = list({record.event_id: record for record in records}.values())
        await conn.execute(
            _APPEND,
            {
                **place,
                "next_offset": offset,
                "keys": [record.key for record in unique],
                "event_ids": [record.event_id for record in unique],
                "types": [record.type for record in unique],
                "sources": [record.source for record in unique],
                "subjects": [record.subject for record in unique],
                "versions": [record.version for record in unique],
                "occur_times": [record.occur_time for record in unique],
                "traceparents": [record.traceparent for record in unique],
                "datas": [record.data for record in unique],
            },
        )

    def consumer(self, *, group: str, topics: Sequence[str]) -> PostgresLogConsumer:
        """Return a new member of `group`."""
        return PostgresLogConsumer(self._engine, group, tuple(topics), self._lease_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


def _delivered(row: Row) -> Delivered:
    return Delivered(
        record=EventRecord(
            topic=row.topic,
            key=row.key,
            event_id=row.event_id,
            type=row.type,
            source=row.source,
            subject=row.subject,
            version=row.version,
            occur_time=row.occur_time,
            traceparent=row.traceparent,
            data=bytes(row.data),
        ),
        partition=row.partition,
        offset=row.record_offset,
        generation=row.generation,
    )


class PostgresLogConsumer:
    """One member of a group."""

    def __init__(self, engine: AsyncEngine, group: str, topics: tuple[str, ...], lease_seconds: float) -> None:
        self._engine = engine
        self._group = group
        self._topics = topics
        self._lease = lease_seconds
        self._member = secrets.token_hex(8)
        self._me: dict[str, object] = {"group": group, "member": self._member, "lease": lease_seconds}
        self._joined = False

    async def poll(self, *, max_records: int) -> list[Delivered]:
        """Renew the leases, take free partitions up to a fair share, and read."""
        try:
            async with transaction(self._engine) as conn:
                if not self._joined or not await self._settled(conn):
                    await self._balance(conn)
                rows = await conn.execute(_READ, {**self._me, "max_records": max_records})
                return [_delivered(row) for row in rows]
        except (OperationalError, InterfaceError) as error:
            raise EventLogUnavailable from error

    async def _settled(self, conn: Connection) -> bool:
        """Tell whether the leases are fresh and the shares are fair: then a poll only reads, and costs the log no commit."""
        fresh = {"topics": list(self._topics), "fresh": self._lease * FRESH}
        state = (await conn.execute(_STATE, {**self._me, **fresh})).one()
        fair = self._fair(state.members) if state.members else 0
        return bool(state.fresh) and (state.owned == fair or (state.owned < fair and not state.free))

    async def _balance(self, conn: Connection) -> None:
        if not self._joined:
            offer = {"group": self._group, "topics": list(self._topics), "partitions": PARTITIONS}
            await conn.execute(_OFFER, offer)
            self._joined = True
        await conn.execute(_FORGET, self._me)
        await conn.execute(_SEEN, self._me)
        fair = self._fair((await conn.execute(_MEMBERS, self._me)).scalar_one())
        owned = (await conn.execute(_RENEW, self._me)).rowcount
        if owned > fair:
            await conn.execute(_YIELD, {**self._me, "surplus": owned - fair})
        elif owned < fair:
            await conn.execute(_TAKE, {**self._me, "topics": list(self._topics), "wanted": fair - owned})

    def _fair(self, members: int) -> int:
        return -(-PARTITIONS * len(self._topics) // members)

    async def commit(self, delivered: Delivered) -> None:
        """Note the next offset, unless the partition went to another member in between."""
        try:
            async with transaction(self._engine) as conn:
                done = await conn.execute(
                    _COMMIT,
                    {
                        **self._me,
                        "topic": delivered.record.topic,
                        "partition": delivered.partition,
                        "generation": delivered.generation,
                        "next": delivered.offset + 1,
                    },
                )
        except (OperationalError, InterfaceError) as error:
            raise EventLogUnavailable from error
        if not done.rowcount:
            raise OwnershipLost(f"{delivered.record.topic}/{delivered.partition}")

    async def close(self) -> None:
        """Leave the group."""
        try:
            async with transaction(self._engine) as conn:
                await conn.execute(_LEAVE, self._me)
                await conn.execute(_GONE, self._me)
        except (OperationalError, InterfaceError):
            return  # the lease ends by itself
