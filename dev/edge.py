"""Renders `envoy/envoy.yaml.j2`. Routes, and what of them is public, are read from the contract: nobody can open one here by
mistake."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jinja2
from google.api import annotations_pb2
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.rpc import error_details_pb2, status_pb2

from dev.paths import ROOT, Ports

DESCRIPTORS: Final = ROOT / "generated" / "descriptors" / "paymesh.binpb"
TEMPLATE: Final = ROOT / "envoy" / "envoy.yaml.j2"
# Of all callers together, of one address, of one user or API key. On a laptop they all have one address.
LIMITS: Final = {
    "all": {"burst": 4000, "per_second": 2000},
    "address": {"burst": 3000, "per_second": 1500},
    "principal": {"burst": 1000, "per_second": 500},
    # Logins and registrations cost a quarter of a second of a core each, so their buckets are small.
    "credentials": {"burst": 60, "per_second": 10},
    "credentials_address": {"burst": 30, "per_second": 5},
    # Who tries stolen cards tries many. A key is shared by all shoppers of a merchant, so its bucket is larger than a user's.
    "cards": {"burst": 2000, "per_second": 500},
    "cards_address": {"burst": 400, "per_second": 40},
    "cards_user": {"burst": 300, "per_second": 20},
    "cards_key": {"burst": 600, "per_second": 100},
}
NO_LIMITS: Final = {key: {"burst": 10000000, "per_second": 10000000} for key in LIMITS}
"""For load tests only (`PAYMESH_EDGE_LIMITS=none`)."""
CREDENTIAL_METHODS: Final = {
    *("RegisterUser", "CreateSession", "RefreshSession", "VerifyEmail", "OpenEmailLink"),
    *("RequestPasswordReset", "ResetPassword", "SwitchStaff"),
}
CARD_METHODS: Final = {"ConfirmPayment", "CreatePaymentMethod", "ConfirmSetupIntent", "CreateTopUp"}
"""By name: a method that is not in the contract yet gets the limit with its first commit."""
BODY_BYTES_MAX: Final = 1_048_576
IGNORED_PARAMETERS: Final = (
    *("payment_intent", "payment_intent_client_secret", "setup_intent", "setup_intent_client_secret"),
    *("redirect_status", "source_type", "source_redirect_slug"),
)
"""What Stripe appends to the addresses that it sends shoppers back to; nothing of it is trusted, or read."""
LOCAL_REPLIES: Final = (
    (400, 3, "FIELD_INVALID", "The request is malformed. %LOCAL_REPLY_BODY%"),
    (401, 16, "CREDENTIAL_INVALID", "A valid access token or API key is needed."),
    (403, 16, "CREDENTIAL_INVALID", "A valid access token or API key is needed."),
    (404, 5, "METHOD_NOT_FOUND", "There is no such route."),
    (413, 3, "FIELD_INVALID", "The request is too large."),
    (429, 8, "RATE_LIMITED", "Too many requests; try again in a moment."),
    (431, 3, "FIELD_INVALID", "The headers of the request are too large."),
    (503, 14, "PEER_UNAVAILABLE", "The server does not answer right now; ask again with the same key."),
    (504, 4, "DEADLINE_PASSED", "The outcome may be unknown. Ask again with the same idempotency key."),
)
GRPC_REPLIES: Final = (401, 403, 429, 503)
"""Those of them that native gRPC gets with the same code as REST; for the rest Envoy has codes of its own."""
SECURITY_HEADERS: Final = (
    ("strict-transport-security", "max-age=63072000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """What differs between deployments."""

    ports: Ports
    run_dir: Path
    mesh_dir: Path
    issuer: str
    audience: str = "paymesh"
    bind_address: str = "127.0.0.1"
    descriptors: Path = DESCRIPTORS
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: LIMITS)


def methods(descriptors: Path = DESCRIPTORS) -> list[Any]:
    """Return the descriptors of all methods of services that have HTTP routes."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    message_factory.GetMessageClassesForFiles([file.name for file in files.file], pool)
    found = []
    for file in files.file:
        if file.package.startswith("paymesh."):
            for service in file.service:
                descriptor = pool.FindServiceByName(f"{file.package}.{service.name}")
                # Parsed by the default pool's option classes, which know our extensions.
                found += list(descriptor.methods)
    return [method for method in found if route_of(method)]


def route_of(method: Any) -> tuple[str, str] | None:
    """Return (verb, path) of a method's HTTP rule, or None."""
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    rule = options.Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return (verb, getattr(rule, verb)) if verb else None


def is_public(method: Any) -> bool:
    """Tell whether anybody may call the method."""
    from paymesh.options.v1 import options_pb2

    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    return options_pb2.AUDIENCE_PUBLIC in options.Extensions[options_pb2.audience]


def pattern_of(path: str) -> str:
    """Return the regular expression of exactly the paths of an HTTP rule: one segment for each variable, without a verb in it.

    The transcoder takes more: it reads `/v1/payments/x/confirm` and a slash at the end as `/v1/payments/x:confirm`. Such a path
    would pass by a route's limit, so the edge knows no others than these.
    """
    parts = re.split(r"{[^{}]+}", path)
    return "[^/:]+".join(map(re.escape, parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One match of the edge: who gets it, without which checks, within which limit."""

    match: Mapping[str, Any]
    verb: str
    cluster: str
    public: bool
    limit: str


def _route(method: Any, verb: str, path: str) -> Route:
    limit = "credentials" if method.name in CREDENTIAL_METHODS else "cards" if method.name in CARD_METHODS else ""
    match = {"safe_regex": {"regex": pattern_of(path)}} if "{" in path else {"path": path}
    cluster = method.containing_service.full_name.split(".")[1]
    return Route(match=match, verb=verb, cluster=cluster, public=is_public(method), limit=limit)


def routes(found: list[Any]) -> list[Route]:
    """Return the route of each method's REST path, and of each gRPC path that needs one of its own: public ones and limited ones.

    With their verbs: what is public to POST may need a credential to GET.
    """
    made = []
    for method in found:
        verb, path = route_of(method) or ("", "")
        made.append(_route(method, verb.upper(), path))
        rpc = _route(method, "POST", f"/{method.containing_service.full_name}/{method.name}")
        if rpc.public or rpc.limit:
            made.append(rpc)
    # A literal segment goes before a variable in its place, as in the transcoder.
    return sorted(made, key=lambda route: "safe_regex" in route.match)


def render(settings: EdgeSettings) -> str:
    """Return Envoy's configuration."""
    found = methods(settings.descriptors)
    services = sorted({method.containing_service.full_name for method in found})
    health = {service.split(".")[1]: service for service in services}
    clusters = [
        {
            "name": domain,
            "host": "127.0.0.1",
            "port": getattr(settings.ports, domain),
            "discovery": "STATIC",
            "health_service": service,
        }
        for domain, service in health.items()
    ]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # YAML
    return environment.from_string(TEMPLATE.read_text()).render(
        ports=settings.ports,
        run_dir=settings.run_dir,
        mesh_dir=settings.mesh_dir,
        descriptors=settings.descriptors,
        ignored_parameters=IGNORED_PARAMETERS,
        body_bytes_max=BODY_BYTES_MAX,
        services=services,
        services_clusters=[(service, service.split(".")[1]) for service in services],
        routes=routes(found),
        clusters=clusters,
        issuer=settings.issuer,
        audience=settings.audience,
        bind_address=settings.bind_address,
        limits=settings.limits,
        local_replies=LOCAL_REPLIES,
        grpc_replies=[
            (code, message, status_details(grpc, reason, message, retry_seconds=1 if code == 429 else 0))
            for code, grpc, reason, message in LOCAL_REPLIES
            if code in GRPC_REPLIES
        ],
        security_headers=SECURITY_HEADERS,
    )


def status_details(code: int, reason: str, message: str, *, retry_seconds: int) -> str:
    """Return the `google.rpc.Status` of a reply of the edge's own as `grpc-status-details-bin` carries it."""
    status = status_pb2.Status(code=code, message=message)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="paymesh.dev")]
    if retry_seconds:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_seconds)))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return base64.b64encode(status.SerializeToString(deterministic=True)).decode()


def sds(name: str, folder: Path) -> str:
    """Return the secret file from which Envoy takes a certificate; a rename of it makes Envoy read the files again."""
    return (
        "resources:\n"
        '  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n'
        f"    name: {name}\n"
        "    tls_certificate:\n"
        f"      certificate_chain: {{filename: {folder}/tls.crt}}\n"
        f"      private_key: {{filename: {folder}/tls.key}}\n"
    )
