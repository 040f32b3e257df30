"""Consumers: each event takes effect once.

The inbox row and the effect share a transaction; offsets are committed after them, many at once. A failing event is retried with
growing pauses, which holds its partition and so keeps its key's order; after the last try it goes to the dead letters, from where
`replay_dead_letters` brings it back, and the rest go on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog
from opentelemetry import propagate, trace
from prometheus_client import Counter

from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import Database, UnitOfWork
from servers.runtime.eventlog import Delivered, EventLog, EventLogUnavailable, EventRecord, LogConsumer, OwnershipLost
from servers.runtime.sql import Row, text

Handler = Callable[[UnitOfWork, Delivered], Awaitable[None]]

TRIES: Final = 8
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 10.0
IDLE_SECONDS: Final = 0.1
BATCH: Final = 100
COMMIT_SECONDS: Final = 1.0
"""How long a batch may go on until what is done of it is noted: its claim must not seem to stand still."""

declare("consumer.before_commit", "consumer.after_commit")
_log = structlog.get_logger("consumer")
_tracer = trace.get_tracer("paymesh.consumer")
_consumed = Counter("paymesh_consumer_events_total", "Events consumed", ["group", "outcome"])

_INBOX = text(
    "INSERT INTO inbox (consumer, event_id, receive_time) VALUES (:consumer, :event_id, :now) ON CONFLICT DO NOTHING"
)
_DEAD = text(
    """
    INSERT INTO dead_letters (consumer, event_id, topic, partition, record_offset, type, key, subject, version, occur_time,
                              traceparent, source, data, error, dead_time)
    VALUES (:consumer, :event_id, :topic, :partition, :record_offset, :type, :key, :subject, :version, :occur_time,
            :traceparent, :source, :data, :error, :now)
    ON CONFLICT DO NOTHING
    """
)


class Consumer:
    """Feeds one group's events to their handlers."""

    def __init__(
        self,
        db: Database,
        log: EventLog,
        *,
        group: str,
        topics: Sequence[str],
        handlers: Mapping[str, Handler],
        concerns: Callable[[EventRecord], bool] = lambda _: True,
        tries: int = TRIES,
    ) -> None:
        """`concerns` tells events of no interest from others of their type, without a transaction for them."""
        self._db = db
        self._log = log
        self._group = group
        self._topics = topics
        self._handlers = handlers
        self._concerns = concerns
        self._tries = tries

    async def run(self) -> None:
        """Consume until cancelled."""
        source = self._log.consumer(group=self._group, topics=self._topics)
        try:
            while True:
                try:
                    if not await self._round(source):
                        await asyncio.sleep(IDLE_SECONDS)
                except (EventLogUnavailable, OwnershipLost) as error:
                    _log.warning("consumer.interrupted", group=self._group, error=type(error).__name__)
                    await asyncio.sleep(PAUSE_SECONDS * 5)
        finally:
            await source.close()

    async def drain(self) -> int:
        """Consume all that is there now; for tests. Returns how many."""
        source = self._log.consumer(group=self._group, topics=self._topics)
        try:
            done = 0
            while count := await self._round(source):
                done += count
            return done
        finally:
            await source.close()

    async def _round(self, source: LogConsumer) -> int:
        batch = await source.poll(max_records=BATCH)
        # How far each partition is done: what dies before that is written down comes again, and the inbox knows it.
        done: dict[tuple[str, int], Delivered] = {}
        began = time.monotonic()
        for delivered in batch:
            handler = self._handlers.get(delivered.record.type)
            if handler is not None:
                await self._handle(handler, delivered)
                crash_point("consumer.after_commit")
            done[delivered.record.topic, delivered.partition] = delivered
            if time.monotonic() - began > COMMIT_SECONDS:
                await _commit(source, done)
                began = time.monotonic()
        await _commit(source, done)
        return len(batch)

    async def _handle(self, handler: Handler, delivered: Delivered) -> None:
        for attempt in range(self._tries):
            try:
                await self._once(handler, delivered)
            except Exception as error:
                # The loop is the last line: whatever a handler raises, the event is retried and then kept as a dead letter.
                _log.warning(
                    "event.handling_failed",
                    group=self._group,
                    event_id=delivered.record.event_id,
                    type=delivered.record.type,
                    attempt=attempt + 1,
                    error=type(error).__name__,
                    exc_info=attempt + 1 == self._tries,
                )
                if attempt + 1 == self._tries:
                    await self._bury(delivered, error)
                    return
                pause = min(PAUSE_SECONDS * 2**attempt, PAUSE_SECONDS_MAX)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            else:
                return

    async def _once(self, handler: Handler, delivered: Delivered) -> None:
        record = delivered.record
        if not self._concerns(record):
            return
        context = propagate.extract({"traceparent": record.traceparent})
        with _tracer.start_as_current_span(f"consume {record.type}", context=context):
            async with self._db.uow() as uow:
                new = await uow.conn.execute(
                    _INBOX, {"consumer": self._group, "event_id": record.event_id, "now": self._db.clock.now()}
                )
                if not new.rowcount:
                    _consumed.labels(self._group, "repeat").inc()
                    return
                await handler(uow, delivered)
                crash_point("consumer.before_commit")
        _consumed.labels(self._group, "done").inc()

    async def _bury(self, delivered: Delivered, error: Exception) -> None:
        record = delivered.record
        async with self._db.uow() as uow:
            await uow.conn.execute(
                _DEAD,
                {
                    "consumer": self._group,
                    "event_id": record.event_id,
                    "topic": record.topic,
                    "partition": delivered.partition,
                    "record_offset": delivered.offset,
                    "type": record.type,
                    "key": record.key,
                    "subject": record.subject,
                    "version": record.version,
                    "occur_time": record.occur_time,
                    "traceparent": record.traceparent,
                    "source": record.source,
                    "data": record.data,
                    "error": f"{type(error).__name__}: {error}"[:2000],
                    "now": self._db.clock.now(),
                },
            )
        await self._log.publish([replace(record, topic=f"{record.topic}.dlq")])
        _consumed.labels(self._group, "dead").inc()
        _log.error("event.dead_lettered", group=self._group, event_id=record.event_id, type=record.type)

    async def replay_dead_letters(self) -> int:
        """Give every dead letter of this group to its handler once more. Returns how many took effect."""
        async with self._db.read() as conn:
            rows = (
                await conn.execute(
                    text(
                        "SELECT * FROM dead_letters WHERE consumer = :consumer ORDER BY topic, partition, record_offset"
                    ),
                    {"consumer": self._group},
                )
            ).all()
        for row in rows:
            delivered = Delivered(
                record=_record_of(row), partition=row.partition, offset=row.record_offset, generation=0
            )
            await self._once(self._handlers[row.type], delivered)
            async with self._db.uow() as uow:
                await uow.conn.execute(
                    text("DELETE FROM dead_letters WHERE consumer = :consumer AND event_id = :event_id"),
                    {"consumer": self._group, "event_id": row.event_id},
                )
        return len(rows)


async def _commit(source: LogConsumer, done: dict[tuple[str, int], Delivered]) -> None:
    for delivered in done.values():
        await source.commit(delivered)
    done.clear()


def _record_of(row: Row) -> EventRecord:
    return EventRecord(
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
    )
