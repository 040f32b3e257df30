"""When a call is tried again, and how long to wait before that (AIP-194; Google Cloud's truncated exponential backoff)."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from paymesh_client.errors import Conflict, OutcomeUnknown, PaymeshError, RateLimited, Unavailable

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how patiently."""

    tries: int = 4
    first_wait_seconds: float = 0.2
    wait_seconds_max: float = 5.0
    timeout_seconds: float = 30.0
    """For all tries of a call together."""

    def wait_before(self, attempt: int, error: PaymeshError, request: Message) -> float | None:
        """Return how long to wait before try number `attempt` (from 1), None where the error is final."""
        if attempt >= self.tries or not _may_help(error, request):
            return None
        told = error.retry_after_seconds
        if told is not None and told > self.wait_seconds_max:
            return None
        grown: float = min(self.first_wait_seconds * 2 ** (attempt - 1), self.wait_seconds_max)
        return max(told or 0.0, grown * random.uniform(0.5, 1.0))


def _may_help(error: PaymeshError, request: Message) -> bool:
    match error:
        case Unavailable() | RateLimited():
            return True
        case OutcomeUnknown():
            # Safe, because a repeat under the same id is recognised; and a read changes nothing.
            return "request_id" in request.DESCRIPTOR.fields_by_name or type(request).__name__.startswith(
                ("Get", "List")
            )
        case Conflict():
            return error.reason in ("IDEMPOTENCY_IN_PROGRESS", "CONCURRENT_UPDATE")
        case _:
            return False


def with_request_id(request: M) -> M:
    """Return a request with an id, made before the first try: every try of one call carries the same."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name or request.request_id:  # type: ignore[attr-defined]  # looked up
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]  # looked up above
    return copy
