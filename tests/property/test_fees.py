"""Fees under any captures, changes of the plan, refunds and their failures: nothing is taken twice, and all of it can come back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from servers.kernel.ids import derive_id
from servers.kernel.money import BPS, Money, Rounding, apply_bps
from servers.payments.domain import Capture, FeePlan, FeeRefund, fee_to_return
from servers.wallets.dispute_facts import DisputeEndedFact, DisputeOpenedFact
from servers.wallets.domain import PLATFORM, Account, AccountKind, Sheet, Verdict, account_id
from servers.wallets.facts import (
    CaptureFact,
    Fact,
    RefundCreatedFact,
    RefundFailedFact,
    SettlementFact,
    book,
    opened_by,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MERCHANT = derive_id("mer", "one", bucket=7)
PAYMENT = derive_id("pay", "one", bucket=7)

plans = st.builds(
    lambda version, basis_points, fixed, policy, days: FeePlan(
        version=f"v{version}",
        basis_points=basis_points,
        fixed_minor={"USD": fixed},
        fee_refund=policy,
        settlement_delay_seconds=days and days * 86_400,
    ),
    st.integers(1, 99),
    st.one_of(st.integers(0, 500), st.integers(0, BPS)),
    st.integers(0, 60),
    st.sampled_from(FeeRefund),
    st.one_of(st.none(), st.integers(0, 90)),
)
parts = st.lists(st.tuples(st.integers(1, 3000), plans), min_size=1, max_size=5)


def usd(amount: int) -> Money:
    """Return cents."""
    return Money(amount_minor=amount, currency="USD")


def captured(sequence: list[tuple[int, FeePlan]]) -> list[Capture]:
    """Return the captures of a payment, each under the plan of its time."""
    captures: list[Capture] = []
    for amount, plan in sequence:
        fee = plan.fee_of_next(captures, usd(amount))
        captures.append(
            Capture(
                id=derive_id("cap", str(len(captures)), bucket=7),
                amount=usd(amount),
                fee=fee.amount,
                fee_due_minor=fee.due_minor,
                fee_plan_version=plan.version,
                fee_refund=plan.fee_refund,
                settlement_delay_seconds=plan.settlement_delay_seconds,
                capture_time=NOW,
            )
        )
    return captures


@settings(max_examples=300, deadline=None)
@given(parts)
def test_no_capture_pays_more_than_it_has_whatever_the_plans(sequence: list[tuple[int, FeePlan]]) -> None:
    captures = captured(sequence)
    for capture in captures:
        assert 0 <= capture.fee.amount_minor <= capture.amount.amount_minor
    # The fixed part is asked for once, by the first capture's plan; each later one asks for its share alone.
    fixed = sequence[0][1].fixed_minor["USD"]
    shares = sum(
        apply_bps(after, plan.basis_points, rounding=Rounding.HALF_EVEN)
        - apply_bps(before, plan.basis_points, rounding=Rounding.HALF_EVEN)
        for (before, after), (_, plan) in zip(pairwise(running(captures)), sequence, strict=True)
    )
    assert sum(capture.fee_due_minor for capture in captures) == fixed + shares
    assert sum(capture.fee.amount_minor for capture in captures) <= fixed + shares


def running(captures: list[Capture]) -> list[int]:
    """Return the sums captured so far, from 0 on."""
    sums = [0]
    for capture in captures:
        sums.append(sums[-1] + capture.amount.amount_minor)
    return sums


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), plans)
def test_parts_under_one_plan_cost_what_the_whole_costs(amounts: list[int], plan: FeePlan) -> None:
    whole = plan.fee_of_next((), usd(sum(amounts))).amount
    taken = [capture.fee.amount_minor for capture in captured([(amount, plan) for amount in amounts])]
    assert sum(taken) == whole.amount_minor


@dataclass
class Books:
    """Payments' side of one payment, and the ledger's: what a refund returns is decided there, and booked here."""

    captures: list[Capture]
    sheet: Sheet = field(init=False)
    refunds: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Those that count: id -> (amount, returned fee)."""
    unbooked: list[Fact] = field(default_factory=list)
    disputed: int = 0
    """What disputes that are not won take up of the payment."""

    def __post_init__(self) -> None:
        """Open the accounts and book the captures."""
        facts: list[Fact] = [*self.facts(), dispute(0, 1, won=False)]
        rows = [row for fact in facts for row in opened_by(fact, "USD")]
        accounts = [Account(id=account_id(*row), owner_id=row[0], kind=row[1], currency="USD") for row in rows]
        self.sheet = Sheet(now=NOW, accounts={a.id: a for a in accounts}, known={}, burnt=set(), pendings={})
        for fact in self.facts():
            self.book(fact)

    def facts(self) -> tuple[CaptureFact, ...]:
        """Return what the ledger is told of the captures."""
        return tuple(
            CaptureFact(
                capture_id=capture.id, payment_id=PAYMENT, merchant_id=MERCHANT, amount=capture.amount, fee=capture.fee,
                capture_time=NOW, fee_returnable=capture.fee_refund is FeeRefund.RETURNED,
                settlement_delay=None if capture.settlement_delay_seconds is None
                else timedelta(seconds=capture.settlement_delay_seconds),
            )
            for capture in self.captures
        )  # fmt: skip

    def book(self, fact: Fact) -> None:
        """Book a fact, twice: the second time changes nothing."""
        book(self.sheet, fact, list(self.sheet.known.values()))
        written = len(self.sheet.written)
        book(self.sheet, fact, list(self.sheet.known.values()))
        assert len(self.sheet.written) == written

    @property
    def left(self) -> int:
        """What can still be refunded."""
        captured = sum(c.amount.amount_minor for c in self.captures)
        return max(0, captured - self.disputed - sum(amount for amount, _ in self.refunds.values()))

    def refund_of(self, number: int, amount: int) -> RefundCreatedFact:
        """Return a refund with what it returns."""
        returned = fee_to_return(
            self.captures,
            refunded_minor=sum(one for one, _ in self.refunds.values()),
            returned_minor=sum(one for _, one in self.refunds.values()),
            amount=usd(amount),
        ).amount_minor
        return RefundCreatedFact(
            refund_id=derive_id("ref", str(number), bucket=7),
            amount=usd(amount),
            captures=self.facts(),
            create_time=NOW,
            fee_returned_minor=returned,
        )

    def refund(self, number: int, amount: int) -> None:
        """Refund."""
        amount = min(amount, self.left)
        if amount == 0:
            return
        fact = self.refund_of(number, amount)
        self.refunds[fact.refund_id] = (amount, fact.fee_returned_minor)
        self.book(fact)

    def dispute(self, number: int, amount: int) -> None:
        """Open a dispute and end it; every second one is won."""
        won = number % 2 == 0
        self.book(dispute(number, amount, won=won).opened)
        self.book(dispute(number, amount, won=won))
        self.disputed += 0 if won else amount

    def fail(self, number: int, *, late: bool) -> None:
        """Let a refund fail; the ledger may hear of it only after later refunds."""
        refund_id = derive_id("ref", str(number), bucket=7)
        if self.refunds.pop(refund_id, None) is not None:
            fact = RefundFailedFact(refund_id=refund_id, merchant_id=MERCHANT, fail_time=NOW)
            if late:
                self.unbooked.append(fact)
            else:
                self.book(fact)

    def settle(self, number: int) -> None:
        """Let a capture's money become available."""
        capture = self.captures[number % len(self.captures)]
        self.book(SettlementFact(capture_id=capture.id, merchant_id=MERCHANT, currency="USD", settle_time=NOW))

    def balance(self, owner: str, kind: AccountKind) -> int:
        """Return a balance."""
        return self.sheet.accounts[account_id(owner, kind, "USD")].balance


def dispute(number: int, amount: int, *, won: bool) -> DisputeEndedFact:
    """Return a dispute that has ended."""
    opened = DisputeOpenedFact(
        dispute_id=derive_id("dsp", str(number), bucket=7),
        stage="CHARGEBACK",
        owner_id=MERCHANT,
        amount=usd(amount),
        open_time=NOW,
    )
    return DisputeEndedFact(opened=opened, won=won, end_time=NOW)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("refund"), st.integers(1, 4000)),
        st.tuples(st.just("fail"), st.integers(0, 11)),
        st.tuples(st.just("fail late"), st.integers(0, 11)),
        st.tuples(st.just("settle"), st.integers(0, 4)),
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(parts, steps)
def test_any_refunds_and_failures_leave_fees_and_lots_right(
    sequence: list[tuple[int, FeePlan]], sequence_of_steps: list[tuple[str, int]]
) -> None:
    books = Books(captured(sequence))
    taken = sum(capture.fee.amount_minor for capture in books.captures)
    returnable = sum(c.fee.amount_minor for c in books.captures if c.fee_refund is FeeRefund.RETURNED)
    for number, (kind, value) in enumerate(sequence_of_steps):
        match kind:
            case "refund":
                books.refund(number, value)
            case "settle":
                books.settle(value)
            case _:
                books.fail(value, late=kind == "fail late")
        assert 0 <= sum(returned for _, returned in books.refunds.values()) <= returnable
        held = sum(lot.left_minor for lot in books.sheet.lots.values())
        assert books.balance(MERCHANT, AccountKind.MERCHANT_PENDING) == held
        assert all(lot.left_minor >= 0 and lot.returned_minor >= 0 for lot in books.sheet.lots.values())
    for fact in books.unbooked:
        books.book(fact)
    returned = sum(one for _, one in books.refunds.values())
    assert books.balance(PLATFORM, AccountKind.PLATFORM_FEES) == taken - returned
    refunded = sum(amount for amount, _ in books.refunds.values())
    assert books.balance(PLATFORM, AccountKind.REFUNDS_IN_TRANSIT) == refunded
    # All that is left goes back: the returnable fee with it, to the cent.
    books.refund(99, books.left)
    assert books.balance(PLATFORM, AccountKind.PLATFORM_FEES) == taken - returnable
    own = [books.balance(MERCHANT, kind) for kind in (AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE)]
    assert sum(own) == returnable - taken


@settings(max_examples=200, deadline=None)
@given(parts, st.lists(st.integers(1, 4000), max_size=8))
def test_a_payment_that_is_not_settled_never_needs_other_money(
    sequence: list[tuple[int, FeePlan]], amounts: list[int]
) -> None:
    """With every fee returned, refunds in any parts are paid by the payment's own pending money."""
    books = Books(captured([(amount, replace(plan, fee_refund=FeeRefund.RETURNED)) for amount, plan in sequence]))
    for number, amount in enumerate([*amounts, 20_000]):
        books.refund(number, amount)
        assert books.balance(MERCHANT, AccountKind.MERCHANT_AVAILABLE) == 0
    assert books.balance(MERCHANT, AccountKind.MERCHANT_PENDING) == 0
    assert books.balance(PLATFORM, AccountKind.PLATFORM_FEES) == 0


@settings(max_examples=300, deadline=None)
@given(
    parts,
    st.lists(
        st.tuples(st.sampled_from(["refund", "fail", "settle", "dispute"]), st.integers(1, 4000)),
        min_size=1,
        max_size=12,
    ),
)
def test_disputes_between_refunds_return_nothing_of_the_fee(
    sequence: list[tuple[int, FeePlan]], sequence_of_steps: list[tuple[str, int]]
) -> None:
    """What refunds return stays below what captures paid, whatever is disputed beside it, and a dispute itself moves no fee."""
    books = Books(captured(sequence))
    taken = sum(capture.fee.amount_minor for capture in books.captures)
    returnable = sum(c.fee.amount_minor for c in books.captures if c.fee_refund is FeeRefund.RETURNED)
    for number, (kind, value) in enumerate(sequence_of_steps):
        match kind:
            case "refund":
                books.refund(number, value)
            case "settle":
                books.settle(value)
            case "dispute":
                books.dispute(number, value)
            case _:
                books.fail(value % 12, late=False)
        returned = sum(one for _, one in books.refunds.values())
        assert 0 <= returned <= returnable
        assert books.balance(PLATFORM, AccountKind.PLATFORM_FEES) == taken - returned
        held = sum(lot.left_minor for lot in books.sheet.lots.values())
        assert books.balance(MERCHANT, AccountKind.MERCHANT_PENDING) == held
    assert books.balance(MERCHANT, AccountKind.MERCHANT_DISPUTED) == 0
    assert books.balance(PLATFORM, AccountKind.DISPUTES_WITHDRAWN) == books.disputed


@settings(max_examples=400, deadline=None)
@given(parts, steps, st.booleans(), st.one_of(st.just(0), st.integers(-3000, 3000)), st.integers(1, 4000))
def test_a_refund_within_the_balance_is_booked_exactly_where_it_takes_nothing_below_zero(
    sequence: list[tuple[int, FeePlan]], sequence_of_steps: list[tuple[str, int]], settled: bool, more: int, amount: int
) -> None:
    """The fee that a refund returns counts, because it is there before the refund takes money."""
    books, again = Books(captured(sequence)), Books(captured(sequence))
    for one in (books, again):
        for capture in range(len(sequence) if settled else 0):
            one.settle(capture)
        for number, (kind, value) in enumerate(sequence_of_steps):
            if kind == "settle":
                one.settle(value)
            elif kind == "refund":
                one.refund(number, value)
        one.sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_AVAILABLE, "USD")].credits_posted += more
    amount = min(amount, books.left)
    if amount == 0:
        return
    fact, before = books.refund_of(99, amount), dict(books.sheet.lots)
    verdict, written = book(books.sheet, replace(fact, within_balance=True), list(books.sheet.known.values()))
    forced = book(again.sheet, fact, list(again.sheet.known.values()))[1]
    below = again.balance(MERCHANT, AccountKind.MERCHANT_AVAILABLE) < 0
    if any(line.code == "refund.available" for line in forced) and below:
        assert (verdict, written, books.sheet.lots) == (Verdict.INSUFFICIENT_FUNDS, [], before)
    else:
        assert (verdict, written) == (Verdict.CREATED, forced)
