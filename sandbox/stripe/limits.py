"""Rate limits: so many reads and so many writes in a second (https://docs.stripe.com/rate-limits)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sandbox.stripe.faults import TOO_MANY
from sandbox.stripe.wire import invalid


@dataclass(slots=True)
class Bucket:
    """Tokens that come back with real time; as many as a second's fit in."""

    per_second: float = 0
    """No limit, if 0."""
    _left: float = 0
    _at: float = 0

    def set(self, per_second: float) -> None:
        """Change the limit, and fill up. Raises ValueError for a negative one."""
        if per_second < 0:
            raise ValueError("a limit is at least 0, which is none")
        self.per_second, self._left, self._at = per_second, per_second, time.monotonic()

    def take(self) -> bool:
        """Take a token. Returns whether there was one."""
        if not self.per_second:
            return True
        now = time.monotonic()
        self._left = min(self.per_second, self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class Limits:
    """The limits of reads and writes."""

    reads: Bucket = field(default_factory=Bucket)
    writes: Bucket = field(default_factory=Bucket)

    def check(self, method: str) -> None:
        """Raise Stripe's 429 for a request too many."""
        bucket = self.reads if method == "get" else self.writes
        if not bucket.take():
            raise invalid(f"{TOO_MANY['rate_limit']}.", status=429, code="rate_limit")
