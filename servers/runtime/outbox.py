"""The outbox: every state change is told by exactly one row, written in its own transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry import propagate

from servers.kernel.clock import Clock
from servers.kernel.ids import new_id
from servers.runtime.render import stamp
from servers.runtime.sql import Closing


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """Something that happened to `subject`, whose root is `root_id`: the root's row is locked when it is appended."""

    type: str
    root_id: str
    subject: str
    version: int
    render: Callable[[str, datetime], bytes]
    """(event id, occur time) to the bytes of the domain's event message."""


class EventMessage(Protocol):
    """What the event messages of all domains have."""

    event_id: str
    type: str
    subject: str
    version: int

    @property
    def occur_time(self) -> Timestamp:
        """When it happened."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # protobuf's name
        """Return it as bytes."""


def event_of(kind: str, message: EventMessage, *, root_id: str, subject: str, version: int) -> OutboxEvent:
    """Return the event that `message` tells, which holds the resource as it was right after the change."""
    message.type, message.subject, message.version = kind, subject, version

    def render(event_id: str, occur_time: datetime) -> bytes:
        message.event_id = event_id
        message.occur_time.CopyFrom(stamp(occur_time))
        return message.SerializeToString(deterministic=True)

    return OutboxEvent(type=kind, root_id=root_id, subject=subject, version=version, render=render)


_INSERT: Final = """
    INSERT INTO outbox (event_id, topic, root_id, type, subject, version, occur_time, traceparent, data)
    VALUES (%(event_id)s, %(topic)s, %(root_id)s, %(type)s, %(subject)s, %(version)s, %(occur_time)s, %(traceparent)s, %(data)s)
    """


def topic_of(domain: str) -> str:
    """Return the topic that a domain's events go to."""
    return f"paymesh.{domain}.v1"


def outbox_rows(events: Iterable[OutboxEvent], *, topic: str, clock: Clock) -> list[dict[str, Any]]:
    """Return the rows that tell `events`, for whoever writes them in a statement of its own."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    now = clock.now()
    rows = []
    for event in events:
        event_id = new_id("evt", clock=clock)
        rows.append(
            {
                "event_id": event_id,
                "topic": topic,
                "root_id": event.root_id,
                "type": event.type,
                "subject": event.subject,
                "version": event.version,
                "occur_time": now,
                "traceparent": carrier.get("traceparent", ""),
                "data": event.render(event_id, now),
            }
        )
    return rows


class Outbox:
    """The outbox of one domain, inside one transaction."""

    def __init__(self, closing: Closing, *, domain: str, clock: Clock) -> None:
        self._closing = closing
        self._topic = topic_of(domain)
        self._clock = clock

    @property
    def written(self) -> bool:
        """Whether the transaction tells anything, as it stands: what a refusal has undone is not told."""
        return any(statement is _INSERT for statement, _ in self._closing)

    def append(self, *events: OutboxEvent) -> None:
        """Write events in order, with the COMMIT. Their positions are taken then: under the root's row lock, so each root stays
        in order."""
        self._closing += ((_INSERT, row) for row in outbox_rows(events, topic=self._topic, clock=self._clock))
