"""From a request message to the idempotent request of a use case."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from servers.kernel.errors import FieldInvalid, Kind, Refusal
from servers.runtime.call import current_call
from servers.runtime.idempotency import IdempotentRequest

KEY_LENGTH_MAX = 255


class IdempotencyKeyRequired(Refusal):
    """A method that moves money was called without a key."""

    kind = Kind.INVALID
    reason = "IDEMPOTENCY_KEY_REQUIRED"

    def __init__(self) -> None:
        super().__init__("This method moves money: give `request_id` (a UUID) or the header `Idempotency-Key`.")


def idempotent(
    message: Message, *, render: Callable[[Any], Message], tenant: str | None = None, secret: bool = False
) -> IdempotentRequest:
    """Return under which key `message` is carried out, and how its result is stored. With `validate_only` it is a rehearsal.

    `tenant` stands in for the principal where there is none (a keyed hash of the email). Raises IdempotencyKeyRequired, or
    FieldInvalid where the field and the header differ or the key cannot be one.
    """
    call = current_call()
    field: str = getattr(message, "request_id", "")
    header = call.idempotency_key
    if field and header and field != header:
        raise FieldInvalid.of(
            "request_id", "differs from the Idempotency-Key header; give one of them, or the same twice"
        )
    rehearsal: bool = getattr(message, "validate_only", False)
    # A rehearsal leaves nothing behind, so there is nothing to repeat: a key that comes with it stays free.
    key = None if rehearsal else field or header or None
    if not rehearsal and key is None and call.key_required:
        raise IdempotencyKeyRequired
    if key is not None and not (len(key) <= KEY_LENGTH_MAX and key.isprintable()):
        raise FieldInvalid.of("Idempotency-Key", f"must be 1 to {KEY_LENGTH_MAX} printable characters")
    request = IdempotentRequest(
        tenant=tenant if tenant is not None else call.principal.tenant,
        method=call.method,
        key=key,
        fingerprint=fingerprint(call.method, message),
        render=lambda value: render(value).SerializeToString(deterministic=True),
        secret=secret,
        money=call.key_required,
        rehearsal=rehearsal,
    )
    call.claims.append(request)
    return request


def fields_to_change(message: Message, changeable: tuple[str, ...]) -> frozenset[str]:
    """Return the fields that a PATCH is about: those of its `update_mask`, or where it has none those that are given (AIP-134).
    Raises FieldInvalid for a name that is none of them."""
    mask = message.update_mask.paths  # type: ignore[attr-defined]  # every PATCH with several fields has one
    given = {field.name for field, _ in message.ListFields()}
    named = set(changeable) if list(mask) == ["*"] else set(mask) or given & set(changeable)
    wrong = named - set(changeable)
    if wrong:
        raise FieldInvalid.of("update_mask", f"must name what can change: {', '.join(changeable)}")
    return frozenset(named)


def fingerprint(method: str, message: Message) -> bytes:
    """Return what tells this request from another one: its canonical bytes without the key itself."""
    copy = type(message)()
    copy.CopyFrom(message)
    if "request_id" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("request_id")
    return hashlib.sha256(method.encode() + b"\0" + copy.SerializeToString(deterministic=True)).digest()
