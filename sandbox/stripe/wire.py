"""Stripe's wire format: bracketed forms in, JSON and Stripe's errors out."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

Json = dict[str, Any]

MAX_BODY_BYTES: Final = 1 << 20
MAX_UPLOAD_BYTES: Final = 6 << 20
MAX_FIELDS: Final = 2_000
MAX_DEPTH: Final = 8
_NAME = re.compile(r"[^\[\]]+(\[[^\[\]]*\])*")
_PARAMETER = re.compile(r'; (name|filename)="([^"]*)"')
_KEY = re.compile(r"[^\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status and a body, as they are stored under an idempotency key."""

    status: int
    body: Json


class StripeError(Exception):
    """Something that Stripe answers with an error object."""

    def __init__(self, status: int, kind: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"type": kind, "message": message, **extra}}


class Upload(dict[str, Any]):
    """A file of a multipart body: its name, size and digest, as they are compared and remembered, and what is in it."""

    def __init__(self, filename: str, content: bytes) -> None:
        super().__init__(filename=filename, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        self.content = content


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, parsed."""

    method: str
    path: str
    params: Json = field(default_factory=dict)
    idempotency_key: str = ""
    key_scope: str = ""
    """What keeps the idempotency keys of several API keys apart."""
    request_id: str = ""

    @property
    def stored_key(self) -> str:
        """What the answer is kept under; empty where it is not kept."""
        return self.key_scope + self.idempotency_key if self.idempotency_key else ""


def invalid(message: str, *, status: int = 400, **extra: Any) -> StripeError:
    """Return Stripe's `invalid_request_error`."""
    return StripeError(status, "invalid_request_error", message, **extra)


def missing(kind: str, identifier: str, param: str) -> StripeError:
    """Return Stripe's 404 for an object."""
    return invalid(f"No such {kind}: '{identifier}'", status=404, code="resource_missing", param=param)


def parse_form(text: str) -> Json:
    """Turn `a[b][0]=c` pairs into nested objects and lists. Raises Stripe's 400 for a malformed or too deep name."""
    root: Json = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise invalid("Too many parameters.") from error
    for key, value in pairs:
        parts = _KEY.findall(key)
        if not _NAME.fullmatch(key) or len(parts) > MAX_DEPTH:
            raise invalid(f"Invalid parameter name: {key[:100]}", param=key[:100])
        is_push = key.endswith("[]")
        node: Json = root
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise invalid(f"Invalid parameter: {key}", param=key)
            node = child
        if is_push:
            pushed = node.setdefault(parts[-1], {})
            if not isinstance(pushed, dict):
                raise invalid(f"Invalid parameter: {key}", param=key)
            pushed[str(len(pushed))] = value
        else:
            node[parts[-1]] = value
    return {key: _listed(value) for key, value in root.items()}


def parse_multipart(body: bytes, boundary: str) -> Json:
    """Return the fields of a `multipart/form-data` body. Raises Stripe's 400 for a malformed one."""
    fields: Json = {}
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise invalid("The multipart body is malformed.")
    for part in parts[:-1]:
        head, found, content = part.partition(b"\r\n\r\n")
        names = dict(_PARAMETER.findall(head.decode(errors="replace")))
        if not found or "name" not in names:
            raise invalid("The multipart body is malformed.")
        is_file = "filename" in names
        fields[names["name"]] = Upload(names["filename"], content) if is_file else content.decode(errors="replace")
    return fields


def _listed(value: Any) -> Any:
    """Turn {"0": a, "1": b} into [a, b], at any depth."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(child) for key, child in value.items()}
