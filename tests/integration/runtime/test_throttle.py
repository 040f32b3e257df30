"""Limits: exact over several servers, kept when Redis is away."""

from __future__ import annotations

import asyncio

import pytest

from servers.kernel.clock import SystemClock
from servers.runtime.throttle import Limit, RateLimited, Throttle
from tests.support.valkey import ValkeyProcess

SLOW = Limit(name="test", burst=5, every_seconds=60)


async def admitted(throttles: list[Throttle], limit: Limit, key: str, times: int) -> int:
    """Ask that often, spread over servers, at once. Returns how often it was granted."""
    asked = [throttles[number % len(throttles)].take(limit, key) for number in range(times)]
    return sum(answer is None for answer in await asyncio.gather(*asked, return_exceptions=True))


async def test_two_servers_share_one_bucket_exactly(valkey: ValkeyProcess) -> None:
    throttles = [Throttle(valkey.url, SystemClock()) for _ in range(2)]
    assert await admitted(throttles, SLOW, "a", 40) == 5
    assert await admitted(throttles, SLOW, "b", 3) == 3
    with pytest.raises(RateLimited) as refused:
        await throttles[0].take(SLOW, "a")
    assert 50 < (refused.value.retry_after_seconds or 0) <= 60
    for throttle in throttles:
        await throttle.close()


async def test_a_bucket_fills_again(valkey: ValkeyProcess) -> None:
    throttle = Throttle(valkey.url, SystemClock())
    quick = Limit(name="quick", burst=1, every_seconds=0.2)
    await throttle.take(quick, "a")
    with pytest.raises(RateLimited):
        await throttle.take(quick, "a")
    await asyncio.sleep(0.25)
    await throttle.take(quick, "a")
    await throttle.close()


async def test_without_redis_each_server_counts_alone(valkey: ValkeyProcess) -> None:
    throttle = Throttle(valkey.url, SystemClock())
    valkey.stop()
    assert await admitted([throttle], SLOW, "a", 40) == 5
    await throttle.close()


async def test_looking_takes_nothing_and_noting_refuses_nobody(valkey: ValkeyProcess) -> None:
    throttle = Throttle(valkey.url, SystemClock())
    for _ in range(10):
        await throttle.look(SLOW, "a")
    for _ in range(8):
        await throttle.note(SLOW, "a")
    with pytest.raises(RateLimited):
        await throttle.look(SLOW, "a")
    await throttle.close()
