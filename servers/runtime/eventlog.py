"""The event log's port. What every implementation keeps is written in `tests/contract/event_log`.

Records of one key are delivered in the order of their publication; a record that is published twice is delivered at least
once and recognised by its event id; a group commits only what it owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

PARTITIONS = 4


class EventLogUnavailable(Exception):
    """The log cannot be reached now."""


class OwnershipLost(Exception):
    """The partition belongs to another consumer now: what was not committed is delivered there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One event with its CloudEvents 1.0 attributes; `data` is the domain's event message in protobuf."""

    topic: str
    key: str
    event_id: str
    type: str
    source: str
    subject: str
    version: int
    occur_time: datetime
    traceparent: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A record as a consumer gets it, with the place to commit."""

    record: EventRecord
    partition: int
    offset: int
    generation: int


class LogConsumer(Protocol):
    """One member of a consumer group."""

    async def poll(self, *, max_records: int) -> list[Delivered]:
        """Return the next records of the partitions that this member owns; an empty list where there are none."""
        ...

    async def commit(self, delivered: Delivered) -> None:
        """Note that everything up to this record is done. Raises OwnershipLost."""
        ...

    async def close(self) -> None:
        """Give the partitions back at once."""
        ...


class EventLog(Protocol):
    """Where events go and come from."""

    async def publish(self, records: Sequence[EventRecord]) -> None:
        """Append records durably, in order per key. Raises EventLogUnavailable."""
        ...

    def consumer(self, *, group: str, topics: Sequence[str]) -> LogConsumer:
        """Return a member of `group` that reads `topics` from the oldest record that the group has not committed."""
        ...

    async def close(self) -> None:
        """Release what the log holds."""
        ...
