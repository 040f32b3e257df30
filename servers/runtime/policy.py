"""Who may call what: read from the proto options, refused where they are missing.

Services that are not ours have their one table here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from paymesh.options.v1 import options_pb2

from servers.runtime.call import PrincipalKind

EDGE: Final = "edge"
ANY_PEER: Final = "*"
_KINDS: Final = {
    options_pb2.AUDIENCE_PUBLIC: PrincipalKind.PUBLIC,
    options_pb2.AUDIENCE_CUSTOMER: PrincipalKind.CUSTOMER,
    options_pb2.AUDIENCE_MEMBER: PrincipalKind.MEMBER,
    options_pb2.AUDIENCE_API_KEY: PrincipalKind.API_KEY,
    options_pb2.AUDIENCE_STAFF: PrincipalKind.STAFF,
    options_pb2.AUDIENCE_SERVICE: PrincipalKind.SERVICE,
    options_pb2.AUDIENCE_PAYMENT_CLIENT: PrincipalKind.PAYMENT_CLIENT,
}
_SCOPELESS: Final = {PrincipalKind.PUBLIC, PrincipalKind.SERVICE}


class PolicyMissing(Exception):
    """A method does not say who may call it: the server must not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPolicy:
    """Who may call one method."""

    method: str
    callers: frozenset[str]
    on_behalf_of_callers: frozenset[str]
    audience: frozenset[PrincipalKind]
    scope: str
    key_required: bool
    read_only: bool
    repeatable: bool = False
    """Whether the caller, a server, makes the ids of what the call writes, so that a torn call is as good as a lost one."""


def policy_of(method: MethodDescriptor) -> MethodPolicy:
    """Read a method's options. Raises PolicyMissing."""
    options = method.GetOptions().Extensions
    name = f"/{method.containing_service.full_name}/{method.name}"
    audience = frozenset(_KINDS[value] for value in options[options_pb2.audience])
    by_id = options[options_pb2.idempotency] == options_pb2.IDEMPOTENCY_BY_RESOURCE_ID
    policy = MethodPolicy(
        method=name,
        callers=frozenset(options[options_pb2.allowed_callers]),
        on_behalf_of_callers=frozenset(options[options_pb2.on_behalf_of_callers]),
        audience=audience,
        scope=options[options_pb2.required_scope],
        key_required=options[options_pb2.idempotency] == options_pb2.IDEMPOTENCY_REQUIRED,
        read_only=options[options_pb2.idempotency] == options_pb2.IDEMPOTENCY_READ_ONLY,
        repeatable=by_id and audience == {PrincipalKind.SERVICE},
    )
    if not policy.callers or not audience:
        raise PolicyMissing(f"{name} declares no allowed_callers or no audience")
    if options[options_pb2.idempotency] == options_pb2.IDEMPOTENCY_UNSPECIFIED:
        raise PolicyMissing(f"{name} declares no idempotency")
    if not policy.scope and not audience <= _SCOPELESS:
        raise PolicyMissing(f"{name} declares no required_scope")
    return policy


def policies_of(services: Iterable[ServiceDescriptor]) -> dict[str, MethodPolicy]:
    """Return the policy of every method. Raises PolicyMissing."""
    return {policy.method: policy for service in services for policy in map(policy_of, service.methods)}


def _foreign(method: str, caller: str) -> MethodPolicy:
    return MethodPolicy(
        method=method,
        callers=frozenset({caller}),
        on_behalf_of_callers=frozenset(),
        audience=frozenset({PrincipalKind.PUBLIC, PrincipalKind.SERVICE}),
        scope="",
        key_required=False,
        read_only=True,
    )


FOREIGN: Final = {
    policy.method: policy
    for policy in (
        _foreign("/grpc.health.v1.Health/Check", ANY_PEER),
        _foreign("/grpc.health.v1.Health/Watch", ANY_PEER),
        _foreign("/grpc.health.v1.Health/List", ANY_PEER),
        _foreign("/envoy.service.auth.v3.Authorization/Check", EDGE),
    )
}
"""Health: any peer of the mesh. API keys: the edge asks identity."""

REFLECTION: Final = {
    policy.method: policy
    for policy in (
        _foreign("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ANY_PEER),
        _foreign("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ANY_PEER),
    )
}
"""Reflection: any peer of the mesh, in the dev and test profiles only."""
