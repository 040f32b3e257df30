"""Renders `envoy/envoy.yaml.j2`. What is public is read from the contract: nobody can open a route here by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jinja2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dev.paths import ROOT, Ports

DESCRIPTORS: Final = ROOT / "generated" / "descriptors" / "paymesh.binpb"
TEMPLATE: Final = ROOT / "envoy" / "envoy.yaml.j2"
# Logins and registrations cost a quarter of a second of a core each, so their bucket is small.
TIGHT: Final = {
    "name": "credentials",
    "burst": 60,
    "per_second": 10,
    "address_burst": 30,
    "address_per_second": 5,
}
# For everything else: of all callers together, of one address, of one user or API key. On a laptop they all have one address.
LIMITS: Final = {
    "all": {"burst": 4000, "per_second": 2000},
    "address": {"burst": 3000, "per_second": 1500},
    "principal": {"burst": 1000, "per_second": 500},
}
NO_LIMITS: Final = {key: {"burst": 10000000, "per_second": 10000000} for key in LIMITS}
"""For load tests only (`PAYMESH_EDGE_LIMITS=none`)."""
TIGHT_METHODS: Final = {
    *("RegisterUser", "CreateSession", "RefreshSession", "VerifyEmail", "OpenEmailLink"),
    *("RequestPasswordReset", "ResetPassword"),
}
LOCAL_REPLIES: Final = (
    (400, 3, "FIELD_INVALID", "The request is malformed."),
    (401, 16, "CREDENTIAL_INVALID", "A valid access token or API key is needed."),
    (403, 7, "CALLER_NOT_ALLOWED", "The credential is not meant for this."),
    (404, 5, "METHOD_NOT_FOUND", "There is no such route."),
    (413, 8, "FIELD_INVALID", "The request is too large."),
    (429, 8, "RATE_LIMITED", "Too many requests; try again in a moment."),
    (503, 14, "PEER_UNAVAILABLE", "The server does not answer right now; ask again with the same key."),
    (504, 4, "DEADLINE_PASSED", "The outcome may be unknown. Ask again with the same idempotency key."),
)
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
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: LIMITS)


def methods() -> list[Any]:
    """Return the descriptors of all methods of services that have HTTP routes."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
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


def _public_routes(found: list[Any]) -> list[dict[str, Any]]:
    routes = []
    for method in filter(is_public, found):
        service = method.containing_service.full_name
        rule = route_of(method)
        cluster = service.split(".")[1]
        limit = TIGHT if method.name in TIGHT_METHODS else None
        if rule is not None:
            # With its verb: what is public to POST may need a credential to GET.
            routes.append({"path": rule[1], "verb": rule[0].upper(), "cluster": cluster, "limit": limit})
        routes.append({"path": f"/{service}/{method.name}", "verb": "POST", "cluster": cluster, "limit": limit})
    return routes


def render(settings: EdgeSettings) -> str:
    """Return Envoy's configuration."""
    found = methods()
    services = sorted({method.containing_service.full_name for method in found})
    clusters = []
    for service in services:
        domain = service.split(".")[1]
        port = getattr(settings.ports, domain)
        clusters.append(
            {"name": domain, "host": "127.0.0.1", "port": port, "discovery": "STATIC", "health_service": service}
        )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # YAML
    return environment.from_string(TEMPLATE.read_text()).render(
        ports=settings.ports,
        run_dir=settings.run_dir,
        mesh_dir=settings.mesh_dir,
        descriptors=DESCRIPTORS,
        services=services,
        services_clusters=[(service, service.split(".")[1]) for service in services],
        public_routes=_public_routes(found),
        clusters=clusters,
        issuer=settings.issuer,
        audience=settings.audience,
        bind_address=settings.bind_address,
        limits=settings.limits,
        local_replies=LOCAL_REPLIES,
        security_headers=SECURITY_HEADERS,
    )


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
