"""Authorize now, take the money later: in whole, in parts, or not at all; and cards that come and go."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.test_certainty import intent_of, received
from tests.support.stack import Shop, reason_of, wait_for


def minor(payment: dict[str, Any], *names: str) -> list[int]:
    """Return amounts of a payment in minor units."""
    return [int(payment[f"amount_{name}"]["amount_minor"]) for name in names]


def test_an_authorization_shows_its_window_and_is_captured_whole(shop: Shop) -> None:
    payment = shop.authorized(1000)
    assert payment["state"] == "REQUIRES_CAPTURE"
    assert minor(payment, "capturable", "captured", "capture_pending") == [1000, 0, 0]
    assert payment["multicapture_available"] is True
    assert payment["capture_before_time"] > payment["create_time"]
    assert payment["available_actions"] == []  # of the customer, who confirmed it
    assert shop.read(payment["id"])["available_actions"] == ["capture", "cancel"]
    assert reason_of(shop.refund(payment["id"])) == "PAYMENT_STATE_INVALID"
    captured = shop.ok(shop.capture(payment["id"]))
    assert (captured["state"], *minor(captured, "capturable", "captured")) == ("SUCCEEDED", 0, 1000)
    wait_for(lambda: shop.booked(payment["id"]) == 960, "the ledger")
    assert reason_of(shop.capture(payment["id"])) == "PAYMENT_STATE_INVALID"
    assert reason_of(shop.cancel(payment["id"])) == "PAYMENT_STATE_INVALID"


def test_parts_cost_together_what_the_whole_costs(shop: Shop) -> None:
    payment = shop.authorized(1000)
    part = shop.ok(shop.capture(payment["id"], 300))
    assert (part["state"], *minor(part, "capturable", "captured")) == ("PARTIALLY_CAPTURED", 700, 300)
    assert reason_of(shop.capture(payment["id"], 701)) == "CAPTURE_EXCEEDS_AVAILABLE"
    assert reason_of(shop.cancel(payment["id"])) == "PAYMENT_STATE_INVALID"
    shop.ok(shop.capture(payment["id"], 300))
    last = shop.ok(shop.capture(payment["id"]))
    assert (last["state"], *minor(last, "capturable", "captured")) == ("SUCCEEDED", 0, 1000)
    fees = [int(capture["fee"]["amount_minor"]) for capture in last["captures"]]
    assert sum(fees) == 40  # 1.5 % and 0.25 once
    wait_for(lambda: shop.booked(payment["id"]) == 960, "the ledger")
    assert received(shop, payment["id"]) == 1000
    listed = shop.ok(shop.call("GET", f"/v1/payments/{payment['id']}/captures?page_size=2", token=shop.seller_token))
    assert len(listed["captures"]) == 2
    assert listed["next_page_token"]
    shop.ok(shop.refund(payment["id"], 650))
    shop.ok(shop.refund(payment["id"]))
    refunds = shop.ok(shop.call("GET", "/v1/refunds?page_size=2", token=shop.seller_token))["refunds"]
    assert [one["payment_id"] for one in refunds] == [payment["id"]] * 2


@pytest.mark.parametrize("by", ["amount", "zero"])
def test_what_is_left_is_let_go_only_when_asked_for(shop: Shop, by: str) -> None:
    payment = shop.authorized(1000)
    zero = shop.capture(payment["id"], 0, final=True)
    assert reason_of(zero) == "FIELD_INVALID"  # there is nothing captured that it could end
    if by == "amount":
        done = shop.ok(shop.capture(payment["id"], 400, final=True))
    else:
        shop.ok(shop.capture(payment["id"], 400))
        done = shop.ok(shop.capture(payment["id"], 0, final=True))
    assert (done["state"], *minor(done, "capturable", "captured")) == ("SUCCEEDED", 0, 400)
    assert len(done["captures"]) == 1
    assert received(shop, payment["id"]) == 400


def test_a_card_that_allows_one_capture_says_so(shop: Shop) -> None:
    prepaid = shop.card("pm_card_mastercard_prepaid")
    payment = shop.payment(1000, capture_method="MANUAL")
    shop.ok(shop.confirm(payment["id"], method_id=prepaid["id"]))
    assert reason_of(shop.capture(payment["id"], 300)) == "MULTICAPTURE_UNAVAILABLE"
    assert shop.ok(shop.capture(payment["id"], 300, final=True))["state"] == "SUCCEEDED"


def test_a_payment_is_canceled_at_every_stage_before_the_money(shop: Shop) -> None:
    fresh = shop.payment()
    assert shop.ok(shop.cancel(fresh["id"]))["cancellation_reason"] == "REQUESTED_BY_CUSTOMER"
    declined = shop.payment()
    bad = shop.card("pm_card_chargeCustomerFail")
    shop.ok(shop.confirm(declined["id"], method_id=bad["id"]))
    assert shop.ok(shop.cancel(declined["id"]))["state"] == "CANCELED"
    waiting = shop.payment()
    secure = shop.card("pm_card_authenticationRequired")
    assert shop.ok(shop.confirm(waiting["id"], method_id=secure["id"]))["state"] == "REQUIRES_ACTION"
    canceled = shop.ok(shop.cancel(waiting["id"]))
    assert (canceled["state"], canceled["latest_attempt"]["decline"]["code"]) == ("CANCELED", "payment_canceled")
    held = shop.authorized()
    assert minor(shop.ok(shop.cancel(held["id"])), "capturable", "captured") == [0, 0]
    for payment in (fresh, declined, waiting, held):
        assert reason_of(shop.confirm(payment["id"])) == "PAYMENT_STATE_INVALID"
        assert reason_of(shop.cancel(payment["id"])) == "PAYMENT_STATE_INVALID"


def test_a_cancel_that_comes_after_the_cardholder_did_is_told_and_the_money_is_booked(shop: Shop) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    payment = shop.payment(1000)
    secure = shop.card("pm_card_authenticationRequired")
    shop.ok(shop.confirm(payment["id"], method_id=secure["id"]))
    shop.platform.sandbox(f"payment_intents/{intent_of(shop.platform, payment['id'])}/authenticate", succeed=True)
    refused = shop.cancel(payment["id"])
    shop.platform.sandbox("webhooks", paused=False)
    assert reason_of(refused) == "PAYMENT_STATE_INVALID"
    assert refused.json()["details"][0]["metadata"]["state"] == "SUCCEEDED"
    assert minor(shop.read(payment["id"]), "captured") == [1000]


def test_64_duplicates_of_one_capture_take_the_money_once(shop: Shop) -> None:
    payment = shop.authorized(1000)
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shop.capture(payment["id"], 300, key=key), range(64)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert received(shop, payment["id"]) == 300
    assert minor(shop.read(payment["id"]), "captured", "capture_pending") == [300, 0]


def test_capture_and_cancel_at_once_end_in_one_of_them(shop: Shop) -> None:
    for _ in range(4):
        payment = shop.authorized(1000)
        with ThreadPoolExecutor(2) as pool:
            acts = [pool.submit(shop.capture, payment["id"]), pool.submit(shop.cancel, payment["id"])]
        assert sorted(act.result().status_code for act in acts) in ([200, 400], [200, 409])
        ended = shop.read(payment["id"])
        assert ended["state"] in ("SUCCEEDED", "CANCELED")
        assert received(shop, payment["id"]) == minor(ended, "captured")[0]


@pytest.mark.parametrize("resolved_by", ["webhook", "janitor", "the next operation"])
def test_a_lost_answer_to_a_capture_is_unknown_until_it_is_read(shop: Shop, resolved_by: str) -> None:
    payment = shop.authorized(1000)
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/capture$", kind="lose_response", times=3)
    key = str(uuid.uuid4())
    lost = shop.ok(shop.capture(payment["id"], 400, key=key))
    assert (lost["certainty"], *minor(lost, "capturable", "capture_pending", "captured")) == ("UNKNOWN", 600, 400, 0)
    # Before something new, Stripe is asked about the old; it does not answer.
    shop.platform.sandbox("faults", method="get", path="/v1/payment_intents/", kind="error", status=500, times=1)
    assert reason_of(shop.capture(payment["id"])) == "OPERATION_IN_PROGRESS"
    if resolved_by == "the next operation":
        assert reason_of(shop.cancel(payment["id"])) == "PAYMENT_STATE_INVALID"
        assert shop.read(payment["id"])["certainty"] == "CERTAIN"
    if resolved_by == "janitor":
        shop.platform.sql("payments", "UPDATE outbound_calls SET next_poll_time = now() WHERE state = 'UNKNOWN'")
        wait_for(lambda: shop.read(payment["id"])["certainty"] == "CERTAIN", "the janitor")
    shop.platform.sandbox("webhooks", paused=False)
    wait_for(lambda: shop.read(payment["id"])["certainty"] == "CERTAIN", "the webhook")
    assert minor(shop.read(payment["id"]), "capturable", "capture_pending", "captured") == [600, 0, 400]
    assert shop.ok(shop.capture(payment["id"], 400, key=key)) == lost
    assert received(shop, payment["id"]) == 400


def test_a_capture_that_stripe_was_never_sent_is_free_again(shop: Shop) -> None:
    payment = shop.authorized(1000)
    shop.platform.sandbox("faults", method="post", path="/capture$", kind="error", status=429, times=3)
    key = str(uuid.uuid4())
    assert shop.capture(payment["id"], 400, key=key).status_code == 503
    assert minor(shop.read(payment["id"]), "capturable", "capture_pending") == [1000, 0]
    assert shop.ok(shop.capture(payment["id"], 400, key=key))["state"] == "PARTIALLY_CAPTURED"


def test_an_authorization_that_ends_at_stripe_ends_here(shop: Shop) -> None:
    untouched, partly = shop.authorized(1000), shop.authorized(1000)
    shop.ok(shop.capture(partly["id"], 100))
    shop.platform.sandbox("clock", advance_seconds=8 * 24 * 3600)
    wait_for(lambda: shop.read(untouched["id"])["state"] == "EXPIRED", "the webhook")
    wait_for(lambda: shop.read(partly["id"])["state"] == "SUCCEEDED", "the webhook")
    assert minor(shop.read(untouched["id"]), "capturable", "captured") == [0, 0]
    assert minor(shop.read(partly["id"]), "capturable", "captured") == [0, 100]


def test_a_scheduled_capture_is_made_by_itself_and_a_past_deadline_is_refused(shop: Shop) -> None:
    past = shop.call(
        "POST",
        "/v1/payments",
        shop.order(1000, capture_method="MANUAL", capture_before="2020-01-01T00:00:00Z"),
        token=shop.seller_token,
    )
    automatic = shop.order(1000, capture_before="2099-01-01T00:00:00Z")
    for refused in (past, shop.call("POST", "/v1/payments", automatic, token=shop.seller_token)):
        assert reason_of(refused) == "FIELD_INVALID"
        assert "capture_before" in refused.text
    payment = shop.payment(1000, capture_method="MANUAL", capture_before="2099-01-01T00:00:00Z")
    held = shop.ok(shop.confirm(payment["id"]))
    assert (held["state"], held["capture_before"]) == ("REQUIRES_CAPTURE", "2099-01-01T00:00:00Z")
    assert held["authorization_expire_time"] == held["capture_before_time"]
    shop.ok(shop.capture(payment["id"], 300))
    shop.platform.sql("payments", f"UPDATE payments SET due_time = now() WHERE id = '{payment['id']}'")
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the sweep")
    assert received(shop, payment["id"]) == 1000
    wait_for(lambda: shop.booked(payment["id"]) == 960, "the ledger")


def test_one_card_is_the_default_and_a_removed_card_pays_nothing(shop: Shop) -> None:
    first, second = shop.card("pm_card_visa"), shop.card("pm_card_mastercard")
    token = shop.customer_token
    for card in (first, second):
        path = f"/v1/payment_methods/{card['id']}:set_default"
        assert shop.ok(shop.call("POST", path, {}, token=token))["is_default"] is True
    cards = shop.ok(shop.call("GET", "/v1/payment_methods", token=token))["payment_methods"]
    assert [card["id"] for card in cards if card["is_default"]] == [second["id"]]
    removed = shop.ok(shop.call("DELETE", f"/v1/payment_methods/{second['id']}", token=token))
    assert (removed["state"], removed["is_default"]) == ("DETACHED", False)
    payment = shop.payment()
    assert reason_of(shop.confirm(payment["id"], method_id=second["id"])) == "PAYMENT_METHOD_STATE_INVALID"
    again = shop.call("DELETE", f"/v1/payment_methods/{second['id']}", token=token)
    assert reason_of(again) == "PAYMENT_METHOD_STATE_INVALID"
    path = f"/v1/payment_methods/{first['id']}"
    assert shop.call("DELETE", path, token=shop.seller_token).status_code == 403
    secure = shop.card("pm_card_authenticationRequired")
    shop.ok(shop.confirm(payment["id"], method_id=secure["id"]))
    busy = shop.call("DELETE", f"/v1/payment_methods/{secure['id']}", token=token)
    assert reason_of(busy) == "OPERATION_IN_PROGRESS"
