"""The only place that knows gRPC status codes.

Every error is a google.rpc.Status with exactly one ErrorInfo; nothing internal is told.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from servers.kernel.errors import FieldViolation, Kind, Refusal

DOMAIN: Final = "paymesh.dev"
STATUS_DETAILS: Final = "grpc-status-details-bin"
CODES: Final = {
    Kind.INVALID: code_pb2.INVALID_ARGUMENT,
    Kind.NOT_FOUND: code_pb2.NOT_FOUND,
    Kind.PRECONDITION: code_pb2.FAILED_PRECONDITION,
    Kind.ABORTED: code_pb2.ABORTED,
    Kind.EXISTS: code_pb2.ALREADY_EXISTS,
    Kind.EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    Kind.UNAUTHENTICATED: code_pb2.UNAUTHENTICATED,
    Kind.DENIED: code_pb2.PERMISSION_DENIED,
}
_KINDS: Final = {code: kind for kind, code in CODES.items()}
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def status_of(refusal: Refusal) -> status_pb2.Status:
    """Return the status that tells a refusal."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=refusal.metadata)
    ]
    if refusal.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in refusal.violations
                ]
            )
        )
    if refusal.kind is Kind.PRECONDITION:
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(type=refusal.reason, description=refusal.message)
                ]
            )
        )
    if refusal.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(refusal.retry_after_seconds * 1_000_000_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(CODES[refusal.kind], refusal.message, details)


def status_bytes(refusal: Refusal) -> bytes:
    """Return the serialized status of a refusal: what is stored under an idempotency key."""
    stored: bytes = status_of(refusal).SerializeToString(deterministic=True)
    return stored


def refusal_of(status: status_pb2.Status) -> Refusal | None:
    """Return the refusal that a status tells, or None where it tells none of ours: what `status_of` made of it, the other way
    round."""
    info, invalid, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, invalid, retry):
            detail.Unpack(kind)
    if status.code not in _KINDS or info.domain != DOMAIN:
        return None
    wait = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    return _class_of(_KINDS[status.code], info.reason)(
        status.message,
        metadata=info.metadata,
        violations=tuple(FieldViolation(field=v.field, description=v.description) for v in invalid.field_violations),
        retry_after_seconds=wait,
    )


@cache
def _class_of(kind: Kind, reason: str) -> type[Refusal]:
    """Return the class of refusals that other servers make; kind and reason are facts of a class."""
    made: type[Refusal] = type("PeersRefusal", (Refusal,), {"kind": kind, "reason": reason, "__doc__": reason})
    return made


def internal_status() -> status_pb2.Status:
    """Return the one answer to every fault of ours; the log has the rest under the request id."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL_ERROR", domain=DOMAIN)
    return _status(
        code_pb2.INTERNAL, "Internal error. Ask again with the same idempotency key, or give us the request id.", [info]
    )


def deadline_status() -> status_pb2.Status:
    """Return the answer to a call whose deadline passed."""
    info = error_details_pb2.ErrorInfo(reason="DEADLINE_PASSED", domain=DOMAIN)
    message = "The deadline passed; the outcome may be unknown. Ask again with the same idempotency key."
    return _status(code_pb2.DEADLINE_EXCEEDED, message, [info])


def unknown_method_status() -> status_pb2.Status:
    """Return the answer to a method that no server here has."""
    info = error_details_pb2.ErrorInfo(reason="METHOD_NOT_FOUND", domain=DOMAIN)
    return _status(code_pb2.UNIMPLEMENTED, "There is no such method.", [info])


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> None:
    """End the call with `status` and its details. Always raises."""
    await context.abort(
        _STATUS_CODES[status.code],
        status.message,
        ((STATUS_DETAILS, status.SerializeToString()),),
    )


def _status(code: int, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
