"""What goes wrong on purpose, a bounded number of times."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from starlette.responses import Response

from sandbox.stripe.lies import Lie
from sandbox.stripe.wire import Json, StripeError, invalid

PIECES: Final = 20
TOO_MANY: Final = {
    "rate_limit": "Request rate limit exceeded",
    "lock_timeout": "This object cannot be accessed right now because another API request or Stripe process is currently "
    "accessing it",
}


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
    TRICKLE = "trickle"
    """The work is committed, and its answer comes in small pieces."""
    CUT = "cut"
    """The work is committed, and the connection drops in the middle of its answer."""
    LIE = "lie"
    """The work is committed, and its answer says something else."""


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
    code: str = "rate_limit"
    """The code of a 429; `lock_timeout` is the other one that Stripe has."""
    lie: Lie = field(default_factory=Lie)


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
            code=str(given.get("code", "rate_limit")),
            lie=Lie.of(given.get("set", {})),
        )
        is_late = fault.kind is Kind.DELAY or (fault.kind is Kind.ERROR and fault.status >= 500)
        if fault.after and not is_late:
            raise ValueError("only a delay or an error of 500 or above comes after the work: Stripe refuses before it")
        if fault.kind is Kind.LIE and not fault.lie.values:
            raise ValueError("a lie says in `set` which fields are wrong")
        if fault.code not in TOO_MANY:
            raise ValueError(f"the code of a 429 is one of {', '.join(TOO_MANY)}")
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
    """Return the error that a fault answers with (https://docs.stripe.com/rate-limits)."""
    if fault.status == 429:
        return invalid(f"{TOO_MANY[fault.code]} (a fault of the sandbox).", status=429, code=fault.code)
    return StripeError(fault.status, "api_error", "A fault of the sandbox.")


class Trickle(Response):
    """An answer that comes in small pieces over some seconds."""

    def __init__(self, answer: Response, seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the head at once, and the body over the time."""
        body = bytes(self._answer.body)
        size = max(1, len(body) // PIECES)
        await send(
            {"type": "http.response.start", "status": self._answer.status_code, "headers": self._answer.raw_headers}
        )
        for start in range(0, len(body), size):
            await asyncio.sleep(self._seconds / PIECES)
            await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Cut(Response):
    """An answer that ends in the middle: its head promises more than comes."""

    def __init__(self, answer: Response) -> None:
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send a half, and close."""
        body = bytes(self._answer.body)
        await send(
            {"type": "http.response.start", "status": self._answer.status_code, "headers": self._answer.raw_headers}
        )
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport = scope.get("extensions", {}).get("sandbox_transport")
        if transport is not None:
            transport.close()
            await receive()  # until the server has seen that it is closed


class HangUp(Response):
    """An answer that never comes: the connection is closed without a byte."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Abort the transport that `__main__.Protocol` hands over."""
        transport = scope.get("extensions", {}).get("sandbox_transport")
        if transport is not None:
            transport.abort()
