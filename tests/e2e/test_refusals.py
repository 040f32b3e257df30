"""Bad input and wrong callers, through the edge: a clear refusal that names the field, and nothing half done."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest

from tests.support.stack import Shop

GOOD: dict[str, Any] = {"amount": {"amount_minor": "100", "currency": "USD"}, "customer_id": "usr_" + "0" * 26}


def reason_of(response: httpx.Response) -> str:
    """Return the reason of an error, which must be one of ours."""
    detail = response.json()["details"][0]
    assert detail["domain"] == "paymesh.dev"
    reason: str = detail["reason"]
    return reason


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": {"amount_minor": "0", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "-1", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "9223372036854775807", "currency": "USD"}}, "amount"),
        ({"amount": {"amount_minor": "1", "currency": "usd"}}, "amount.currency"),
        ({"amount": {"amount_minor": "1", "currency": "ZZZ"}}, "amount.currency"),
        ({"amount": None}, "amount"),
        ({"customer_id": "usr_1"}, "customer_id"),
        ({"customer_id": ""}, "customer_id"),
        ({"description": "x" * 501}, "description"),
        ({"metadata": {"k" * 41: "v"}}, "metadata"),
        ({"request_id": "not-a-uuid"}, "request_id"),
    ],
)
def test_each_wrong_field_is_named(shop: Shop, change: dict[str, Any], field: str) -> None:
    response = shop.call("POST", "/v1/payments", GOOD | change, token=shop.seller_token)
    assert (response.status_code, reason_of(response)) == (400, "FIELD_INVALID")
    fields = [violation["field"] for violation in response.json()["details"][1]["field_violations"]]
    assert any(name.startswith(field) for name in fields)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"amount": 9.5}', b'{"amount": {"amount_minor": 9.5}}', b"x" * 2_000_000]
)
def test_what_is_not_the_right_json_is_refused(shop: Shop, body: bytes) -> None:
    headers = {
        "authorization": f"Bearer {shop.seller_token}",
        "idempotency-key": "k",
        "content-type": "application/json",
    }
    response = shop.client.post("/v1/payments", content=body, headers=headers)
    assert response.status_code in (400, 413)


def test_money_needs_a_key(shop: Shop) -> None:
    headers = {"authorization": f"Bearer {shop.seller_token}"}
    response = shop.client.post("/v1/payments", json=GOOD, headers=headers)
    assert (response.status_code, reason_of(response)) == (400, "IDEMPOTENCY_KEY_REQUIRED")


def test_a_key_belongs_to_its_request(shop: Shop) -> None:
    first = shop.call("POST", "/v1/payments", GOOD, token=shop.seller_token, key="mine")
    again = shop.call("POST", "/v1/payments", GOOD, token=shop.seller_token, key="mine")
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    other = shop.call("POST", "/v1/payments", GOOD | {"description": "x"}, token=shop.seller_token, key="mine")
    assert (other.status_code, reason_of(other)) == (400, "IDEMPOTENCY_KEY_REUSED")


def test_a_refusal_is_replayed_as_it_was(shop: Shop) -> None:
    payment = shop.payment()
    first, again = (shop.refund(payment["id"], 1, key="refused") for _ in range(2))
    assert (first.status_code, reason_of(first)) == (400, "PAYMENT_STATE_INVALID")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true"


def test_more_than_is_left_is_not_refunded(shop: Shop) -> None:
    payment = shop.payment(1000)
    shop.ok(shop.confirm(payment["id"]))
    shop.ok(shop.refund(payment["id"], 600))
    response = shop.refund(payment["id"], 401)
    assert (response.status_code, reason_of(response)) == (400, "REFUND_EXCEEDS_AVAILABLE")
    assert response.json()["details"][0]["metadata"]["refundable_minor"] == "400"


def test_a_payment_is_confirmed_once(shop: Shop) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    response = shop.confirm(payment["id"])
    assert (response.status_code, reason_of(response)) == (400, "PAYMENT_STATE_INVALID")


def test_somebody_elses_payment_is_not_there(shop: Shop) -> None:
    other = shop.ok(
        shop.call("POST", "/v1/merchants", {"display_name": "Rival", "country": "US", "default_currency": "USD"},
                  token=shop.customer_token)
    )  # fmt: skip
    rival = shop.ok(
        shop.call("POST", "/v1/sessions:switch_merchant", {"merchant_id": other["id"]}, token=shop.customer_token)
    )["access_token"]
    payment = shop.payment()
    response = shop.call("GET", f"/v1/payments/{payment['id']}", token=rival)
    assert (response.status_code, reason_of(response)) == (404, "RESOURCE_NOT_FOUND")


def test_an_email_is_registered_once_and_a_wrong_password_tells_nothing(shop: Shop) -> None:
    person = {"email": "twin@example.com", "password": "correct horse battery", "display_name": "Twin"}
    shop.ok(shop.call("POST", "/v1/users:register", person))
    taken = shop.call("POST", "/v1/users:register", person | {"email": "TWIN@example.com"})
    assert (taken.status_code, reason_of(taken)) == (409, "REFERENCE_TAKEN")
    answers = []
    for email in ("twin@example.com", "nobody@example.com"):
        began = time.monotonic()
        answer = shop.call("POST", "/v1/sessions", {"email": email, "password": "wrong horse battery"})
        answers.append((answer.status_code, answer.json()["message"], time.monotonic() - began))
    assert answers[0][:2] == answers[1][:2] == (401, "The email address and the password do not match an account.")
    assert answers[1][2] > answers[0][2] / 3  # nobody's password is checked too


def unsigned(claims: dict[str, Any]) -> str:
    """Return a JWT with alg=none."""
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer x",
        "Bearer " + unsigned({"iss": "x", "sub": "usr_1", "exp": 9999999999}),
        "bEaReR pm_sk_test_none",
        "Bearer pm_",
        "Basic pm_sk_test_none",
        "pm_sk_test_none",
    ],
)
def test_no_way_in_without_a_credential_that_holds(shop: Shop, credential: str) -> None:
    claims = {"typ": "member", "sub": "usr_1", "merchant_id": shop.merchant_id, "scope": "payments:read balances:read"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    headers = {"x-paymesh-principal": forged, "x-paymesh-on-behalf-of": forged} | (
        {"authorization": credential} if credential else {}
    )
    for path in ("/v1/payments", "/v1/balances", f"/v1/merchants/{shop.merchant_id}"):
        response = shop.client.get(path, headers=headers)
        assert (response.status_code, reason_of(response)) == (401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/paymesh.wallets.v1.LedgerService/PostFact"])
def test_what_is_not_there_is_not_found(shop: Shop, path: str) -> None:
    response = shop.call("GET", path, token=shop.seller_token)
    assert response.status_code == 404


@pytest.mark.parametrize("signature", ["", "t=1,v1=00", f"t={int(time.time())},v1={'0' * 64}"])
def test_a_webhook_that_stripe_did_not_sign_is_refused(shop: Shop, signature: str) -> None:
    headers = {"stripe-signature": signature} if signature else {}
    response = shop.client.post("/webhooks/stripe", content=b'{"id": "evt_forged"}', headers=headers)
    assert (response.status_code, reason_of(response)) == (401, "CREDENTIAL_INVALID")
    assert shop.platform.sql("payments", "SELECT 1 FROM stripe_events WHERE id = 'evt_forged'") == []


@pytest.mark.parametrize("path", ["/v1/payments", "/v1/nothing", "/healthz", "/.well-known/jwks.json"])
def test_headers_of_every_answer(shop: Shop, path: str) -> None:
    headers = shop.call("GET", path, token=shop.seller_token).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "max-age" in headers["strict-transport-security"]
    assert headers["x-request-id"]
    assert not [name for name in headers if name.startswith(("grpc-", "x-envoy", "server"))]
