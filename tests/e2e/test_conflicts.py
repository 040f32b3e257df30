"""Stripe did something else than it was asked for: nobody guesses, a person decides, money without a place waits in suspense."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_certainty import charged, intent_of, received
from tests.support.stack import Shop, insist, refusal_of, wait_for
from tests.support.staff import Operator

CARD = {"stripe_payment_method_id": "pm_card_visa"}


def sent_once(shop: Shop, amount: int, **more: Any) -> dict[str, Any]:
    """Return a payment that Stripe knows of, and whose confirm it provably did not get."""
    payment = shop.payment(amount, **more)
    shop.platform.sandbox("faults", method="post", path="/confirm$", kind="error", status=429, times=3)
    assert shop.confirm(payment["id"]).status_code == 503
    return payment


def conflicted(shop: Shop, amount: int, *, ours: str, **more: Any) -> dict[str, Any]:
    """Return a payment of which Stripe has another idea than we: `ours` is what the row says when it is confirmed."""
    payment = sent_once(shop, amount, **more)
    shop.platform.sql("payments", f"UPDATE payments SET {ours} WHERE id = '{payment['id']}'")
    answer = shop.ok(shop.confirm(payment["id"]))
    assert answer["state"] == "CONFLICTED"
    return answer


def suspense(shop: Shop, payment_id: str) -> int:
    """Return what the ledger has in suspense of a payment."""
    shop.quiet()
    tables = ("suspense_items", "captures", "refunds")
    facts = " UNION ALL ".join(f"SELECT id FROM {table} WHERE payment_id = '{payment_id}'" for table in tables)
    ids = ", ".join(f"'{row.id}'" for row in shop.platform.sql("payments", facts))
    rows = shop.platform.sql(
        "wallets",
        f"""
        SELECT coalesce(sum(e.amount_minor), 0) FROM entries e
        JOIN accounts a ON a.id = e.account_id AND a.kind = 'SUSPENSE'
        JOIN transfers t ON t.id = e.transfer_id WHERE split_part(t.fact_id, ':', 1) IN ({ids or "''"})
        """,
    )
    return int(rows[0][0])


def at_stripe(shop: Shop, path: str, **form: str) -> Any:
    """Do something at Stripe that Paymesh did not ask for."""
    key = Path(shop.platform.state["secrets_dir"], "stripe_api_key").read_text()
    url = f"http://127.0.0.1:{shop.platform.state['ports']['stripe_sandbox']}/v1/{path}"
    return httpx.post(url, data=form, headers={"authorization": f"Bearer {key}"}).raise_for_status().json()


def actions(shop: Shop, resource_id: str) -> list[Any]:
    """Return what staff decided about something."""
    return shop.platform.sql(
        "payments",
        f"SELECT actor_role, decision, reason FROM staff_actions WHERE resource_id = '{resource_id}' ORDER BY id",
    )


def refunds(shop: Shop, payment_id: str) -> list[dict[str, Any]]:
    """Return a payment's refunds."""
    found: list[dict[str, Any]] = shop.ok(
        shop.call("GET", f"/v1/payments/{payment_id}/refunds", token=shop.seller_token)
    )["refunds"]
    return found


@pytest.mark.parametrize(("ours", "over"), [(2600, 0), (2400, 100)], ids=["less than asked for", "more than asked for"])
def test_what_stripe_took_is_accepted_for_the_payments_money(
    shop: Shop, operator: Operator, ours: int, over: int
) -> None:
    payment = conflicted(shop, 2500, ours=f"amount_minor = {ours}")
    item = payment["suspense_items"][0]
    assert (item["amount"]["amount_minor"], item["cause"]) == ("2500", "CONFLICT")
    assert (payment["amount_captured"]["amount_minor"], payment["available_actions"]) == ("0", [])
    assert refusal_of(shop.cancel(payment["id"])) == (400, "PAYMENT_STATE_INVALID")
    assert suspense(shop, payment["id"]) == 2500
    pending = shop.pending()
    key = str(uuid.uuid4())
    path = f"/v1/payments/{payment['id']}:resolve_conflict"
    answer = operator.act(path, "ACCEPT", key=key)
    accepted = shop.ok(answer)
    assert (accepted["state"], accepted["amount_captured"]["amount_minor"]) == ("SUCCEEDED", "2500")
    assert accepted["captures"][0]["suspense_item_id"] == item["id"]
    assert operator.act(path, "ACCEPT", key=key).content == answer.content
    assert refusal_of(operator.act(path, "ACCEPT")) == (400, "PAYMENT_STATE_INVALID")
    assert suspense(shop, payment["id"]) == 0
    fee = int(accepted["captures"][0]["fee"]["amount_minor"])
    assert (shop.booked(payment["id"]), shop.pending() - pending) == (2500 - fee, 2500 - fee)
    assert actions(shop, payment["id"]) == [("operator", "ACCEPT", "seen in the dashboard")]
    allowed = f"SELECT overcapture_minor FROM payments WHERE id = '{payment['id']}'"
    assert shop.platform.sql("payments", allowed) == [(over,)]
    # It is a payment like any other now.
    assert shop.ok(shop.refund(payment["id"]))["amount"]["amount_minor"] == "2500"
    wait_for(lambda: shop.read(payment["id"])["amount_refunded"]["amount_minor"] == "2500", "the refund")
    assert charged(shop, payment["id"]) == 1


def test_what_stripe_took_in_another_currency_can_only_go_back(shop: Shop, operator: Operator) -> None:
    payment = conflicted(shop, 3100, ours="currency = 'EUR'")
    path = f"/v1/payments/{payment['id']}:resolve_conflict"
    assert refusal_of(operator.act(path, "ACCEPT")) == (400, "PAYMENT_STATE_INVALID")
    assert suspense(shop, payment["id"]) == 3100
    canceled = shop.ok(operator.act(path, "CANCEL", reason="wrong currency"))
    assert (canceled["state"], canceled["amount_captured"]["amount_minor"]) == ("CANCELED", "0")
    wait_for(lambda: [r["state"] for r in refunds(shop, payment["id"])] == ["SUCCEEDED"], "the refund")
    (back,) = refunds(shop, payment["id"])
    assert back["amount"] == {"amount_minor": "3100", "currency": "USD"}
    assert back["suspense_item_id"] == payment["suspense_items"][0]["id"]
    assert suspense(shop, payment["id"]) == 0
    # A refusal decides nothing, so it is not in the book of decisions.
    assert actions(shop, payment["id"]) == [("operator", "CANCEL", "wrong currency")]


def test_an_authorization_in_conflict_is_let_go_at_stripe_before_it_is_canceled(shop: Shop, operator: Operator) -> None:
    payment = conflicted(shop, 2500, ours="amount_minor = 2600", capture_method="MANUAL")
    assert payment["suspense_items"] == []
    path = f"/v1/payments/{payment['id']}:resolve_conflict"
    assert refusal_of(operator.act(path, "ACCEPT")) == (400, "PAYMENT_STATE_INVALID")
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/cancel$", kind="lose_response", times=3)
    key = str(uuid.uuid4())
    assert shop.ok(operator.act(path, "CANCEL", key=key))["certainty"] == "UNKNOWN"
    shop.platform.sandbox("webhooks", paused=False)
    wait_for(lambda: shop.read(payment["id"])["state"] == "CANCELED", "the webhook of the cancel")
    assert refunds(shop, payment["id"]) == []
    assert received(shop, payment["id"]) == 0


def test_what_stripe_has_captured_without_us_is_applied(shop: Shop) -> None:
    payment = shop.authorized(2000)
    shop.platform.sandbox("webhooks", paused=True)
    at_stripe(shop, f"payment_intents/{intent_of(shop.platform, payment['id'])}/capture", amount_to_capture="700")
    refused = shop.capture(payment["id"], 500, final=True)
    shop.platform.sandbox("webhooks", paused=False)
    assert refusal_of(refused) == (400, "PAYMENT_STATE_INVALID")
    wait_for(lambda: shop.read(payment["id"])["state"] == "SUCCEEDED", "what Stripe has captured")
    assert shop.read(payment["id"])["amount_captured"]["amount_minor"] == "700"
    assert suspense(shop, payment["id"]) == 0


def test_a_capture_that_stripe_answers_with_another_sum_is_a_conflict(shop: Shop, operator: Operator) -> None:
    payment = shop.authorized(2000)
    intent = intent_of(shop.platform, payment["id"])
    shop.platform.sandbox("webhooks", paused=True)
    # 200 that we do not know of, so that our 500 are answered with 700.
    at_stripe(shop, f"payment_intents/{intent}/capture", amount_to_capture="200", final_capture="false")
    refused = shop.capture(payment["id"], 500)
    shop.platform.sandbox("webhooks", paused=False)
    assert refusal_of(refused) == (400, "PAYMENT_STATE_INVALID")
    metadata = refused.json()["details"][0]["metadata"]
    assert (metadata["state"], metadata["code"]) == ("CONFLICTED", "conflict")
    found = shop.read(payment["id"])
    assert (found["amount_captured"]["amount_minor"], found["amount_capturable"]["amount_minor"]) == ("0", "2000")
    assert [item["amount"]["amount_minor"] for item in found["suspense_items"]] == ["700"]
    path = f"/v1/payments/{payment['id']}:resolve_conflict"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: operator.act(path, "ACCEPT"), range(4)))
    assert sorted(answer.status_code for answer in answers)[:2] in ([200, 400], [200, 409]), answers[0].text
    accepted = shop.read(payment["id"])
    assert (accepted["state"], accepted["amount_captured"]["amount_minor"]) == ("SUCCEEDED", "700")
    assert (received(shop, payment["id"]), suspense(shop, payment["id"])) == (700, 0)
    shop.quiet()
    fee = int(accepted["captures"][0]["fee"]["amount_minor"])
    assert shop.booked(payment["id"]) == 700 - fee


def test_money_that_comes_after_the_end_goes_back_by_itself(shop: Shop) -> None:
    payment = shop.authorized(1800)
    intent = intent_of(shop.platform, payment["id"])
    # Canceled here, while Stripe, for whatever reason, still holds the money and then takes it.
    shop.platform.sql(
        "payments", f"UPDATE payments SET state = 'CANCELED', capturable_minor = 0 WHERE id = '{payment['id']}'"
    )
    at_stripe(shop, f"payment_intents/{intent}/capture")
    wait_for(lambda: len(shop.read(payment["id"])["suspense_items"]) == 1, "the late news")
    late = shop.read(payment["id"])
    assert (late["state"], late["amount_captured"]["amount_minor"]) == ("CANCELED", "0")
    assert late["suspense_items"][0]["cause"] == "LATE_CAPTURE"
    wait_for(lambda: [r["state"] for r in refunds(shop, payment["id"])] == ["SUCCEEDED"], "the refund")
    assert suspense(shop, payment["id"]) == 0
    # However often it is told.
    shop.platform.cli("webhooks", "poll")
    ids = shop.platform.sql("payments", f"SELECT id FROM stripe_events WHERE payment_intent_id = '{intent}'")
    for (event_id,) in ids:
        shop.platform.cli("webhooks", "replay", event_id)
    waiting = f"SELECT count(*) FROM stripe_events WHERE payment_intent_id = '{intent}' AND state = 'STORED'"
    wait_for(lambda: shop.platform.sql("payments", waiting) == [(0,)], "the replays")
    assert len(shop.read(payment["id"])["suspense_items"]) == 1
    assert len(refunds(shop, payment["id"])) == 1
    assert shop.read(payment["id"])["amount_refunded"]["amount_minor"] == "0"


def calm(shop: Shop) -> None:
    """Let a call to Stripe go well: after five failures in a row none would go out for a while."""
    insist(lambda: shop.call("POST", "/v1/payment_methods", CARD, token=shop.customer_token))


def needs_operator(shop: Shop, target: str) -> None:
    """Bring a call to the end of its plan, and see it handed over."""
    shop.platform.sandbox(
        "faults", method="get", path="/v1/(payment_intents|refunds)", kind="error", status=500, times=1
    )
    shop.platform.sql(
        "payments", f"UPDATE outbound_calls SET polls = 6, next_poll_time = now() WHERE target = '{target}'"
    )
    handed = f"SELECT state FROM outbound_calls WHERE target = '{target}'"
    wait_for(lambda: shop.platform.sql("payments", handed) == [("NEEDS_OPERATOR",)], "the last look")


@pytest.mark.parametrize("happened", [True, False])
def test_an_attempt_that_needs_a_person_is_read_again_or_ended_and_stripe_is_never_overruled(
    shop: Shop, operator: Operator, happened: bool
) -> None:
    shop.platform.sandbox("webhooks", paused=True)
    kind = {"kind": "lose_response"} if happened else {"kind": "error", "status": 500}
    shop.platform.sandbox("faults", method="post", path="/confirm$", times=3 if happened else 1, **kind)
    payment = shop.payment()
    attempt = shop.ok(shop.confirm(payment["id"]))["latest_attempt"]["id"]
    path = f"/v1/payments/{payment['id']}:resolve"
    assert refusal_of(operator.act(path, "FAIL")) == (400, "PAYMENT_STATE_INVALID")
    needs_operator(shop, attempt)
    calm(shop)
    key = str(uuid.uuid4())
    shop.platform.sandbox("faults", method="get", path="/v1/payment_intents/", kind="error", status=500, times=1)
    assert refusal_of(operator.act(path, "FAIL", key=key)) == (503, "PROVIDER_UNAVAILABLE")
    answer = shop.ok(operator.act(path, "FAIL", key=key))
    shop.platform.sandbox("webhooks", paused=False)
    if happened:
        assert answer["state"] == "SUCCEEDED"
    else:
        assert (answer["state"], answer["latest_attempt"]["decline"]["code"]) == (
            "REQUIRES_PAYMENT_METHOD",
            "settled_by_staff",
        )
        assert shop.ok(shop.confirm(payment["id"]))["state"] == "SUCCEEDED"
    assert charged(shop, payment["id"]) == 1
    assert [decision for _, decision, _ in actions(shop, payment["id"])] == ["FAIL"]
    assert refusal_of(operator.act(path, "READ_AGAIN")) == (400, "PAYMENT_STATE_INVALID")


def test_a_capture_that_needs_a_person_is_read_again(shop: Shop, operator: Operator) -> None:
    payment = shop.authorized(1500)
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/capture$", kind="lose_response", times=3)
    assert shop.ok(shop.capture(payment["id"]))["certainty"] == "UNKNOWN"
    found = f"SELECT id FROM operations WHERE payment_id = '{payment['id']}'"
    operation = shop.platform.sql("payments", found)[0][0]
    needs_operator(shop, operation)
    calm(shop)
    answer = shop.ok(operator.act(f"/v1/payments/{payment['id']}:resolve", "READ_AGAIN"))
    shop.platform.sandbox("webhooks", paused=False)
    assert (answer["state"], answer["amount_captured"]["amount_minor"]) == ("SUCCEEDED", "1500")


@pytest.mark.parametrize("happened", [True, False])
def test_a_refund_that_needs_a_person(shop: Shop, operator: Operator, happened: bool) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.platform.sandbox("webhooks", paused=True)
    kind = {"kind": "lose_response", "times": 3} if happened else {"kind": "error", "status": 500, "times": 1}
    shop.platform.sandbox("faults", method="post", path="/v1/refunds$", **kind)
    refund = shop.ok(shop.refund(payment["id"], 900))
    assert refund["certainty"] == "UNKNOWN"
    path = f"/v1/refunds/{refund['id']}"
    assert refusal_of(operator.act(f"{path}:resolve", "FAIL")) == (400, "REFUND_STATE_INVALID")
    needs_operator(shop, refund["id"])
    calm(shop)
    answer = shop.ok(operator.act(f"{path}:resolve", "FAIL", reason="the bank never saw it"))
    shop.platform.sandbox("webhooks", paused=False)
    assert answer["state"] == ("SUCCEEDED" if happened else "FAILED")
    payment = shop.read(payment["id"])
    assert payment["amount_refund_pending"]["amount_minor"] == "0"
    assert payment["amount_refunded"]["amount_minor"] == ("900" if happened else "0")
    assert actions(shop, refund["id"]) == [("operator", "FAIL", "the bank never saw it")]


def test_a_refund_that_stripe_did_for_another_sum_waits_for_a_person(shop: Shop) -> None:
    payment = shop.payment(2000)
    shop.ok(shop.confirm(payment["id"]))
    shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="lose_response", times=3)
    shop.platform.sandbox("webhooks", paused=True)
    refund = shop.ok(shop.refund(payment["id"], 900))
    shop.platform.sql("payments", f"UPDATE refunds SET amount_minor = 800 WHERE id = '{refund['id']}'")
    shop.platform.sandbox("webhooks", paused=False)
    handed = f"SELECT state FROM outbound_calls WHERE target = '{refund['id']}'"
    wait_for(lambda: shop.platform.sql("payments", handed) == [("NEEDS_OPERATOR",)], "the conflict")
    path = f"/v1/refunds/{refund['id']}"
    found = shop.ok(shop.call("GET", path, token=shop.seller_token))
    assert (found["state"], found["certainty"]) == ("PENDING", "UNKNOWN")
    # What it was meant to be, so that the books close.
    shop.platform.sql("payments", f"UPDATE refunds SET amount_minor = 900 WHERE id = '{refund['id']}'")
    ids = shop.platform.sql("payments", f"SELECT id FROM stripe_events WHERE refund_id = '{refund['id']}'")
    for (event_id,) in ids:
        shop.platform.cli("webhooks", "replay", event_id)
    wait_for(lambda: shop.ok(shop.call("GET", path, token=shop.seller_token))["state"] == "SUCCEEDED", "the replay")


def test_a_refund_that_is_uncertain_is_looked_into_when_it_is_read(shop: Shop) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.platform.sandbox("webhooks", paused=True)
    shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="lose_response", times=3)
    refund = shop.ok(shop.refund(payment["id"], 700))
    path = f"/v1/refunds/{refund['id']}"
    assert shop.ok(shop.call("GET", path, token=shop.seller_token))["certainty"] == "UNKNOWN"
    earlier = "UPDATE outbound_calls SET change_time = change_time - interval '61 seconds'"
    shop.platform.sql("payments", f"{earlier} WHERE target = '{refund['id']}'")
    assert shop.ok(shop.call("GET", path, token=shop.customer_token))["state"] == "SUCCEEDED"
    shop.platform.sandbox("webhooks", paused=False)


def test_staff_who_may_not_decide_and_everybody_else_are_refused(shop: Shop, operator: Operator) -> None:
    payment = shop.payment()
    for verb in ("resolve", "resolve_conflict"):
        path = f"/v1/payments/{payment['id']}:{verb}"
        body = {"decision": "READ_AGAIN" if verb == "resolve" else "ACCEPT", "reason": "mine"}
        for token in (shop.seller_token, shop.customer_token):
            assert refusal_of(shop.call("POST", path, body, token=token)) == (403, "CALLER_NOT_ALLOWED")
        assert refusal_of(operator.act(path, body["decision"], reason="")) == (400, "FIELD_INVALID")
        assert refusal_of(operator.act(path, body["decision"])) == (400, "PAYMENT_STATE_INVALID")
        missing = f"/v1/payments/pay_{'0' * 26}:{verb}"
        assert refusal_of(operator.act(missing, body["decision"])) == (404, "RESOURCE_NOT_FOUND")
