"""Who pays: shoppers without a login, merchants under a mandate, cards saved by using them, and the way back from the bank."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.stack import Shop, insist, refusal_of, wait_for

BACK = "http://localhost:3000/done?order=7"


@dataclass(frozen=True)
class Till:
    """A shop's page: its publishable key, and what a shopper does there."""

    shop: Shop
    key: str

    def order(self, amount: int = 1200, **more: Any) -> dict[str, Any]:
        """Have the merchant ask for money from whoever comes."""
        body = {"amount": {"amount_minor": str(amount), "currency": "USD"}, **more}
        return self.shop.ok(self.shop.call("POST", "/v1/payments", body, token=self.shop.seller_token))

    def pay(self, order: dict[str, Any], card: str = "pm_card_visa", **more: Any) -> httpx.Response:
        """Pay with a new card."""
        body = {"stripe_payment_method_id": card, "client_secret": order["client_secret"], **more}
        path = f"/v1/payments/{order['id']}:confirm"
        return self.shop.call("POST", path, body, token=self.key, key=more.pop("key", None))

    def look(self, order: dict[str, Any], secret: str | None = None) -> httpx.Response:
        """Read the payment as the page does."""
        query = f"?client_secret={order['client_secret'] if secret is None else secret}"
        return self.shop.call("GET", f"/v1/payments/{order['id']}{query}", token=self.key)

    def setup(self, **more: Any) -> dict[str, Any]:
        """Have the merchant begin to save a card of the shop's customer."""
        body = {"customer_id": self.shop.user_id, **more}
        return self.shop.ok(self.shop.call("POST", "/v1/setup_intents", body, token=self.shop.seller_token))

    def save(self, setup: dict[str, Any], card: str, **more: Any) -> httpx.Response:
        """Confirm a setup intent on the page."""
        body = {"stripe_payment_method_id": card, "client_secret": setup["client_secret"], **more}
        return self.shop.call("POST", f"/v1/setup_intents/{setup['id']}:confirm", body, token=self.key)

    def charge(self, method_id: str, **more: Any) -> httpx.Response:
        """Charge a saved card while its owner is away."""
        body = {
            "amount": {"amount_minor": "900", "currency": "USD"},
            "customer_id": self.shop.user_id,
            "payment_method_id": method_id,
            "confirm": True,
            "off_session": True,
            **more,
        }
        return self.shop.call("POST", "/v1/payments", body, token=self.shop.seller_token)


@pytest.fixture
def till(shop: Shop) -> Iterator[Till]:
    """Return a till with a key of its own; what Stripe was told to do wrong ends with the test."""
    body = {"display_name": "till", "kind": "PUBLISHABLE"}
    made = shop.ok(insist(lambda: shop.call("POST", "/v1/api_keys", body, token=shop.seller_token)))
    yield Till(shop, made["api_key"]["publishable_key"])
    shop.platform.sandbox("webhooks", paused=False)


def violated(response: httpx.Response) -> str:
    """Return the field that an answer complains of."""
    assert response.status_code == 400, response.text
    return str(response.json()["details"][1]["field_violations"][0]["field"])


def test_a_shopper_without_a_login_pays(shop: Shop, till: Till) -> None:
    order = till.order(metadata={"cost": "3"})
    assert (order["customer_id"], order["client_secret"].startswith(f"{order['id']}_secret_")) == ("", True)
    assert till.look(order).json()["state"] == "REQUIRES_PAYMENT_METHOD"
    paid = shop.ok(till.pay(order))
    assert (paid["state"], paid["latest_attempt"]["payment_method_id"]) == ("SUCCEEDED", "")
    for seen in (paid, till.look(order).json()):
        assert (seen["client_secret"], seen["metadata"], "fee" in seen["captures"][0]) == ("", {}, False)
    assert shop.read(order["id"])["client_secret"] == order["client_secret"]
    assert shop.ok(shop.refund(order["id"], 200))["state"] == "SUCCEEDED"


def test_a_secret_opens_its_own_payment_only(shop: Shop, till: Till) -> None:
    order, other = till.order(), till.order()
    assert violated(till.look(order, "")) == "client_secret"
    for wrong in (other["client_secret"], "x", order["client_secret"][:-1], order["client_secret"].upper()):
        assert till.look(order, wrong).status_code == 404
        assert till.pay({**order, "client_secret": wrong}).status_code == 404
    # A publishable key of another merchant does not help whoever found a secret.
    body = {"display_name": "Other", "country": "US", "default_currency": "USD"}
    merchant = shop.ok(shop.call("POST", "/v1/merchants", body, token=shop.customer_token))
    switch = {"merchant_id": merchant["id"]}
    seller = shop.ok(shop.call("POST", "/v1/sessions:switch_merchant", switch, token=shop.customer_token))
    key = {"display_name": "till", "kind": "PUBLISHABLE"}
    made = shop.ok(shop.call("POST", "/v1/api_keys", key, token=seller["access_token"]))
    assert Till(shop, made["api_key"]["publishable_key"]).pay(order).status_code == 404
    # Nor does a customer find it without the secret; with it, they pay as anybody does.
    path = f"/v1/payments/{order['id']}:confirm"
    mine = {"payment_method_id": shop.method_id}
    assert shop.call("POST", path, mine, token=shop.customer_token).status_code == 404
    mine["client_secret"] = order["client_secret"]
    assert violated(shop.call("POST", path, mine, token=shop.customer_token)) == "payment_method_id"
    mine = {"stripe_payment_method_id": "pm_card_visa", "client_secret": order["client_secret"]}
    assert shop.ok(shop.call("POST", path, mine, token=shop.customer_token))["state"] == "SUCCEEDED"


def test_a_shopper_pays_with_new_cards_only(shop: Shop, till: Till) -> None:
    order = till.order(customer_id=shop.user_id)
    path = f"/v1/payments/{order['id']}:confirm"
    for source in ({"payment_method_id": shop.method_id}, {}):
        body = {**source, "client_secret": order["client_secret"]}
        assert violated(shop.call("POST", path, body, token=till.key)) == "stripe_payment_method_id"
    two = {"payment_method_id": shop.method_id, "stripe_payment_method_id": "pm_card_visa"}
    assert shop.call("POST", path, two, token=shop.customer_token).status_code == 400
    assert violated(till.pay(order, off_session=True)) == "off_session"
    assert shop.ok(till.pay(order))["state"] == "SUCCEEDED"


def test_a_shoppers_decline_and_another_card(shop: Shop, till: Till) -> None:
    order = till.order()
    declined = shop.ok(till.pay(order, "pm_card_visa_chargeDeclinedInsufficientFunds"))
    assert declined["latest_attempt"]["decline"]["code"] == "insufficient_funds"
    unknown = shop.ok(till.pay(order, "pm_1NotAtStripe"))
    assert unknown["latest_attempt"]["decline"]["code"] == "payment_method_rejected"
    assert shop.ok(till.pay(order))["state"] == "SUCCEEDED"


def test_a_card_is_saved_by_using_it_and_the_mandate_is_good_until_it_is_revoked(shop: Shop, till: Till) -> None:
    order = till.order(customer_id=shop.user_id)
    paid = shop.ok(till.pay(order, "pm_card_mastercard", setup_future_usage="OFF_SESSION"))
    method_id = paid["latest_attempt"]["payment_method_id"]
    saved = shop.ok(shop.call("GET", f"/v1/payment_methods/{method_id}", token=shop.customer_token))
    assert (saved["state"], saved["card"]["brand"]) == ("ATTACHED", "mastercard")
    given = shop.ok(
        shop.call("GET", f"/v1/mandates?payment_method_id={method_id}&state=ACTIVE", token=shop.seller_token)
    )["mandates"]
    assert [(m["usage"], m["customer_id"]) for m in given] == [("OFF_SESSION", shop.user_id)]
    charged = shop.ok(till.charge(method_id))
    assert (charged["state"], charged["latest_attempt"]["off_session"]) == ("SUCCEEDED", True)
    assert shop.ok(shop.call("GET", f"/v1/payment_methods/{method_id}", token=shop.seller_token)) == saved
    path = f"/v1/mandates/{given[0]['id']}"
    assert shop.call("DELETE", path, token=shop.seller_token).status_code == 403
    assert shop.ok(shop.call("DELETE", path, token=shop.customer_token))["state"] == "REVOKED"
    assert shop.ok(shop.call("DELETE", path, token=shop.customer_token))["state"] == "REVOKED"
    assert till.charge(method_id).status_code == 404
    assert shop.call("GET", f"/v1/payment_methods/{method_id}", token=shop.seller_token).status_code == 404


def test_a_merchant_uses_no_card_without_a_mandate(shop: Shop, till: Till) -> None:
    assert refusal_of(till.charge(shop.method_id)) == (404, "RESOURCE_NOT_FOUND")
    assert till.charge(f"pm_{'0' * 26}").status_code == 404
    order = till.order(customer_id=shop.user_id)
    path = f"/v1/payments/{order['id']}:confirm"
    theirs = {"payment_method_id": shop.method_id, "off_session": True}
    assert shop.call("POST", path, theirs, token=shop.seller_token).status_code == 404
    raw = {"stripe_payment_method_id": "pm_card_visa"}
    assert violated(shop.call("POST", path, raw, token=shop.seller_token)) == "stripe_payment_method_id"
    for wrong in ({"confirm": False}, {"customer_id": ""}, {"payment_method_id": ""}):
        assert till.charge(shop.method_id, **wrong).status_code == 400


def test_a_mandate_for_use_on_session_permits_no_more(shop: Shop, till: Till) -> None:
    setup = till.setup(usage="ON_SESSION")
    method_id = shop.ok(till.save(setup, "pm_card_visa"))["payment_method_id"]
    assert till.charge(method_id).status_code == 404
    assert shop.ok(till.charge(method_id, off_session=False))["state"] == "SUCCEEDED"
    # One that permits more takes its place: there is one active mandate for a card and a merchant.
    order = till.order(customer_id=shop.user_id)
    path = f"/v1/payments/{order['id']}:confirm"
    body = {"payment_method_id": method_id, "setup_future_usage": "OFF_SESSION"}
    assert shop.ok(shop.call("POST", path, body, token=shop.customer_token))["state"] == "SUCCEEDED"
    held = shop.ok(shop.call("GET", f"/v1/mandates?payment_method_id={method_id}", token=shop.seller_token))
    assert [(m["usage"], m["state"]) for m in held["mandates"]] == [
        ("OFF_SESSION", "ACTIVE"),
        ("ON_SESSION", "REVOKED"),
    ]
    assert shop.ok(till.charge(method_id))["state"] == "SUCCEEDED"
    # A card that is removed takes its mandates with it.
    assert shop.ok(shop.call("DELETE", f"/v1/payment_methods/{method_id}", token=shop.customer_token))
    assert till.charge(method_id).status_code == 404


def test_an_absent_customer_cannot_authenticate(shop: Shop, till: Till) -> None:
    setup = till.setup()
    asked = shop.ok(till.save(setup, "pm_card_authenticationRequired", return_url=BACK))
    assert (asked["state"], asked["next_action"]["type"]) == ("REQUIRES_ACTION", "REDIRECT")
    back = httpx.post(asked["next_action"]["redirect_url"], data={"succeed": "true"}, follow_redirects=False)
    assert back.status_code == 303
    sent_on = shop.client.get(back.headers["location"], follow_redirects=False)
    assert sent_on.status_code == 303, sent_on.text
    query = parse_qs(urlsplit(sent_on.headers["location"]).query)
    assert query == {"order": ["7"], "setup_intent_id": [setup["id"]]}
    done = shop.ok(shop.call("GET", f"/v1/setup_intents/{setup['id']}", token=shop.seller_token))
    assert (done["state"], bool(done["mandate_id"])) == ("SUCCEEDED", True)
    declined = shop.ok(till.charge(done["payment_method_id"]))
    assert declined["state"] == "REQUIRES_PAYMENT_METHOD"
    assert declined["latest_attempt"]["decline"]["code"] == "authentication_required"
    assert declined["latest_attempt"]["decline"]["recommended_action"] == "AUTHENTICATE"
    # The customer comes back and pays it with the card that it was created with.
    path = f"/v1/payments/{declined['id']}:confirm"
    waiting = shop.ok(shop.call("POST", path, {}, token=shop.customer_token))
    assert waiting["state"] == "REQUIRES_ACTION"


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_cardholder_comes_back_from_the_bank(shop: Shop, till: Till, succeeds: bool) -> None:
    shop.platform.sandbox("webhooks", paused=True)  # the way back alone must tell
    order = till.order()
    waiting = shop.ok(till.pay(order, "pm_card_authenticationRequired", return_url=BACK))
    assert waiting["next_action"]["type"] == "REDIRECT"
    back = httpx.post(waiting["next_action"]["redirect_url"], data={"succeed": str(succeeds).lower()})
    assert urlsplit(back.headers["location"]).path == f"/v1/payments/{order['id']}/return"
    sent_on = shop.client.get(back.headers["location"], follow_redirects=False)
    assert sent_on.status_code == 303, sent_on.text
    assert sent_on.headers["location"] == f"http://localhost:3000/done?order=7&payment_id={order['id']}"
    assert till.look(order).json()["state"] == ("SUCCEEDED" if succeeds else "REQUIRES_PAYMENT_METHOD")
    # Nothing in the query is trusted: what it says changes nothing.
    lie = f"/v1/payments/{order['id']}/return?redirect_status=succeeded&payment_intent=pi_1"
    assert shop.client.get(lie, follow_redirects=False).status_code == 303
    assert till.look(order).json()["state"] == ("SUCCEEDED" if succeeds else "REQUIRES_PAYMENT_METHOD")


def test_a_failed_3d_secure_is_told_after_a_decline_and_is_not_the_next_attempts(shop: Shop, till: Till) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    order = till.order()
    assert shop.ok(till.pay(order, "pm_card_chargeDeclined"))["latest_attempt"]["state"] == "DECLINED"
    waiting = shop.ok(till.pay(order, "pm_card_authenticationRequired", return_url=BACK))
    back = httpx.post(waiting["next_action"]["redirect_url"], data={"succeed": "false"})
    assert shop.client.get(back.headers["location"], follow_redirects=False).status_code == 303
    failed = till.look(order).json()
    assert (failed["state"], failed["latest_attempt"]["state"]) == ("REQUIRES_PAYMENT_METHOD", "DECLINED")
    # The next confirm is lost before any work is done: Stripe still shows the failure of the one before.
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="refuse", times=3)
    lost = shop.ok(till.pay(order))
    assert (lost["state"], lost["certainty"]) == ("PROCESSING", "UNKNOWN")
    attempt = lost["latest_attempt"]["id"]
    shop.platform.sql("payments", f"UPDATE outbound_calls SET next_poll_time = now() WHERE target = '{attempt}'")
    wait_for(lambda: till.look(order).json()["state"] == "SUCCEEDED", "the janitor")


def test_a_cardholder_without_a_page_to_go_to_sees_one(shop: Shop, till: Till) -> None:
    order = till.order()
    waiting = shop.ok(till.pay(order, "pm_card_authenticationRequired"))
    back = httpx.post(waiting["next_action"]["redirect_url"], data={"succeed": "true"})
    page = shop.client.get(back.headers["location"])
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert till.look(order).json()["state"] == "SUCCEEDED"
    assert shop.client.get(f"/v1/payments/pay_{'0' * 26}/return").status_code == 404


def test_stripes_sdk_gets_what_it_needs_and_nobody_else(shop: Shop, till: Till) -> None:
    order = till.order()
    waiting = shop.ok(till.pay(order, "pm_card_authenticationRequired", use_stripe_sdk=True))
    action = waiting["next_action"]
    assert (action["type"], "_secret_" in action["stripe_client_secret"]) == ("STRIPE_SDK", True)
    assert till.look(order).json()["next_action"] == action
    secret = action["stripe_client_secret"]
    for table in ("attempts", "idempotency_keys", "outbox_archive"):
        dump = shop.platform.sql("payments", f"SELECT t::text FROM {table} t")
        assert not any(secret in row[0] or secret.encode().hex() in row[0] for row in dump), table
    intent = secret.partition("_secret_")[0]
    shop.platform.sandbox(f"payment_intents/{intent}/authenticate", succeed=True)
    wait_for(lambda: till.look(order).json()["state"] == "SUCCEEDED", "the webhook")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://shop.example/",
        "https://shop.example.evil.example/",
        "https://shop.example@evil.example/",
        "https://shop.example:444/",
        "javascript:alert(1)",
        "//evil.example",
        "https://evil.example\\@shop.example/",
        "/relative",
        "http://localhost.evil.example/",
    ],
)
def test_cardholders_are_sent_only_where_the_merchant_said(shop: Shop, till: Till, url: str) -> None:
    origins = {"return_url_origins": ["https://shop.example"]}
    settings = shop.ok(shop.call("PUT", "/v1/payment_settings", origins, token=shop.seller_token))
    assert shop.ok(shop.call("GET", "/v1/payment_settings", token=shop.seller_token)) == settings
    order = till.order()
    assert violated(till.pay(order, return_url=url)) == "return_url"
    assert shop.ok(till.pay(order, return_url="https://shop.example/thanks"))["state"] == "SUCCEEDED"


def test_settings_are_replaced_by_whoever_saw_them_last(shop: Shop) -> None:
    path, token = "/v1/payment_settings", shop.seller_token
    first = shop.ok(shop.call("PUT", path, {"return_url_origins": ["https://a.example"]}, token=token))
    shop.ok(shop.call("PUT", path, {"return_url_origins": [], "etag": first["etag"]}, token=token))
    stale = shop.call("PUT", path, {"return_url_origins": [], "etag": first["etag"]}, token=token)
    assert refusal_of(stale) == (409, "ETAG_MISMATCH")
    for wrong in ("http://a.example", "https://a.example/path", "https://", "a.example", "https://a.example:http"):
        assert shop.call("PUT", path, {"return_url_origins": [wrong]}, token=token).status_code == 400


def test_a_user_saves_a_card_of_their_own(shop: Shop) -> None:
    setup = shop.ok(shop.call("POST", "/v1/setup_intents", {}, token=shop.customer_token))
    path = f"/v1/setup_intents/{setup['id']}"
    declined = shop.ok(
        shop.call(
            "POST", f"{path}:confirm", {"stripe_payment_method_id": "pm_card_chargeDeclined"}, token=shop.customer_token
        )
    )
    assert (declined["state"], declined["last_decline"]["code"]) == ("REQUIRES_PAYMENT_METHOD", "declined")
    body = {"stripe_payment_method_id": "pm_card_amex"}
    saved = shop.ok(shop.call("POST", f"{path}:confirm", body, token=shop.customer_token))
    assert (saved["state"], saved["mandate_id"], saved["merchant_id"]) == ("SUCCEEDED", "", "")
    again = shop.call("POST", f"{path}:confirm", body, token=shop.customer_token)
    assert refusal_of(again) == (400, "SETUP_INTENT_STATE_INVALID")
    for stranger in (shop.seller_token,):
        assert shop.call("GET", path, token=stranger).status_code == 404
    theirs = {"customer_id": f"usr_{'0' * 26}"}
    assert violated(shop.call("POST", "/v1/setup_intents", theirs, token=shop.customer_token)) == "customer_id"
    assert violated(shop.call("POST", "/v1/setup_intents", {}, token=shop.seller_token)) == "customer_id"


def test_a_lost_answer_to_a_setup_is_found_by_its_key(shop: Shop, till: Till) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    setup = till.setup()
    shop.platform.sandbox("faults", method="post", path="/v1/setup_intents$", kind="lose_response", times=3)
    unknown = shop.ok(till.save(setup, "pm_card_visa"))
    assert (unknown["state"], unknown["certainty"]) == ("PROCESSING", "UNKNOWN")
    assert refusal_of(till.save(setup, "pm_card_visa")) == (409, "OPERATION_IN_PROGRESS")
    due = f"UPDATE outbound_calls SET next_poll_time = now() WHERE target = '{setup['id']}'"
    shop.platform.sql("payments", due)
    path = f"/v1/setup_intents/{setup['id']}"
    wait_for(
        lambda: shop.ok(shop.call("GET", path, token=shop.seller_token))["state"] == "SUCCEEDED", "the janitor's look"
    )
    seen = shop.platform.sql("payments", f"SELECT confirms FROM setup_intents WHERE id = '{setup['id']}'")
    assert seen == [(1,)]


@pytest.mark.parametrize("point", ["payments.setup.after_intent", "payments.setup.after_send"])
def test_a_kill_while_a_card_is_saved(shop: Shop, till: Till, point: str) -> None:
    setup, key = till.setup(), str(uuid.uuid4())
    armed = shop.platform.arm(point)
    body = {"stripe_payment_method_id": "pm_card_visa", "client_secret": setup["client_secret"]}
    path = f"/v1/setup_intents/{setup['id']}:confirm"
    saved = shop.ok(insist(lambda: shop.call("POST", path, body, token=till.key, key=key)))
    assert not armed.exists()
    assert saved["state"] == "SUCCEEDED"
    held = shop.ok(
        shop.call("GET", f"/v1/mandates?payment_method_id={saved['payment_method_id']}", token=shop.seller_token)
    )
    assert len(held["mandates"]) == 1


@pytest.mark.parametrize("point", ["payments.create.after_intent", "payments.confirm.after_send"])
def test_a_kill_while_a_payment_is_created_and_confirmed_at_once(shop: Shop, till: Till, point: str) -> None:
    method_id = shop.ok(till.save(till.setup(), "pm_card_visa"))["payment_method_id"]
    armed, key = shop.platform.arm(point), str(uuid.uuid4())
    body = {
        "amount": {"amount_minor": "901", "currency": "USD"},
        "customer_id": shop.user_id,
        "payment_method_id": method_id,
        "confirm": True,
        "off_session": True,
    }
    paid = shop.ok(insist(lambda: shop.call("POST", "/v1/payments", body, token=shop.seller_token, key=key)))
    assert not armed.exists()
    assert paid["state"] == "SUCCEEDED"
    again = shop.call("POST", "/v1/payments", body, token=shop.seller_token, key=key)
    assert (again.headers["idempotent-replayed"], shop.ok(again)) == ("true", paid)
    count = f"SELECT count(*) FROM payments WHERE payment_method_id = '{method_id}'"
    assert shop.platform.sql("payments", count) == [(1,)]
