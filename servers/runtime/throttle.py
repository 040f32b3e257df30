"""Limits that all instances of a server share: token buckets in Redis.

Redis is never the only copy of anything that matters: where it is away, each process keeps its own buckets, so that a limit
gets looser and never goes away.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from servers.kernel.clock import Clock
from servers.kernel.errors import Kind, Refusal

ANSWER_SECONDS: Final = 0.25
CONNECTIONS: Final = 16
LOCAL_MAX: Final = 10_000

_log = structlog.get_logger("throttle")
_taken = Counter("paymesh_throttle_total", "Limits asked", ["limit", "outcome"])

# A bucket is one number: the time at which it would be full again (the generic cell rate algorithm). Redis' own clock counts,
# because the clocks of several servers differ.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + tonumber(ARGV[1])
local wait = full - now - ARGV[1] * ARGV[2]
if wait > 0 then return math.ceil(wait) end
if ARGV[3] == 'look' then return 0 end
redis.call('SET', KEYS[1], full, 'PX', math.max(1, math.ceil(full - now)))
return 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many at once, and one more every so often."""

    name: str
    burst: int
    every_seconds: float


class RateLimited(Refusal):
    """The caller asks too often."""

    kind = Kind.EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(self, limit: Limit, wait_seconds: float) -> None:
        super().__init__(
            "Too many requests of this kind; wait before the next one.",
            metadata={"limit": limit.name},
            retry_after_seconds=wait_seconds,
        )


class Throttle:
    """Buckets by limit and key."""

    def __init__(self, url: str, clock: Clock) -> None:
        # Blocking: whoever finds all connections busy waits for one, instead of counting alone.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
        )
        self._redis = Redis.from_pool(pool)
        self._clock = clock
        self._local: OrderedDict[str, float] = OrderedDict()

    async def take(self, limit: Limit, key: str) -> None:
        """Take one from a bucket. `key` tells whose it is, and is stored: a hash where it must not be readable. Raises
        RateLimited with the time until there is one again."""
        wait = await self._ask(limit, key, take=True)
        _taken.labels(limit.name, "refused" if wait > 0 else "taken").inc()
        if wait > 0:
            raise RateLimited(limit, wait)

    async def look(self, limit: Limit, key: str) -> None:
        """Refuse where a bucket is empty, and take nothing. Raises RateLimited."""
        wait = await self._ask(limit, key, take=False)
        if wait > 0:
            _taken.labels(limit.name, "refused").inc()
            raise RateLimited(limit, wait)

    async def note(self, limit: Limit, key: str) -> None:
        """Take one from a bucket for something that has happened already; an empty one stays empty."""
        await self._ask(limit, key, take=True)

    async def _ask(self, limit: Limit, key: str, *, take: bool) -> float:
        name = f"throttle:{limit.name}:{key}"
        arguments = (str(limit.every_seconds * 1000), str(limit.burst), "take" if take else "look")
        try:
            return float(await self._redis.eval(_TAKE, 1, name, *arguments)) / 1000
        except RedisError as error:
            _log.warning("throttle.alone", limit=limit.name, error=type(error).__name__)
            return self._alone(limit, name, take=take)

    def _alone(self, limit: Limit, name: str, *, take: bool) -> float:
        now = self._clock.monotonic()
        full = max(self._local.get(name, now), now) + limit.every_seconds
        wait = full - now - limit.every_seconds * limit.burst
        if wait > 0:
            return wait
        if take:
            self._local[name] = full
            self._local.move_to_end(name)
        if len(self._local) > LOCAL_MAX:
            self._local.popitem(last=False)
        return 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
