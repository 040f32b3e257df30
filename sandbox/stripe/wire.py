"""Stripe's wire format: bracketed forms in, JSON and Stripe's errors out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Json = dict[str, Any]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, parsed."""

    method: str
    path: str
    params: Json = field(default_factory=dict)
    idempotency_key: str = ""


def invalid(message: str, *, status: int = 400, **extra: Any) -> StripeError:
    """Return Stripe's `invalid_request_error`."""
    return StripeError(status, "invalid_request_error", message, **extra)


def missing(kind: str, identifier: str, param: str) -> StripeError:
    """Return Stripe's 404 for an object."""
    return invalid(f"No such {kind}: '{identifier}'", status=404, code="resource_missing", param=param)


def parse_form(text: str) -> Json:
    """Turn `a[b][0]=c` pairs into nested objects and lists."""
    root: Json = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        parts = _KEY.findall(key) or [key]
        is_push = key.endswith("[]")
        node: Json = root
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise invalid(f"Invalid parameter: {key}", param=key)
            node = child
        if is_push:
            pushed = node.setdefault(parts[-1], {})
            pushed[str(len(pushed))] = value
        else:
            node[parts[-1]] = value
    return {key: _listed(value) for key, value in root.items()}


def _listed(value: Any) -> Any:
    """Turn {"0": a, "1": b} into [a, b], at any depth."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(child) for key, child in value.items()}
