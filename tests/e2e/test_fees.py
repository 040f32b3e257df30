"""Fee plans and returned fees, from the edge to the ledger's books."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from sandbox.stripe.refunds import BANK_ANSWERS_AFTER_SECONDS
from tests.e2e.test_conflicts import conflicted
from tests.e2e.test_disputes import counters, open_at_bank, the_dispute, withdrawn
from tests.support.stack import Shop, open_shop, reason_of, refusal_of, wait_for
from tests.support.staff import Operator, colleague
from tests.support.tokens import Forge

TERMS = {
    "basis_points": 1000,
    "fixed": [{"amount_minor": "30", "currency": "USD"}],
    "settlement_delay_seconds": 86_400,
    "fee_refund": "RETURNED",
    "reason": "agreed for the launch",
}
STAFF = "usr_" + "0" * 26


def as_staff(shop: Shop, scope: str = "fee_plans:read fee_plans:write") -> str:
    """Return a token of somebody of the staff."""
    return Forge(shop).signed(typ="staff", sub=STAFF, merchant_id=None, role="finance", scope=scope)


@pytest.fixture(scope="module")
def priced(shop: Shop) -> Shop:
    """Return a shop with a plan of its own: the platform's plan is for the others."""
    own = open_shop(shop.platform, shop.client)
    path = f"/v1/merchants/{own.merchant_id}/fee_plan"
    plan = own.ok(own.call("PUT", path, TERMS, token=as_staff(own)))
    assert (plan["version"], plan["set_by"], plan["reason"]) == ("v1", STAFF, TERMS["reason"])
    time.sleep(max(0.0, datetime.fromisoformat(plan["effective_time"]).timestamp() - time.time()) + 0.1)
    return own


def put(shop: Shop, **changes: Any) -> Any:
    """Ask for a plan as staff."""
    return shop.call("PUT", f"/v1/merchants/{shop.merchant_id}/fee_plan", TERMS | changes, token=as_staff(shop))


def kept(shop: Shop, payment: dict[str, Any]) -> int:
    """Return what the ledger has kept of a payment."""
    facts = [capture["id"] for capture in payment["captures"]]
    refunds = shop.ok(shop.call("GET", f"/v1/payments/{payment['id']}/refunds", token=shop.seller_token))["refunds"]
    facts += [name for refund in refunds for name in (refund["id"], f"{refund['id']}:failed")]
    names = ", ".join(f"'{fact}'" for fact in facts)
    statement = f"""
        SELECT coalesce(sum(e.amount_minor), 0) FROM entries e
        JOIN accounts a ON a.id = e.account_id AND a.kind = 'PLATFORM_FEES'
        JOIN transfers t ON t.id = e.transfer_id WHERE t.fact_id IN ({names})"""
    return int(shop.platform.sql("wallets", statement)[0][0])


def test_the_platforms_plan_is_for_those_without_one_and_a_merchant_sees_its_own(shop: Shop, priced: Shop) -> None:
    default = shop.ok(shop.call("GET", "/v1/fee_plan", token=shop.seller_token))
    assert (default["version"], default["basis_points"], default["fee_refund"]) == ("2026-11", 150, "KEPT")
    assert (default["resource_version"], "effective_time" in default) == ("0", False)
    own = shop.ok(shop.call("GET", "/v1/fee_plan", token=priced.seller_token))
    path = f"/v1/merchants/{priced.merchant_id}/fee_plan"
    seen = shop.ok(shop.call("GET", path, token=as_staff(shop, "fee_plans:read")))
    assert {name: seen[name] for name in TERMS} == TERMS
    assert own == seen | {"set_by": ""}


def test_only_staff_with_the_scope_set_a_plan(shop: Shop) -> None:
    path = f"/v1/merchants/{shop.merchant_id}/fee_plan"
    for token in (shop.seller_token, shop.customer_token, as_staff(shop, "fee_plans:read")):
        assert shop.call("PUT", path, TERMS, token=token).status_code == 403
    assert shop.call("GET", path, token=shop.seller_token).status_code == 403
    assert shop.call("PUT", path, TERMS).status_code == 401
    assert shop.call("GET", "/v1/fee_plan", token=shop.customer_token).status_code == 403


def test_who_works_in_finance_sets_a_plan_and_support_reads_it(shop: Shop) -> None:
    other = open_shop(shop.platform, shop.client)
    path = f"/v1/merchants/{other.merchant_id}/fee_plan"
    finance, support = (shop.ok(colleague(shop, role).switch())["access_token"] for role in ("finance", "support"))
    assert refusal_of(shop.call("PUT", path, TERMS, token=support)) == (403, "SCOPE_MISSING")
    plan = shop.ok(shop.call("PUT", path, TERMS, token=finance))
    assert plan["version"] == "v1"
    assert shop.ok(shop.call("GET", path, token=support)) == plan


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"basis_points": 10_001}, "basis_points"),
        ({"basis_points": -1}, "basis_points"),
        ({"settlement_delay_seconds": 90 * 86_400 + 1}, "settlement_delay_seconds"),
        ({"settlement_delay_seconds": -1}, "settlement_delay_seconds"),
        ({"fixed": [{"amount_minor": "-1", "currency": "USD"}]}, "fixed[0].amount_minor"),
        ({"fixed": [{"amount_minor": "1", "currency": "ZZZ"}]}, "fixed[0].currency"),
        ({"fee_refund": "FEE_REFUND_UNSPECIFIED"}, "fee_refund"),
        ({"reason": ""}, "reason"),
        ({"etag": "abc"}, "etag"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_its_field(shop: Shop, changes: dict[str, Any], field: str) -> None:
    refused = put(shop, **changes)
    assert (refused.status_code, reason_of(refused)) == (400, "FIELD_INVALID")
    [violations] = [d["field_violations"] for d in refused.json()["details"] if "field_violations" in d]
    assert [violation["field"] for violation in violations] == [field]


def test_who_has_seen_an_older_version_replaces_nothing(priced: Shop) -> None:
    refused = put(priced, etag='"0"')
    assert (refused.status_code, reason_of(refused)) == (409, "ETAG_MISMATCH")


def test_a_card_payments_fee_comes_back_with_its_refunds(priced: Shop) -> None:
    payment = priced.payment(1000)
    priced.ok(priced.confirm(payment["id"]))
    payment = priced.read(payment["id"])
    [capture] = payment["captures"]
    assert capture["fee"]["amount_minor"] == "130"
    assert (capture["fee_plan_version"], capture["fee_refund"]) == ("v1", "RETURNED")
    assert capture["settlement_delay_seconds"] == TERMS["settlement_delay_seconds"]
    delay = f"SELECT extract(epoch FROM due_time - capture_time)::int FROM lots WHERE capture_id = '{capture['id']}'"
    wait_for(lambda: priced.platform.sql("wallets", delay) == [(86_400,)], "the capture's lot with its delay")
    returned = []
    for amount in (333, 334, None):
        refund = priced.ok(priced.refund(payment["id"], amount))
        returned.append(refund["fee_returned"]["amount_minor"])
    assert returned == ["43", "44", "43"]
    wait_for(lambda: kept(priced, payment) == 0, "the whole fee returned")
    mine = priced.ok(priced.call("GET", f"/v1/refunds/{refund['id']}", token=priced.customer_token))
    assert "fee_returned" not in mine or mine["fee_returned"] is None
    shown = priced.ok(priced.call("GET", f"/v1/payments/{payment['id']}", token=priced.customer_token))["captures"][0]
    assert "settlement_delay_seconds" not in shown
    assert shown["fee_plan_version"] == ""


def test_a_refund_that_the_bank_sends_back_takes_its_fee_back(priced: Shop) -> None:
    method = priced.card("pm_card_refundFail")
    payment = priced.payment(1000)
    priced.ok(priced.confirm(payment["id"], method_id=method["id"]))
    refund = priced.ok(priced.refund(payment["id"]))
    assert refund["fee_returned"]["amount_minor"] == "130"
    priced.platform.sandbox("clock", advance_seconds=BANK_ANSWERS_AFTER_SECONDS)
    path = f"/v1/refunds/{refund['id']}"
    wait_for(lambda: priced.ok(priced.call("GET", path, token=priced.seller_token))["state"] == "FAILED", "the failure")
    wait_for(lambda: kept(priced, priced.read(payment["id"])) == 130, "the fee taken back")


def test_a_wallet_gets_all_back_and_the_merchant_the_fee(priced: Shop) -> None:
    token = priced.customer_token
    wallet = priced.ok(priced.call("POST", "/v1/wallets", {"currency": "USD"}, token=token))
    amount = {"amount_minor": "1000", "currency": "USD"}
    body = {"amount": amount, "payment_method_id": priced.method_id}
    priced.ok(priced.call("POST", f"/v1/wallets/{wallet['id']}/top_ups", body, token=token))
    payment = priced.payment(1000, capture_method="MANUAL")
    confirm = f"/v1/payments/{payment['id']}:confirm"
    priced.ok(priced.call("POST", confirm, {"wallet_id": wallet["id"]}, token=token))
    for part in ("400", "600"):
        body = {"amount": {"amount_minor": part, "currency": "USD"}}
        payment = priced.ok(
            priced.call("POST", f"/v1/payments/{payment['id']}:capture", body, token=priced.seller_token)
        )
    # The fixed part is the first capture's.
    assert sorted(int(capture["fee"]["amount_minor"]) for capture in payment["captures"]) == [60, 70]
    assert kept(priced, payment) == 130
    for part in (300, None):
        priced.ok(priced.refund(payment["id"], part))
    assert kept(priced, payment) == 0
    full = priced.ok(priced.call("GET", f"/v1/wallets/{wallet['id']}", token=token))
    assert full["balance"] == amount


@pytest.mark.parametrize(("ending", "kept_then", "kept_at_last"), [("lose", 87, 87), ("win", 87, 0)])
def test_a_dispute_after_a_refund_returns_nothing_of_the_fee(
    priced: Shop, ending: str, kept_then: int, kept_at_last: int
) -> None:
    payment = priced.payment(1000)
    priced.ok(priced.confirm(payment["id"]))
    payment = priced.read(payment["id"])
    assert priced.ok(priced.refund(payment["id"], 333))["fee_returned"]["amount_minor"] == "43"
    stripe_id = open_at_bank(priced, payment)
    dispute = the_dispute(priced, payment["id"], withdrawn)
    assert counters(priced, payment["id"]) == (333, 1000, 333)
    assert refusal_of(priced.refund(payment["id"], 1)) == (400, "PAYMENT_DISPUTED")
    priced.platform.sandbox(f"disputes/{stripe_id}/{ending}")
    ended = {"lose": "LOST", "win": "WON"}[ending]
    path = f"/v1/disputes/{dispute['id']}"
    wait_for(lambda: priced.ok(priced.call("GET", path, token=priced.seller_token))["state"] == ended, ended)
    priced.quiet()
    assert kept(priced, payment) == kept_then
    if ending == "lose":
        assert refusal_of(priced.refund(payment["id"], 1)) == (400, "REFUND_EXCEEDS_AVAILABLE")
    else:
        assert priced.ok(priced.refund(payment["id"]))["fee_returned"]["amount_minor"] == "87"
    assert kept(priced, payment) == kept_at_last


def test_a_refund_is_covered_by_the_fee_that_it_returns(priced: Shop) -> None:
    path, token = "/v1/payment_settings", priced.seller_token
    priced.ok(priced.call("PUT", path, {"refunds_wait_for_balance": True}, token=token))
    payment = priced.payment(1000)
    priced.ok(priced.confirm(payment["id"]))
    assert priced.ok(priced.refund(payment["id"]))["state"] == "SUCCEEDED"
    assert kept(priced, priced.read(payment["id"])) == 0
    priced.ok(priced.call("PUT", path, {"refunds_wait_for_balance": False}, token=token))


def test_a_refund_that_was_canceled_before_it_was_sent_takes_its_fee_back(priced: Shop) -> None:
    payment = priced.payment(1000)
    priced.ok(priced.confirm(payment["id"]))
    priced.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="error", status=429, times=3)
    assert priced.refund(payment["id"], 500).status_code == 503
    path = f"/v1/payments/{payment['id']}/refunds"
    refund = priced.ok(priced.call("GET", path, token=priced.seller_token))["refunds"][0]
    assert (refund["state"], refund["fee_returned"]["amount_minor"]) == ("PENDING", "65")
    priced.ok(priced.call("POST", f"/v1/refunds/{refund['id']}:cancel", {}, token=priced.seller_token))
    wait_for(lambda: kept(priced, priced.read(payment["id"])) == 130, "the fee taken back")
    assert priced.ok(priced.refund(payment["id"]))["fee_returned"]["amount_minor"] == "130"


def test_money_that_a_person_accepts_has_the_merchants_terms(priced: Shop, operator: Operator) -> None:
    payment = conflicted(priced, 1000, ours="amount_minor = 1100")
    accepted = priced.ok(operator.act(f"/v1/payments/{payment['id']}:resolve_conflict", "ACCEPT"))
    [capture] = accepted["captures"]
    assert (capture["fee"]["amount_minor"], capture["fee_plan_version"], capture["fee_refund"]) == (
        "130",
        "v1",
        "RETURNED",
    )
    assert priced.ok(priced.refund(payment["id"]))["fee_returned"]["amount_minor"] == "130"
    priced.quiet()
    assert kept(priced, priced.read(payment["id"])) == 0


def test_the_books_are_right(priced: Shop) -> None:
    priced.quiet()
    proof = priced.platform.audit()
    assert proof.returncode == 0, proof.stdout
