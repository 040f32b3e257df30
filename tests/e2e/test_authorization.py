"""The authorization matrix, made from the descriptors: every method by every kind of caller."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from paymesh.identity.v1 import identity_pb2, staff_pb2
from paymesh.notifications.v1 import notifications_pb2
from paymesh.payments.v1 import payments_pb2, stripe_events_pb2, top_ups_pb2
from paymesh.wallets.v1 import ledger_pb2, wallets_pb2

from dev import pki
from dev.paths import DOMAINS
from servers.identity.domain import (
    API_KEY_SCOPES,
    CUSTOMER_SCOPES,
    PUBLISHABLE_KEY_SCOPES,
    ROLE_SCOPES,
    STAFF_ROLE_SCOPES,
)
from servers.runtime.call import PrincipalKind
from servers.runtime.policy import EDGE, policy_of
from tests.support.stack import PASSWORD, Shop
from tests.support.staff import Operator
from tests.support.tokens import Forge

FILES = (
    *(identity_pb2, staff_pb2, payments_pb2, top_ups_pb2, stripe_events_pb2),
    *(wallets_pb2, ledger_pb2, notifications_pb2),
)
METHODS = [m for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for m in service.methods]
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass(frozen=True)
class Caller:
    """A kind of caller with its credential."""

    kind: PrincipalKind
    token: str
    scopes: frozenset[str]


@pytest.fixture(scope="module")
def callers(shop: Shop, operator: Operator) -> dict[str, Caller]:
    """Return a caller of each kind, each with all scopes that its kind can have."""
    scopes = sorted(API_KEY_SCOPES)
    key = shop.ok(shop.call("POST", "/v1/api_keys", {"display_name": "all", "scopes": scopes}, token=shop.seller_token))
    body = {"display_name": "web", "kind": "PUBLISHABLE"}
    web = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["api_key"]["publishable_key"]
    return {
        "nobody": Caller(PrincipalKind.PUBLIC, "", frozenset()),
        "customer": Caller(PrincipalKind.CUSTOMER, shop.customer_token, CUSTOMER_SCOPES),
        "member": Caller(PrincipalKind.MEMBER, shop.seller_token, ROLE_SCOPES["owner"]),
        "api_key": Caller(PrincipalKind.API_KEY, key["secret"], API_KEY_SCOPES),
        "payment_client": Caller(PrincipalKind.PAYMENT_CLIENT, web, frozenset(PUBLISHABLE_KEY_SCOPES)),
        "staff": Caller(PrincipalKind.STAFF, operator.token, STAFF_ROLE_SCOPES["operator"]),
    }


def call(address: str, credentials: Any, method: Any, metadata: Any = (), options: Any = ()) -> grpc.StatusCode:
    """Call a method with an empty request, and return the code of the answer."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)()
    with grpc.secure_channel(address, credentials, options=options) as channel:
        stub = channel.unary_unary(
            name, request_serializer=lambda m: m.SerializeToString(), response_deserializer=bytes
        )
        try:
            stub(request, metadata=metadata, timeout=15)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def own_session(shop: Shop, who: str) -> str:
    """Return the access token of a fresh session of a fresh user, acting for a merchant of theirs where asked."""
    person = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    shop.ok(shop.call("POST", "/v1/users:register", {**person, "display_name": "Cy"}))
    token: str = shop.ok(shop.call("POST", "/v1/sessions", person))["access_token"]
    if who == "customer":
        return token
    body = {"display_name": "Cy's", "country": "US", "default_currency": "USD"}
    merchant = shop.ok(shop.call("POST", "/v1/merchants", body, token=token))
    switch = {"merchant_id": merchant["id"]}
    seller: str = shop.ok(shop.call("POST", "/v1/sessions:switch_merchant", switch, token=token))["access_token"]
    return seller


@pytest.mark.parametrize("who", ["nobody", "customer", "member", "api_key", "payment_client", "staff"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_from_outside(shop: Shop, callers: dict[str, Caller], method: Any, who: str) -> None:
    caller, policy = callers[who], policy_of(method)
    if method.name == "RevokeSession" and who in ("customer", "member"):
        # It ends the session it is called with, so it gets one of its own; a member's session is the user's.
        caller = Caller(caller.kind, own_session(shop, who), caller.scopes)
    with open(shop.platform.state["ca_file"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    metadata = (("authorization", f"Bearer {caller.token}"),) if caller.token else ()
    code = call(f"localhost:{shop.platform.state['ports']['edge']}", credentials, method, metadata)
    public = PrincipalKind.PUBLIC in policy.audience
    signed = method.name == "ReceiveStripeWebhook"  # the signature is the credential, and there is none
    allowed = (public or (caller.kind in policy.audience and policy.scope in caller.scopes)) and not signed
    if EDGE not in policy.callers:
        assert code in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, *REFUSED}
    else:
        assert (code not in REFUSED) == allowed, code


@pytest.mark.parametrize("peer", ["identity", "payments", "wallets", "notifications", "dev", "operator"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_from_inside_the_mesh(shop: Shop, method: Any, peer: str) -> None:
    policy, domain = policy_of(method), method.containing_service.full_name.split(".")[1]
    folder = shop.platform.folder / "tls" / peer
    files = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    options = (("grpc.ssl_target_name_override", f"{domain}.paymesh.internal"),)
    forged = (("x-paymesh-principal", "e30"),)
    address = f"127.0.0.1:{shop.platform.state['ports'][domain]}"
    code = call(address, grpc.ssl_channel_credentials(*files), method, forged, options)
    assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (peer in policy.callers), code


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_a_certificate_of_the_mesh_nobody_gets_in(shop: Shop, tmp_path: Path, domain: str) -> None:
    ours = (shop.platform.folder / "tls" / "dev" / "ca.crt").read_bytes()
    foreign = pki.Authority(tmp_path / "ca", "mesh")
    foreign.issue(tmp_path / "leaf", names=pki.mesh_names("edge"), common_name="edge")
    public = shop.platform.folder / "tls" / "public"
    leaves = [
        [(folder / name).read_bytes() for name in ("tls.key", "tls.crt")] for folder in (tmp_path / "leaf", public)
    ]
    credentials = [
        grpc.ssl_channel_credentials(ours),
        *(grpc.ssl_channel_credentials(ours, *leaf) for leaf in leaves),
        grpc.ssl_channel_credentials((tmp_path / "leaf" / "ca.crt").read_bytes(), *leaves[0]),
    ]
    options = (("grpc.ssl_target_name_override", f"{domain}.paymesh.internal"),)
    address = f"127.0.0.1:{shop.platform.state['ports'][domain]}"
    forged = (("x-paymesh-principal", "e30"),)
    method = next(m for m in METHODS if m.containing_service.full_name.split(".")[1] == domain)
    for held in credentials:
        assert call(address, held, method, forged, options) is grpc.StatusCode.UNAVAILABLE
    mesh = shop.platform.folder / "tls" / "dev"
    held = grpc.ssl_channel_credentials(ours, *((mesh / name).read_bytes() for name in ("tls.key", "tls.crt")))
    assert call(address, held, method, forged, options) is not grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_server_speaks_without_tls(shop: Shop, domain: str) -> None:
    address = f"127.0.0.1:{shop.platform.state['ports'][domain]}"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{address}/")


@pytest.fixture(scope="module")
def keys_without(shop: Shop) -> dict[str, str]:
    """Return, for each scope of API keys, a key with all others."""
    path, made = "/v1/api_keys", {}
    for scope in API_KEY_SCOPES:
        body = {"display_name": scope, "scopes": sorted(API_KEY_SCOPES - {scope})}
        made[scope] = shop.ok(shop.call("POST", path, body, token=shop.seller_token))["secret"]
    return made


SCOPED = [(m, kind) for m in METHODS for kind in sorted(policy_of(m).audience, key=str) if policy_of(m).scope]


@pytest.mark.parametrize(("method", "kind"), SCOPED, ids=lambda value: getattr(value, "name", None))
def test_all_scopes_but_the_methods_own_are_not_enough(
    shop: Shop, keys_without: dict[str, str], method: Any, kind: PrincipalKind
) -> None:
    scope = policy_of(method).scope
    if kind is PrincipalKind.API_KEY:
        token = keys_without[scope]
    else:
        # Scopes that no login gives, so a token that identity itself might have signed.
        scopes = " ".join(sorted((CUSTOMER_SCOPES | ROLE_SCOPES["owner"]) - {scope}))
        claims = {"typ": kind.value, "scope": scopes, "merchant_id": shop.merchant_id, "role": "owner"}
        token = Forge(shop).signed(**claims)
    with open(shop.platform.state["ca_file"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    metadata = (("authorization", f"Bearer {token}"),)
    address = f"localhost:{shop.platform.state['ports']['edge']}"
    assert call(address, credentials, method, metadata) is grpc.StatusCode.PERMISSION_DENIED
