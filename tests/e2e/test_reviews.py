"""Reviews through the edge: customers, shoppers and merchants off-session are looked at alike; who decides, and what each sees."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dev.stack import REVIEW_ABOVE
from tests.e2e.test_certainty import charged
from tests.support.stack import Shop, insist, reason_of, wait_for

LARGE = REVIEW_ABOVE["CHF"] + 1


@dataclass(frozen=True)
class Desk:
    """A shop whose payments in francs are looked at, with its keys."""

    shop: Shop
    secret_key: str
    web_key: str

    def payment(self, amount: int = LARGE, **more: Any) -> dict[str, Any]:
        """Create a payment in francs."""
        return self.shop.payment(amount, "CHF", **more)

    def decide(self, verb: str, payment_id: str, *, token: str = "", key: str | None = None) -> httpx.Response:
        """Approve or reject as the merchant."""
        path = f"/v1/payments/{payment_id}:{verb}"
        return self.shop.call("POST", path, {}, token=token or self.shop.seller_token, key=key)


@pytest.fixture(scope="module")
def desk(shop: Shop) -> Desk:
    """Return the desk."""
    scopes = ["payments:write", "payments:read", "payments:confirm", "setup_intents:write"]
    body: dict[str, Any] = {"display_name": "server", "scopes": scopes}
    secret = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["secret"]
    body = {"display_name": "web", "kind": "PUBLISHABLE"}
    web = shop.ok(shop.call("POST", "/v1/api_keys", body, token=shop.seller_token))["api_key"]["publishable_key"]
    return Desk(shop, secret, web)


def test_a_large_payment_waits_for_a_person_and_is_charged_when_approved(shop: Shop, desk: Desk) -> None:
    payment = desk.payment()
    shown = shop.ok(shop.confirm(payment["id"]))
    assert (shown["state"], shown["latest_attempt"]["state"]) == ("REQUIRES_REVIEW", "IN_REVIEW")
    assert not shown.get("review")  # of the payer
    assert shown["available_actions"] == []
    seen = shop.read(payment["id"])
    assert (seen["review"]["state"], seen["review"]["reasons"]) == ("OPEN", ["AMOUNT_ABOVE_THRESHOLD"])
    assert seen["review"]["expire_time"] > seen["update_time"]
    assert seen["available_actions"] == ["approve", "cancel", "reject"]
    listed = shop.ok(shop.call("GET", "/v1/payments?state=REQUIRES_REVIEW", token=shop.seller_token))["payments"]
    assert payment["id"] in [one["id"] for one in listed]
    key = str(uuid.uuid4())
    approved = shop.ok(desk.decide("approve", payment["id"], key=key))
    assert (approved["state"], approved["review"]["state"]) == ("SUCCEEDED", "APPROVED")
    assert shop.ok(desk.decide("approve", payment["id"], key=key)) == approved
    assert reason_of(desk.decide("approve", payment["id"])) == "PAYMENT_STATE_INVALID"
    assert reason_of(desk.decide("reject", payment["id"])) == "PAYMENT_STATE_INVALID"
    assert charged(shop, payment["id"]) == 1


def test_a_payment_up_to_the_threshold_is_not_looked_at(shop: Shop, desk: Desk) -> None:
    payment = desk.payment(LARGE - 1)
    assert shop.ok(shop.confirm(payment["id"]))["state"] == "SUCCEEDED"


def test_shoppers_and_merchants_off_session_are_looked_at_alike(shop: Shop, desk: Desk) -> None:
    body = {"amount": {"amount_minor": str(LARGE), "currency": "CHF"}}
    order = shop.ok(shop.call("POST", "/v1/payments", body, token=shop.seller_token))
    pay = {"client_secret": order["client_secret"], "stripe_payment_method_id": "pm_card_visa"}
    shown = shop.ok(shop.call("POST", f"/v1/payments/{order['id']}:confirm", pay, token=desk.web_key))
    assert (shown["state"], shown.get("review")) == ("REQUIRES_REVIEW", None)
    setup = shop.ok(
        shop.call(
            "POST", "/v1/setup_intents", {"customer_id": shop.user_id, "usage": "OFF_SESSION"}, token=desk.secret_key
        )
    )
    body = {"client_secret": setup["client_secret"], "stripe_payment_method_id": "pm_card_visa"}
    path = f"/v1/setup_intents/{setup['id']}:confirm"
    saved = shop.ok(shop.call("POST", path, body, token=desk.web_key))["payment_method_id"]
    asked = shop.order(LARGE, "CHF", payment_method_id=saved, confirm=True, off_session=True)
    key = str(uuid.uuid4())
    away = shop.ok(shop.call("POST", "/v1/payments", asked, token=desk.secret_key, key=key))
    assert (away["state"], away["latest_attempt"]["off_session"]) == ("REQUIRES_REVIEW", True)
    assert shop.ok(shop.call("POST", "/v1/payments", asked, token=desk.secret_key, key=key)) == away
    busy = shop.call("DELETE", f"/v1/payment_methods/{saved}", token=shop.customer_token)
    assert reason_of(busy) == "OPERATION_IN_PROGRESS"  # the card is spoken for
    for payment in (order, away):
        assert shop.ok(desk.decide("approve", payment["id"]))["state"] == "SUCCEEDED"
        assert charged(shop, payment["id"]) == 1


def test_a_rejected_payment_is_canceled_without_a_charge(shop: Shop, desk: Desk) -> None:
    payment = desk.payment()
    shop.ok(shop.confirm(payment["id"]))
    rejected = shop.ok(desk.decide("reject", payment["id"]))
    assert (rejected["state"], rejected["cancellation_reason"]) == ("CANCELED", "REVIEW_REJECTED")
    assert rejected["review"]["state"] == "REJECTED"
    assert reason_of(desk.decide("approve", payment["id"])) == "PAYMENT_STATE_INVALID"
    fresh = desk.payment()
    assert reason_of(desk.decide("reject", fresh["id"])) == "PAYMENT_STATE_INVALID"  # it is in no review
    told = "SELECT type FROM (SELECT type, subject FROM outbox UNION ALL SELECT type, subject FROM outbox_archive) o"
    rows = shop.platform.sql("payments", f"{told} WHERE subject = '{payment['id']}'")
    assert [row[0] for row in rows].count("payment.in_review") == 1


def test_what_nobody_looks_at_in_time_is_canceled(shop: Shop, desk: Desk) -> None:
    payment = desk.payment()
    shop.ok(shop.confirm(payment["id"]))
    statement = f"UPDATE payments SET due_time = now(), review_expire_time = now() WHERE id = '{payment['id']}'"
    shop.platform.sql("payments", statement)
    wait_for(lambda: shop.read(payment["id"])["state"] == "CANCELED", "the sweep")
    ended = shop.read(payment["id"])
    assert (ended["cancellation_reason"], ended["review"]["state"]) == ("REVIEW_TIMED_OUT", "TIMED_OUT")


def test_only_who_may_review_decides_and_nobody_cancels_with_a_reviews_reason(shop: Shop, desk: Desk) -> None:
    payment = desk.payment()
    shop.ok(shop.confirm(payment["id"]))
    for verb in ("approve", "reject"):
        assert reason_of(desk.decide(verb, payment["id"], token=shop.customer_token)) == "CALLER_NOT_ALLOWED"
        assert reason_of(desk.decide(verb, payment["id"], token=desk.web_key)) == "CALLER_NOT_ALLOWED"
        assert reason_of(desk.decide(verb, payment["id"], token=desk.secret_key)) == "SCOPE_MISSING"
        assert reason_of(desk.decide(verb, "pay_" + "0" * 26)) == "RESOURCE_NOT_FOUND"
    body = {"reason": "REVIEW_TIMED_OUT"}
    refused = shop.call("POST", f"/v1/payments/{payment['id']}:cancel", body, token=shop.seller_token)
    assert reason_of(refused) == "FIELD_INVALID"
    assert shop.ok(shop.cancel(payment["id"]))["review"]["state"] == "REJECTED"


def test_a_kill_during_an_approval_charges_once(shop: Shop, desk: Desk) -> None:
    payment = desk.payment()
    shop.ok(shop.confirm(payment["id"]))
    key, armed = str(uuid.uuid4()), shop.platform.arm("payments.approve.after_intent")
    answer = insist(lambda: desk.decide("approve", payment["id"], key=key))
    assert not armed.exists()
    assert shop.ok(answer)["id"] == payment["id"]
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the payment")
    assert charged(shop, payment["id"]) == 1
