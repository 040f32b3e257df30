"""The money adds up: every balance transaction by itself, and all of them to the balance, whatever happens in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sandbox import SandboxProcess, by_card, guest_payment

CURRENCIES = ("usd", "eur", "jpy")
CARDS = (
    "pm_card_visa",
    "pm_card_bypassPending",
    "pm_card_refundFail",
    "pm_card_pendingRefund",
    "pm_card_chargeCustomerFail",
    "pm_card_createDispute",
    "pm_card_createDisputeInquiry",
    "pm_card_createMultipleDisputes",
)
ANSWERS = ("winning_evidence", "losing_evidence", "escalate_inquiry_evidence", "Signed for.")
MULTICAPTURE = {"card": {"request_multicapture": "if_available"}}
TYPES = {"charge", "refund", "refund_failure", "adjustment", "stripe_fee", "payout", "payout_cancel", "payout_failure",
         "topup", "topup_reversal"}  # fmt: skip

amounts = st.integers(50, 500_000)
places = st.integers(0, 9)
currencies = st.sampled_from(CURRENCIES)
pay = st.tuples(st.just("pay"), st.sampled_from(CARDS), currencies, amounts, st.booleans())
capture = st.tuples(st.just("capture"), places, st.integers(1, 500_000), st.booleans())
refund = st.tuples(
    st.just("refund"), places, st.integers(1, 500_000), st.sampled_from(["", "", "pending", "requires_action"])
)
cancel = st.tuples(st.just("cancel"), places)
dispute = st.tuples(st.just("dispute"), places, amounts, st.sampled_from(["inquiry", "chargeback", "resolution"]))
answer = st.tuples(st.just("answer"), places, st.sampled_from(ANSWERS))
issuer = st.tuples(st.just("issuer"), places, st.sampled_from(["win", "lose", "escalate", "reopen", "reinstate"]))
pay_out = st.tuples(st.just("pay_out"), currencies, amounts, st.booleans())
bank = st.tuples(st.just("bank"), places, st.sampled_from(["cancel", "pay", "fail"]))
top_up = st.tuples(st.just("top_up"), currencies, amounts)
fee = st.tuples(st.just("fee"), currencies, st.integers(1, 500))
wait = st.tuples(st.just("wait"), st.sampled_from([6, 3600, 2 * 24 * 3600, 10 * 24 * 3600]))
steps = st.one_of(pay, capture, refund, cancel, dispute, answer, issuer, pay_out, bank, top_up, fee, wait)
# Money first: most of what follows needs some.
flows = st.builds(list.__add__, st.lists(pay, min_size=2, max_size=5), st.lists(steps, min_size=8, max_size=25))


class Player:
    """Does what a flow says; what Stripe would refuse is refused."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox
        self.client = sandbox.client()
        self.intents: list[str] = []
        self.payouts: list[str] = []

    async def play(self, flow: list[Any]) -> None:
        """Do each step."""
        for word, *rest in flow:
            try:
                await getattr(self, word)(*rest)
            except (stripe.CardError, stripe.InvalidRequestError, httpx.HTTPStatusError, IndexError):
                continue

    def intent(self, place: int) -> str:
        """Return one of the flow's payments. Raises IndexError where there is none."""
        return self.intents[place % max(1, len(self.intents))]

    def latest_dispute(self, place: int) -> Any:
        """Return one of the latest disputes. Raises IndexError where there is none."""
        found = self.sandbox.fetch(f"/v1/disputes?payment_intent={self.intent(place)}")["data"]
        return found[0]

    async def pay(self, card: str, currency: str, amount: int, is_manual: bool) -> None:
        """Pay."""
        params = by_card(amount=amount, currency=currency, payment_method_options=MULTICAPTURE)
        params |= {"capture_method": "manual" if is_manual else "automatic"}
        self.intents.append((await self.client.v1.payment_intents.create_async(params)).id)
        await self.client.v1.payment_intents.confirm_async(self.intents[-1], {"payment_method": card})

    async def capture(self, place: int, amount: int, final: bool) -> None:
        """Capture a part."""
        part: Any = {"amount_to_capture": amount, "final_capture": final}
        await self.client.v1.payment_intents.capture_async(self.intent(place), part)

    async def refund(self, place: int, amount: int, status: str) -> None:
        """Give back a part, at once or later; or not at all."""
        if status:
            charge = (await self.client.v1.payment_intents.retrieve_async(self.intent(place))).latest_charge
            then = "succeeded" if amount % 2 else "failed"
            plan = {"status": status, "pending_reason": "insufficient_funds", "then": then, "charge": charge}
            self.sandbox.switch("refunds", **plan)
        await self.client.v1.refunds.create_async({"payment_intent": self.intent(place), "amount": amount})

    async def cancel(self, place: int) -> None:
        """Let an authorization go."""
        await self.client.v1.payment_intents.cancel_async(self.intent(place))

    async def dispute(self, place: int, amount: int, case: str) -> None:
        """Have a cardholder object."""
        self.sandbox.switch("disputes", payment_intent=self.intent(place), amount=amount, case=case)

    async def answer(self, place: int, text: str) -> None:
        """Give evidence."""
        found = self.latest_dispute(place)
        await self.client.v1.disputes.update_async(found["id"], {"evidence": {"uncategorized_text": text}})

    async def issuer(self, place: int, verb: str) -> None:
        """Have the issuer decide."""
        self.sandbox.switch(f"disputes/{self.latest_dispute(place)['id']}/{verb}")

    async def pay_out(self, currency: str, amount: int, is_automatic: bool) -> None:
        """Pay out an amount, or all that there is."""
        if is_automatic:
            self.payouts.append(self.sandbox.switch("payouts", currency=currency)["id"])
        else:
            params: Any = {"amount": amount, "currency": currency}
            self.payouts.append((await self.client.v1.payouts.create_async(params)).id)

    async def bank(self, place: int, verb: str) -> None:
        """Have the bank pay, or send back; or take a payout back."""
        payout = self.payouts[place % max(1, len(self.payouts))]
        if verb == "cancel":
            await self.client.v1.payouts.cancel_async(payout)
        else:
            self.sandbox.switch(f"payouts/{payout}/{verb}")

    async def top_up(self, currency: str, amount: int) -> None:
        """Fund the balance, with the next day."""
        await self.client.v1.topups.create_async({"amount": amount, "currency": currency})

    async def fee(self, currency: str, amount: int) -> None:
        """Have Stripe take a fee of its own."""
        self.sandbox.switch("fees", currency=currency, amount=amount)

    async def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.sandbox.switch("clock", advance_seconds=seconds)


def check_each(transactions: list[Any]) -> None:
    """Check that each transaction adds up by itself."""
    for one in transactions:
        assert one["net"] == one["amount"] - one["fee"]
        assert sum(detail["amount"] for detail in one["fee_details"]) == one["fee"]
        assert {detail["currency"] for detail in one["fee_details"]} <= {one["currency"]}
        assert one["type"] in TYPES
        assert one["fee"] >= 0 or one["reporting_category"] == "dispute_reversal"
        assert one["fee"] == 0 or one["type"] in ("charge", "adjustment")  # Stripe keeps its fee of a refunded charge


def was_never_booked(refund: Any) -> bool:
    """Say whether a refund failed before Stripe had taken its money."""
    return refund["status"] == "failed" and "failure_balance_transaction" not in refund


def check_sources(sandbox: SandboxProcess, transactions: list[Any]) -> None:
    """Check that what moved money has its transactions, and that they come to what it says."""
    sums = Counter[tuple[str, str]]()
    for one in transactions:
        sums[one["source"], one["type"]] += one["amount"]
    known = {one["id"]: one for one in transactions}
    for charge in sandbox.all("/v1/charges"):
        assert sums.pop((charge["id"], "charge"), 0) == charge["amount_captured"]
        assert (charge["balance_transaction"] in known) == charge["captured"]
    for made in sandbox.all("/v1/refunds"):
        booked = made["balance_transaction"]
        taken = made["amount"] if booked else 0
        assert (booked is None) == (made.get("pending_reason") == "insufficient_funds" or was_never_booked(made))
        assert sums.pop((made["id"], "refund"), 0) == -taken
        returned = taken if made["status"] in ("failed", "canceled") else 0
        assert sums.pop((made["id"], "refund_failure"), 0) == returned
        assert booked is None or booked in known
    for made in sandbox.all("/v1/disputes"):
        moved = made["balance_transactions"]
        assert sums.pop((made["id"], "adjustment"), 0) == sum(one["amount"] for one in moved)
        assert [known[one["id"]] for one in moved] == moved
        if made["status"] == "lost":
            assert sum(one["amount"] for one in moved) in (-made["amount"], 0)
    for made in sandbox.all("/v1/payouts"):
        assert sums.pop((made["id"], "payout")) == -made["amount"]
        kind = {"failed": "payout_failure", "canceled": "payout_cancel"}.get(made["status"])
        assert kind is None or sums.pop((made["id"], kind)) == made["amount"]
    for made in sandbox.all("/v1/topups"):
        assert sums.pop((made["id"], "topup"), 0) == (made["amount"] if made["status"] == "succeeded" else 0)
    assert {kind for _, kind in sums} <= {"stripe_fee"}


def check_ledger(sandbox: SandboxProcess, transactions: list[Any]) -> None:
    """Check that the export is the list from its other end, with the balance after each line."""
    ledger = sandbox.ledger()
    lines = ledger["transactions"]
    assert [line["id"] for line in lines] == [one["id"] for one in reversed(transactions)]
    balances = Counter[str]()
    for line in lines:
        balances[line["currency"]] += line["net"]
        assert line["balance_after"] == balances[line["currency"]]
    for currency, sides in ledger["currencies"].items():
        assert sides["total"] == balances[currency] == sides["available"] + sides["pending"]
        assert sides["total"] == sum(sides["by_type"].values()) - sides["fees"]
    # What went with an automatic payout comes to nothing together with the payout itself.
    paid_out = Counter[str]()
    for line in lines:
        if line["payout"] is not None:
            paid_out[line["payout"]] += line["net"]
    assert set(paid_out.values()) <= {0}


@settings(max_examples=15, deadline=None)
@given(flow=flows)
async def test_the_balance_is_the_sum_of_its_transactions(books: SandboxProcess, flow: list[Any]) -> None:
    await Player(books).play(flow)
    transactions = list(books.all("/v1/balance_transactions"))
    check_each(transactions)
    check_sources(books, transactions)
    check_ledger(books, transactions)
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


async def test_transactions_are_found_by_time_type_source_and_currency(books: SandboxProcess) -> None:
    client = books.client()
    books.switch("clock", advance_seconds=60)
    early = await guest_payment(client, "pm_card_visa", 1000)
    books.switch("clock", advance_seconds=60)
    late = await guest_payment(client, "pm_card_visa", 2000)
    await client.v1.refunds.create_async({"payment_intent": late.id, "amount": 300})
    [paid] = (await client.v1.balance_transactions.list_async({"source": str(late.latest_charge)})).data
    since: Any = {"created": {"gte": paid.created}}
    found = (await client.v1.balance_transactions.list_async(since)).data
    assert [(one.type, one.amount) for one in found] == [("refund", -300), ("charge", 2000)]
    before: Any = {"created": {"lt": paid.created}, "type": "charge", "limit": 1}
    [first] = (await client.v1.balance_transactions.list_async(before)).data
    assert first.source == early.latest_charge
    assert (await client.v1.balance_transactions.list_async(since | {"type": "payout"})).data == []
    assert (await client.v1.balance_transactions.list_async(since | {"currency": "eur"})).data == []
    expanded: Any = await client.v1.balance_transactions.retrieve_async(paid.id, {"expand": ["source"]})
    assert (expanded.source.object, expanded.source.id) == ("charge", late.latest_charge)


async def test_stripes_own_fee_has_no_source(books: SandboxProcess) -> None:
    made = books.switch("fees", amount=25, currency="usd", description="Radar (2026-11-01)")
    read = await books.client().v1.balance_transactions.retrieve_async(made["id"])
    assert (read.type, read.reporting_category, read.amount, read.fee, read.net) == ("stripe_fee", "fee", -25, 0, -25)
    assert (read.source, read.description, read.status) == (None, "Radar (2026-11-01)", "available")
    for body in ({"amount": 0, "currency": "usd"}, {"amount": 1}, {"amount": 1, "currency": "zzz"}):
        assert httpx.post(f"{books.url}/_sandbox/fees", json=body).status_code == 400
