"""What goes wrong on purpose, a bounded number of times."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from sandbox.stripe.wire import Json, StripeError, invalid


class Kind(StrEnum):
    """How a request goes wrong."""

    REFUSE = "refuse"
    """The connection drops before anything is done."""
    ERROR = "error"
    """An error is answered, before or after the work."""
    DELAY = "delay"
    """The request hangs, before its work or after it; its key is in use meanwhile."""
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
    retry_after: str = ""
    """The header of a 429, in seconds."""


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
            retry_after=str(given.get("retry_after", "")),
        )
        is_late = fault.kind is Kind.DELAY or (fault.kind is Kind.ERROR and fault.status >= 500)
        if fault.after and not is_late:
            raise ValueError("only a delay or an error of 500 or above comes after the work: Stripe refuses before it")
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

    def left(self) -> list[Json]:
        """Return the rules and how often each still applies."""
        return [{"method": f.method, "path": f.path.pattern, "kind": f.kind, "times": f.times} for f in self.rules]


def error_of(fault: Fault) -> StripeError:
    """Return the error that a fault answers with (https://docs.stripe.com/error-codes, `rate_limit`)."""
    if fault.status == 429:
        return invalid("Request rate limit exceeded (a fault of the sandbox).", status=429, code="rate_limit")
    return StripeError(fault.status, "api_error", "A fault of the sandbox.")


class HangUp(Response):
    """An answer that never comes: the connection is closed without a byte."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Abort the transport that `__main__.Protocol` hands over."""
        transport = scope.get("extensions", {}).get("sandbox_transport")
        if transport is not None:
            transport.abort()
