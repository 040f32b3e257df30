"""Money that nobody asked for, as a table: where it goes, once, by whichever way it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servers.kernel.ids import bucket_of, derive_id
from servers.wallets.domain import PLATFORM, Account, AccountKind, Sheet, Verdict, account_id
from servers.wallets.facts import CaptureFact, Fact, RefundCreatedFact, RefundFailedFact, book, opened_by, related_keys
from servers.wallets.suspense_facts import SuspenseFact, SuspenseRefundFact
from tests.support.wallet_books import MERCHANT, NOW, books, usd

ITEM = SuspenseFact(
    suspense_item_id=derive_id("sus", "late", bucket=bucket_of(MERCHANT)),
    owner_id=MERCHANT,
    amount=usd(1000),
    find_time=NOW,
)
CAPTURE = CaptureFact(
    capture_id=derive_id("cap", "late", bucket=bucket_of(MERCHANT)), payment_id="pay_1", merchant_id=MERCHANT,
    amount=usd(1000), fee=usd(40), capture_time=NOW, suspense=ITEM,
)  # fmt: skip
BACK = SuspenseRefundFact(refund_id="ref_back", suspense=ITEM, create_time=NOW)
KINDS = ("PROCESSOR_CLEARING", "SUSPENSE", "REFUNDS_IN_TRANSIT", "PLATFORM_FEES")


@pytest.fixture
def sheet() -> Sheet:
    """Return the books of a shop, with suspense."""
    sheet = books()
    for kind in AccountKind:
        if not kind.name.startswith("CUSTOMER"):
            owner = MERCHANT if kind.name.startswith("MERCHANT") else PLATFORM
            identifier = account_id(owner, kind, "USD")
            sheet.accounts.setdefault(identifier, Account(id=identifier, owner_id=owner, kind=kind, currency="USD"))
    return sheet


def balances(sheet: Sheet) -> dict[str, int]:
    """Return what stands on the platform's accounts and on the shop's."""
    found = {kind: sheet.accounts[account_id(PLATFORM, AccountKind[kind], "USD")].balance for kind in KINDS}
    found["PENDING"] = sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_PENDING, "USD")].balance
    return {name: amount for name, amount in found.items() if amount}


def tell(sheet: Sheet, fact: object) -> Verdict:
    """Book a fact that may have been told before."""
    stored = [t for t in sheet.known.values() if t.fact_id in related_keys(fact)]  # type: ignore[arg-type]  # any fact
    return book(sheet, fact, stored)[0]  # type: ignore[arg-type]  # as above


def test_it_waits_in_suspense(sheet: Sheet) -> None:
    assert [tell(sheet, ITEM), tell(sheet, ITEM)] == [Verdict.CREATED, Verdict.EXISTS]
    assert balances(sheet) == {"PROCESSOR_CLEARING": -1000, "SUSPENSE": 1000}


@pytest.mark.parametrize("told_before", [True, False])
def test_it_goes_back_in_full_whether_or_not_it_was_told_before(sheet: Sheet, told_before: bool) -> None:
    if told_before:
        tell(sheet, ITEM)
    assert [tell(sheet, BACK), tell(sheet, BACK)] == [Verdict.CREATED, Verdict.EXISTS]
    assert tell(sheet, ITEM) is Verdict.EXISTS
    assert balances(sheet) == {"PROCESSOR_CLEARING": -1000, "REFUNDS_IN_TRANSIT": 1000}


def test_a_refund_that_fails_brings_it_back_into_suspense(sheet: Sheet) -> None:
    tell(sheet, BACK)
    failed = RefundFailedFact(refund_id="ref_back", merchant_id=MERCHANT, fail_time=NOW)
    assert [tell(sheet, failed), tell(sheet, failed)] == [Verdict.CREATED, Verdict.EXISTS]
    assert balances(sheet) == {"PROCESSOR_CLEARING": -1000, "SUSPENSE": 1000}


@pytest.mark.parametrize("told_before", [True, False])
def test_what_is_accepted_is_the_merchants_less_the_fee(sheet: Sheet, told_before: bool) -> None:
    if told_before:
        tell(sheet, ITEM)
    assert [tell(sheet, CAPTURE), tell(sheet, CAPTURE)] == [Verdict.CREATED, Verdict.EXISTS]
    assert balances(sheet) == {"PROCESSOR_CLEARING": -1000, "PLATFORM_FEES": 40, "PENDING": 960}
    assert sheet.lots[CAPTURE.capture_id].net_minor == 960


def test_the_refund_of_what_was_accepted_is_one_like_any_other(sheet: Sheet) -> None:
    refund = RefundCreatedFact(refund_id="ref_1", amount=usd(400), captures=(CAPTURE,), create_time=NOW)
    assert tell(sheet, refund) is Verdict.CREATED
    assert balances(sheet) == {
        "PROCESSOR_CLEARING": -1000, "PLATFORM_FEES": 40, "PENDING": 560, "REFUNDS_IN_TRANSIT": 400,
    }  # fmt: skip


@pytest.mark.parametrize(
    "fact",
    [ITEM, BACK, CAPTURE, RefundCreatedFact(refund_id="ref_1", amount=usd(400), captures=(CAPTURE,), create_time=NOW)],
)
def test_what_a_fact_touches_is_locked_before_it_is_planned(sheet: Sheet, fact: Fact) -> None:
    locked = {account_id(*row) for row in opened_by(fact, "USD")}
    sheet.written.clear()
    tell(sheet, fact)
    assert {id for one in sheet.written for id in (one.debit_account_id, one.credit_account_id)} <= locked


def test_a_top_ups_money_waits_and_goes_back_without_a_merchant(sheet: Sheet) -> None:
    user = "usr_" + "0" * 26
    item = replace(ITEM, owner_id=user)
    assert tell(sheet, replace(BACK, suspense=item)) is Verdict.CREATED
    failed = RefundFailedFact(refund_id="ref_back", merchant_id=user, fail_time=NOW)
    assert tell(sheet, failed) is Verdict.CREATED
    assert balances(sheet) == {"PROCESSOR_CLEARING": -1000, "SUSPENSE": 1000}
