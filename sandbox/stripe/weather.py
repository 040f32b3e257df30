"""Weather: faults and mishaps by chance, that come again from their seed.

What happens to the n-th request of an endpoint, or to the n-th event of a type, is drawn from the seed, its name and n alone: a run
that asks the same in the same order meets the same, whatever else goes on beside it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.stripe.faults import Fault
from sandbox.stripe.faults import Kind as Fails
from sandbox.stripe.lies import Lie
from sandbox.stripe.mishaps import Kind as Goes
from sandbox.stripe.mishaps import Mishap
from sandbox.stripe.wire import Json

DRAWN_MAX: Final = 1_000
_ANY: Final = re.compile("")
_WRONG: Final = Lie.of(["amount", "currency", "id"])
PRESETS: Final[dict[str, dict[str, dict[str, float]]]] = {
    "breeze": {
        "requests": {
            "refuse": 0.01, "lose_response": 0.01, "rate_limit": 0.01, "delay_before": 0.02, "delay_after": 0.02, "trickle": 0.02,
        },
        "webhooks": {"duplicate": 0.05, "delay": 0.1},
    },
    "storm": {
        "requests": {
            "refuse": 0.05, "lose_response": 0.05, "cut": 0.03, "error_before": 0.03, "error_after": 0.03, "rate_limit": 0.05,
            "lock_timeout": 0.02, "delay_before": 0.05, "delay_after": 0.05, "trickle": 0.03,
        },
        "webhooks": {"drop": 0.1, "swallow": 0.05, "duplicate": 0.15, "delay": 0.2, "overtake": 0.1, "forge": 0.05, "stale": 0.05},
    },
}  # fmt: skip
"""What heals by retrying and reading. Lies have to be asked for: nobody can be expected to get along with them."""


def _fault(kind: Fails, **more: Any) -> Fault:
    return Fault(method="", path=_ANY, kind=kind, times=0, **more)


def _mishap(kind: Goes, **more: Any) -> Mishap:
    return Mishap(type=_ANY, kind=kind, times=0, **more)


REQUESTS: Final[dict[str, Callable[[random.Random, float], Fault]]] = {
    "refuse": lambda _, __: _fault(Fails.REFUSE),
    "lose_response": lambda _, __: _fault(Fails.LOSE_RESPONSE),
    "cut": lambda _, __: _fault(Fails.CUT),
    "error_before": lambda draw, _: _fault(Fails.ERROR, status=draw.choice((500, 502, 503))),
    "error_after": lambda draw, _: _fault(Fails.ERROR, status=draw.choice((500, 502, 503)), after=True),
    "rate_limit": lambda _, __: _fault(Fails.ERROR, status=429, retry_after="1"),
    "lock_timeout": lambda _, __: _fault(Fails.ERROR, status=429, code="lock_timeout"),
    "delay_before": lambda draw, most: _fault(Fails.DELAY, delay_seconds=draw.uniform(0, most)),
    "delay_after": lambda draw, most: _fault(Fails.DELAY, delay_seconds=draw.uniform(0, most), after=True),
    "trickle": lambda draw, most: _fault(Fails.TRICKLE, delay_seconds=draw.uniform(0, most)),
    "lie": lambda _, __: _fault(Fails.LIE, lie=_WRONG),
}
"""What may happen to a request, by its name in `requests`."""
WEBHOOKS: Final[dict[str, Callable[[random.Random, float], Mishap]]] = {
    "drop": lambda _, __: _mishap(Goes.DROP),
    "swallow": lambda _, __: _mishap(Goes.SWALLOW),
    "duplicate": lambda draw, _: _mishap(Goes.DUPLICATE, copies=draw.randint(2, 4)),
    "delay": lambda draw, most: _mishap(Goes.DELAY, delay_seconds=draw.uniform(0, most)),
    "overtake": lambda _, __: _mishap(Goes.OVERTAKE),
    "forge": lambda _, __: _mishap(Goes.FORGE),
    "stale": lambda _, __: _mishap(Goes.STALE),
    "lie": lambda _, __: _mishap(Goes.LIE, lie=_WRONG),
}
"""What may happen to an event, by its name in `webhooks`."""


@dataclass(slots=True)
class Weather:
    """The chances in force; fine weather at first."""

    seed: int = 0
    requests: dict[str, float] = field(default_factory=dict)
    webhooks: dict[str, float] = field(default_factory=dict)
    max_delay_seconds: float = 2.0
    _met: Counter[str] = field(default_factory=Counter)
    _drawn: deque[Json] = field(default_factory=lambda: deque(maxlen=DRAWN_MAX))

    def change(self, given: Json) -> None:
        """Begin anew: `{seed, preset or requests and webhooks, max_delay_seconds}`. Raises KeyError or ValueError for what makes
        no sense."""
        chances = PRESETS[given["preset"]] if "preset" in given else {}
        requests = {**chances.get("requests", {}), **given.get("requests", {})}
        webhooks = {**chances.get("webhooks", {}), **given.get("webhooks", {})}
        for asked, known in ((requests, REQUESTS), (webhooks, WEBHOOKS)):
            if asked.keys() - known.keys():
                raise ValueError(f"chances are of {', '.join(known)}")
            if min(asked.values(), default=0) < 0 or sum(asked.values()) > 1:
                raise ValueError("chances are from 0 to 1, and together 1 at most")
        self.seed = int(given.get("seed", 0))
        self.max_delay_seconds = float(given.get("max_delay_seconds", 2.0))
        self.requests, self.webhooks = requests, webhooks
        self._met.clear()
        self._drawn.clear()

    def clear(self) -> None:
        """Let the sun shine."""
        self.change({})

    def request(self, endpoint: str) -> Fault | None:
        """Return what happens to the next request of an endpoint, if anything."""
        name, draw = self._draw(endpoint, self.requests)
        return REQUESTS[name](draw, self.max_delay_seconds) if name else None

    def webhook(self, kind: str) -> Mishap | None:
        """Return what happens to the next event of a type, if anything."""
        name, draw = self._draw(kind, self.webhooks)
        return WEBHOOKS[name](draw, self.max_delay_seconds) if name else None

    def report(self) -> Json:
        """Return the chances, and the latest that came of them."""
        chances = {"seed": self.seed, "requests": self.requests, "webhooks": self.webhooks}
        return chances | {"max_delay_seconds": self.max_delay_seconds, "drawn": list(self._drawn)}

    def _draw(self, subject: str, chances: dict[str, float]) -> tuple[str, random.Random]:
        number = self._met[subject]
        self._met[subject] += 1
        draw = random.Random(f"{self.seed} {number} {subject}")
        place = draw.random()
        for name in sorted(chances):
            place -= chances[name]
            if place < 0:
                self._drawn.append({"subject": subject, "number": number, "kind": name})
                return name, draw
        return "", draw
