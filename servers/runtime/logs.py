"""Structured logs: JSON lines, event names `noun.verb_past`, ids as keys. What is marked sensitive is cleared first."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from google.protobuf.message import Message
from opentelemetry import trace
from paymesh.options.v1 import options_pb2

from servers.runtime.call import call_in_progress

CLEARED: Final = "[cleared]"
# 13 to 19 digits, with spaces or dashes: what could be a card number never reaches a log.
_PAN: Final = re.compile(r"\b(?:\d[ -]?){12,18}\d\b")
_SECRET: Final = re.compile(r"(pm_sk_\w+_|sk_(?:test|live)_|whsec_|Bearer )[\w.~+/=-]+")


def redacted(message: Message) -> Message:
    """Return a copy of a message without the values of its `sensitive` fields, at any depth."""
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return copy


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[options_pb2.sensitive]:
            message.ClearField(field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for child in value if field.is_repeated else (value,):
                _clear(child)


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, Message):
            event[key] = str(redacted(value))
        elif isinstance(value, str):
            event[key] = _SECRET.sub(rf"\1{CLEARED}", _PAN.sub(CLEARED, value))
    return event


def _trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _call(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Read when a line is written, not bound when a call begins: most calls write none.
    if (call := call_in_progress()) is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("method", call.method)
        event.setdefault("principal", call.principal.subject or call.principal.kind.value)
    return event


def configure(*, service: str, level: str) -> None:
    """Send the logs of this process, ours and the libraries', to standard error as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _trace,
            structlog.processors.format_exc_info,
            _mask,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format='{"level": "%(levelname)s", "event": "%(name)s"}'
    )
