"""Timers of which hardly any ever fires: the deadlines of calls.

They are kept by the tick that they fall into. One of the event loop's own for each call cost more than the call's validation
(measured): it goes into a heap, and stays there when it is called off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TICK_SECONDS: Final = 0.05


class Timers:
    """Calls functions later, up to a tick too late."""

    def __init__(self) -> None:
        self._due: dict[int, set[Callable[[], None]]] = {}
        self._ticking = False

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after `seconds`. Returns the function that calls it off."""
        loop = asyncio.get_running_loop()
        tick = int((loop.time() + max(seconds, 0.0)) / TICK_SECONDS) + 1
        due = self._due.setdefault(tick, set())
        due.add(callback)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_SECONDS, self._tick)
        return lambda: due.discard(callback)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = int(loop.time() / TICK_SECONDS)
        for tick in [tick for tick in self._due if tick <= now]:
            for callback in self._due.pop(tick):
                loop.call_soon(callback)
        self._ticking = bool(self._due)
        if self._ticking:
            loop.call_later(TICK_SECONDS, self._tick)
