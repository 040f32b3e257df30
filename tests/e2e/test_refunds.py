"""Refunds at a real edge: why, what they wait for, how they are canceled, and banks that send money back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_certainty import intent_of
from tests.support.stack import Shop, insist, open_shop, reason_of, wait_for

REASONS = {
    "DUPLICATE": "duplicate",
    "FRAUDULENT": "fraudulent",
    "CUSTOMER_REQUEST": "requested_by_customer",
    "SERVICE_ISSUE": None,
    "GUARANTEE": None,
    "DISPUTE_PREVENTION": None,
    "OTHER": None,
}
HOUR = 3600


def paid(shop: Shop, card: str = "pm_card_visa", amount: int = 1000) -> dict[str, Any]:
    """Return a payment whose money was taken."""
    payment = shop.payment(amount)
    return shop.ok(shop.confirm(payment["id"], method_id=shop.card(card)["id"]))


def at_stripe(shop: Shop, payment_id: str) -> list[dict[str, Any]]:
    """Return the refunds that Stripe has of a payment, newest first."""
    port = shop.platform.state["ports"]["stripe_sandbox"]
    key = Path(shop.platform.state["secrets_dir"], "stripe_api_key").read_text()
    answer = httpx.get(
        f"http://127.0.0.1:{port}/v1/refunds",
        params={"payment_intent": intent_of(shop.platform, payment_id)},
        headers={"authorization": f"Bearer {key}"},
    )
    found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return found


def read(shop: Shop, refund_id: str) -> dict[str, Any]:
    """Read a refund as the merchant."""
    return shop.ok(shop.call("GET", f"/v1/refunds/{refund_id}", token=shop.seller_token))


def cancel(shop: Shop, refund_id: str, *, token: str = "") -> httpx.Response:
    """Cancel a refund as the merchant."""
    return shop.call("POST", f"/v1/refunds/{refund_id}:cancel", {}, token=token or shop.seller_token)


def given_back(shop: Shop, refund_id: str) -> list[tuple[str, int]]:
    """Return what the ledger did for a refund and took back, by code."""
    shop.quiet()
    facts = f"('{refund_id}', '{refund_id}:failed')"
    statement = f"SELECT fact_id, sum(amount_minor) FROM transfers WHERE fact_id IN {facts} GROUP BY fact_id"
    return [(row[0].removeprefix(refund_id), int(row[1])) for row in shop.platform.sql("wallets", statement)]


def test_each_of_the_seven_reasons_is_kept_and_stripe_is_told_those_it_knows(shop: Shop) -> None:
    payment = paid(shop)
    for ours, theirs in REASONS.items():
        body = {"amount": {"amount_minor": "10", "currency": "USD"}, "reason": ours}
        made = shop.ok(shop.call("POST", f"/v1/payments/{payment['id']}/refunds", body, token=shop.seller_token))
        assert read(shop, made["id"])["reason"] == ours
        newest = at_stripe(shop, payment["id"])[0]
        assert (newest["reason"], newest["metadata"]["paymesh_reason"]) == (theirs, ours)


def test_a_refund_says_what_it_waits_for_and_cannot_be_canceled_at_the_bank(shop: Shop) -> None:
    payment = paid(shop, "pm_card_pendingRefund")
    refund = shop.ok(shop.refund(payment["id"], 400))
    assert (refund["state"], refund["pending_reason"], refund.get("available_actions", [])) == (
        "PENDING", "PROCESSING", [],
    )  # fmt: skip
    assert reason_of(cancel(shop, refund["id"])) == "REFUND_STATE_INVALID"
    shop.platform.sandbox("clock", advance_seconds=2 * HOUR)
    wait_for(lambda: read(shop, refund["id"])["state"] == "SUCCEEDED", "the bank")
    ended = read(shop, refund["id"])
    assert ended["pending_reason"] == "PENDING_REASON_UNSPECIFIED"
    assert reason_of(cancel(shop, refund["id"])) == "REFUND_STATE_INVALID"


def test_a_bank_that_sends_a_refund_back_late_makes_it_refundable_again(shop: Shop) -> None:
    payment = paid(shop, "pm_card_refundFail")
    shop.quiet()
    before = shop.pending()
    refund = shop.ok(shop.refund(payment["id"], 400))
    assert refund["state"] == "SUCCEEDED"
    assert shop.read(payment["id"])["amount_refunded"]["amount_minor"] == "400"
    wait_for(lambda: shop.pending() < before, "the ledger")
    shop.platform.sandbox("clock", advance_seconds=2 * HOUR)
    wait_for(lambda: read(shop, refund["id"])["state"] == "FAILED", "the bank")
    assert read(shop, refund["id"])["failure_reason"] == "lost_or_stolen_card"
    returned = shop.read(payment["id"])
    assert (returned["amount_refunded"]["amount_minor"], returned["state"]) == ("0", "SUCCEEDED")
    assert "refund" in returned["available_actions"]
    assert given_back(shop, refund["id"]) == [("", 400), (":failed", 400)]
    again = shop.ok(shop.refund(payment["id"], 1000))
    assert again["state"] == "SUCCEEDED"


def test_a_refund_that_was_not_sent_is_canceled_and_its_reserve_goes_back_once(shop: Shop) -> None:
    payment = paid(shop)
    shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="error", status=429, times=3)
    assert shop.refund(payment["id"], 300).status_code == 503
    path = f"/v1/payments/{payment['id']}/refunds"
    refund = shop.ok(shop.call("GET", path, token=shop.seller_token))["refunds"][0]
    assert (refund["state"], refund["available_actions"]) == ("PENDING", ["cancel"])
    assert cancel(shop, refund["id"], token=shop.customer_token).status_code == 403
    canceled = shop.ok(cancel(shop, refund["id"]))
    assert (canceled["state"], canceled["available_actions"]) == ("CANCELED", [])
    assert reason_of(cancel(shop, refund["id"])) == "REFUND_STATE_INVALID"
    assert given_back(shop, refund["id"]) == [("", 300), (":failed", 300)]
    assert shop.read(payment["id"])["amount_refund_pending"]["amount_minor"] == "0"
    assert at_stripe(shop, payment["id"]) == []


def test_a_merchant_that_wants_no_debt_has_refunds_wait(shop: Shop) -> None:
    shop = open_shop(shop.platform, shop.client)  # whose balance no other test has touched
    token, path = shop.seller_token, "/v1/payment_settings"
    payment, other = paid(shop), paid(shop)
    settings = shop.ok(shop.call("PUT", path, {"refunds_wait_for_balance": True}, token=token))
    assert settings["refunds_wait_for_balance"] is True
    # The payment's own pending money covers what was captured less the fee, and nothing else is available.
    shop.ok(shop.refund(payment["id"], 100))
    waiting = [shop.ok(shop.refund(one["id"])) for one in (payment, other)]
    for refund in waiting:
        assert (refund["state"], refund["pending_reason"]) == ("PENDING", "INSUFFICIENT_MERCHANT_BALANCE")
        assert given_back(shop, refund["id"]) == []
    assert len(at_stripe(shop, payment["id"])) == 1
    assert shop.ok(cancel(shop, waiting[0]["id"]))["state"] == "CANCELED"
    shop.ok(shop.call("PUT", path, {"refunds_wait_for_balance": False}, token=token))
    shop.platform.sql("payments", "UPDATE refunds SET retry_time = now() WHERE retry_time IS NOT NULL")
    wait_for(lambda: read(shop, waiting[1]["id"])["state"] == "SUCCEEDED", "the sweep")
    assert given_back(shop, waiting[1]["id"]) == [("", 1000)]
    assert shop.read(payment["id"])["amount_refund_pending"]["amount_minor"] == "0"
    assert given_back(shop, waiting[0]["id"]) == []


@pytest.mark.parametrize("kind", ["refund_id", "key"])
def test_a_cancel_names_what_is_wrong(shop: Shop, kind: str) -> None:
    if kind == "refund_id":
        assert reason_of(cancel(shop, "ref_" + "0" * 26)) == "RESOURCE_NOT_FOUND"
        assert reason_of(cancel(shop, "ref_1")) == "FIELD_INVALID"
    else:
        headers = {"authorization": f"Bearer {shop.seller_token}"}
        path = f"/v1/refunds/ref_{'0' * 26}:cancel"
        answer = insist(lambda: shop.client.post(path, json={}, headers=headers))
        assert reason_of(answer) == "IDEMPOTENCY_KEY_REQUIRED"
