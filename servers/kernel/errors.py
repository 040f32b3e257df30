"""Refusals: one class per business fact. Only `runtime/grpc_errors.py` knows which status code a kind becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Kind(Enum):
    """What kind of refusal it is; the transport maps it to its own codes."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    PRECONDITION = "precondition"
    ABORTED = "aborted"
    EXISTS = "exists"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """A field that is wrong, and what would be right."""

    field: str
    description: str


class Refusal(Exception):
    """A request that is not carried out, for a reason the caller may know.

    Subclasses set `kind` and `reason` (a name of `paymesh.errors.v1.ErrorReason`). `metadata` holds everything dynamic
    that `message` says; nothing internal goes into either.
    """

    kind: ClassVar[Kind]
    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds

    @property
    def stored(self) -> bool:
        """Whether the answer is kept under its idempotency key: not where trying again may help."""
        return self.kind not in (Kind.ABORTED, Kind.UNAVAILABLE, Kind.EXHAUSTED)


class FieldInvalid(Refusal):
    """One or more fields are wrong."""

    kind = Kind.INVALID
    reason = "FIELD_INVALID"

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("The request is invalid; see the field violations.", violations=violations)

    @classmethod
    def of(cls, field: str, description: str) -> FieldInvalid:
        """Return the refusal of one field."""
        return cls(FieldViolation(field=field, description=description))


class ResourceNotFound(Refusal):
    """No such resource, or it is somebody else's: the two look the same."""

    kind = Kind.NOT_FOUND
    reason = "RESOURCE_NOT_FOUND"

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} was not found.", metadata={"resource": resource})


class ConcurrentUpdate(Refusal):
    """Another change won the race."""

    kind = Kind.ABORTED
    reason = "CONCURRENT_UPDATE"

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"{resource} was changed at the same time; read it and decide again.",
            metadata={"resource": resource},
            retry_after_seconds=0.2,
        )


class EtagMismatch(Refusal):
    """The caller wants to change a version that is not the present one any more."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"{resource} was changed since you read it; read it again and decide.", metadata={"resource": resource}
        )


def check_etag(resource: str, *, expected: int | None, version: int) -> None:
    """Raise EtagMismatch where a caller names the version to change, and it is not the present one any more."""
    if expected is not None and expected != version:
        raise EtagMismatch(resource)


class ReferenceTaken(Refusal):
    """The unique reference is taken."""

    kind = Kind.EXISTS
    reason = "REFERENCE_TAKEN"

    def __init__(self, field: str, message: str = "") -> None:
        super().__init__(message or f"This {field} is taken.", metadata={"field": field})


class ProviderUnavailable(Refusal):
    """The card processor was provably not reached: nothing was charged."""

    kind = Kind.UNAVAILABLE
    reason = "PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The card processor cannot be reached; ask again with the same key.", retry_after_seconds=2.0)
