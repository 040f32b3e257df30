"""The relay: carries outbox rows to the event log, one active relay per domain.

It keeps no cursor. Under its advisory lock it reads rows by position, publishes them, then moves exactly those ids to the
archive; a row that commits late is simply found later. Where it dies in between, the rows are published again and the log
absorbs them by event id.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from servers.runtime.connection import Connection
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import Database
from servers.runtime.eventlog import EventLog, EventLogUnavailable, EventRecord
from servers.runtime.sql import text

RELAY_LOCK_CLASS = 7702
GATHER_SECONDS = 0.04
GATHER_SECONDS_MAX = 0.2
GATHER_SHARE = 10  # so many times as long as carrying took
POLL_SECONDS = 0.25
BATCH = 500
BACKOFF_SECONDS_MAX = 5.0

declare("relay.after_read", "relay.after_publish")
_log = structlog.get_logger("relay")
_relayed = Counter("paymesh_relay_events_total", "Outbox rows carried to the event log", ["domain"])

_READ = text(
    """
    SELECT position, event_id, topic, root_id, type, subject, version, occur_time, traceparent, data
    FROM outbox ORDER BY position LIMIT :batch
    """
)
_ARCHIVE = text(
    """
    WITH moved AS (DELETE FROM outbox WHERE position = ANY(:positions) RETURNING *)
    INSERT INTO outbox_archive (position, event_id, topic, root_id, type, subject, version, occur_time, traceparent, data)
    SELECT position, event_id, topic, root_id, type, subject, version, occur_time, traceparent, data FROM moved
    """
)


class Relay:
    """Carries one domain's outbox to the log."""

    def __init__(self, db: Database, log: EventLog) -> None:
        self._db = db
        self._log = log
        self._wake = asyncio.Event()
        db.on_outbox = self._wake.set

    async def run(self) -> None:
        """Carry until cancelled. Loss of the database or the log is waited out."""
        backoff = POLL_SECONDS
        while True:
            try:
                await self._hold_lock_and_carry()
            except (SQLAlchemyError, EventLogUnavailable) as error:
                _log.warning("relay.interrupted", error=type(error).__name__)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)
            else:
                backoff = POLL_SECONDS

    async def _hold_lock_and_carry(self) -> None:
        async with self._db.autocommit() as conn:
            held = await conn.scalar(text("SELECT pg_try_advisory_lock(:class, 0)"), {"class": RELAY_LOCK_CLASS})
            if not held:
                # Another process of this domain relays; ask again, in case it dies.
                await asyncio.sleep(POLL_SECONDS)
                return
            try:
                while True:
                    self._wake.clear()
                    began = time.perf_counter()
                    if await self.carry(conn) < BATCH:
                        await self._idle(time.perf_counter() - began)
            finally:
                await conn.execute(text("SELECT pg_advisory_unlock(:class, 0)"), {"class": RELAY_LOCK_CLASS})

    async def _idle(self, carried_seconds: float) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return  # the poll that finds rows which another process of this domain wrote
        # Rows that follow at once are carried with this one: under load, a commit of the log for each commit of the domain would
        # cost as much as the domain's own work. The longer that takes, the busier the process is, and the more are gathered.
        await asyncio.sleep(min(max(GATHER_SECONDS, GATHER_SHARE * carried_seconds), GATHER_SECONDS_MAX))

    async def carry(self, conn: Connection) -> int:
        """Publish and archive one batch on an autocommit connection that holds the lock. Returns how many."""
        rows = (await conn.execute(_READ, {"batch": BATCH})).all()
        if not rows:
            return 0
        crash_point("relay.after_read")
        await self._log.publish(
            [
                EventRecord(
                    topic=row.topic,
                    key=row.root_id,
                    event_id=row.event_id,
                    type=row.type,
                    source=f"paymesh/{self._db.domain}",
                    subject=row.subject,
                    version=row.version,
                    occur_time=row.occur_time,
                    traceparent=row.traceparent,
                    data=bytes(row.data),
                )
                for row in rows
            ]
        )
        crash_point("relay.after_publish")
        await conn.execute(_ARCHIVE, {"positions": [row.position for row in rows]})
        _relayed.labels(self._db.domain).inc(len(rows))
        return len(rows)

    async def drain(self) -> None:
        """Carry all that is there now; for tests and orderly shutdown."""
        async with self._db.autocommit() as conn:
            while await self.carry(conn):
                pass
