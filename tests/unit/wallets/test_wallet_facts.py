"""Facts that move a customer's money, as tables: what each does to the books, and the verdict that it gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servers.kernel.ids import derive_id
from servers.kernel.invariant import InvariantBroken
from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, AccountKind, Sheet, Transfer, TransferKind, Verdict, account_id, wallet_id
from servers.wallets.facts import RefundFailedFact, book
from tests.support.wallet_books import (
    ANN,
    MERCHANT,
    NOW,
    books,
    capture_of,
    hold_of,
    refund_of,
    sums,
    tell,
    top_up,
    usd,
    void_of,
)


@pytest.fixture
def sheet() -> Sheet:
    """Return the books of Ann, who has 100.00 dollars in her wallet, and of a shop."""
    sheet = books()
    assert tell(sheet, top_up("first", 10_000)) is Verdict.CREATED
    return sheet


def test_a_top_up_fills_the_wallet_once_without_a_fee_or_a_lot(sheet: Sheet) -> None:
    fact = top_up("second", 500)
    assert [tell(sheet, fact) for _ in range(3)] == [Verdict.CREATED, Verdict.EXISTS, Verdict.EXISTS]
    assert sums(sheet) == (10_500, 10_500, 0, 0)
    assert not sheet.lots
    assert sheet.written[-1].fact_id == fact.capture_id
    assert tell(sheet, replace(fact, amount=usd(501))) is Verdict.EXISTS_WITH_DIFFERENT_FIELDS
    assert (
        tell(sheet, replace(top_up("third", 1), amount=Money(amount_minor=1, currency="GBP")))
        is Verdict.ACCOUNT_NOT_FOUND
    )


def test_a_hold_is_captured_in_parts_and_the_rest_goes_back(sheet: Sheet) -> None:
    hold = hold_of("a", 4000)
    assert [tell(sheet, hold), tell(sheet, hold)] == [Verdict.CREATED, Verdict.EXISTS]
    assert sums(sheet) == (10_000, 6000, 0, 0)
    part = capture_of(hold, "a1", 1500, 50)
    assert [tell(sheet, part), tell(sheet, part)] == [Verdict.CREATED, Verdict.EXISTS]
    assert sums(sheet) == (8500, 6000, 1450, 50)
    assert sheet.lots[part.capture_id].net_minor == 1450
    assert tell(sheet, capture_of(hold, "a2", 2501)) is Verdict.EXCEEDS_PENDING
    assert tell(sheet, capture_of(hold, "a3", 1000, 10)) is Verdict.CREATED
    assert [tell(sheet, void_of(hold)), tell(sheet, void_of(hold))] == [Verdict.CREATED, Verdict.EXISTS]
    assert sums(sheet) == (7500, 7500, 2440, 60)
    assert tell(sheet, capture_of(hold, "a4", 1)) is Verdict.PENDING_CLOSED
    assert tell(sheet, hold) is Verdict.EXISTS


def test_a_capture_brings_its_hold_with_it_in_one_chain(sheet: Sheet) -> None:
    hold = hold_of("a", 4000)
    verdict, written = book(sheet, capture_of(hold, "a1", 4000, 100), [])
    assert verdict is Verdict.CREATED
    assert [t.kind for t in written] == [TransferKind.PENDING, TransferKind.POST_PENDING, TransferKind.POSTED]
    assert sums(sheet) == (6000, 6000, 3900, 100)
    assert tell(sheet, void_of(hold)) is Verdict.EXISTS
    assert not sheet.burns


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"amount": usd(10_001)}, Verdict.INSUFFICIENT_FUNDS),
        ({"wallet_id": wallet_id(MERCHANT, "USD")}, Verdict.ACCOUNT_NOT_FOUND),
        ({"wallet_id": wallet_id(ANN, "EUR")}, Verdict.CURRENCY_MISMATCH),
        ({"wallet_id": wallet_id(ANN, "GBP")}, Verdict.ACCOUNT_NOT_FOUND),
        ({"customer_id": derive_id("usr", "bob", bucket=3)}, Verdict.ACCOUNT_NOT_FOUND),
        ({"expire_time": NOW}, Verdict.PENDING_EXPIRED),
    ],
)
@pytest.mark.parametrize("with_capture", [False, True])
def test_a_refusal_writes_nothing(sheet: Sheet, more: dict[str, object], verdict: Verdict, with_capture: bool) -> None:
    hold = replace(hold_of("a", 100), **more)  # type: ignore[arg-type]  # fields by name
    fact = capture_of(hold, "a1", 10) if with_capture else hold
    before = (sums(sheet), len(sheet.written), len(sheet.entries))
    assert tell(sheet, fact) is verdict
    assert (sums(sheet), len(sheet.written), len(sheet.entries)) == before
    assert not sheet.lots
    burning = verdict is Verdict.INSUFFICIENT_FUNDS
    assert (hold.id in sheet.burnt) is burning
    # Where the reason was a passing one, nobody makes the same id work afterwards.
    if burning:
        assert tell(sheet, replace(hold, amount=usd(1))) is Verdict.BURNT


def test_a_hold_cannot_come_after_its_void(sheet: Sheet) -> None:
    hold = hold_of("a", 100)
    assert [tell(sheet, void_of(hold)), tell(sheet, void_of(hold))] == [Verdict.CREATED, Verdict.EXISTS]
    assert tell(sheet, hold) is Verdict.BURNT
    assert tell(sheet, capture_of(hold, "a1", 100)) is Verdict.BURNT
    assert sums(sheet) == (10_000, 10_000, 0, 0)


def test_an_expired_hold_says_so_before_and_after_its_sweep(sheet: Sheet) -> None:
    hold = hold_of("a", 100)
    tell(sheet, hold)
    sheet.now = hold.expire_time
    assert tell(sheet, capture_of(hold, "a1", 100)) is Verdict.PENDING_EXPIRED
    swept = Transfer(
        id=derive_id("trf", "sweep", bucket=5), debit_account_id="", credit_account_id="", amount_minor=0, currency="USD",
        code="hold.expired", kind=TransferKind.VOID_PENDING, fact_id=hold.attempt_id, effective_time=hold.expire_time,
        pending_id=hold.id,
    )  # fmt: skip
    assert sheet.post([swept])[0][0] is Verdict.CREATED
    assert tell(sheet, capture_of(hold, "a1", 100)) is Verdict.PENDING_EXPIRED
    assert tell(sheet, void_of(hold)) is Verdict.EXISTS
    assert sums(sheet) == (10_000, 10_000, 0, 0)


def test_a_refund_goes_back_to_the_wallet_at_once(sheet: Sheet) -> None:
    hold = hold_of("a", 4000)
    capture = capture_of(hold, "a1", 4000, 100)
    tell(sheet, capture)
    refund = refund_of("a", 4000, capture)
    assert [tell(sheet, refund), tell(sheet, refund)] == [Verdict.CREATED, Verdict.EXISTS]
    assert sums(sheet) == (10_000, 10_000, 0, 100)
    transit = sheet.accounts[account_id(PLATFORM, AccountKind.REFUNDS_IN_TRANSIT, "USD")]
    available = sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_AVAILABLE, "USD")]
    assert (transit.balance, available.balance) == (0, -100)
    with pytest.raises(InvariantBroken):
        tell(sheet, RefundFailedFact(refund_id=refund.refund_id, merchant_id=MERCHANT, fail_time=NOW))


def test_a_refund_that_ended_before_it_was_booked_can_never_be_booked(sheet: Sheet) -> None:
    hold = hold_of("a", 4000)
    capture = capture_of(hold, "a1", 4000, 100)
    tell(sheet, capture)
    before, refund = sums(sheet), refund_of("a", 4000, capture)
    ended = RefundFailedFact(refund_id=refund.refund_id, merchant_id=MERCHANT, fail_time=NOW)
    assert [tell(sheet, ended), tell(sheet, ended)] == [Verdict.EXISTS, Verdict.EXISTS]  # there is nothing to write
    assert len(sheet.burns) == 1
    assert tell(sheet, refund) is Verdict.BURNT
    assert sums(sheet) == before


def test_a_refund_within_the_balance_is_refused_until_the_balance_covers_it_and_burns_nothing(sheet: Sheet) -> None:
    hold = hold_of("a", 4000)
    capture = capture_of(hold, "a1", 4000, 100)
    tell(sheet, capture)
    refund = replace(refund_of("a", 4000, capture), within_balance=True)
    before = sums(sheet)
    assert tell(sheet, refund) is Verdict.INSUFFICIENT_FUNDS  # 39.00 are pending, and nothing is available
    assert (sums(sheet), sheet.burns, sheet.lots[capture.capture_id].taken_minor) == (before, [], 0)
    within = replace(refund_of("b", 3900, capture), within_balance=True)
    assert [tell(sheet, within), tell(sheet, within)] == [Verdict.CREATED, Verdict.EXISTS]
    sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_AVAILABLE, "USD")].credits_posted += 4000
    assert [tell(sheet, refund), tell(sheet, refund)] == [Verdict.CREATED, Verdict.EXISTS]


def test_the_fee_that_a_refund_returns_covers_it(sheet: Sheet) -> None:
    capture = replace(capture_of(hold_of("a", 4000), "a1", 4000, 100), fee_returnable=True)
    tell(sheet, capture)
    refund = replace(refund_of("a", 4000, capture), within_balance=True)
    assert tell(sheet, refund) is Verdict.INSUFFICIENT_FUNDS
    assert sheet.lots[capture.capture_id].returned_minor == 0
    assert tell(sheet, replace(refund, fee_returned_minor=99)) is Verdict.INSUFFICIENT_FUNDS
    assert tell(sheet, replace(refund, fee_returned_minor=100)) is Verdict.CREATED
    assert sums(sheet) == (10_000, 10_000, 0, 0)


def test_a_refund_books_its_captures_first_and_refuses_with_them(sheet: Sheet) -> None:
    hold = hold_of("a", 20_000)
    refund = refund_of("a", 10, capture_of(hold, "a1", 20_000))
    assert tell(sheet, refund) is Verdict.INSUFFICIENT_FUNDS
    assert sums(sheet) == (10_000, 10_000, 0, 0)
    stranger = replace(refund, wallet_customer_id=derive_id("usr", "bob", bucket=3))
    assert tell(sheet, stranger) is Verdict.ACCOUNT_NOT_FOUND
    with pytest.raises(InvariantBroken):
        tell(sheet, replace(refund, captures=(replace(refund.captures[0], hold=None),)))
