"""What goes wrong on purpose, a bounded number of times."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from sandbox.stripe.wire import Json


class Kind(StrEnum):
    """How a request goes wrong."""

    REFUSE = "refuse"
    """The connection drops before anything is done."""
    ERROR = "error"
    """An error is answered, before or after the work."""
    DELAY = "delay"
    """The request hangs before its work; its key is in use meanwhile."""
    LOSE_RESPONSE = "lose_response"
    """The work is committed, and the connection drops without an answer."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule, and how often it still applies."""

    method: str
    path: re.Pattern[str]
    kind: Kind
    times: int
    delay_seconds: float = 0.0
    status: int = 500
    after: bool = False


@dataclass(slots=True)
class Faults:
    """The rules in force; the first that fits is taken."""

    rules: list[Fault] = field(default_factory=list)

    def add(self, given: Json) -> None:
        """Add a rule. Raises ValueError or KeyError for one that makes no sense."""
        fault = Fault(
            method=str(given["method"]).lower(),
            path=re.compile(given["path"]),
            kind=Kind(given["kind"]),
            times=int(given.get("times", 1)),
            delay_seconds=float(given.get("delay_seconds", 0)),
            status=int(given.get("status", 500)),
            after=bool(given.get("after", False)),
        )
        if fault.after and (fault.kind is not Kind.ERROR or fault.status < 500):
            raise ValueError(
                "only an error of 500 or above can come after the work: Stripe limits and refuses before it"
            )
        self.rules.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """Return the rule for a request, used once."""
        for fault in self.rules:
            if fault.times > 0 and fault.method == method and fault.path.search(path):
                fault.times -= 1
                return fault
        return None

    def clear(self) -> None:
        """Let everything go well again."""
        self.rules.clear()


class HangUp(Response):
    """An answer that never comes: the connection is closed without a byte."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Abort the transport that `__main__.Protocol` hands over."""
        transport = scope.get("extensions", {}).get("sandbox_transport")
        if transport is not None:
            transport.abort()
