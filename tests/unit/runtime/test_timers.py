"""Timers: each fires once, in its time, unless it was called off."""

from __future__ import annotations

import asyncio

from servers.runtime.timers import TICK_SECONDS, Timers


async def test_what_is_due_is_called_once_and_not_too_early() -> None:
    loop, timers = asyncio.get_running_loop(), Timers()
    began = loop.time()
    called: list[tuple[str, float]] = []
    both = asyncio.Event()

    def note(name: str) -> None:
        called.append((name, loop.time() - began))
        if len(called) == 2:
            both.set()

    timers.call_later(0.12, lambda: note("late"))
    timers.call_later(-1.0, lambda: note("past"))
    await asyncio.wait_for(both.wait(), 5)
    await asyncio.sleep(3 * TICK_SECONDS)
    assert [name for name, _ in called] == ["past", "late"]
    assert called[1][1] >= 0.12


async def test_what_is_called_off_is_never_called_and_later_ones_still_are() -> None:
    timers = Timers()
    called: list[str] = []
    timers.call_later(0.0, lambda: called.append("off"))()
    await asyncio.sleep(4 * TICK_SECONDS)
    fired = asyncio.Event()
    call_off = timers.call_later(0.0, fired.set)
    await asyncio.wait_for(fired.wait(), 5)
    call_off()
    assert called == []
