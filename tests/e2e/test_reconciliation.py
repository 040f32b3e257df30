"""Reconciliation with the sandbox: what was paid and refunded is matched, and the clearing account is Stripe's balance."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import servers.payments.main  # noqa: F401  # imported so that its crash points are declared
from servers.runtime import crashpoints
from tests.e2e.test_conflicts import charged_by_a_stranger, conflicted
from tests.support.stack import Shop, insist, reason_of, wait_for
from tests.support.staff import Operator

POINTS = [name for name in crashpoints.declared() if name.startswith("payments.reconcile.")]


def items(shop: Shop, payment_id: str) -> list[tuple[str, str, int, int]]:
    """Return kind, state, expected and actual amount of a payment's items."""
    statement = f"""
        SELECT kind, state, expected_minor, coalesce(actual_minor, 0) FROM reconciliation_items
        WHERE payment_id = '{payment_id}' ORDER BY kind, expected_minor
        """
    return [tuple(row) for row in shop.platform.sql("payments", statement)]


def stripes_fee(shop: Shop, payment_id: str) -> int:
    """Return what the ledger booked as Stripe's own fee of a payment's captures."""
    lines = f"""
        SELECT b.id FROM balance_transactions b JOIN reconciliation_items i ON i.id = b.item_id
        WHERE i.payment_id = '{payment_id}' AND i.kind = 'CAPTURE' AND b.state = 'BOOKED'
        """
    ids = ", ".join(f"'{row[0]}'" for row in shop.platform.sql("payments", lines))
    statement = (
        f"SELECT coalesce(sum(amount_minor), 0) FROM transfers WHERE code = 'bt.fee' AND fact_id IN ({ids or 'NULL'})"
    )
    return int(shop.platform.sql("wallets", statement)[0][0])


def test_captures_in_parts_and_a_refund_are_matched_and_stripes_fee_is_booked(shop: Shop) -> None:
    payment = shop.authorized(10_000)
    shop.ok(shop.capture(payment["id"], 6_000))
    shop.ok(shop.capture(payment["id"], 4_000))
    shop.ok(shop.refund(payment["id"], 1_500))
    matched = [
        ("CAPTURE", "MATCHED", 4_000, 4_000),
        ("CAPTURE", "MATCHED", 6_000, 6_000),
        ("REFUND", "MATCHED", -1_500, -1_500),
    ]
    wait_for(lambda: items(shop, payment["id"]) == matched, "the lines")
    # Stripe's fee of several captures is that of one: 2.9 % and 30.
    wait_for(lambda: stripes_fee(shop, payment["id"]) == 320, "the fee")


def test_what_stripe_withdrew_for_a_refund_leaves_the_transit_account(shop: Shop) -> None:
    payment = shop.payment(3_000)
    shop.ok(shop.confirm(payment["id"]))
    refund = shop.ok(shop.refund(payment["id"], 1_000))
    statement = f"""
        SELECT t.code, t.amount_minor FROM transfers t WHERE t.fact_id IN ('{refund["id"]}', '{{line}}') AND t.code <> 'bt.fee'
        ORDER BY t.code
        """

    def settled() -> bool:
        line = f"""
            SELECT b.id FROM balance_transactions b JOIN reconciliation_items i ON i.id = b.item_id
            WHERE i.source_id = '{refund["id"]}' AND b.state = 'BOOKED'
            """
        rows: list[Any] = shop.platform.sql("payments", line)
        if not rows:
            return False
        found = shop.platform.sql("wallets", statement.format(line=rows[0][0]))
        return [tuple(row) for row in found] == [
            ("bt.matched", 1_000),
            (f"refund.pending.{_capture(shop, payment)}", 1_000),
        ]

    wait_for(settled, "the refund's line")


def test_what_stripe_takes_for_a_dispute_is_matched_with_the_dispute(shop: Shop) -> None:
    payment = shop.payment(4_000)
    disputed = shop.card("pm_card_createDispute")
    shop.ok(shop.confirm(payment["id"], method_id=disputed["id"]))
    matched = [("CAPTURE", "MATCHED", 4_000, 4_000), ("DISPUTE", "MATCHED", -4_000, -4_000)]
    wait_for(lambda: items(shop, payment["id"]) == matched, "the dispute's line")


def test_money_in_suspense_is_matched_as_what_it_is(shop: Shop, operator: Operator) -> None:
    payment = conflicted(shop, 2700, ours="amount_minor = 2800")
    wait_for(lambda: items(shop, payment["id"]) == [("CAPTURE", "MATCHED", 2_700, 2_700)], "the line")
    # Accepted, it becomes a capture, and nothing more moves at Stripe; then it goes back.
    shop.ok(operator.act(f"/v1/payments/{payment['id']}:resolve_conflict", "ACCEPT"))
    shop.ok(shop.refund(payment["id"]))
    matched = [("CAPTURE", "MATCHED", 2_700, 2_700), ("REFUND", "MATCHED", -2_700, -2_700)]
    wait_for(lambda: items(shop, payment["id"]) == matched, "the refund's line")


def test_money_that_nobody_asked_for_is_a_break_until_staff_end_it(shop: Shop, operator: Operator) -> None:
    charge = charged_by_a_stranger(shop, 4200)
    item = operator.item_of(charge)
    assert (item["state"], item["kind"], item["payment_id"]) == ("UNEXPECTED", "CAPTURE", "")
    assert [(line["type"], line["amount"]["amount_minor"]) for line in item["lines"]] == [("charge", "4200")]
    listed = shop.ok(shop.call("GET", "/v1/reconciliation_items?state=UNEXPECTED", token=operator.token))
    assert item["id"] in [one["id"] for one in listed["reconciliation_items"]]
    path = f"/v1/reconciliation_items/{item['id']}"
    for token in (shop.seller_token, shop.customer_token):
        assert shop.call("GET", path, token=token).status_code == 403
        body = {"decision": "ACCEPT", "reason": "mine"}
        assert shop.call("POST", f"{path}:resolve", body, token=token, key=str(uuid.uuid4())).status_code == 403
    for refused in ({"reason": "seen"}, {"decision": "ACCEPT"}, {"decision": "ACCEPT", "reason": "no"}):
        answer = shop.call("POST", f"{path}:resolve", refused, token=operator.token, key=str(uuid.uuid4()))
        assert reason_of(answer) == "FIELD_INVALID"
    body = {"decision": "ACCEPT", "reason": "a charge by hand, in the dashboard", "write_off": True}
    ended = shop.ok(shop.call("POST", f"{path}:resolve", body, token=operator.token, key=str(uuid.uuid4())))
    assert (ended["state"], ended["match_mode"], ended["reason"]) == ("MATCHED", "FORCED", body["reason"])
    assert ended["write_off"] == {"amount_minor": "4200", "currency": "USD"}
    gain = f"SELECT code, amount_minor FROM transfers WHERE fact_id = '{item['id']}'"
    assert [tuple(row) for row in shop.platform.sql("wallets", gain)] == [("write_off", 4200)]
    again = operator.act(f"{path}:resolve", "DISMISS")
    assert reason_of(again) == "RECONCILIATION_ITEM_STATE_INVALID"
    decided = f"SELECT action, decision, reason FROM staff_actions WHERE resource_id = '{item['id']}'"
    (row,) = shop.platform.sql("payments", decided)
    assert tuple(row) == ("resolve_reconciliation_item", "ACCEPT", body["reason"])


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_reconciliation_books_every_line_once(shop: Shop, point: str) -> None:
    armed = shop.platform.arm(point)
    payment = shop.ok(insist(lambda: shop.call("POST", "/v1/payments", shop.order(2000), token=shop.seller_token)))
    shop.ok(insist(lambda: shop.confirm(payment["id"])))
    wait_for(lambda: not armed.exists(), f"{point} was never passed")
    wait_for(lambda: items(shop, payment["id"]) == [("CAPTURE", "MATCHED", 2_000, 2_000)], "the line")
    wait_for(lambda: stripes_fee(shop, payment["id"]) == 88, "the fee")


def _capture(shop: Shop, payment: dict[str, Any]) -> str:
    captures: list[dict[str, Any]] = shop.read(payment["id"])["captures"]
    identifier: str = captures[0]["id"]
    return identifier
