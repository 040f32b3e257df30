"""Time: the only place that reads the machine's clocks.

Business time (`now`) can be moved by a test; leases, deadlines and certificates use `monotonic`, which cannot.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Return the business time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the instant that the clock was last set to."""
        return self._now

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds: leases are real also in a test."""
        return time.monotonic()

    def advance(self, span: timedelta) -> None:
        """Move business time forward by `span`."""
        self._now += span
