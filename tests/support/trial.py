"""A made-up service of the payments domain with a contract of its own, to try what the edge does with methods that are not there
yet: `TrialService`, whose answers carry what the caller asks for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from google.api import annotations_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from paymesh.options.v1 import options_pb2

from dev import edge
from tests.support.ports import free_port
from tests.support.stack import Platform

SERVICE: Final = "paymesh.payments.v1.TrialService"
TARGET: Final = "https://shop.example/thanks?order=7"


def _method(name: str, path: str, audience: options_pb2.Audience.ValueType) -> descriptor_pb2.MethodDescriptorProto:
    method = descriptor_pb2.MethodDescriptorProto(
        name=name, input_type=".paymesh.payments.v1.TrialRequest", output_type=".google.api.HttpBody"
    )
    method.options.Extensions[annotations_pb2.http].get = path
    method.options.Extensions[options_pb2.audience].append(audience)
    return method


def contract(folder: Path) -> Path:
    """Write the platform's descriptor set with the made-up service in it."""
    files = descriptor_pb2.FileDescriptorSet.FromString(edge.DESCRIPTORS.read_bytes())
    file = files.file.add(
        name="paymesh/payments/v1/trial.proto",
        package="paymesh.payments.v1",
        syntax="proto3",
        dependency=["google/api/annotations.proto", "google/api/httpbody.proto", "paymesh/options/v1/options.proto"],
    )
    request = file.message_type.add(name="TrialRequest")
    for number, name in enumerate(("trial_id", "status"), 1):
        request.field.add(
            name=name,
            number=number,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        )
    service = file.service.add(name="TrialService")
    service.method.append(_method("ReturnFromTrial", "/v1/trials/{trial_id}/return", options_pb2.AUDIENCE_PUBLIC))
    service.method.append(_method("GetTrial", "/v1/trials/{trial_id}", options_pb2.AUDIENCE_CUSTOMER))
    target = folder / "trial.binpb"
    target.write_bytes(files.SerializeToString())
    return target


def _answer(request: bytes, context: Any) -> bytes:
    # The request's second field, `status`: what the handler says its HTTP status is.
    status = request.partition(b"\x12")[2][1:].decode()
    seen = dict(context.invocation_metadata())
    headers = [("location", TARGET), ("x-seen", seen.get("x-http-status", "nothing"))]
    context.send_initial_metadata([*headers, *([("x-http-status", status)] if status else [])])
    if status == "refused":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")
    answer: bytes = httpbody_pb2.HttpBody(content_type="text/plain", data=b"hello").SerializeToString()
    return answer


@contextmanager
def trial_server(platform: Platform) -> Iterator[int]:
    """Serve it with the certificate of payments. Yields the port."""
    healthy = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
    check: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: healthy)
    answer: Any = grpc.unary_unary_rpc_method_handler(_answer)
    trial = dict.fromkeys(("ReturnFromTrial", "GetTrial"), answer)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),
            grpc.method_handlers_generic_handler(SERVICE, trial),
        )
    )
    folder = platform.folder / "tls" / "payments"
    key, certificate, authority = ((folder / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
    port = free_port()
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
