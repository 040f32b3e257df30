"""One purchase through the edge, whole: what a customer and a merchant do and see."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.stack import PASSWORD, Shop, wait_for


def test_a_purchase_and_a_refund_move_the_balances(shop: Shop) -> None:
    shop.quiet()
    before = shop.pending()
    payment = shop.payment(2500)
    assert (payment["state"], payment["available_actions"]) == ("REQUIRES_PAYMENT_METHOD", ["confirm", "cancel"])
    paid = shop.ok(shop.confirm(payment["id"]))
    assert (paid["state"], paid["certainty"], paid["latest_attempt"]["state"]) == ("SUCCEEDED", "CERTAIN", "SUCCEEDED")
    assert "fee" not in paid["captures"][0]  # the customer does not see what the platform keeps
    assert shop.read(payment["id"])["captures"][0]["fee"] == {"amount_minor": "63", "currency": "USD"}
    wait_for(lambda: shop.pending() == before + 2437, "the capture in the ledger")
    refund = shop.ok(shop.refund(payment["id"], 500))
    assert refund["state"] == "SUCCEEDED"
    assert shop.pending() == before + 1937
    read = shop.read(payment["id"])
    assert (read["amount_refunded"]["amount_minor"], read["amount_refund_pending"]["amount_minor"]) == ("500", "0")
    listed = shop.ok(shop.call("GET", f"/v1/payments/{payment['id']}/refunds", token=shop.seller_token))
    assert [item["id"] for item in listed["refunds"]] == [refund["id"]]


def test_a_decline_is_an_answer_and_another_card_goes_through(shop: Shop) -> None:
    bad = shop.card("pm_card_chargeCustomerFail")
    payment = shop.payment()
    declined = shop.ok(shop.confirm(payment["id"], method_id=bad["id"]))
    assert declined["state"] == "REQUIRES_PAYMENT_METHOD"
    decline = declined["latest_attempt"]["decline"]
    assert decline["retry_after_time"] > declined["latest_attempt"]["update_time"]
    assert {name: decline[name] for name in ("code", "recommended_action", "message", "network_decline_code")} == {
        "code": "declined",
        "recommended_action": "USE_ANOTHER_CARD",
        "message": "The card was declined. Please use another card.",
        "network_decline_code": "",
    }
    assert shop.ok(shop.confirm(payment["id"]))["state"] == "SUCCEEDED"
    attempts = shop.ok(shop.call("GET", f"/v1/payments/{payment['id']}/attempts", token=shop.customer_token))
    assert [attempt["state"] for attempt in attempts["attempts"]] == ["SUCCEEDED", "DECLINED"]


@pytest.mark.parametrize("theirs", ["stolen_card", "fraudulent", "restricted_card"])
def test_what_the_issuer_suspects_is_told_to_the_merchant_and_not_to_who_holds_the_card(
    shop: Shop, theirs: str
) -> None:
    payment = shop.payment()
    card = shop.card(f"pm_sandbox_decline_{theirs}")
    answered = shop.ok(shop.confirm(payment["id"], method_id=card["id"]))
    path = f"/v1/payments/{payment['id']}"
    token = shop.customer_token
    listed = shop.ok(shop.call("GET", f"{path}/attempts", token=token))["attempts"][0]
    shown = [answered["latest_attempt"], shop.ok(shop.call("GET", path, token=token))["latest_attempt"], listed]
    for attempt in shown:
        assert (attempt["decline"]["code"], attempt["decline"]["recommended_action"]) == (
            "declined",
            "USE_ANOTHER_CARD",
        )
        assert not attempt["decline"].get("retry_after_time")
        assert not attempt["decline"]["network_decline_code"]
    merchants = shop.read(payment["id"])["latest_attempt"]["decline"]
    ours = {"fraudulent": "suspected_fraud"}.get(theirs, theirs)
    assert (merchants["code"], merchants["recommended_action"]) == (ours, "STOP")
    assert merchants["message"] == shown[0]["decline"]["message"]
    assert merchants["network_decline_code"] == {"stolen_card": "43", "restricted_card": "62"}.get(theirs, "")


@pytest.mark.parametrize(("amount", "currency"), [(1, "USD"), (1, "JPY"), (99_999_999_990, "USD")])
def test_a_sum_that_no_card_pays_is_declined_for_good(shop: Shop, amount: int, currency: str) -> None:
    payment = shop.payment(amount, currency)
    declined = shop.ok(shop.confirm(payment["id"]))
    assert declined["state"] == "REQUIRES_PAYMENT_METHOD"
    decline = declined["latest_attempt"]["decline"]
    assert (decline["code"].startswith("amount_too_"), decline["recommended_action"]) == (True, "STOP")
    assert shop.ok(shop.cancel(payment["id"]))["state"] == "CANCELED"


def test_three_decimals_are_counted_in_tens(shop: Shop) -> None:
    body = {"amount": {"amount_minor": "1235", "currency": "KWD"}, "customer_id": shop.user_id}
    refused = shop.call("POST", "/v1/payments", body, token=shop.seller_token)
    assert refused.status_code == 400
    assert refused.json()["details"][1]["field_violations"][0]["field"] == "amount.amount_minor"


def test_a_cardholder_authenticates_and_the_webhook_tells(shop: Shop) -> None:
    method = shop.card("pm_card_authenticationRequired")
    payment = shop.payment()
    waiting = shop.ok(shop.confirm(payment["id"], method_id=method["id"]))
    assert waiting["state"] == "REQUIRES_ACTION"
    assert waiting["next_action"]["redirect_url"]
    intent = waiting["next_action"]["redirect_url"].split("/")[-2]
    shop.platform.sandbox(f"payment_intents/{intent}/authenticate", succeed=True)
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the webhook")


def test_a_refund_that_the_bank_returns_gives_the_money_back(shop: Shop) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    refund = shop.ok(shop.refund(payment["id"], 700))
    rows = shop.platform.sql("payments", f"SELECT stripe_refund_id FROM refunds WHERE id = '{refund['id']}'")
    shop.quiet()
    pending = shop.pending()
    shop.platform.sandbox(f"refunds/{rows[0][0]}/fail")
    path = f"/v1/refunds/{refund['id']}"
    wait_for(lambda: shop.ok(shop.call("GET", path, token=shop.seller_token))["state"] == "FAILED", "the webhook")
    wait_for(lambda: shop.pending() == pending + 700, "the money")
    assert shop.read(payment["id"])["amount_refunded"]["amount_minor"] == "0"


def test_a_session_is_refreshed_once_and_a_stolen_token_ends_it(shop: Shop) -> None:
    person = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    shop.ok(shop.call("POST", "/v1/users:register", {**person, "display_name": "Bob"}))
    first = shop.ok(shop.call("POST", "/v1/sessions", person))["refresh_token"]
    key = str(uuid.uuid4())
    second = shop.ok(shop.call("POST", "/v1/sessions:refresh", {"refresh_token": first}, key=key))["refresh_token"]
    replay = shop.call("POST", "/v1/sessions:refresh", {"refresh_token": first}, key=key)
    assert shop.ok(replay)["refresh_token"] == second
    assert replay.headers["idempotent-replayed"] == "true"
    stolen = shop.call("POST", "/v1/sessions:refresh", {"refresh_token": first})
    assert (stolen.status_code, stolen.json()["details"][0]["reason"]) == (401, "REFRESH_TOKEN_INVALID")
    assert shop.call("POST", "/v1/sessions:refresh", {"refresh_token": second}).status_code == 401


def test_an_api_key_works_until_it_is_revoked(shop: Shop) -> None:
    body = {"display_name": "shop server", "scopes": ["payments:read"]}
    made = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))
    assert made["secret"].startswith("pm_sk_test_")
    assert shop.call("GET", "/v1/payments", token=made["secret"]).status_code == 200
    denied = shop.call("GET", "/v1/balances", token=made["secret"])
    assert (denied.status_code, denied.json()["details"][0]["reason"]) == (403, "SCOPE_MISSING")
    listed = shop.ok(shop.call("GET", "/v1/api_keys", token=shop.seller_token))
    assert made["secret"] not in str(listed)
    shop.ok(shop.call("DELETE", f"/v1/api_keys/{made['api_key']['id']}", token=shop.seller_token))
    wait_for(lambda: shop.call("GET", "/v1/payments", token=made["secret"]).status_code == 401, "the revocation")


def test_lists_go_page_by_page(shop: Shop) -> None:
    made = [shop.payment()["id"] for _ in range(3)]
    seen: list[str] = []
    token = ""
    for _ in range(2):
        path = f"/v1/payments?page_size=2&page_token={token}"
        page = shop.ok(shop.call("GET", path, token=shop.seller_token))
        seen += [payment["id"] for payment in page["payments"]]
        token = page["next_page_token"]
    assert seen[:3] == made[::-1]
    other = shop.call("GET", f"/v1/payments?page_token={token}", token=shop.customer_token)
    assert (other.status_code, other.json()["details"][1]["field_violations"][0]["field"]) == (400, "page_token")


@pytest.mark.parametrize("path", ["/healthz", "/.well-known/jwks.json"])
def test_what_is_public_answers_anybody(shop: Shop, path: str) -> None:
    assert shop.call("GET", path).status_code == 200


def test_money_becomes_available_and_each_line_says_why(shop: Shop) -> None:
    shop.quiet()
    payment = shop.payment(2000)
    shop.ok(shop.confirm(payment["id"]))
    capture = shop.read(payment["id"])["captures"][0]["id"]
    lot = f"SELECT count(*) FROM lots WHERE capture_id = '{capture}'"
    wait_for(lambda: shop.platform.sql("wallets", lot) == [(1,)], "the capture in the ledger")
    shop.platform.sql("wallets", f"UPDATE lots SET due_time = now() WHERE capture_id = '{capture}'")
    path = "/v1/balance_transactions?currency=USD&page_size=1"
    wait_for(
        lambda: [line["source_id"] for line in lines(shop, path)] == [capture],
        "the settlement",
    )
    line = lines(shop, path)[0]
    assert (line["type"], line["amount"]["amount_minor"]) == ("settle", str(2000 - 55))
    pending = lines(shop, f"{path}&balance=PENDING_SETTLEMENT")[0]
    assert (pending["type"], pending["amount"]["amount_minor"]) == ("settle", str(55 - 2000))
    balances = shop.ok(shop.call("GET", "/v1/balances", token=shop.seller_token))["balances"]
    dollars = next(balance for balance in balances if balance["currency"] == "USD")
    assert dollars["available"] == line["balance_after"]
    assert dollars["pending"] == pending["balance_after"]


def lines(shop: Shop, path: str) -> list[dict[str, Any]]:
    """Return lines of a balance."""
    found: list[dict[str, Any]] = shop.ok(shop.call("GET", path, token=shop.seller_token))["balance_transactions"]
    return found
