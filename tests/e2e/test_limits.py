"""The edge's limits, on a second Envoy before the same servers with limits small enough to meet."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.gate import Gate
from tests.support.stack import Shop

BURST = 5
FEW = {"burst": BURST, "per_second": 1}


@pytest.mark.parametrize("gate", [{"principal": FEW}], indirect=True)
def test_each_user_and_each_key_has_a_bucket_of_its_own(shop: Shop, gate: Gate) -> None:
    # The buckets are of users, not of tokens: a member's token and a customer's token of one user share one.
    shared = gate.ask(shop.customer_token, 20)
    assert BURST - 2 <= shared.count(200) <= BURST + 3
    assert set(shared) == {200, 429}
    for _ in range(2):
        key = shop.ok(
            shop.call(
                "POST", "/v1/api_keys", {"display_name": "k", "scopes": ["payments:read"]}, token=shop.seller_token
            )
        )
        codes = gate.ask(key["secret"], 20)
        assert BURST <= codes.count(200) <= BURST + 3
    with httpx.Client(base_url=gate.url, verify=shop.platform.context) as client:
        refused = client.get("/v1/payments", headers={"authorization": f"Bearer {key['secret']}"})
    reason, retry = refused.json()["details"]
    assert (reason["reason"], retry["retry_delay"]) == ("RATE_LIMITED", "1s")
    assert refused.headers["content-type"] == "application/json"


@pytest.mark.parametrize("gate", [{"address": FEW}], indirect=True)
def test_one_address_cannot_take_everybodys_share(shop: Shop, gate: Gate) -> None:
    codes = gate.ask("not a token", 20)
    assert 429 in codes or codes.count(401) == 20  # without a credential the answer is 401 before any bucket is asked
    codes = gate.ask(shop.seller_token, 20)
    assert 429 in codes
    assert codes.count(200) <= BURST + 3


def test_declines_of_one_customer_are_slowed_down(shop: Shop) -> None:
    customer = shop.user_id
    bad = shop.card("pm_card_chargeCustomerFail")
    payment = shop.payment()
    codes = []
    for _ in range(25):
        answer = shop.confirm(payment["id"], method_id=bad["id"])
        codes.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.json()["details"][0]["metadata"]["limit"] == "declines_of_payer"
            break
    assert codes[-1] == 429
    assert set(codes[:-1]) == {200}
    forget(shop, f"throttle:declines_of_payer:{customer}")
    assert shop.confirm(payment["id"]).status_code == 200


def forget(shop: Shop, name: str) -> None:
    """Empty one limit's memory, for the tests that come after."""
    import redis

    password = Path(shop.platform.state["secrets_dir"], "redis").read_text()
    with redis.Redis(port=shop.platform.state["ports"]["redis"], password=password) as client:
        assert client.delete(name) == 1


CARD = {"cards_user": FEW, "cards_key": FEW}


@pytest.mark.parametrize("gate", [CARD], indirect=True)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/payments/pay_1:confirm",
        "/v1/payment_methods",
        "/paymesh.payments.v1.PaymentService/ConfirmPayment",
        "/paymesh.payments.v1.PaymentService/CreatePaymentMethod",
    ],
)
def test_each_user_tries_cards_in_a_small_bucket(shop: Shop, gate: Gate, path: str) -> None:
    assert BURST <= BURST + 15 - gate.ask(shop.customer_token, BURST + 15, path, "POST").count(429) <= BURST + 3
    assert gate.ask(shop.seller_token, 1, path, "POST") == [429]  # the same user, whatever for
    assert set(gate.ask(shop.customer_token, 20)) == {200}  # other routes have their own


@pytest.mark.parametrize("gate", [{"cards_key": FEW}], indirect=True)
def test_each_key_tries_cards_in_a_bucket_of_its_own(shop: Shop, gate: Gate) -> None:
    for _ in range(2):
        body = {"display_name": "web", "kind": "PUBLISHABLE"}
        key = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["api_key"]["publishable_key"]
        codes = gate.ask(key, BURST + 15, "/v1/payments/pay_1:confirm", "POST")
        assert BURST <= len(codes) - codes.count(429) <= BURST + 3


@pytest.mark.parametrize("gate", [{"cards_address": FEW}], indirect=True)
def test_one_address_tries_few_cards(shop: Shop, gate: Gate) -> None:
    codes = gate.ask(shop.customer_token, BURST + 15, "/v1/payment_methods", "POST")
    assert BURST <= len(codes) - codes.count(429) <= BURST + 3
    with gate.client() as client:
        headers = {"authorization": f"Bearer {shop.seller_token}"}
        refused = client.post("/v1/payment_methods", json={}, headers=headers)
    assert refused.json()["details"][0]["reason"] == "RATE_LIMITED"
