"""Access tokens: the one that identity signed is taken, every forgery is 401, over REST and over gRPC."""

from __future__ import annotations

from pathlib import Path

import grpc
import jwt
import pytest

from tests.support.gate import second_edge
from tests.support.stack import Shop, open_shop, reason_of, wait_for
from tests.support.tokens import Forge, add_signing_key


def test_the_forge_makes_a_token_that_holds(shop: Shop) -> None:
    # So that the refusals below are for what is wrong about each token, and not for what the forge cannot do.
    assert shop.call("GET", "/v1/payments", token=Forge(shop).signed()).status_code == 200


def test_no_forged_token_is_taken(shop: Shop) -> None:
    with open(shop.platform.state["ca_file"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    taken = {}
    with grpc.secure_channel(f"localhost:{shop.platform.state['ports']['edge']}", credentials) as channel:
        ask = channel.unary_unary("/paymesh.payments.v1.PaymentService/ListPayments")
        for name, token in Forge(shop).forgeries().items():
            answer = shop.call("GET", "/v1/payments", token=token)
            with pytest.raises(grpc.RpcError) as refused:
                ask(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=10)
            found = (answer.status_code, reason_of(answer), refused.value.code())
            if found != (401, "CREDENTIAL_INVALID", grpc.StatusCode.UNAUTHENTICATED):
                taken[name] = found
    assert taken == {}


def test_a_token_is_taken_from_its_header_only(shop: Shop) -> None:
    token = Forge(shop).signed()
    for name in ("access_token", "token", "authorization", "jwt"):
        rpc = f"/paymesh.payments.v1.PaymentService/ListPayments?{name}={token}"
        headers = {"content-type": "application/grpc", "te": "trailers"}
        answer = shop.client.post(rpc, content=b"\0\0\0\0\0", headers=headers)
        assert answer.headers["grpc-status"] == "16", name
        assert shop.client.get("/v1/payments", params={name: token}).status_code in (400, 401)
        assert shop.client.get("/v1/payments", headers={"cookie": f"{name}={token}"}).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer"])
def test_a_key_is_a_key_however_its_scheme_is_written(shop: Shop, scheme: str) -> None:
    body = {"display_name": "k", "scopes": ["payments:read"]}
    key = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["secret"]
    for credential, code in ((f"{scheme} {key}", 200), (f"{scheme} {key}x", 401), (f"{scheme} {key[:-1]}", 401)):
        assert shop.client.get("/v1/payments", headers={"authorization": credential}).status_code == code


def test_two_keys_sign_at_once_and_an_edge_that_starts_now_takes_both(shop: Shop, tmp_path: Path) -> None:
    folder = shop.platform.folder / "private" / "jwt"
    old = Forge(shop)
    new = Forge(shop, file=add_signing_key(folder))
    wait_for(lambda: new.kid in shop.client.get("/.well-known/jwks.json").text, "the new key's announcement")
    with second_edge(shop, tmp_path) as gate:
        assert gate.ask(old.signed(), 1) == [200]
        assert gate.ask(new.signed(), 1) == [200]
        assert gate.ask(new.signed(header={"kid": old.kid}), 1) == [401]
        assert gate.ask(old.signed(header={"kid": new.kid}), 1) == [401]
    # Nobody signs with it before every edge had the time to learn of it.
    fresh = open_shop(shop.platform, shop.client).customer_token
    assert jwt.get_unverified_header(fresh)["kid"] == old.kid
