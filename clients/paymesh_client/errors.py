"""What a call can fail with, one class per kind: the fields are those of the error's details (AIP-193)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY: Final = "grpc-status-details-bin"
REQUEST_ID_KEY: Final = "x-request-id"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field that is wrong, and what would be right."""

    field: str
    description: str


class PaymeshError(Exception):
    """A call that failed. `reason` is a name of `paymesh.errors.v1.ErrorReason`."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = metadata or {}
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id

    def __str__(self) -> str:
        """Return what a log should show: with the fields that are wrong and the id to ask the operator about."""
        fields = "".join(f"; {v.field}: {v.description}" for v in self.violations)
        request = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.reason or self.code.name}: {self.message}{fields}{request}"


class InvalidRequest(PaymeshError):
    """The request is wrong; `violations` names the fields."""


class AuthenticationFailed(PaymeshError):
    """No credential, or one that does not hold."""


class PermissionDenied(PaymeshError):
    """The credential is not meant for this."""


class NotFound(PaymeshError):
    """No such resource, or it is somebody else's."""


class Conflict(PaymeshError):
    """Something else happens at the same time, or the resource was changed; read it and decide again."""


class PreconditionFailed(PaymeshError):
    """The resource's state does not allow it."""


class RateLimited(PaymeshError):
    """Too many requests; `retry_after_seconds` says when to ask again."""


class Unavailable(PaymeshError):
    """Nothing happened that is not safe to repeat: call again with the same request."""


class OutcomeUnknown(PaymeshError):
    """No answer came in time: it may have happened. Call again with the same request and its `request_id`."""


class InternalError(PaymeshError):
    """The platform's fault; `request_id` is what its operator needs."""


_KINDS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationFailed,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: OutcomeUnknown,
    grpc.StatusCode.CANCELLED: OutcomeUnknown,
}


def error_of(code: grpc.StatusCode, details: str, trailing: Iterable[tuple[str, Any]], request_id: str) -> PaymeshError:
    """Return the typed error of a failed call."""
    # Iterated: an aio call's metadata is not what dict() expects.
    raw = next((value for key, value in trailing if key == DETAILS_KEY), b"")
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    has_retry = False
    for detail in status_pb2.Status.FromString(raw).details:
        for message in (info, bad):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
        if detail.Is(retry.DESCRIPTOR):
            has_retry = detail.Unpack(retry)
    return _KINDS.get(code, InternalError)(
        details,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations),
        retry_after_seconds=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
        request_id=request_id,
    )
