"""Whatever Stripe's balance does, the clearing account does the same, and nothing of it is lost."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, Account, AccountKind, Sheet, Verdict, account_id
from servers.wallets.facts import book
from servers.wallets.processor_facts import COUNTERPARTS, BalanceTransactionFact, WriteOffFact, processor_accounts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AMOUNTS = st.integers(min_value=-(10**12), max_value=10**12)
CURRENCIES = st.sampled_from(["USD", "EUR"])


@st.composite
def balance_transactions(draw: st.DrawFn) -> BalanceTransactionFact:
    """Return any balance transaction."""
    currency, other = draw(CURRENCIES), draw(CURRENCIES)
    return BalanceTransactionFact(
        balance_transaction_id="txn_1",
        amount=Money(amount_minor=draw(AMOUNTS), currency=currency),
        fee=Money(amount_minor=draw(AMOUNTS), currency=currency),
        matched=Money(amount_minor=draw(AMOUNTS), currency=other),
        counterpart=draw(st.sampled_from([None, *COUNTERPARTS])),
        effective_time=NOW,
    )


def sheet_for(fact: BalanceTransactionFact | WriteOffFact) -> Sheet:
    """Return empty books with the accounts of a fact."""
    wanted = processor_accounts(fact)
    accounts = [Account(id=account_id(*row), owner_id=row[0], kind=row[1], currency=row[2]) for row in wanted]
    return Sheet(now=NOW, accounts={a.id: a for a in accounts}, known={}, burnt=set(), pendings={})


def held(sheet: Sheet, kind: AccountKind, currency: str) -> int:
    """Return a debit-normal account's balance."""
    account = sheet.accounts.get(account_id(PLATFORM, kind, currency))
    return -account.balance if account is not None else 0


@given(fact=balance_transactions())
def test_clearing_moves_by_what_stripes_balance_moved_by(fact: BalanceTransactionFact) -> None:
    sheet = sheet_for(fact)
    book(sheet, fact, [])
    stripes = (fact.amount - fact.fee).amount_minor
    # A capture's own fact has moved `matched` into clearing before.
    before = fact.matched.amount_minor if fact.counterpart is None else 0
    same = fact.amount.currency == fact.matched.currency
    assert held(sheet, AccountKind.PROCESSOR_CLEARING, fact.amount.currency) + (before if same else 0) == stripes
    if not same:
        assert held(sheet, AccountKind.PROCESSOR_CLEARING, fact.matched.currency) + before == 0
        assert held(sheet, AccountKind.SUSPENSE, fact.amount.currency) == 0
    else:
        difference = (fact.amount - fact.matched).amount_minor
        assert held(sheet, AccountKind.SUSPENSE, fact.amount.currency) == -difference
    if fact.counterpart is not AccountKind.PROCESSOR_FEES:
        assert held(sheet, AccountKind.PROCESSOR_FEES, fact.amount.currency) == fact.fee.amount_minor
    assert sum(account.balance for account in sheet.accounts.values()) == 0


@given(fact=balance_transactions())
def test_a_repeat_changes_nothing(fact: BalanceTransactionFact) -> None:
    sheet = sheet_for(fact)
    book(sheet, fact, [])
    before = {account.id: account.balance for account in sheet.accounts.values()}
    assert book(sheet, fact, list(sheet.known.values())) == (Verdict.EXISTS, [])
    assert {account.id: account.balance for account in sheet.accounts.values()} == before


@given(
    amount=AMOUNTS, counterpart=st.sampled_from([None, *COUNTERPARTS]), matched_in=CURRENCIES, rate=st.integers(1, 9)
)
def test_what_is_explained_later_leaves_suspense_and_stands_as_if_it_had_been_known(
    amount: int, counterpart: AccountKind | None, matched_in: str, rate: int
) -> None:
    def fact(matched: Money, *, explained: bool) -> BalanceTransactionFact:
        return BalanceTransactionFact(
            balance_transaction_id="txn_1",
            amount=Money(amount_minor=amount * (rate if matched_in != "USD" else 1), currency="USD"),
            fee=Money(amount_minor=30, currency="USD"),
            matched=matched,
            counterpart=counterpart if matched.amount_minor else None,
            effective_time=NOW,
            explained=explained,
        )

    known = Money(amount_minor=amount, currency=matched_in)
    at_once = sheet_for(fact(known, explained=False))
    book(at_once, fact(known, explained=False), [])
    later = sheet_for(fact(known, explained=True))
    book(later, fact(Money.zero("USD"), explained=False), [])
    book(later, fact(known, explained=True), list(later.known.values()))
    for account in at_once.accounts.values():
        assert later.accounts[account.id].balance == account.balance, account.kind


@given(amount=AMOUNTS.filter(bool))
def test_a_write_off_empties_suspense_into_losses(amount: int) -> None:
    fact = WriteOffFact(
        item_id="rec_00000000000000000000000000",
        amount=Money(amount_minor=amount, currency="USD"),
        decide_time=NOW,
    )
    sheet = sheet_for(fact)
    book(sheet, fact, [])
    # What the difference put there, the write-off takes away.
    assert held(sheet, AccountKind.SUSPENSE, "USD") == amount
    assert held(sheet, AccountKind.LOSSES, "USD") == -amount
