"""What goes wrong with webhooks on purpose, a bounded number of times."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from sandbox.stripe.lies import Lie
from sandbox.stripe.wire import Json


class Kind(StrEnum):
    """How a delivery goes wrong."""

    DROP = "drop"
    """It never comes, and Stripe knows: the list of events has it under `delivery_success=false`."""
    SWALLOW = "swallow"
    """It never comes, and somebody on the way has told Stripe that it did."""
    DUPLICATE = "duplicate"
    """It comes several times."""
    DELAY = "delay"
    """It comes later."""
    OVERTAKE = "overtake"
    """It comes after the next one that is taken."""
    FORGE = "forge"
    """It comes signed with another secret; where it is refused, the true one follows as a retry."""
    STALE = "stale"
    """It comes with a true signature of ten minutes ago, as a replay would; where it is refused, a fresh one follows."""
    LIE = "lie"
    """It comes truly signed and says something else than the object does."""


@dataclass(slots=True, kw_only=True)
class Mishap:
    """One rule, and how many events it still applies to."""

    type: re.Pattern[str]
    kind: Kind
    times: int
    copies: int = 2
    delay_seconds: float = 0.0
    lie: Lie = field(default_factory=Lie)


@dataclass(slots=True)
class Mishaps:
    """The rules in force; the first that fits an event is taken, at the event's first delivery."""

    rules: list[Mishap] = field(default_factory=list)

    def add(self, given: Json) -> None:
        """Add a rule. Raises ValueError or KeyError for one that makes no sense."""
        mishap = Mishap(
            type=re.compile(given["type"]),
            kind=Kind(given["kind"]),
            times=int(given.get("times", 1)),
            copies=int(given.get("copies", 2)),
            delay_seconds=float(given.get("delay_seconds", 0)),
            lie=Lie.of(given.get("set", {})),
        )
        if mishap.kind is Kind.LIE and not mishap.lie.values:
            raise ValueError("a lie says in `set` which fields are wrong")
        if mishap.kind is Kind.DUPLICATE and mishap.copies < 2:
            raise ValueError("a duplicate comes at least twice")
        self.rules.append(mishap)

    def take(self, kind: str) -> Mishap | None:
        """Return the rule for an event of a type, used once."""
        for mishap in self.rules:
            if mishap.times > 0 and mishap.type.search(kind):
                mishap.times -= 1
                return mishap
        return None

    def clear(self) -> None:
        """Let everything go well again."""
        self.rules.clear()

    def left(self) -> list[Json]:
        """Return the rules and how many events each still applies to."""
        return [{"type": m.type.pattern, "kind": m.kind, "times": m.times} for m in self.rules]
