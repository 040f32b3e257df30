"""The ledger's rules as a table: one line per transfer, with the verdict it gets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from servers.kernel.ids import derive_id
from servers.wallets.domain import Account, AccountKind, Sheet, Transfer, TransferKind, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C, E = (derive_id("acc", name, bucket=1) for name in "ABCE")


def transfer(name: str, debit: str, credit: str, amount: int, **more: object) -> Transfer:
    """Return a transfer of USD."""
    base = Transfer(
        id=derive_id("trf", name, bucket=1),
        debit_account_id=debit,
        credit_account_id=credit,
        amount_minor=amount,
        currency="USD",
        code="test",
        kind=TransferKind.POSTED,
        fact_id="test",
        effective_time=NOW,
    )
    return replace(base, **more)  # type: ignore[arg-type]  # fields by name


def hold(name: str, debit: str, credit: str, amount: int) -> Transfer:
    """Return a pending transfer."""
    return transfer(name, debit, credit, amount, kind=TransferKind.PENDING, expire_time=NOW + timedelta(hours=1))


def ending(name: str, kind: TransferKind, pending: Transfer, amount: int = 0) -> Transfer:
    """Return what posts or voids a pending transfer."""
    return transfer(name, "", "", amount, kind=kind, pending_id=pending.id, currency="")


@pytest.fixture
def sheet() -> Sheet:
    """Return a platform account A without limit, wallets B and C, and a wallet E in euros."""
    accounts = [
        Account(id=A, owner_id="platform", kind=AccountKind.PROCESSOR_CLEARING, currency="USD"),
        Account(id=B, owner_id="u", kind=AccountKind.CUSTOMER_WALLET, currency="USD"),
        Account(id=C, owner_id="v", kind=AccountKind.CUSTOMER_WALLET, currency="USD"),
        Account(id=E, owner_id="v", kind=AccountKind.CUSTOMER_WALLET, currency="EUR"),
    ]
    return Sheet(now=NOW, accounts={a.id: a for a in accounts}, known={}, burnt=set(), pendings={})


def test_verdicts_in_the_order_of_their_precedence(sheet: Sheet) -> None:
    held = hold("hold", B, C, 30)
    table = [
        (transfer("1", A, B, 100), Verdict.CREATED),
        (transfer("1", A, B, 100), Verdict.EXISTS),
        (transfer("1", A, B, 101), Verdict.EXISTS_WITH_DIFFERENT_FIELDS),
        (transfer("2", B, B, 1), Verdict.SAME_ACCOUNT),
        (transfer("3", B, "acc_none", 1), Verdict.ACCOUNT_NOT_FOUND),
        (transfer("4", B, E, 1), Verdict.CURRENCY_MISMATCH),
        (transfer("5", B, C, 0), Verdict.AMOUNT_INVALID),
        (transfer("6", B, C, -1), Verdict.AMOUNT_INVALID),
        (transfer("7", B, C, 101), Verdict.INSUFFICIENT_FUNDS),
        (transfer("7", B, C, 1), Verdict.BURNT),
        (transfer("8", B, C, 101, forced=True), Verdict.CREATED),
        (transfer("9", C, B, 101), Verdict.CREATED),
        (transfer("10", B, C, 1, expire_time=NOW + timedelta(1)), Verdict.EXPIRE_TIME_INVALID),
        (held, Verdict.CREATED),
        (transfer("11", B, C, 71), Verdict.INSUFFICIENT_FUNDS),
        (ending("12", TransferKind.POST_PENDING, held, 31), Verdict.EXCEEDS_PENDING),
        (ending("13", TransferKind.POST_PENDING, held, 10), Verdict.CREATED),
        (ending("14", TransferKind.VOID_PENDING, held), Verdict.CREATED),
        (ending("15", TransferKind.POST_PENDING, held, 1), Verdict.PENDING_CLOSED),
        (ending("16", TransferKind.VOID_PENDING, transfer("none", A, B, 1)), Verdict.PENDING_NOT_FOUND),
        (transfer("17", B, C, 1, linked=True), Verdict.LINKED_OPEN),
    ]
    assert [sheet.post([item])[0][0] for item, _ in table] == [verdict for _, verdict in table]
    assert (sheet.accounts[B].balance, sheet.accounts[B].available) == (90, 90)
    assert sum(entry.amount_minor for entry in sheet.entries) == 0


def test_a_repeat_that_differs_names_the_field(sheet: Sheet) -> None:
    sheet.post([transfer("1", A, B, 100)])
    assert sheet.post([transfer("1", A, C, 100)]) == [(Verdict.EXISTS_WITH_DIFFERENT_FIELDS, "credit_account_id")]
    assert sheet.post([transfer("1", A, B, 5)]) == [(Verdict.EXISTS_WITH_DIFFERENT_FIELDS, "amount_minor")]


def test_a_chain_is_written_whole_or_not_at_all(sheet: Sheet) -> None:
    chain = [transfer("1", A, B, 10, linked=True), transfer("2", B, C, 50)]
    assert [v for v, _ in sheet.post(chain)] == [Verdict.LINKED_FAILED, Verdict.INSUFFICIENT_FUNDS]
    assert sheet.accounts[B].balance == 0
    assert not sheet.entries
    good = [transfer("3", A, B, 10, linked=True), transfer("4", B, C, 5)]
    assert [v for v, _ in sheet.post(good)] == [Verdict.CREATED, Verdict.CREATED]
    assert [v for v, _ in sheet.post(good)] == [Verdict.EXISTS, Verdict.EXISTS]
    partly = [transfer("3", A, B, 10, linked=True), transfer("5", B, C, 5)]
    assert [v for v, _ in sheet.post(partly)] == [Verdict.LINKED_PARTLY_EXISTS] * 2


def test_an_expired_hold_cannot_be_posted_but_gives_its_money_back(sheet: Sheet) -> None:
    sheet.post([transfer("1", A, B, 10)])
    held = hold("hold", B, C, 10)
    sheet.post([held])
    sheet.now = NOW + timedelta(hours=2)
    assert sheet.post([ending("2", TransferKind.POST_PENDING, held, 10)])[0][0] is Verdict.PENDING_EXPIRED
    assert sheet.post([ending("3", TransferKind.VOID_PENDING, held)])[0][0] is Verdict.CREATED
    assert sheet.accounts[B].available == 10
