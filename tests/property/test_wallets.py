"""Wallets under any sequence of holds, captures, voids, refunds, top-ups, repeats and passing time, beside a small model."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from servers.wallets.domain import DONE, PLATFORM, AccountKind, Sheet, Transfer, Verdict, account_id
from servers.wallets.facts import CaptureFact, Fact, book
from servers.wallets.wallet_facts import WalletHoldFact, expiry_of
from tests.support.wallet_books import (
    MERCHANT,
    NOW,
    books,
    capture_of,
    hold_of,
    refund_of,
    sums,
    tell,
    top_up,
    void_of,
)

NAMES = st.integers(0, 3)
AMOUNTS = st.sampled_from((1, 5, 10, 20, 25, 30))  # among them all of a hold, and more
STEPS = st.one_of(
    st.tuples(st.just("top_up"), NAMES, AMOUNTS),
    st.tuples(st.just("hold"), NAMES, AMOUNTS),
    st.tuples(st.just("capture"), NAMES, AMOUNTS),
    st.tuples(st.just("capture_again"), NAMES, AMOUNTS),
    st.tuples(st.just("void"), NAMES, st.just(0)),
    st.tuples(st.just("refund"), NAMES, AMOUNTS),
    st.tuples(st.just("pass_time"), st.just(0), st.integers(1, 40)),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
)
FEE = 5


@dataclass
class Hold:
    """A hold as the model knows it."""

    fact: WalletHoldFact
    left: int
    ended: str = ""


@dataclass
class Model:
    """What should be: plain sums, no ledger."""

    balance: int = 0
    pending: int = 0
    available: int = 0
    fees: int = 0
    minutes: int = 0
    top_ups: set[int] = field(default_factory=set)
    holds: dict[int, Hold] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    captures: dict[tuple[int, int], CaptureFact] = field(default_factory=dict)
    lots: dict[str, int] = field(default_factory=dict)
    refunded: dict[int, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """What can still be spent."""
        return self.balance - sum(hold.left for hold in self.holds.values())

    def late(self, hold: WalletHoldFact) -> bool:
        """Whether a hold's time is over."""
        return hold.expire_time <= NOW + timedelta(minutes=self.minutes)

    def hold(self, name: int, fact: WalletHoldFact) -> Verdict:
        """Hold money."""
        if name in self.holds:
            return Verdict.EXISTS
        if self.late(fact):
            return Verdict.PENDING_EXPIRED
        if name in self.dead:
            return Verdict.BURNT
        if self.free < fact.amount.amount_minor:
            self.dead.add(name)
            return Verdict.INSUFFICIENT_FUNDS
        self.holds[name] = Hold(fact, fact.amount.amount_minor)
        return Verdict.CREATED

    def capture(self, name: int, number: int, fact: CaptureFact) -> Verdict:
        """Take from a hold, and hold first where that was not done."""
        assert fact.hold is not None
        if (name, number) in self.captures:
            return Verdict.EXISTS
        amount, brought = fact.amount.amount_minor, name not in self.holds
        if brought and (verdict := self.hold(name, fact.hold)) is not Verdict.CREATED:
            return verdict
        hold = self.holds[name]
        if (refusal := self._refusal(hold, amount)) is not None:
            if brought:
                del self.holds[name]
            return refusal
        hold.left -= amount
        hold.ended = hold.ended or ("posted" if hold.left == 0 else "")
        fee = fact.fee.amount_minor
        self.balance -= amount
        self.pending += amount - fee
        self.fees += fee
        self.captures[name, number] = fact
        self.lots[fact.capture_id] = amount - fee
        return Verdict.CREATED

    def _refusal(self, hold: Hold, amount: int) -> Verdict | None:
        if hold.ended:
            return Verdict.PENDING_EXPIRED if hold.ended == "expired" else Verdict.PENDING_CLOSED
        if self.late(hold.fact):
            return Verdict.PENDING_EXPIRED
        return Verdict.EXCEEDS_PENDING if amount > hold.left else None

    def void(self, name: int) -> Verdict:
        """Let a hold go, or see to it that it never is."""
        if name not in self.holds:
            known = name in self.dead
            self.dead.add(name)
            return Verdict.EXISTS if known else Verdict.CREATED
        hold = self.holds[name]
        if hold.ended:
            return Verdict.EXISTS
        hold.left, hold.ended = 0, "voided"
        return Verdict.CREATED

    def sweep(self) -> list[str]:
        """End what is over."""
        over = [hold for hold in self.holds.values() if not hold.ended and self.late(hold.fact)]
        for hold in over:
            hold.left, hold.ended = 0, "expired"
        return [hold.fact.id for hold in over]

    def refund(self, name: int, amount: int) -> None:
        """Give back: from the lots first, the rest from what is available."""
        left = amount
        for fact in sorted((c for (one, _), c in self.captures.items() if one == name), key=lambda c: c.capture_id):
            take = min(left, self.lots[fact.capture_id])
            self.lots[fact.capture_id] -= take
            self.pending -= take
            left -= take
        self.available -= left
        self.balance += amount


def swept(hold: str, sheet: Sheet) -> Transfer:
    """Return what the sweeper writes for an expired hold."""
    return expiry_of(sheet.known[hold], sheet.now)


def step(sheet: Sheet, model: Model, what: str, name: int, amount: int) -> tuple[Fact | None, Verdict, Verdict]:
    """Do a step in both. Returns the fact, what the ledger said, and what it should have said."""
    hold = hold_of(str(name), 20 + 5 * (name % 3), expire_time=NOW + timedelta(minutes=30 + name))
    fact: Fact
    match what:
        case "top_up":
            fact = top_up(str(name), 50 + name)
            expected = Verdict.EXISTS if name in model.top_ups else Verdict.CREATED
            if expected is Verdict.CREATED:
                model.top_ups.add(name)
                model.balance += 50 + name
        case "hold":
            fact, expected = hold, model.hold(name, hold)
        case "capture" | "capture_again":
            number = 1 if what == "capture" else 2
            fact = capture_of(hold, f"{name}/{number}", amount, min(FEE, amount))
            fact = model.captures.get((name, number), fact)
            expected = model.capture(name, number, fact)
        case "void":
            fact, expected = void_of(hold), model.void(name)
        case _:
            captures = [c for (one, _), c in model.captures.items() if one == name]
            left = sum(c.amount.amount_minor for c in captures) - model.refunded.get(name, 0)
            amount = min(amount, left)
            if amount <= 0:
                return None, Verdict.EXISTS, Verdict.EXISTS
            fact = refund_of(f"{name}/{model.refunded.get(name, 0)}", amount, *captures)
            model.refunded[name] = model.refunded.get(name, 0) + amount
            model.refund(name, amount)
            expected = Verdict.CREATED
    return fact, tell(sheet, fact), expected


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, min_size=12, max_size=40))
def test_any_sequence_is_what_the_model_says(sequence: list[tuple[str, int, int]]) -> None:
    sheet, model = books(), Model(balance=40)
    tell(sheet, top_up("start", 40))
    for what, name, amount in sequence:
        written = len(sheet.written)
        if what == "pass_time":
            model.minutes += amount
            sheet.now = NOW + timedelta(minutes=model.minutes)
            continue
        if what == "sweep":
            sheet.post([swept(hold, sheet) for hold in model.sweep()])
            continue
        fact, said, expected = step(sheet, model, what, name, amount)
        assert said is expected, (what, name, amount)
        if said is not Verdict.CREATED:
            assert len(sheet.written) == written
        if fact is not None and said in DONE:
            # Whoever tells of it again, changes nothing.
            before = (len(sheet.written), dict(sheet.accounts), dict(sheet.lots), list(sheet.burns))
            assert book(sheet, fact, list(sheet.known.values()))[0] is Verdict.EXISTS
            assert (len(sheet.written), sheet.accounts, sheet.lots, sheet.burns) == before
        assert sums(sheet) == (model.balance, model.free, model.pending, model.fees)
    available = sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_AVAILABLE, "USD")]
    transit = sheet.accounts[account_id(PLATFORM, AccountKind.REFUNDS_IN_TRANSIT, "USD")]
    assert (available.balance, transit.balance) == (model.available, 0)
    assert sum(account.balance for account in sheet.accounts.values()) == 0
    assert model.free >= 0
    assert model.pending == sum(lot.left_minor for lot in sheet.lots.values()) >= 0
    assert not sheet.burnt & sheet.known.keys()
