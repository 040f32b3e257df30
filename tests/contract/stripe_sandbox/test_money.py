"""The money adds up: every balance transaction by itself, and all of them to the balance, whatever happens in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sandbox import SandboxProcess, by_card

CURRENCIES = ("usd", "eur", "jpy")
CARDS = (
    "pm_card_visa",
    "pm_card_bypassPending",
    "pm_card_refundFail",
    "pm_card_pendingRefund",
    "pm_card_chargeCustomerFail",
)
MULTICAPTURE = {"card": {"request_multicapture": "if_available"}}

pay = st.tuples(
    st.just("pay"), st.sampled_from(CARDS), st.sampled_from(CURRENCIES), st.integers(50, 500_000), st.booleans()
)
capture = st.tuples(st.just("capture"), st.integers(0, 9), st.integers(1, 500_000), st.booleans())
refund = st.tuples(st.just("refund"), st.integers(0, 9), st.integers(1, 500_000))
cancel = st.tuples(st.just("cancel"), st.integers(0, 9))
wait = st.tuples(st.just("wait"), st.sampled_from([60, 3600, 2 * 24 * 3600, 8 * 24 * 3600]))
flows = st.lists(st.one_of(pay, capture, refund, cancel, wait), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """Return a sandbox whose clock and books nobody else moves."""
    process = SandboxProcess(str(tmp_path_factory.mktemp("books")))
    yield process
    process.kill()
    process.hooks.close()


async def play(sandbox: SandboxProcess, flow: list[Any]) -> None:
    """Do what a flow says; what Stripe would refuse is refused."""
    client = sandbox.client()
    intents: list[str] = []
    for word, *rest in flow:
        try:
            match word:
                case "pay":
                    card, currency, amount, is_manual = rest
                    params = by_card(amount=amount, currency=currency, payment_method_options=MULTICAPTURE)
                    params |= {"capture_method": "manual" if is_manual else "automatic"}
                    intents.append((await client.v1.payment_intents.create_async(params)).id)
                    await client.v1.payment_intents.confirm_async(intents[-1], {"payment_method": card})
                case "capture" if intents:
                    place, amount, final = rest
                    part: Any = {"amount_to_capture": amount, "final_capture": final}
                    await client.v1.payment_intents.capture_async(intents[place % len(intents)], part)
                case "refund" if intents:
                    place, amount = rest
                    await client.v1.refunds.create_async(
                        {"payment_intent": intents[place % len(intents)], "amount": amount}
                    )
                case "cancel" if intents:
                    await client.v1.payment_intents.cancel_async(intents[rest[0] % len(intents)])
                case "wait":
                    sandbox.switch("clock", advance_seconds=rest[0])
        except (stripe.CardError, stripe.InvalidRequestError):
            continue


def check_each(transactions: list[Any]) -> None:
    """Check that each transaction adds up by itself."""
    for one in transactions:
        assert one["net"] == one["amount"] - one["fee"]
        assert sum(detail["amount"] for detail in one["fee_details"]) == one["fee"]
        assert {detail["currency"] for detail in one["fee_details"]} <= {one["currency"]}
        assert one["fee"] >= 0
        assert one["type"] in ("charge", "refund", "refund_failure")
        assert one["type"] == "charge" or one["fee"] == 0  # Stripe keeps its fee of a refunded charge


def check_sources(sandbox: SandboxProcess, transactions: list[Any]) -> None:
    """Check that every captured charge and every refund has its transactions, and that they come to what it says."""
    sums = Counter[tuple[str, str]]()
    for one in transactions:
        sums[one["source"], one["type"]] += one["amount"]
    known = {one["id"] for one in transactions}
    for charge in sandbox.all("/v1/charges"):
        assert sums.pop((charge["id"], "charge"), 0) == charge["amount_captured"]
        assert (charge["balance_transaction"] in known) == charge["captured"]
    for made in sandbox.all("/v1/refunds"):
        assert sums.pop((made["id"], "refund")) == -made["amount"]
        returned = made["amount"] if made["status"] == "failed" else 0
        assert sums.pop((made["id"], "refund_failure"), 0) == returned
        assert made["balance_transaction"] in known
    assert sums == {}


@settings(max_examples=25, deadline=None)
@given(flow=flows)
async def test_the_balance_is_the_sum_of_its_transactions(books: SandboxProcess, flow: list[Any]) -> None:
    await play(books, flow)
    transactions = list(books.all("/v1/balance_transactions"))
    check_each(transactions)
    check_sources(books, transactions)
    expected = Counter[tuple[str, str]]()
    for one in transactions:
        expected[one["status"], one["currency"]] += one["net"]
    balance = books.fetch("/v1/balance")
    shown = {(side, one["currency"]): one["amount"] for side in ("available", "pending") for one in balance[side]}
    assert {place: amount for place, amount in shown.items() if amount} == {
        place: amount for place, amount in expected.items() if amount
    }
    for side in ("available", "pending"):
        assert all(one["source_types"] == {"card": one["amount"]} for one in balance[side])


async def test_money_becomes_available_by_the_clock(books: SandboxProcess) -> None:
    client = books.client()
    params = by_card(amount=1000, currency="gbp", payment_method="pm_card_visa", confirm=True)
    intent = await client.v1.payment_intents.create_async(params | {"expand": ["latest_charge.balance_transaction"]})
    charge: Any = intent.latest_charge
    transaction = charge.balance_transaction
    assert (transaction.status, transaction.net, transaction.fee) == ("pending", 941, 59)
    for side, waited in (("pending", 0), ("available", transaction.available_on - transaction.created)):
        books.switch("clock", advance_seconds=waited)
        balance = books.fetch("/v1/balance")
        assert {one["currency"]: one["amount"] for one in balance[side]}["gbp"] == 941
        read = await client.v1.balance_transactions.retrieve_async(transaction.id)
        assert read.status == side
