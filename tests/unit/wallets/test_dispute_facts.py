"""Facts of disputes as tables: what each does to the books, in which order ever it comes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any, cast

import pytest

from servers.kernel.ids import derive_id
from servers.kernel.invariant import InvariantBroken
from servers.kernel.money import Money
from servers.payments.domain import DISPUTE as MACHINE
from servers.wallets.consumer import handlers
from servers.wallets.dispute_facts import DisputeEndedFact, DisputeFundsFact, DisputeOpenedFact
from servers.wallets.domain import PLATFORM, Account, AccountKind, Sheet, Verdict, account_id
from servers.wallets.facts import Fact, currency_of, fact_key, opened_by, owner_of, related_keys, wallet_accounts_of
from tests.support.wallet_books import ANN, MERCHANT, NOW, books, tell, top_up, usd

DISPUTE = derive_id("dsp", "a", bucket=5)
A, D, W, C = "available", "disputed", "withdrawn", "clearing"
WALLET, HELD, FEES = "wallet", "held", "fees"
ACCOUNTS = {
    A: (MERCHANT, AccountKind.MERCHANT_AVAILABLE),
    D: (MERCHANT, AccountKind.MERCHANT_DISPUTED),
    W: (PLATFORM, AccountKind.DISPUTES_WITHDRAWN),
    C: (PLATFORM, AccountKind.PROCESSOR_CLEARING),
    FEES: (PLATFORM, AccountKind.PROCESSOR_FEES),
    WALLET: (ANN, AccountKind.CUSTOMER_WALLET),
    HELD: (ANN, AccountKind.CUSTOMER_DISPUTED),
}


@pytest.fixture
def sheet() -> Sheet:
    """Return the books of Ann, who has topped up 100.00 dollars, and of a shop that has nothing."""
    made = books()
    for owner, kind in ACCOUNTS.values():
        identifier = account_id(owner, kind, "USD")
        made.accounts.setdefault(identifier, Account(id=identifier, owner_id=owner, kind=kind, currency="USD"))
    tell(made, top_up("first", 10_000))
    return made


def opened(stage: str = "CHARGEBACK", *, owner: str = MERCHANT, amount: int = 700) -> DisputeOpenedFact:
    """Return a stage that takes money back."""
    return DisputeOpenedFact(dispute_id=DISPUTE, stage=stage, owner_id=owner, amount=usd(amount), open_time=NOW)


def ended(fact: DisputeOpenedFact, *, won: bool) -> DisputeEndedFact:
    """Return the end of a stage."""
    return DisputeEndedFact(opened=fact, won=won, end_time=NOW)


def funds(name: str, amount: int, fee: int = 0, *, owner: str = MERCHANT, owner_pays: bool = True) -> DisputeFundsFact:
    """Return a balance transaction."""
    return DisputeFundsFact(
        balance_transaction_id=f"txn_{name}", owner_id=owner, amount=usd(amount), fee=usd(fee),
        fee_from_owner=owner_pays, create_time=NOW,
    )  # fmt: skip


def balances(sheet: Sheet) -> dict[str, int]:
    """Return what the accounts hold, those that hold nothing left out; the first top-up is not counted."""
    held = {name: sheet.accounts[account_id(*where, "USD")].balance for name, where in ACCOUNTS.items()}
    held[WALLET] -= 10_000
    held[C] += 10_000
    return {name: balance for name, balance in held.items() if balance}


STORIES: list[tuple[list[Fact], dict[str, int]]] = [
    ([opened()], {A: -700, D: 700}),
    ([opened(), funds("1", -700, 1500)], {A: -2200, D: 700, W: -700, C: 2200}),
    ([opened(), funds("1", -700, 1500, owner_pays=False)], {A: -700, D: 700, W: -700, C: 2200, FEES: -1500}),
    ([opened(), funds("1", -700, 1500), ended(opened(), won=False)], {A: -2200, C: 2200}),
    ([opened(), funds("1", -700, 1500), ended(opened(), won=True), funds("2", 700)], {A: -1500, C: 1500}),
    ([opened(), funds("1", -700, 1500), ended(opened(), won=True), funds("2", 700, -1500)], {}),
    ([opened(), ended(opened(), won=True), opened("PRE_ARBITRATION")], {A: -700, D: 700}),
    ([ended(opened(), won=True), ended(opened("PRE_ARBITRATION"), won=False), funds("1", -700)], {A: -700, C: 700}),
    ([opened(owner=ANN), funds("1", -700, 1500, owner=ANN, owner_pays=False)],
     {WALLET: -700, HELD: 700, W: -700, C: 2200, FEES: -1500}),
    ([opened(owner=ANN, amount=99_000), ended(opened(owner=ANN, amount=99_000), won=False)],
     {WALLET: -99_000, W: 99_000}),
    ([opened(owner=ANN), ended(opened(owner=ANN), won=True)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), STORIES)
def test_the_books_after_each_story_told_twice_and_in_every_order(
    sheet: Sheet, facts: list[Fact], expected: dict[str, int]
) -> None:
    before = {identifier: replace(account) for identifier, account in sheet.accounts.items()}
    for order in permutations(facts):
        again = replace(sheet, accounts=before, known=dict(sheet.known), written=[], entries=[])
        verdicts = [tell(again, fact) for fact in (*order, *facts)]
        assert balances(again) == expected
        assert set(verdicts[len(facts) :]) == {Verdict.EXISTS}
        assert sum(entry.amount_minor for entry in again.entries) == 0


def test_a_repeat_is_never_recomputed(sheet: Sheet) -> None:
    assert tell(sheet, opened()) is Verdict.CREATED
    assert tell(sheet, opened(amount=900)) is Verdict.EXISTS
    assert tell(sheet, ended(opened(amount=900), won=True)) is Verdict.CREATED
    assert balances(sheet) == {}


def test_a_stage_ends_in_one_way(sheet: Sheet) -> None:
    tell(sheet, ended(opened(), won=True))
    with pytest.raises(InvariantBroken, match="a dispute ended in two ways"):
        tell(sheet, ended(opened(), won=False))


def test_every_line_names_its_cause(sheet: Sheet) -> None:
    for fact in (opened(), funds("1", -700, 1500), ended(opened(), won=True), funds("2", 700, -1500)):
        tell(sheet, fact)
    assert [(one.code, one.fact_id) for one in sheet.written if one.fact_id.startswith(("dsp_", "txn_"))] == [
        ("dispute.opened", f"{DISPUTE}:CHARGEBACK"),
        ("dispute.withdrawal", "txn_1"),
        ("dispute.fee", "txn_1"),
        ("dispute.won", f"{DISPUTE}:CHARGEBACK:ended"),
        ("dispute.reinstatement", "txn_2"),
        ("dispute.fee_returned", "txn_2"),
    ]


@pytest.mark.parametrize(
    "fact",
    [opened(), ended(opened(), won=True), ended(opened(owner=ANN), won=False), opened(owner=ANN), funds("1", -1)],
)
def test_what_a_fact_touches_is_locked_before_it_is_planned(sheet: Sheet, fact: Fact) -> None:
    found = {account_id(*row) for row in opened_by(fact, currency_of(fact))} | wallet_accounts_of(fact)
    sheet.written.clear()
    tell(sheet, fact)
    assert {id for one in sheet.written for id in (one.debit_account_id, one.credit_account_id)} <= found
    assert owner_of(fact) in (ANN, MERCHANT)
    assert related_keys(fact)[0] == fact_key(fact)


def test_a_dispute_of_a_top_up_without_its_wallet_is_for_a_person(sheet: Sheet) -> None:
    foreign = replace(opened(owner=ANN), amount=Money(amount_minor=1, currency="GBP"))
    with pytest.raises(InvariantBroken, match="a fact was refused"):
        tell(sheet, foreign)


def test_the_ledger_hears_every_event_of_a_dispute() -> None:
    heard = handlers(cast(Any, None), cast(Any, None))
    assert {arrow.event for arrow in MACHINE.arrows} <= set(heard)
