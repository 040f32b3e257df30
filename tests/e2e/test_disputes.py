"""Disputes through the edge, told by the sandbox's webhooks: what they hold, what they forbid, how they end, and that the books
agree."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

import servers.payments.main  # noqa: F401  # imported so that its crash points are declared
from servers.runtime import crashpoints
from tests.e2e.test_certainty import intent_of
from tests.e2e.test_wallets import Purse, customer
from tests.support.stack import Platform, Shop, insist, open_shop, refusal_of, wait_for

FEE = 1500
DISPUTED = "pm_card_createDispute"


@pytest.fixture(scope="module")
def seller(platform: Platform) -> Iterator[Shop]:
    """Return a merchant of these tests' own, whose balances nobody else moves."""
    with httpx.Client(base_url=platform.edge, verify=platform.context, timeout=20) as client:
        yield open_shop(platform, client)


@pytest.fixture(autouse=True)
def delivered(platform: Platform) -> Iterator[None]:
    """Leave the webhooks as they were found."""
    yield
    platform.sandbox("webhooks", paused=False, copies=1, reorder=False)


def paid(shop: Shop, amount: int = 2000, card: str = "") -> dict[str, Any]:
    """Pay, with a test card or the saved one."""
    method_id = shop.card(card)["id"] if card else None
    payment = shop.payment(amount)
    return shop.ok(insist(lambda: shop.confirm(payment["id"], method_id=method_id)))


def disputes(shop: Shop, payment_id: str, query: str = "") -> list[dict[str, Any]]:
    """Return a payment's disputes, newest first."""
    found = shop.ok(shop.call("GET", f"/v1/disputes?payment_id={payment_id}{query}", token=shop.seller_token))
    listed: list[dict[str, Any]] = found.get("disputes", [])
    return listed


def read(shop: Shop, dispute_id: str) -> dict[str, Any]:
    """Read a dispute."""
    return shop.ok(shop.call("GET", f"/v1/disputes/{dispute_id}", token=shop.seller_token))


def the_dispute(shop: Shop, payment_id: str, is_ready: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
    """Wait for a payment's only dispute, until it is as asked."""
    wait_for(lambda: any(map(is_ready, disputes(shop, payment_id))), "the dispute")
    (found,) = disputes(shop, payment_id)
    return found


def withdrawn(dispute: dict[str, Any]) -> bool:
    """Tell whether its money is gone."""
    return len(dispute["movements"]) > 0


def accept(shop: Shop, dispute_id: str, *, key: str | None = None, token: str = "") -> httpx.Response:
    """Accept as the merchant."""
    return shop.call("POST", f"/v1/disputes/{dispute_id}:accept", {}, token=token or shop.seller_token, key=key)


def open_at_bank(shop: Shop, payment: dict[str, Any], **body: Any) -> str:
    """Have a cardholder dispute a payment. Returns Stripe's id."""
    made = shop.platform.sandbox("disputes", payment_intent=intent_of(shop.platform, payment["id"]), **body)
    return str(made["id"])


def balances(shop: Shop) -> tuple[int, int, int]:
    """Return the merchant's pending, available and disputed money, once the ledger has all of it."""
    shop.quiet()
    found = shop.ok(shop.call("GET", "/v1/balances", token=shop.seller_token)).get("balances", [])
    (usd,) = [one for one in found if one["currency"] == "USD"]
    return tuple(int(usd[name]["amount_minor"]) for name in ("pending", "available", "disputed"))  # type: ignore[return-value]  # three


def counters(shop: Shop, payment_id: str) -> tuple[int, int, int]:
    """Return what is refunded, disputed and over."""
    payment = shop.read(payment_id)
    names = ("amount_refunded", "amount_disputed", "over_exposure")
    return tuple(int(payment[name]["amount_minor"]) for name in names)  # type: ignore[return-value]  # three


def test_a_chargeback_holds_the_money_until_it_is_accepted(seller: Shop) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"], withdrawn)
    assert (dispute["stage"], dispute["state"], dispute["reason"]) == ("CHARGEBACK", "NEEDS_RESPONSE", "fraudulent")
    assert (dispute["merchant_id"], dispute["livemode"], dispute["certainty"]) == (seller.merchant_id, False, "CERTAIN")
    assert (dispute["amount"], dispute["amount_at_risk"]) == ({"amount_minor": "2000", "currency": "USD"},) * 2
    assert (dispute["fee"]["amount_minor"], dispute["fee_payer"]) == (str(FEE), "MERCHANT")
    assert dispute["evidence_due_time"] > dispute["create_time"]
    assert dispute["available_actions"] == ["accept"]
    assert counters(seller, payment["id"]) == (0, 2000, 0)
    assert "refund" not in seller.read(payment["id"])["available_actions"]
    assert refusal_of(seller.refund(payment["id"], 1)) == (400, "PAYMENT_DISPUTED")
    pending, available, held = balances(seller)
    assert (pending, available, held) == (1945, -2000 - FEE, 2000)
    path = "/v1/balance_transactions?currency=USD"
    lines = seller.ok(seller.call("GET", path, token=seller.seller_token))["balance_transactions"]
    assert {(one["type"], one["amount"]["amount_minor"]) for one in lines} == {
        ("dispute.opened", "-2000"),
        ("dispute.fee", f"-{FEE}"),
    }
    (held_line,) = seller.ok(seller.call("GET", f"{path}&balance=DISPUTED", token=seller.seller_token))[
        "balance_transactions"
    ]
    assert (held_line["source_id"], held_line["amount"]["amount_minor"]) == (dispute["id"], "2000")
    key = str(uuid.uuid4())
    accepted = seller.ok(accept(seller, dispute["id"], key=key))
    assert (accepted["state"], accepted["available_actions"]) == ("LOST", [])
    replay = accept(seller, dispute["id"], key=key)
    assert (replay.headers["idempotent-replayed"], replay.json()) == ("true", accepted)
    assert refusal_of(accept(seller, dispute["id"])) == (400, "DISPUTE_STATE_INVALID")
    assert balances(seller) == (1945, -2000 - FEE, 0)
    assert counters(seller, payment["id"]) == (0, 2000, 0)
    assert seller.platform.audit().returncode == 0


def test_what_is_won_comes_back_with_the_fee(seller: Shop) -> None:
    before = balances(seller)
    payment = paid(seller)
    stripe_id = open_at_bank(seller, payment, amount=500)
    the_dispute(seller, payment["id"], withdrawn)
    seller.platform.sandbox(f"disputes/{stripe_id}/win")
    dispute = the_dispute(seller, payment["id"], lambda one: one["state"] == "WON" and len(one["movements"]) == 2)
    assert dispute["fee"]["amount_minor"] == "0"
    assert balances(seller) == (before[0] + 1945, before[1], before[2])
    assert seller.ok(insist(lambda: seller.refund(payment["id"])))["amount"]["amount_minor"] == "2000"
    seller.platform.sandbox(f"disputes/{stripe_id}/reopen")
    again = the_dispute(seller, payment["id"], lambda one: len(one["movements"]) == 3)
    assert (again["stage"], again["state"]) == ("PRE_ARBITRATION", "NEEDS_RESPONSE")
    assert counters(seller, payment["id"]) == (2000, 500, 500)
    seller.platform.sandbox(f"disputes/{stripe_id}/lose")
    the_dispute(seller, payment["id"], lambda one: one["state"] == "LOST")
    seller.quiet()
    assert seller.platform.audit().returncode == 0


def test_an_inquiry_is_refunded_and_not_accepted(seller: Shop) -> None:
    payment = paid(seller, card="pm_card_createDisputeInquiry")
    dispute = the_dispute(seller, payment["id"])
    assert (dispute["stage"], dispute["available_actions"]) == ("INQUIRY", [])
    assert refusal_of(accept(seller, dispute["id"])) == (400, "DISPUTE_STATE_INVALID")
    assert counters(seller, payment["id"]) == (0, 0, 0)
    assert seller.ok(insist(lambda: seller.refund(payment["id"], 700)))["state"] == "SUCCEEDED"
    rows = seller.platform.sql("payments", f"SELECT stripe_dispute_id FROM disputes WHERE id = '{dispute['id']}'")
    seller.platform.sandbox(f"disputes/{rows[0][0]}/escalate")
    the_dispute(seller, payment["id"], withdrawn)
    assert counters(seller, payment["id"]) == (700, 2000, 700)
    assert read(seller, dispute["id"])["stage"] == "CHARGEBACK"


def test_a_refund_in_time_prevents_what_the_issuer_warned_of(seller: Shop) -> None:
    payment = paid(seller, card="pm_card_createIssuerFraudRecord")
    dispute = the_dispute(seller, payment["id"])
    assert (dispute["state"], dispute["stage"]) == ("EARLY_WARNING", "INQUIRY")
    seller.ok(insist(lambda: seller.refund(payment["id"])))
    assert the_dispute(seller, payment["id"])["state"] == "PREVENTED"


def test_what_a_network_gives_back_by_its_rules_costs_without_a_dispute(seller: Shop) -> None:
    payment = paid(seller)
    open_at_bank(seller, payment, amount=800, case="resolution")
    dispute = the_dispute(seller, payment["id"], withdrawn)
    assert (dispute["state"], dispute["stage"]) == ("PREVENTED", "CHARGEBACK")
    assert counters(seller, payment["id"]) == (0, 800, 0)
    assert refusal_of(seller.refund(payment["id"], 1201)) == (400, "REFUND_EXCEEDS_AVAILABLE")
    seller.quiet()
    assert seller.platform.audit().returncode == 0


def test_disputes_are_recorded_after_a_refund_and_beyond_the_payment(seller: Shop) -> None:
    payment = paid(seller)
    seller.ok(insist(lambda: seller.refund(payment["id"], 1500)))
    open_at_bank(seller, payment, amount=3000)
    the_dispute(seller, payment["id"], withdrawn)
    assert counters(seller, payment["id"]) == (1500, 3000, 2500)
    seller.quiet()
    assert seller.platform.audit().returncode == 0


def test_a_card_with_several_disputes_has_each_by_itself(seller: Shop) -> None:
    payment = paid(seller, 2001, card="pm_card_createMultipleDisputes")
    wait_for(lambda: len(disputes(seller, payment["id"])) == 2, "both")
    assert sorted(int(one["amount"]["amount_minor"]) for one in disputes(seller, payment["id"])) == [1000, 1001]
    first, second = disputes(seller, payment["id"])
    path = f"/v1/disputes?payment_id={payment['id']}&page_size=1"
    page = seller.ok(seller.call("GET", path, token=seller.seller_token))
    assert [one["id"] for one in page["disputes"]] == [first["id"]]
    rest = seller.call("GET", f"{path}&page_token={page['next_page_token']}", token=seller.seller_token)
    assert [one["id"] for one in seller.ok(rest)["disputes"]] == [second["id"]]
    seller.ok(accept(seller, first["id"]))
    by = {name: [one["id"] for one in disputes(seller, payment["id"], f"&{name}")] for name in (
        "state=LOST", "state=NEEDS_RESPONSE", "stage=CHARGEBACK", "stage=INQUIRY", "create_time_to=2020-01-01T00:00:00Z",
    )}  # fmt: skip
    assert by == {
        "state=LOST": [first["id"]],
        "state=NEEDS_RESPONSE": [second["id"]],
        "stage=CHARGEBACK": [first["id"], second["id"]],
        "stage=INQUIRY": [],
        "create_time_to=2020-01-01T00:00:00Z": [],
    }


def test_nobody_sees_or_accepts_the_disputes_of_others(seller: Shop, shop: Shop) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"])
    path = f"/v1/disputes/{dispute['id']}"
    assert refusal_of(shop.call("GET", path, token=shop.seller_token)) == (404, "RESOURCE_NOT_FOUND")
    assert refusal_of(accept(shop, dispute["id"])) == (404, "RESOURCE_NOT_FOUND")
    assert shop.call("GET", path, token=seller.customer_token).status_code == 403
    assert accept(seller, dispute["id"], token=seller.customer_token).status_code == 403
    assert disputes(shop, payment["id"]) == []
    keyless = seller.client.post(f"{path}:accept", json={}, headers={"authorization": f"Bearer {seller.seller_token}"})
    assert refusal_of(keyless) == (400, "IDEMPOTENCY_KEY_REQUIRED")


def test_webhooks_doubled_and_out_of_order_come_to_the_same(seller: Shop) -> None:
    payment = paid(seller)
    seller.platform.sandbox("webhooks", paused=True, copies=3, reorder=True)
    stripe_id = open_at_bank(seller, payment, case="inquiry")
    for verb in ("escalate", "win", "reopen", "lose"):
        seller.platform.sandbox(f"disputes/{stripe_id}/{verb}")
    seller.platform.sandbox("webhooks", paused=False, copies=3, reorder=True)
    dispute = the_dispute(seller, payment["id"], lambda one: one["state"] == "LOST")
    waiting = "SELECT count(*) FROM stripe_events WHERE state = 'STORED'"
    wait_for(lambda: seller.platform.sql("payments", waiting)[0][0] == 0, "the worker")
    assert len(dispute["movements"]) == 3
    assert the_dispute(seller, payment["id"])["resource_version"] == dispute["resource_version"]
    assert counters(seller, payment["id"]) == (0, 2000, 0)
    seller.quiet()
    assert seller.platform.audit().returncode == 0


def test_a_lost_answer_to_an_acceptance_is_known_by_the_webhook(seller: Shop) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"], withdrawn)
    seller.platform.sandbox("webhooks", paused=True)
    seller.platform.sandbox("faults", method="post", path="/close$", kind="lose_response", times=3)
    unsure = seller.ok(accept(seller, dispute["id"]))
    assert (unsure["state"], unsure["certainty"], unsure["available_actions"]) == ("NEEDS_RESPONSE", "UNKNOWN", [])
    assert refusal_of(accept(seller, dispute["id"])) == (409, "OPERATION_IN_PROGRESS")
    seller.platform.sandbox("webhooks", paused=False)
    lost = the_dispute(seller, payment["id"], lambda one: one["state"] == "LOST")
    assert lost["certainty"] == "CERTAIN"


def test_a_lost_answer_is_found_by_who_reads_and_by_the_janitor(seller: Shop) -> None:
    for by in ("reader", "janitor"):
        payment = paid(seller, card=DISPUTED)
        dispute = the_dispute(seller, payment["id"], withdrawn)
        seller.platform.sandbox("webhooks", paused=True)
        seller.platform.sandbox("faults", method="post", path="/close$", kind="lose_response", times=3)
        seller.ok(accept(seller, dispute["id"]))
        change = "change_time = now() - interval '61 seconds'" if by == "reader" else "next_poll_time = now()"
        seller.platform.sql("payments", f"UPDATE outbound_calls SET {change} WHERE target = '{dispute['id']}'")
        statement = f"SELECT state FROM disputes WHERE id = '{dispute['id']}'"
        if by == "reader":
            assert read(seller, dispute["id"])["state"] == "LOST"
        wait_for(lambda: seller.platform.sql("payments", statement) == [("LOST",)], by)  # noqa: B023  # not kept
        seller.platform.sandbox("webhooks", paused=False)


def test_an_unreached_stripe_is_told_as_such_and_the_same_key_goes_on(seller: Shop) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"], withdrawn)
    key = str(uuid.uuid4())
    seller.platform.sandbox("faults", method="post", path="/close$", kind="error", status=429, times=3)
    assert refusal_of(accept(seller, dispute["id"], key=key)) == (503, "PROVIDER_UNAVAILABLE")
    assert read(seller, dispute["id"])["available_actions"] == ["accept"]
    assert seller.ok(insist(lambda: accept(seller, dispute["id"], key=key)))["state"] == "LOST"


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("at_risk_minor = at_risk_minor + 1", "at_risk_minor = at_risk_minor - 1"),
        ("stage = 'INQUIRY'", "stage = 'CHARGEBACK'"),
    ],
)
def test_the_audit_names_a_dispute_that_was_changed_by_hand(seller: Shop, change: str, back: str) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"], withdrawn)
    seller.quiet()
    seller.platform.sql("payments", f"UPDATE disputes SET {change} WHERE id = '{dispute['id']}'")
    proof = seller.platform.audit()
    seller.platform.sql("payments", f"UPDATE disputes SET {back} WHERE id = '{dispute['id']}'")
    broken = {line.split()[0] for line in proof.stdout.splitlines() if "BROKEN" in line and line.startswith("I")}
    assert (proof.returncode, broken) == (1, {"I6", "I7"})
    assert seller.platform.audit().returncode == 0


@pytest.fixture
def purse(seller: Shop) -> Purse:
    """Return a user with a wallet."""
    return customer(seller)


@pytest.mark.parametrize("ending", ["win", "lose"])
def test_a_disputed_top_up_takes_from_the_wallet(purse: Purse, seller: Shop, ending: str) -> None:
    disputed = replace(purse, method_id=purse.card(DISPUTED))
    first = purse.filled(700)
    top_up = disputed.filled(1000)
    wait_for(lambda: purse.sums() == (700, 0, 700, 0), "the hold")
    newest = purse.statement()[0]
    assert (newest["type"], newest["amount"]["amount_minor"]) == ("dispute.opened", "-1000")
    statement = f"SELECT id, stripe_dispute_id, fee_payer FROM disputes WHERE top_up_id = '{top_up['id']}'"
    ((dispute_id, stripe_id, fee_payer),) = seller.platform.sql("payments", statement)
    assert (newest["source_id"], fee_payer) == (dispute_id, "PLATFORM")
    assert refusal_of(accept(seller, dispute_id)) == (404, "RESOURCE_NOT_FOUND")
    seller.platform.sandbox(f"disputes/{stripe_id}/{ending}")
    end = {"win": ("WON", (1700, 0, 1700, 0)), "lose": ("LOST", (700, 0, 700, 0))}[ending]
    state = f"SELECT state FROM disputes WHERE id = '{dispute_id}'"
    wait_for(lambda: seller.platform.sql("payments", state) == [(end[0],)], "the end")
    wait_for(lambda: purse.sums() == end[1], "the wallet")
    assert purse.read_top_up(first["id"])["state"] == purse.read_top_up(top_up["id"])["state"] == "SUCCEEDED"
    seller.quiet()
    assert seller.platform.audit().returncode == 0


# At the end: for a second after a kill a top-up may be told as uncertain, because its server is only just connected again.
ACCEPT = [name for name in crashpoints.declared() if name.startswith("payments.accept.")]


@pytest.mark.parametrize("point", ACCEPT)
def test_a_kill_during_an_acceptance_concedes_once(seller: Shop, point: str) -> None:
    payment = paid(seller, card=DISPUTED)
    dispute = the_dispute(seller, payment["id"], withdrawn)
    armed = seller.platform.arm(point)
    key = str(uuid.uuid4())
    answer = seller.ok(insist(lambda: accept(seller, dispute["id"], key=key)))
    assert not armed.exists()
    assert answer["id"] == dispute["id"]
    the_dispute(seller, payment["id"], lambda one: one["state"] == "LOST")
    assert counters(seller, payment["id"]) == (0, 2000, 0)


def test_a_kill_after_a_read_of_a_dispute_loses_nothing(seller: Shop) -> None:
    assert len(ACCEPT) == 2
    method_id = seller.card(DISPUTED)["id"]
    payment = seller.payment(2000)
    armed = seller.platform.arm("payments.dispute.after_read")
    insist(lambda: seller.confirm(payment["id"], method_id=method_id))
    wait_for(lambda: not armed.exists(), "the kill")

    def is_there() -> bool:
        answer = insist(
            lambda: seller.call("GET", f"/v1/disputes?payment_id={payment['id']}", token=seller.seller_token)
        )
        return any(map(withdrawn, answer.json().get("disputes", [])))

    wait_for(is_there, "the dispute")
    assert counters(seller, payment["id"]) == (0, 2000, 0)
