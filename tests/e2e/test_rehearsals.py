"""`validate_only`: every check that needs nobody outside, and nothing left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from paymesh.payments.v1 import payments_pb2
from paymesh.wallets.v1 import wallets_pb2

from dev.stack import REVIEW_ABOVE
from servers.runtime.policy import policies_of
from tests.e2e.test_conflicts import charged_by_a_stranger, conflicted
from tests.support.stack import Shop, reason_of, wait_for
from tests.support.staff import Operator

SERVICES = [file.DESCRIPTOR.services_by_name.values() for file in (payments_pb2, wallets_pb2)]
MONEY = {n.rsplit("/", 1)[1] for s in SERVICES for n, p in policies_of(s).items() if p.key_required}
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
# Stripe's webhooks about what was done before may come at any time, and how far its list is read moves on.
ELSEWHERE = {"stripe_events", "stripe_event_cursor", "reconciliation_progress"}
RECONCILED_SECONDS = 8
"""After which nothing that was done at Stripe is still to be reconciled: what it lags behind, and two rounds."""


def rows(shop: Shop) -> dict[str, tuple[int, int]]:
    """Return how many rows each table of payments and wallets has, and a sum over what is in them. What the relay has moved counts
    where it was."""
    shop.quiet()
    counted = {}
    for domain in ("payments", "wallets"):
        tables = sorted({row[0] for row in shop.platform.sql(domain, TABLES)} - ELSEWHERE)
        one = "SELECT '{0}', count(*), coalesce(sum(hashtext(t::text)), 0) FROM {0} t"
        found = shop.platform.sql(domain, " UNION ALL ".join(one.format(table) for table in tables))
        told = sum(count for table, count, _ in found if table.startswith("outbox"))
        counted |= {f"{domain}.{table}": (n, int(sum_)) for table, n, sum_ in found if not table.startswith("outbox")}
        counted[f"{domain}.events"] = (told, 0)
    return counted


def wait_for_rest(shop: Shop) -> None:
    """Wait until what was done at Stripe is reconciled: nothing is written by itself any more."""
    seen, since = rows(shop), time.monotonic()

    def rests() -> bool:
        nonlocal seen, since
        now = rows(shop)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > RECONCILED_SECONDS

    wait_for(rests, "the reconciliation")


def rehearse(shop: Shop, path: str, body: dict[str, Any], *, token: str = "", key: str | None = None) -> httpx.Response:
    """Ask what would become of a call; without a key unless one is given."""
    headers = {"authorization": f"Bearer {token or shop.seller_token}"} | ({"idempotency-key": key} if key else {})
    return shop.client.post(path, json=body | {"validate_only": True}, headers=headers)


class Stage:
    """What there is to rehearse on."""

    def __init__(self, shop: Shop, operator: Operator) -> None:
        self.staff, self.conflicted = operator.token, conflicted(shop, 1000, ours="amount_minor = 1100")
        self.lost = shop.payment(1000)
        shop.platform.sandbox("faults", method="post", path="/confirm$", kind="error", status=500, times=1)
        assert shop.ok(shop.confirm(self.lost["id"]))["certainty"] == "UNKNOWN"
        self.fresh, self.held, self.paid = shop.payment(1000), shop.authorized(1000), shop.payment(1000)
        shop.ok(shop.confirm(self.paid["id"]))
        # One that Stripe was not reached for waits for the janitor's look, in minutes.
        shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="error", status=429, times=3)
        assert shop.refund(self.paid["id"], 100).status_code == 503
        path = f"/v1/payments/{self.paid['id']}/refunds"
        self.unsent = shop.ok(shop.call("GET", path, token=shop.seller_token))["refunds"][0]
        self.large = shop.payment(REVIEW_ABOVE["CHF"] + 1, "CHF")
        shop.ok(shop.confirm(self.large["id"]))
        disputed = shop.payment(1000)
        shop.ok(shop.confirm(disputed["id"], method_id=shop.card("pm_card_createDispute")["id"]))
        self.disputes = f"/v1/disputes?payment_id={disputed['id']}"
        wait_for(lambda: any(one["movements"] for one in self._disputes(shop)), "the dispute and its withdrawal")
        self.dispute = self._disputes(shop)[0]
        wallets = shop.ok(shop.call("GET", "/v1/wallets", token=shop.customer_token)).get("wallets", [])
        mine = [one for one in wallets if one["currency"] == "USD"]
        body = {"currency": "USD"}
        self.wallet = mine[0] if mine else shop.ok(shop.call("POST", "/v1/wallets", body, token=shop.customer_token))
        self.unasked = operator.item_of(charged_by_a_stranger(shop, 900))
        wait_for_rest(shop)

    @property
    def path_of_item(self) -> str:
        """Return where the break is resolved."""
        return f"/v1/reconciliation_items/{self.unasked['id']}:resolve"

    def _disputes(self, shop: Shop) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = shop.ok(shop.call("GET", self.disputes, token=shop.seller_token)).get(
            "disputes", []
        )
        return found

    def calls(self, shop: Shop) -> dict[str, tuple[str, dict[str, Any], str]]:
        """Return path, body and token of each money method."""
        usd, card = {"amount_minor": "300", "currency": "USD"}, {"payment_method_id": shop.method_id}
        seller, customer = shop.seller_token, shop.customer_token
        accept, again = ({"decision": decision, "reason": "seen"} for decision in ("ACCEPT", "READ_AGAIN"))
        held, top_ups = f"/v1/payments/{self.held['id']}", f"/v1/wallets/{self.wallet['id']}/top_ups"
        return {
            "CreatePayment": ("/v1/payments", shop.order(1000), seller),
            "ConfirmPayment": (f"/v1/payments/{self.fresh['id']}:confirm", card, customer),
            "CapturePayment": (f"{held}:capture", {"amount": usd}, seller),
            "ApprovePayment": (f"/v1/payments/{self.large['id']}:approve", {}, seller),
            "RejectPayment": (f"/v1/payments/{self.large['id']}:reject", {}, seller),
            "CancelPayment": (f"{held}:cancel", {}, seller),
            "CreateRefund": (f"/v1/payments/{self.paid['id']}/refunds", {"amount": usd}, seller),
            "CancelRefund": (f"/v1/refunds/{self.unsent['id']}:cancel", {}, seller),
            "AcceptDispute": (f"/v1/disputes/{self.dispute['id']}:accept", {}, seller),
            "CreateTopUp": (top_ups, {"amount": usd, **card}, customer),
            "ResolveConflict": (f"/v1/payments/{self.conflicted['id']}:resolve_conflict", accept, self.staff),
            "ResolvePayment": (f"/v1/payments/{self.lost['id']}:resolve", again, self.staff),
            "ResolveRefund": (f"/v1/refunds/{self.unsent['id']}:resolve", again, self.staff),
            "ResolveReconciliationItem": (self.path_of_item, {**accept, "write_off": True}, self.staff),
        }


@pytest.fixture(scope="module")
def stage(shop: Shop, operator: Operator) -> Iterator[Stage]:
    """Return what there is to rehearse on; the audit wants no open break behind it."""
    stage = Stage(shop, operator)
    yield stage
    shop.ok(operator.act(stage.path_of_item, "ACCEPT"))


@pytest.mark.parametrize("method", sorted(MONEY))
def test_a_rehearsal_shows_what_would_be_and_leaves_nothing(shop: Shop, stage: Stage, method: str) -> None:
    path, body, token = stage.calls(shop)[method]
    before, key = rows(shop), str(uuid.uuid4())
    shown = shop.ok(rehearse(shop, path, body, token=token, key=key))
    assert shown.get("certainty", "CERTAIN") == ("UNKNOWN" if method == "ResolvePayment" else "CERTAIN")
    state, amounts = EXPECTED[method]
    assert shown["state"] == state
    for name, minor in amounts.items():
        assert shown[name]["amount_minor"] == str(minor), name
    assert rows(shop) == before
    # The key was not used: another request may have it.
    other = body | {"description": "x"} if method == "CreatePayment" else body
    assert rehearse(shop, path, other, token=token, key=key).status_code == 200
    assert rows(shop) == before


EXPECTED: dict[str, tuple[str, dict[str, int]]] = {
    "CreatePayment": ("REQUIRES_PAYMENT_METHOD", {"amount": 1000}),
    "ConfirmPayment": ("PROCESSING", {"amount": 1000}),
    "CapturePayment": ("REQUIRES_CAPTURE", {"amount_capturable": 700, "amount_capture_pending": 300}),
    "CancelPayment": ("REQUIRES_CAPTURE", {"amount_capturable": 1000}),
    "ApprovePayment": ("PROCESSING", {"amount_captured": 0}),
    "RejectPayment": ("CANCELED", {"amount_captured": 0}),
    "CreateRefund": ("PENDING", {"amount": 300}),
    "CancelRefund": ("CANCELED", {"amount": 100}),
    "AcceptDispute": ("NEEDS_RESPONSE", {"amount": 1000}),
    "CreateTopUp": ("PENDING", {"amount": 300}),
    "ResolveConflict": ("CONFLICTED", {"amount_captured": 0}),
    "ResolvePayment": ("PROCESSING", {"amount": 1000}),
    "ResolveRefund": ("PENDING", {"amount": 100}),
    "ResolveReconciliationItem": ("MATCHED", {"actual": 900, "write_off": 900}),
}


def test_a_rehearsal_is_refused_for_what_the_call_would_be_refused_for(shop: Shop, stage: Stage) -> None:
    usd, pay = {"amount_minor": "5000", "currency": "USD"}, "/v1/payments"
    nobody, top_ups = "pay_" + "0" * 26, f"/v1/wallets/{stage.wallet['id']}/top_ups"
    stranger = {"payment_method_id": "pm_" + "0" * 26}
    held, paid, customer = stage.held["id"], stage.paid["id"], shop.customer_token
    before = rows(shop)
    refused = {
        "CAPTURE_EXCEEDS_AVAILABLE": rehearse(shop, f"{pay}/{held}:capture", {"amount": usd}),
        "REFUND_EXCEEDS_AVAILABLE": rehearse(shop, f"{pay}/{paid}/refunds", {"amount": usd}),
        "PAYMENT_STATE_INVALID": rehearse(shop, f"{pay}/{paid}:cancel", {}),
        "FIELD_INVALID": rehearse(shop, pay, shop.order(0)),
    }
    assert {reason: reason_of(answer) for reason, answer in refused.items()} == {reason: reason for reason in refused}
    missing = [
        rehearse(shop, f"{pay}/{nobody}:capture", {}),
        rehearse(shop, f"{pay}/{stage.fresh['id']}:confirm", stranger, token=customer),
        # Which cards a user has, payments knows.
        rehearse(shop, top_ups, {"amount": {"amount_minor": "300", "currency": "USD"}, **stranger}, token=customer),
    ]
    assert {reason_of(answer) for answer in missing} == {"RESOURCE_NOT_FOUND"}
    assert rehearse(shop, f"{pay}/{held}:capture", {}, token=customer).status_code == 403
    assert rows(shop) == before


def test_a_refused_rehearsal_does_not_spoil_the_key(shop: Shop) -> None:
    payment, key = shop.authorized(1000), str(uuid.uuid4())
    path, body = f"/v1/payments/{payment['id']}:capture", {"amount": {"amount_minor": "1001", "currency": "USD"}}
    assert rehearse(shop, path, body, key=key).status_code == 400
    assert shop.ok(shop.capture(payment["id"], 1000, key=key))["state"] == "SUCCEEDED"
