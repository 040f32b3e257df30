"""What becomes of a call to the outside: it goes well, or goes wrong in one of the ways that there are. For the fakes of ports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Weather(Enum):
    """What becomes of one call."""

    FINE = "fine"
    REFUSED = "refused"
    """It provably never arrived."""
    LIMITED = "limited"
    """429: it arrived, and nothing was done."""
    DROPPED = "dropped"
    """It never arrived, and nobody can tell."""
    STRAY = "stray"
    """Nobody can tell, and it arrives later, after its caller gave up on it."""
    LOST = "lost"
    """It was carried out, and its answer was lost."""
    LATE = "late"
    """It was carried out, and its answer is on its way until it is let through."""
    BROKE = "broke"
    """500 before the work; the answer is kept under the key."""
    BROKE_AFTER = "broke_after"
    """500 after the work; the answer is kept under the key."""
    DIED_BEFORE = "died_before"
    """Our process ends right before the call."""
    DIED = "died"
    """Our process ends right after the call was carried out."""


BEFORE = (Weather.REFUSED, Weather.LIMITED, Weather.DROPPED, Weather.STRAY, Weather.BROKE)
LOSING = (Weather.LOST, Weather.BROKE_AFTER)


class Died(BaseException):
    """The process ends here: nothing that catches exceptions may catch it."""


class Forecast:
    """The weather of the calls to come, in order; fine after that."""

    def __init__(self) -> None:
        self._next: deque[Weather] = deque()
        self._gates: deque[asyncio.Event] = deque()
        self.strays: deque[Callable[[], object]] = deque()
        """What arrives later."""
        self.is_stray = False
        """Whether what arrives now was given up on by its sender."""
        self.deaths = 0
        self.blocked = asyncio.Event()
        """Set when a call waits for its answer."""

    def be(self, *weather: Weather) -> None:
        """Set the weather of the next calls."""
        self._next = deque(weather)

    def let_through(self) -> None:
        """Let the answer arrive that has been on its way for the longest."""
        if self._gates:
            self._gates.popleft().set()

    def let_in(self) -> bool:
        """Let the stray arrive that has been on its way for the longest; whatever it is told, nobody listens. Returns whether there
        was one."""
        if not self.strays:
            return False
        self.is_stray = True
        with suppress(Exception):
            self.strays.popleft()()
        self.is_stray = False
        return True

    async def over(
        self,
        act: Callable[[], T],
        fail: Callable[[Weather], Exception],
        kinds: Iterable[Weather] = Weather,
    ) -> T:
        """Carry out a call in the weather of the day; what is not among `kinds` counts as fine."""
        weather = self._next.popleft() if self._next else Weather.FINE
        weather = weather if weather in tuple(kinds) else Weather.FINE
        if weather is Weather.DIED_BEFORE:
            raise Died
        if weather is Weather.STRAY:
            self.strays.append(act)
        if weather in BEFORE:
            raise fail(weather)
        answer = act()
        if weather is Weather.LATE:
            gate = asyncio.Event()
            self._gates.append(gate)
            self.blocked.set()
            await gate.wait()
        if weather is Weather.DIED:
            self.deaths += 1
            raise Died
        if weather in LOSING:
            raise fail(weather)
        return answer
