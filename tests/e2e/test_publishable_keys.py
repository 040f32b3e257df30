"""Publishable keys: for shoppers' browsers, seen by anybody, good for nothing but what names a payment client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from servers.identity.domain import PUBLISHABLE_KEY_SCOPES
from tests.support.stack import Shop, reason_of, wait_for

BODY = {"display_name": "web shop", "kind": "PUBLISHABLE"}


@pytest.fixture
def make(shop: Shop) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a publishable key."""

    def make(**more: Any) -> dict[str, Any]:
        made: dict[str, Any] = shop.ok(shop.call("POST", "/v1/api_keys", BODY | more, token=shop.seller_token))
        return made

    return make


Make = Callable[..., dict[str, Any]]


def holds(shop: Shop, key: str) -> bool:
    """Tell whether a key is taken for a credential: it is refused as the wrong kind of caller, not as no caller."""
    answer = shop.call("GET", "/v1/balances", token=key)
    assert answer.status_code in (401, 403), answer.text
    return answer.status_code == 403


def test_a_publishable_key_is_shown_whenever_it_is_listed(shop: Shop, make: Make) -> None:
    made = make()
    key = made["api_key"]
    assert made["secret"] == ""
    assert key["kind"] == "PUBLISHABLE"
    assert key["publishable_key"].startswith("pm_pk_test_")
    assert key["publishable_key"].startswith(key["secret_prefix"])
    assert key["scopes"] == list(PUBLISHABLE_KEY_SCOPES)
    listed = shop.ok(shop.call("GET", "/v1/api_keys", token=shop.seller_token))["api_keys"]
    assert next(one for one in listed if one["id"] == key["id"]) == key


def test_a_secret_key_is_what_is_made_where_no_kind_is_given(shop: Shop) -> None:
    body = {"display_name": "server", "scopes": ["payments:read"]}
    for more in ({}, {"kind": "SECRET"}, {"kind": "KIND_UNSPECIFIED"}):
        made = shop.ok(shop.call("POST", "/v1/api_keys", body | more, token=shop.seller_token))
        assert made["secret"].startswith("pm_sk_test_")
        assert (made["api_key"]["kind"], made["api_key"]["publishable_key"]) == ("SECRET", "")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": ["payments:read"]}, "scopes"),
        ({"kind": "SECRET"}, "scopes"),
        ({"kind": "SECRET", "scopes": ["members:write"]}, "scopes[0]"),
        ({"kind": 7}, "kind"),
        ({"expire_time": "2020-01-01T00:00:00Z"}, "expire_time"),
    ],
)
def test_what_a_key_cannot_be_is_named(shop: Shop, change: dict[str, Any], field: str) -> None:
    answer = shop.call("POST", "/v1/api_keys", BODY | change, token=shop.seller_token)
    assert (answer.status_code, reason_of(answer)) == (400, "FIELD_INVALID")
    assert [one["field"] for one in answer.json()["details"][1]["field_violations"]] == [field]


def test_its_holder_is_a_payment_client_and_nobody_else(shop: Shop, make: Make) -> None:
    key = make()["api_key"]["publishable_key"]
    for method, path in (("GET", "/v1/payments"), ("GET", "/v1/api_keys"), ("POST", "/v1/payments")):
        refused = shop.call(method, path, {} if method == "POST" else None, token=key)
        assert (refused.status_code, reason_of(refused)) == (403, "CALLER_NOT_ALLOWED"), path


def test_it_ends_when_it_is_revoked(shop: Shop, make: Make) -> None:
    key = make()["api_key"]
    assert holds(shop, key["publishable_key"])
    shop.ok(shop.call("DELETE", f"/v1/api_keys/{key['id']}", token=shop.seller_token))
    wait_for(lambda: not holds(shop, key["publishable_key"]), "the revocation", seconds=1.5)


def test_it_is_rotated_with_both_alive_for_a_while_and_the_audit_log_tells(shop: Shop, make: Make) -> None:
    old = make()["api_key"]
    path = f"/v1/api_keys/{old['id']}:rotate"
    new = shop.ok(shop.call("POST", path, {"grace_seconds": 2}, token=shop.seller_token))["api_key"]
    assert (new["kind"], new["scopes"]) == (old["kind"], old["scopes"])
    assert new["publishable_key"] != old["publishable_key"]
    assert holds(shop, old["publishable_key"])
    wait_for(lambda: not holds(shop, old["publishable_key"]), "the end of the old key")
    assert holds(shop, new["publishable_key"])
    log = shop.ok(shop.call("GET", "/v1/audit_log", token=shop.seller_token))["entries"]
    told = {(entry["action"], entry["resource_id"]): entry["details"] for entry in log}
    assert told["api_key.rotated", old["id"]] == {"new_key": new["id"]}
    assert told["api_key.created", old["id"]]["kind"] == "PUBLISHABLE"
