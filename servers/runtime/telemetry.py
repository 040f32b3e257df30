"""Traces by OpenTelemetry, metrics by Prometheus. Spans are made where there is an OTLP endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import start_http_server

_tracer = trace.get_tracer("paymesh.rpc")
_UNTRACED: Final = nullcontext()
_TRACE_HEADERS: Final = frozenset(propagate.get_global_textmap().fields)
_recording = False


def span_of_call(method: str, metadata: Mapping[str, str]) -> AbstractContextManager[Any]:
    """Return the span of a call: its caller's child. Where nobody records and no caller traces, there is nothing to make."""
    if not _recording and _TRACE_HEADERS.isdisjoint(metadata):
        return _UNTRACED
    return _tracer.start_as_current_span(method.lstrip("/"), context=propagate.extract(metadata))


def configure(*, service: str, otlp_endpoint: str | None, metrics_host: str, metrics_port: int) -> None:
    """Start tracing and serve `/metrics`."""
    global _recording
    if otlp_endpoint is not None:
        _recording = True
        # Only where somebody looks at them: making a span costs a call more than its validation. Without an endpoint, the trace
        # of the caller is still passed on, and in the logs.
        provider = TracerProvider(resource=Resource.create({"service.name": f"paymesh-{service}"}))
        # Imported only where used: the exporter costs a third of a server's start.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
        trace.set_tracer_provider(provider)
    start_http_server(metrics_port, addr=metrics_host)
