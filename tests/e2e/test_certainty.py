"""Duplicates, lost answers, kills: one charge, and books that add up."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import servers.payments.main  # noqa: F401  # imported so that its crash points are declared
from servers.runtime import crashpoints
from tests.support.stack import Platform, Shop, insist, refusal_of, wait_for


def intent_of(platform: Platform, payment_id: str) -> str:
    """Return the payment's PaymentIntent."""
    rows = platform.sql("payments", f"SELECT stripe_payment_intent_id FROM payments WHERE id = '{payment_id}'")
    intent: str = rows[0][0]
    return intent


def charged(shop: Shop, payment_id: str) -> int:
    """Return how often Stripe charged for a payment."""
    return shop.platform.paid_charges().get(intent_of(shop.platform, payment_id), 0)


def received(shop: Shop, payment_id: str) -> int:
    """Return how much Stripe took for a payment."""
    intent = intent_of(shop.platform, payment_id)
    port = shop.platform.state["ports"]["stripe_sandbox"]
    key = Path(shop.platform.state["secrets_dir"], "stripe_api_key").read_text()
    answer = httpx.get(
        f"http://127.0.0.1:{port}/v1/payment_intents/{intent}", headers={"authorization": f"Bearer {key}"}
    )
    return int(answer.raise_for_status().json()["amount_received"])


def test_64_duplicates_of_one_confirm_charge_once(shop: Shop) -> None:
    payment = shop.payment()
    key = str(uuid.uuid4())

    def confirm(_: int) -> httpx.Response:
        with httpx.Client(base_url=shop.platform.edge, verify=shop.platform.context, timeout=20) as client:
            headers = {"authorization": f"Bearer {shop.customer_token}", "idempotency-key": key}
            body = {"payment_method_id": shop.method_id}
            return client.post(f"/v1/payments/{payment['id']}:confirm", json=body, headers=headers)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(confirm, range(64)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    bodies = {answer.content for answer in answers if answer.status_code == 200}
    assert len(bodies) == 1
    assert insist(lambda: shop.confirm(payment["id"], key=key)).content in bodies
    assert charged(shop, payment["id"]) == 1


def test_confirms_with_other_keys_do_not_charge_twice(shop: Shop) -> None:
    payment = shop.payment()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.confirm(payment["id"]), range(8)))
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {200, 400, 409}
    assert charged(shop, payment["id"]) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_answer_is_unknown_never_a_guess_and_never_a_second_charge(shop: Shop, times: int) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="lose_response", times=times)
    payment = shop.payment()
    key = str(uuid.uuid4())
    answer = shop.ok(shop.confirm(payment["id"], key=key))
    if times == 3:  # every try was lost: nobody guesses
        assert (answer["state"], answer["certainty"]) == ("PROCESSING", "UNKNOWN")
        # Before a new confirm, Stripe is asked about the old one: first it does not answer, then it does.
        shop.platform.sandbox("faults", method="get", path="/v1/payment_intents/", kind="error", status=500, times=1)
        assert refusal_of(shop.confirm(payment["id"])) == (409, "OPERATION_IN_PROGRESS")
        assert refusal_of(shop.confirm(payment["id"])) == (400, "PAYMENT_STATE_INVALID")
    shop.platform.sandbox("webhooks", paused=False)
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the webhook")
    assert charged(shop, payment["id"]) == 1
    assert shop.ok(shop.confirm(payment["id"], key=key)) == answer


def test_an_unreached_stripe_is_told_as_such_and_the_same_key_goes_on(shop: Shop) -> None:
    payment = shop.payment()
    key = str(uuid.uuid4())
    shop.platform.sandbox("faults", method="post", path="/v1/payment_intents$", kind="error", status=429, times=3)
    answer = shop.confirm(payment["id"], key=key)
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (503, "PROVIDER_UNAVAILABLE")
    assert shop.read(payment["id"])["state"] == "REQUIRES_CONFIRMATION"
    assert shop.ok(insist(lambda: shop.confirm(payment["id"], key=key)))["state"] == "SUCCEEDED"
    assert charged(shop, payment["id"]) == 1


def test_a_decline_of_the_attempt_before_is_not_taken_for_this_one(shop: Shop) -> None:
    bad = shop.card("pm_card_chargeCustomerFail")
    payment = shop.payment()
    assert shop.ok(shop.confirm(payment["id"], method_id=bad["id"]))["latest_attempt"]["state"] == "DECLINED"
    # The next confirm never reaches Stripe, and of the one after it every answer is lost before any work is done: Stripe still
    # shows the first one's decline.
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="error", status=429, times=3)
    unreached = shop.confirm(payment["id"])
    assert unreached.status_code == 503, unreached.text
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="refuse", times=3)
    lost = shop.ok(shop.confirm(payment["id"]))
    assert (lost["state"], lost["latest_attempt"]["state"], lost["certainty"]) == ("PROCESSING", "UNKNOWN", "UNKNOWN")
    attempt = lost["latest_attempt"]["id"]
    shop.platform.sql("payments", f"UPDATE outbound_calls SET next_poll_time = now() WHERE target = '{attempt}'")
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the janitor")
    assert charged(shop, payment["id"]) == 1


def test_when_the_plan_is_spent_a_person_decides_and_a_late_webhook_still_tells(shop: Shop) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="lose_response", times=3)
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.platform.sandbox("faults", method="get", path="/v1/payment_intents/", kind="error", status=500, times=1)
    attempt = shop.read(payment["id"])["latest_attempt"]["id"]
    statement = "UPDATE outbound_calls SET polls = 6, next_poll_time = now()"
    shop.platform.sql("payments", f"{statement} WHERE target = '{attempt}'")
    wait_for(lambda: shop.read(payment["id"])["latest_attempt"]["state"] == "NEEDS_OPERATOR", "the last look")
    assert shop.read(payment["id"])["certainty"] == "UNKNOWN"
    shop.platform.sandbox("faults", method="get", path="/v1/payment_intents/", kind="error", status=500, times=1)
    assert shop.confirm(payment["id"]).status_code == 409
    shop.platform.sandbox("webhooks", paused=False)
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the webhook")
    assert charged(shop, payment["id"]) == 1


def test_after_an_answered_500_the_key_is_not_used_again(shop: Shop) -> None:
    payment = shop.payment()
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="error", status=500, times=1)
    assert shop.ok(shop.confirm(payment["id"]))["certainty"] == "UNKNOWN"
    attempt = shop.read(payment["id"])["latest_attempt"]["id"]
    shop.platform.sql("payments", f"UPDATE outbound_calls SET next_poll_time = now() WHERE target = '{attempt}'")
    polled = (
        f"SELECT polls FROM outbound_calls WHERE target = '{attempt}' AND state = 'UNKNOWN' AND next_poll_time > now()"
    )
    wait_for(lambda: shop.platform.sql("payments", polled) == [(1,)], "the janitor")
    assert shop.read(payment["id"])["state"] == "PROCESSING"
    assert charged(shop, payment["id"]) == 0


def test_webhooks_that_come_twice_change_nothing(shop: Shop) -> None:
    shop.platform.sandbox("webhooks", copies=3)
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.ok(shop.refund(payment["id"], 100))
    shop.platform.sandbox("webhooks", copies=1)
    version = shop.read(payment["id"])["resource_version"]
    statement = "SELECT count(*) FROM stripe_events WHERE state = 'STORED'"
    wait_for(lambda: shop.platform.sql("payments", statement)[0][0] == 0, "the worker")
    assert shop.read(payment["id"])["resource_version"] == version


ROUNDS = int(os.environ.get("PAYMESH_CRASH_ROUNDS", "1"))
"""How often each crash point is tried; the long proofs try it more often."""
CONFIRM = [name for name in crashpoints.declared() if name.startswith("payments.confirm.")] * ROUNDS
REFUND = [name for name in crashpoints.declared() if name.startswith("payments.refund.")] * ROUNDS
OPERATIONS = [name for name in crashpoints.declared() if name.split(".")[1] in ("capture", "cancel")] * ROUNDS
EVENTS = [
    name for name in crashpoints.declared() if name.split(".")[0] in ("relay", "consumer") or ".webhook." in name
] * ROUNDS


def asked_64_times(call: Callable[[], httpx.Response]) -> httpx.Response:
    """Repeat a call 64 times at once, each until it is answered: what careless clients do after a crash. All get one answer."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: insist(call), range(64)))
    assert len({answer.content for answer in answers}) == 1
    return answers[0]


def test_every_crash_point_is_tried() -> None:
    # test_accounts.py, test_wallets.py, test_payers.py, test_disputes.py, test_reviews.py
    elsewhere = ("notifications.", "wallets.", "payments.top_up.", "payments.setup.", "payments.create.")
    elsewhere += ("payments.dispute.", "payments.accept.", "payments.approve.")
    here = [name for name in crashpoints.declared() if not name.startswith(elsewhere)]
    assert {*CONFIRM, *REFUND, *OPERATIONS, *EVENTS} == set(here)
    assert len(CONFIRM) >= 4
    assert len(EVENTS) >= 5


@pytest.mark.parametrize("point", CONFIRM)
def test_a_kill_during_a_confirm_charges_once(shop: Shop, point: str) -> None:
    payment = shop.payment()
    key = str(uuid.uuid4())
    armed = shop.platform.arm(point)
    answer = asked_64_times(lambda: shop.confirm(payment["id"], key=key))
    assert not armed.exists()
    assert shop.ok(answer)["id"] == payment["id"]
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "the payment")
    assert charged(shop, payment["id"]) == 1


@pytest.mark.parametrize("point", REFUND)
def test_a_kill_during_a_refund_refunds_once(shop: Shop, point: str) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    key = str(uuid.uuid4())
    armed = shop.platform.arm(point)
    answer = asked_64_times(lambda: shop.refund(payment["id"], 900, key=key))
    assert not armed.exists()
    assert shop.ok(answer)["amount"]["amount_minor"] == "900"
    path = f"/v1/refunds/{answer.json()['id']}"
    wait_for(lambda: shop.ok(shop.call("GET", path, token=shop.seller_token))["state"] == "SUCCEEDED", "the refund")
    assert shop.read(payment["id"])["amount_refunded"]["amount_minor"] == "900"


@pytest.mark.parametrize("point", OPERATIONS)
def test_a_kill_during_a_capture_or_cancel_takes_or_frees_the_money_once(shop: Shop, point: str) -> None:
    payment = shop.authorized(1000)
    key = str(uuid.uuid4())
    armed = shop.platform.arm(point)
    act = shop.capture if ".capture." in point else shop.cancel
    answer = shop.ok(asked_64_times(lambda: act(payment["id"], key=key)))
    assert not armed.exists()
    assert answer["id"] == payment["id"]
    state = "SUCCEEDED" if ".capture." in point else "CANCELED"
    wait_for(lambda: shop.read(payment["id"])["state"] == state, "the outcome")
    captured = "1000" if state == "SUCCEEDED" else "0"
    assert shop.read(payment["id"])["amount_captured"]["amount_minor"] == captured
    assert received(shop, payment["id"]) == int(captured)


@pytest.mark.parametrize("point", EVENTS)
def test_a_kill_on_the_way_of_an_event_loses_and_doubles_nothing(shop: Shop, point: str) -> None:
    armed = shop.platform.arm(point)
    key = str(uuid.uuid4())
    payment = insist(
        lambda: shop.call(
            "POST",
            "/v1/payments",
            {"amount": {"amount_minor": "1000", "currency": "USD"}, "customer_id": shop.user_id},
            token=shop.seller_token,
            key=key,
        )
    ).json()
    again = str(uuid.uuid4())
    shop.ok(insist(lambda: shop.confirm(payment["id"], key=again)))
    wait_for(lambda: not armed.exists(), f"{point} was never passed")
    wait_for(lambda: shop.booked(payment["id"]) == 960, "the capture in the ledger")
    assert charged(shop, payment["id"]) == 1


def test_the_audit_names_a_row_that_was_changed_by_hand(shop: Shop) -> None:
    # The test before has killed a server, which may not be back yet.
    payment = shop.ok(insist(lambda: shop.call("POST", "/v1/payments", shop.order(2500), token=shop.seller_token)))
    shop.ok(insist(lambda: shop.confirm(payment["id"])))
    assert shop.platform.audit().returncode == 0
    account = shop.platform.sql("wallets", "SELECT id FROM accounts WHERE kind = 'MERCHANT_PENDING' LIMIT 1")[0][0]
    shop.platform.sql("wallets", f"UPDATE accounts SET credits_posted = credits_posted + 1 WHERE id = '{account}'")
    proof = shop.platform.audit()
    shop.platform.sql("wallets", f"UPDATE accounts SET credits_posted = credits_posted - 1 WHERE id = '{account}'")
    assert proof.returncode == 1
    broken = [line for line in proof.stdout.splitlines() if "BROKEN" in line and line.startswith("I2")]
    assert broken
    assert account in proof.stdout
