"""Wallets through the edge: filled from a card, spent at a shop, given back to; and nothing lost or doubled, whoever dies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import servers.wallets.main  # noqa: F401  # imported so that its crash points are declared
from servers.runtime import crashpoints
from tests.e2e.test_certainty import charged, intent_of
from tests.support.stack import PASSWORD, Shop, insist, refusal_of, wait_for

BACK = "https://shop.example/back"


@dataclass(frozen=True)
class Purse:
    """A customer with a card and a wallet in dollars, at a shop."""

    shop: Shop
    token: str
    user_id: str
    method_id: str
    wallet_id: str

    @property
    def path(self) -> str:
        """Where the wallet is."""
        return f"/v1/wallets/{self.wallet_id}"

    def read(self) -> dict[str, Any]:
        """Read the wallet."""
        return self.shop.ok(insist(lambda: self.shop.call("GET", self.path, token=self.token)))

    def sums(self) -> tuple[int, int, int, int]:
        """Return balance, held, available and pending."""
        wallet = self.read()
        balance, held, free, pending = (
            int(wallet[name]["amount_minor"]) for name in ("balance", "held", "available", "pending")
        )
        return balance, held, free, pending

    def statement(self, query: str = "") -> list[dict[str, Any]]:
        """Return the lines of the statement, newest first."""
        lines: list[dict[str, Any]] = self.shop.ok(
            self.shop.call("GET", f"{self.path}/statement{query}", token=self.token)
        )["lines"]
        return lines

    def top_up(
        self, amount: int, *, key: str | None = None, method_id: str = "", currency: str = "USD", back: str = ""
    ) -> httpx.Response:
        """Top up."""
        body = {
            "amount": {"amount_minor": str(amount), "currency": currency},
            "payment_method_id": method_id or self.method_id,
            "return_url": back,
        }
        return self.shop.call("POST", f"{self.path}/top_ups", body, token=self.token, key=key)

    def filled(self, amount: int) -> dict[str, Any]:
        """Top up, and expect the money to be there."""
        top_up = self.shop.ok(insist(lambda: self.top_up(amount)))
        assert top_up["state"] == "SUCCEEDED", top_up
        return top_up

    def read_top_up(self, top_up_id: str) -> dict[str, Any]:
        """Read a top-up."""
        return self.shop.ok(self.shop.call("GET", f"{self.path}/top_ups/{top_up_id}", token=self.token))

    def order(self, amount: int, **more: Any) -> dict[str, Any]:
        """Have the shop ask for money."""
        return self.shop.payment(amount, customer_id=self.user_id, **more)

    def pay(self, payment_id: str, *, key: str | None = None, wallet_id: str = "") -> httpx.Response:
        """Pay from the wallet."""
        body = {"wallet_id": wallet_id or self.wallet_id}
        return self.shop.call("POST", f"/v1/payments/{payment_id}:confirm", body, token=self.token, key=key)

    def card(self, test_id: str) -> str:
        """Save a test card."""
        body = {"stripe_payment_method_id": test_id}
        method = self.shop.ok(insist(lambda: self.shop.call("POST", "/v1/payment_methods", body, token=self.token)))
        return str(method["id"])


def customer(shop: Shop) -> Purse:
    """Register somebody with a card and a wallet."""
    person = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    shop.ok(shop.call("POST", "/v1/users:register", {**person, "display_name": "Ann"}))
    login = shop.ok(shop.call("POST", "/v1/sessions", person))
    token, user_id = login["access_token"], login["user"]["id"]
    # The test before may have killed the server.
    wallet = shop.ok(insist(lambda: shop.call("POST", "/v1/wallets", {"currency": "USD"}, token=token)))
    bare = Purse(shop, token, user_id, "", wallet["id"])
    return Purse(shop, token, user_id, bare.card("pm_card_visa"), wallet["id"])


@pytest.fixture
def purse(shop: Shop) -> Iterator[Purse]:
    """Return a fresh customer's purse; what Stripe was told to do wrong ends with the test."""
    yield customer(shop)
    shop.platform.sandbox("webhooks", paused=False)


def test_a_wallet_is_opened_once_for_each_currency(shop: Shop, purse: Purse) -> None:
    wallet = purse.read()
    assert (wallet["currency"], wallet["state"], wallet["customer_id"]) == ("USD", "ACTIVE", purse.user_id)
    assert purse.sums() == (0, 0, 0, 0)
    again = shop.call("POST", "/v1/wallets", {"currency": "USD"}, token=purse.token)
    assert refusal_of(again) == (409, "REFERENCE_TAKEN")
    assert again.json()["details"][0]["metadata"] == {"field": "currency"}
    unknown = shop.call("POST", "/v1/wallets", {"currency": "ZZZ"}, token=purse.token)
    assert refusal_of(unknown) == (400, "FIELD_INVALID")
    assert unknown.json()["details"][1]["field_violations"][0]["field"] == "currency"
    key = str(uuid.uuid4())
    made = [shop.ok(shop.call("POST", "/v1/wallets", {"currency": "EUR"}, token=purse.token, key=key)) for _ in (1, 2)]
    assert made[0] == made[1]
    first = shop.ok(shop.call("GET", "/v1/wallets?page_size=1", token=purse.token))
    assert [one["currency"] for one in first["wallets"]] == ["EUR"]
    rest = f"/v1/wallets?page_size=1&page_token={first['next_page_token']}"
    second = shop.ok(shop.call("GET", rest, token=purse.token))
    assert ([one["currency"] for one in second["wallets"]], second["next_page_token"]) == (["USD"], "")


def test_a_top_up_fills_the_wallet_and_the_statement_says_so(shop: Shop, purse: Purse) -> None:
    top_up = purse.filled(2500)
    assert purse.sums() == (2500, 0, 2500, 0)
    assert purse.read_top_up(top_up["id"]) == top_up
    [line] = purse.statement()
    assert (line["type"], line["source_id"], line["amount"]["amount_minor"]) == ("top_up", top_up["id"], "2500")
    purse.filled(100)
    newest, oldest = purse.statement()
    assert (newest["balance_after"]["amount_minor"], oldest) == ("2600", line)
    assert purse.statement(f"?as_of={line['record_time']}") == [line]
    assert purse.statement("?page_size=1") == [newest]
    listed = shop.ok(shop.call("GET", f"{purse.path}/top_ups", token=purse.token))["top_ups"]
    assert [one["amount"]["amount_minor"] for one in listed] == ["100", "2500"]


def test_a_top_up_is_told_by_one_mail_and_no_receipt(shop: Shop, purse: Purse) -> None:
    purse.filled(1050)
    mails = f"SELECT kind FROM emails WHERE user_id = '{purse.user_id}' AND kind IN ('top_up', 'receipt') AND state = 'SENT'"
    wait_for(lambda: shop.platform.sql("notifications", mails) == [("top_up",)], "the mail")


def test_a_shop_is_paid_from_the_wallet_at_once_and_pays_back_to_it(shop: Shop, purse: Purse) -> None:
    purse.filled(5000)
    order = purse.order(2500)
    paid = shop.ok(purse.pay(order["id"]))
    assert (paid["state"], paid["latest_attempt"]["wallet_id"]) == ("SUCCEEDED", purse.wallet_id)
    assert purse.sums() == (2500, 0, 2500, 0)
    assert shop.booked(order["id"]) == 2437
    refund = shop.ok(shop.refund(order["id"], 1000))
    assert refund["state"] == "SUCCEEDED"
    assert purse.sums() == (3500, 0, 3500, 0)
    types = [(line["type"], line["source_id"]) for line in purse.statement()[:2]]
    capture = shop.read(order["id"])["captures"][0]["id"]
    assert types == [("payment.refund", refund["id"]), ("payment", capture)]
    told = f"SELECT facts ->> 'wallet_id' FROM emails WHERE kind = 'refund' AND resource_id = '{refund['id']}' AND state = 'SENT'"
    wait_for(lambda: shop.platform.sql("notifications", told) == [(purse.wallet_id,)], "the mail")
    shop.quiet()
    assert (purse.sums(), shop.booked(order["id"])) == ((3500, 0, 3500, 0), 2437)


def test_what_a_wallet_authorizes_is_held_captured_in_parts_and_let_go(shop: Shop, purse: Purse) -> None:
    purse.filled(5000)
    order = purse.order(4000, capture_method="MANUAL")
    held = shop.ok(purse.pay(order["id"]))
    assert held["state"] == "REQUIRES_CAPTURE"
    assert purse.sums() == (5000, 4000, 1000, 0)
    shop.ok(shop.capture(order["id"], 1500))
    assert purse.sums() == (3500, 2500, 1000, 0)
    done = shop.ok(shop.capture(order["id"], 500, final=True))
    assert (done["state"], done["amount_captured"]["amount_minor"]) == ("SUCCEEDED", "2000")
    assert purse.sums() == (3000, 0, 3000, 0)
    assert shop.booked(order["id"]) == 2000 - 55
    assert [line["type"] for line in purse.statement()] == ["payment", "payment", "top_up"]


def test_a_canceled_order_gives_the_held_money_back(shop: Shop, purse: Purse) -> None:
    purse.filled(1000)
    order = purse.order(900, capture_method="MANUAL")
    shop.ok(purse.pay(order["id"]))
    assert purse.sums() == (1000, 900, 100, 0)
    assert shop.ok(shop.cancel(order["id"]))["state"] == "CANCELED"
    assert purse.sums() == (1000, 0, 1000, 0)


def test_nobody_spends_what_is_not_there(shop: Shop, purse: Purse) -> None:
    purse.filled(100)
    order = purse.order(101)
    key = str(uuid.uuid4())
    refused = purse.pay(order["id"], key=key)
    assert refusal_of(refused) == (400, "INSUFFICIENT_FUNDS")
    assert shop.read(order["id"])["state"] in ("REQUIRES_PAYMENT_METHOD", "REQUIRES_CONFIRMATION")
    purse.filled(100)
    assert purse.pay(order["id"], key=key).json() == refused.json()
    assert shop.ok(purse.pay(order["id"]))["state"] == "SUCCEEDED"
    assert purse.sums() == (99, 0, 99, 0)


def test_many_orders_at_once_take_what_there_is_and_no_more(shop: Shop, purse: Purse) -> None:
    purse.filled(350)
    orders = [purse.order(100)["id"] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda order: insist(lambda: purse.pay(order)), orders))
    assert [answer.status_code for answer in answers].count(200) == 3
    assert {refusal_of(answer) for answer in answers if answer.status_code != 200} == {(400, "INSUFFICIENT_FUNDS")}
    assert purse.sums() == (50, 0, 50, 0)


def test_another_users_wallet_is_not_there(shop: Shop, purse: Purse) -> None:
    other = customer(shop)
    for path in ("", "/statement", "/top_ups", f"/top_ups/{purse.filled(100)['id']}"):
        answer = shop.call("GET", purse.path + path, token=other.token)
        assert refusal_of(answer) == (404, "RESOURCE_NOT_FOUND"), path
    body = {"amount": {"amount_minor": "1", "currency": "USD"}, "payment_method_id": other.method_id}
    filling = shop.call("POST", f"{purse.path}/top_ups", body, token=other.token)
    assert refusal_of(filling) == (404, "RESOURCE_NOT_FOUND")
    order = other.order(100)
    assert refusal_of(other.pay(order["id"], wallet_id=purse.wallet_id)) == (404, "RESOURCE_NOT_FOUND")
    # Nor is somebody else's card: the top-up that asked for it has failed, and nothing was charged.
    key = str(uuid.uuid4())
    foreign = purse.top_up(100, method_id=other.method_id, key=key)
    assert refusal_of(foreign) == (404, "RESOURCE_NOT_FOUND")
    assert foreign.json()["details"][0]["metadata"]["resource"] == other.method_id
    assert purse.top_up(100, method_id=other.method_id, key=key).json() == foreign.json()
    newest = shop.ok(shop.call("GET", f"{purse.path}/top_ups", token=purse.token))["top_ups"][0]
    assert (newest["state"], newest["failure_reason"]) == ("FAILED", "not_sent")


def test_currencies_do_not_mix(shop: Shop, purse: Purse) -> None:
    mixed = purse.top_up(100, currency="EUR")
    assert refusal_of(mixed) == (400, "FIELD_INVALID")
    assert mixed.json()["details"][1]["field_violations"][0]["field"] == "amount.currency"
    purse.filled(100)
    order = purse.order(100, currency="EUR")
    assert refusal_of(purse.pay(order["id"])) == (400, "FIELD_INVALID")


def test_a_declined_top_up_is_an_answer(purse: Purse) -> None:
    card = purse.card("pm_card_chargeCustomerFail")
    declined = purse.shop.ok(purse.top_up(100, method_id=card))
    assert (declined["state"], declined["failure_reason"]) == ("FAILED", "declined")
    assert declined["decline"]["code"] == "declined"
    assert purse.sums() == (0, 0, 0, 0)
    assert purse.statement() == []


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_cardholder_authenticates_a_top_up(shop: Shop, purse: Purse, succeeds: bool) -> None:
    card = purse.card("pm_card_authenticationRequired")
    waiting = shop.ok(purse.top_up(700, method_id=card))
    assert waiting["state"] == "REQUIRES_ACTION"
    assert waiting["next_action"]["type"] == "REDIRECT"
    assert waiting["next_action"]["redirect_url"]
    assert purse.read_top_up(waiting["id"])["next_action"] == waiting["next_action"]
    assert purse.sums() == (0, 0, 0, 700)
    intent = intent_of(shop.platform, waiting["payment_id"])
    shop.platform.sandbox(f"payment_intents/{intent}/authenticate", succeed=succeeds)
    state = "SUCCEEDED" if succeeds else "FAILED"
    wait_for(lambda: bool(purse.read_top_up(waiting["id"])["state"] == state), "the webhook")
    assert purse.sums() == ((700, 0, 700, 0) if succeeds else (0, 0, 0, 0))
    assert purse.read_top_up(waiting["id"]).get("next_action") is None


def test_a_return_url_that_payments_refuses_is_the_callers_to_mend(purse: Purse) -> None:
    refused = purse.top_up(100, back="javascript:alert(1)")
    assert refusal_of(refused) == (400, "FIELD_INVALID")
    assert refused.json()["details"][1]["field_violations"][0]["field"] == "return_url"


def test_duplicates_of_a_top_up_charge_once(shop: Shop, purse: Purse) -> None:
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: insist(lambda: purse.top_up(300, key=key)), range(8)))
    assert {answer.text for answer in answers} == {answers[0].text}
    assert charged(shop, shop.ok(answers[0])["payment_id"]) == 1
    assert purse.sums() == (300, 0, 300, 0)
    assert refusal_of(purse.top_up(301, key=key)) == (400, "IDEMPOTENCY_KEY_REUSED")
    assert refusal_of(shop.call("POST", f"{purse.path}/top_ups", {}, token=purse.token)) == (400, "FIELD_INVALID")


def test_a_lost_answer_of_stripe_leaves_a_top_up_open_until_it_is_known(shop: Shop, purse: Purse) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="lose_response", times=3)
    unknown = shop.ok(purse.top_up(400))
    assert (unknown["state"], unknown["certainty"]) == ("PENDING", "UNKNOWN")
    assert purse.sums() == (0, 0, 0, 400)
    shop.platform.sandbox("webhooks", paused=False)
    wait_for(lambda: purse.read_top_up(unknown["id"])["state"] == "SUCCEEDED", "the webhook")
    assert purse.sums() == (400, 0, 400, 0)


def test_an_unreached_stripe_is_told_as_such_and_the_same_key_goes_on(shop: Shop, purse: Purse) -> None:
    key = str(uuid.uuid4())
    # The channel to payments tries four times, and payments each time three.
    shop.platform.sandbox("faults", method="post", path="/v1/payment_intents$", kind="error", status=429, times=12)
    answer = purse.top_up(400, key=key)
    assert refusal_of(answer) == (503, "PROVIDER_UNAVAILABLE")
    assert shop.ok(insist(lambda: purse.top_up(400, key=key)))["state"] == "SUCCEEDED"
    assert purse.sums() == (400, 0, 400, 0)
    assert len(shop.ok(shop.call("GET", f"{purse.path}/top_ups", token=purse.token))["top_ups"]) == 1


POINTS = [name for name in crashpoints.declared() if name.startswith("wallets.")]
IN_PAYMENTS = [name for name in crashpoints.declared() if name.startswith("payments.top_up.")]


def test_every_crash_point_of_wallets_is_tried() -> None:
    assert [name.rsplit(".", 1)[1] for name in POINTS] == [
        "after_charge",
        "after_intent",
        "after_outcome",
        "after_post",
    ]


@pytest.mark.parametrize("point", POINTS + IN_PAYMENTS)
def test_a_kill_during_a_top_up_charges_once_and_fills_once(shop: Shop, purse: Purse, point: str) -> None:
    armed = shop.platform.arm(point)
    key = str(uuid.uuid4())
    answer = shop.ok(insist(lambda: purse.top_up(600, key=key)))
    assert not armed.exists()
    wait_for(lambda: purse.read_top_up(answer["id"])["state"] == "SUCCEEDED", "the top-up")
    assert charged(shop, purse.read_top_up(answer["id"])["payment_id"]) == 1
    assert purse.sums() == (600, 0, 600, 0)
    assert len(purse.statement()) == 1


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_that_nobody_asks_about_again_is_resolved_by_itself(shop: Shop, purse: Purse, point: str) -> None:
    armed = shop.platform.arm(point)
    with pytest.raises(TimeoutError):
        shop.ok(_once(lambda: purse.top_up(600)))
    assert not armed.exists()
    target = f"(SELECT id FROM top_ups WHERE wallet_id = '{purse.wallet_id}')"
    shop.platform.sql(
        "wallets",
        f"UPDATE outbound_calls SET next_poll_time = now() WHERE target = {target} AND next_poll_time IS NOT NULL",
    )
    # What payments was never told of is not charged; all else fills the wallet.
    state = "FAILED" if point.endswith("after_intent") else "SUCCEEDED"
    wait_for(
        lambda: shop.platform.sql("wallets", f"SELECT state FROM top_ups WHERE id = {target}") == [(state,)], point
    )
    assert purse.sums() == ((0, 0, 0, 0) if state == "FAILED" else (600, 0, 600, 0))


def _once(call: Any) -> httpx.Response:
    """Call once; no answer, or one that says that the server went away, is none."""
    try:
        response: httpx.Response = call()
    except httpx.TransportError as error:
        raise TimeoutError from error
    if response.status_code >= 500:
        raise TimeoutError(response.text)
    return response
