"""The ledger under any sequence of transfers: nothing is lost, doubled or invented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from servers.kernel.ids import derive_id
from servers.wallets.domain import Account, AccountKind, Sheet, Transfer, TransferKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNTS = [derive_id("acc", str(number), bucket=0) for number in range(4)]

transfers = st.builds(
    lambda number, debit, credit, amount, kind, pending, linked, forced: Transfer(
        id=derive_id("trf", str(number), bucket=0),
        debit_account_id=ACCOUNTS[debit],
        credit_account_id=ACCOUNTS[credit],
        amount_minor=amount,
        currency="USD",
        code="test",
        kind=kind,
        fact_id="test",
        effective_time=NOW,
        pending_id=derive_id("trf", str(pending), bucket=0) if kind.name.endswith("_PENDING") else "",
        linked=linked,
        forced=forced,
        expire_time=NOW + timedelta(1) if kind is TransferKind.PENDING else None,
    ),
    st.integers(0, 15),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(-1, 50),
    st.sampled_from(TransferKind),
    st.integers(0, 15),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(transfers, max_size=40))
def test_any_sequence_keeps_the_books(sequence: list[Transfer]) -> None:
    kinds = [AccountKind.PROCESSOR_CLEARING, *[AccountKind.CUSTOMER_WALLET] * 3]
    accounts = {
        identifier: Account(id=identifier, owner_id="x", kind=kind, currency="USD")
        for identifier, kind in zip(ACCOUNTS, kinds, strict=True)
    }
    sheet = Sheet(now=NOW, accounts=accounts, known={}, burnt=set(), pendings={})
    verdicts = sheet.post(sequence)
    assert len(verdicts) == len(sequence)
    assert sum(account.balance for account in sheet.accounts.values()) == 0
    for account in sheet.accounts.values():
        entries = [entry for entry in sheet.entries if entry.account_id == account.id]
        assert account.balance == sum(entry.amount_minor for entry in entries)
        assert [entry.version for entry in entries] == list(range(1, account.version + 1))
        held = [p for p in sheet.pendings.values() if p.transfer.debit_account_id == account.id]
        assert account.debits_pending == sum(pending.remaining_minor for pending in held)
        if account.limited:
            assert all(e.available_after >= 0 or e.forced for e in entries if e.amount_minor < 0)
    assert len({transfer.id for transfer in sheet.written}) == len(sheet.written)
    again = Sheet(
        now=NOW,
        accounts=dict(sheet.accounts),
        known=dict(sheet.known),
        burnt=set(sheet.burnt),
        pendings=dict(sheet.pendings),
    )
    again.post(sheet.written)
    assert not again.written
