"""The outbox: every state change is told by exactly one row, written in its own transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from opentelemetry import propagate
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from servers.kernel.clock import Clock
from servers.kernel.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """Something that happened to `subject`, whose root is `root_id`: the root's row is locked when it is appended."""

    type: str
    root_id: str
    subject: str
    version: int
    render: Callable[[str, datetime], bytes]
    """(event id, occur time) to the bytes of the domain's event message."""


class Outbox:
    """The outbox of one domain, inside one transaction."""

    def __init__(self, conn: AsyncConnection, *, domain: str, clock: Clock) -> None:
        self._conn = conn
        self._topic = f"paymesh.{domain}.v1"
        self._clock = clock
        self.written = 0

    async def append(self, *events: OutboxEvent) -> None:
        """Write events in order. Their positions are taken now: after the root's row lock, so each root stays in order."""
        if not events:
            return
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        now = self._clock.now()
        rows = []
        for event in events:
            event_id = new_id("evt", clock=self._clock)
            rows.append(
                {
                    "event_id": event_id,
                    "topic": self._topic,
                    "root_id": event.root_id,
                    "type": event.type,
                    "subject": event.subject,
                    "version": event.version,
                    "occur_time": now,
                    "traceparent": carrier.get("traceparent", ""),
                    "data": event.render(event_id, now),
                }
            )
        await self._conn.execute(
            text(
                """
                INSERT INTO outbox (event_id, topic, root_id, type, subject, version, occur_time, traceparent, data)
                VALUES (:event_id, :topic, :root_id, :type, :subject, :version, :occur_time, :traceparent, :data)
                """
            ),
            rows,
        )
        self.written += len(rows)
