"""The claims that the edge forwards: whom they make the caller, and which of them make nobody."""

from __future__ import annotations

import base64
import json

import pytest

from servers.identity.domain import PUBLISHABLE_KEY_SCOPES, ApiKey, ApiKeyKind, ApiKeyState
from servers.identity.tokens import principal_header
from servers.kernel.clock import SystemClock
from servers.runtime.call import CredentialInvalid, PrincipalKind, decode_principal


def encoded(**claims: str) -> str:
    """Return claims as the edge forwards them."""
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("kind", ["member", "api_key", "payment_client"])
def test_who_acts_for_a_merchant_must_name_it(kind: str) -> None:
    assert decode_principal(encoded(typ=kind, sub="x_1", merchant_id="mer_1")).tenant == "mer_1"
    with pytest.raises(CredentialInvalid):
        decode_principal(encoded(typ=kind, sub="x_1"))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "e30",
        "%%%",
        encoded(typ="payment_client", sub="", merchant_id="mer_1"),
        encoded(typ="public", sub="x_1"),
        encoded(typ="service", sub="wallets"),
        encoded(typ="PAYMENT_CLIENT", sub="x_1", merchant_id="mer_1"),
        base64.urlsafe_b64encode(b"[]").decode(),
        base64.urlsafe_b64encode(b"null").decode(),
        base64.urlsafe_b64encode(b"\xff").decode(),
    ],
)
def test_claims_that_name_nobody_are_refused(header: str) -> None:
    with pytest.raises(CredentialInvalid):
        decode_principal(header)


@pytest.mark.parametrize(
    ("kind", "principal"),
    [(ApiKeyKind.SECRET, PrincipalKind.API_KEY), (ApiKeyKind.PUBLISHABLE, PrincipalKind.PAYMENT_CLIENT)],
)
def test_a_key_becomes_the_principal_of_its_kind(kind: ApiKeyKind, principal: PrincipalKind) -> None:
    now = SystemClock().now()
    key = ApiKey(
        id="key_1",
        merchant_id="mer_1",
        kind=kind,
        publishable_key="",
        display_name="k",
        scopes=PUBLISHABLE_KEY_SCOPES,
        secret_prefix="",
        expire_time=None,
        last_used_time=None,
        state=ApiKeyState.ACTIVE,
        version=1,
        create_time=now,
        update_time=now,
    )
    found = decode_principal(principal_header(key))
    assert (found.kind, found.subject, found.merchant_id) == (principal, "key_1", "mer_1")
    assert found.scopes == {"payments:read", "payments:confirm", "setup_intents:read", "setup_intents:confirm"}
