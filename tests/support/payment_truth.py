"""What payments' rows say, held against what the fakes at its ports did, and against themselves.

Each function asserts, and returns nothing: what is told as certain is true at all times, and all is told once nothing is open.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from paymesh.payments.v1 import payments_pb2

from servers.audit.invariants import PAYMENTS
from servers.payments.domain import OPEN_ATTEMPTS, Payment, PaymentState, RefundState
from servers.payments.resolvers import resolvers
from servers.payments.usecases import end_windows
from servers.runtime.janitor import Janitor
from tests.support.fake_ledger import Hold
from tests.support.fake_stripe import Intent, Made
from tests.support.payment_desk import Desk

OPEN: Final = ("CREATED", "SENT", "UNKNOWN", "NEEDS_OPERATOR")
ENDED: Final = (PaymentState.CANCELED, PaymentState.EXPIRED)
SOON: Final = timedelta(hours=30)
"""For how long looks of the janitor are waited for: what it looks for longer stays lost."""
PAUSE: Final = timedelta(seconds=6)
"""Longer than a circuit breaker's."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A payment with all that belongs to it."""

    payment: Payment
    attempts: list[Any]
    operations: list[Any]
    refunds: list[Any]
    watched: frozenset[str]
    """What the janitor looks into, or a person."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What was done for a payment, by those who did it."""

    intents: list[Intent]
    refunds: list[Made]
    holds: dict[str, Hold]
    taken: int
    """From a wallet."""
    kept: int
    """Held in a wallet."""
    given_back: frozenset[str]
    """Our refunds that were made."""

    @property
    def received(self) -> int:
        """What was taken."""
        return sum(intent.received for intent in self.intents) + self.taken

    @property
    def held(self) -> int:
        """What is held and can still be taken."""
        return sum(intent.capturable for intent in self.intents) + self.kept

    @property
    def odd(self) -> bool:
        """Whether Stripe took another amount than it was asked for."""
        return any(intent.source.startswith("pm_odd") for intent in self.intents)

    def refunded(self, state: RefundState) -> int:
        """Return the sum of the refunds at Stripe in a state."""
        return sum(made.amount for made in self.refunds if made.state is state)


async def rows_of(desk: Desk, payment_id: str) -> Rows:
    """Read a payment with all that belongs to it."""
    mine = "FROM {} WHERE payment_id = :id ORDER BY id"
    calls = await desk.rows("SELECT target FROM outbound_calls WHERE state NOT IN ('DONE', 'NOT_SENT')")
    return Rows(
        payment=await desk.payment(payment_id),
        attempts=await desk.rows(f"SELECT id, state, charge_id {mine.format('attempts')}", id=payment_id),
        operations=await desk.rows(f"SELECT * {mine.format('operations')}", id=payment_id),
        refunds=await desk.rows(f"SELECT * {mine.format('refunds')}", id=payment_id),
        watched=frozenset(row.target for row in calls),
    )


def truth_of(desk: Desk, payment_id: str) -> Truth:
    """Return what was done for a payment."""
    intents, ledger = desk.stripe.of(payment_id), desk.ledger
    names = {intent.id for intent in intents}
    refunds = [made for made in desk.stripe.refunds.values() if made.intent_id in names]
    holds = {attempt: hold for attempt, hold in ledger.holds.items() if hold.payment_id == payment_id}
    # A card's refund is only announced to the ledger, a wallet's is made there.
    from_wallet = frozenset(ledger.given_back) if holds else frozenset()
    return Truth(
        intents=intents,
        refunds=refunds,
        holds=holds,
        given_back=from_wallet | {made.refund_id for made in refunds},
        taken=ledger.captured(payment_id),
        kept=ledger.held(payment_id),
    )


def check_sums(p: Payment) -> None:
    """Hold the payment's counters against each other."""
    assert min(p.capturable_minor, p.capture_pending_minor, p.refunded_minor, p.refund_pending_minor) >= 0
    assert p.refunded_minor + p.refund_pending_minor <= p.captured_minor
    assert p.capturable_minor + p.capture_pending_minor + p.captured_minor <= p.amount.amount_minor
    assert p.captured_minor == sum(capture.amount.amount_minor for capture in p.captures)


def check_openness(desk: Desk, rows: Rows) -> None:
    """At most one thing is open, what is open is UNKNOWN to the caller, and somebody looks into it."""
    payment = rows.payment
    names = {state.value for state in OPEN_ATTEMPTS}
    attempts = [row for row in rows.attempts if row.state in names]
    operations = [row for row in rows.operations if row.state in OPEN]
    assert len(attempts) + len(operations) <= 1, "two things are open"
    lost = operations or any(row.state in OPEN and row.state != "CREATED" for row in attempts)
    certainty = payments_pb2.UNKNOWN if lost else payments_pb2.CERTAIN
    assert desk.renderer.payment(payment).certainty == certainty
    waiting = [row for row in rows.attempts if row.state == "REQUIRES_ACTION"]
    waiting += [row for row in rows.refunds if row.state == "PENDING"]
    if payment.state is not PaymentState.CONFLICTED:
        forgotten = {row.id for row in [*attempts, *operations, *waiting]} - rows.watched
        assert not forgotten, "open, and nobody looks into it"


def check_certain(desk: Desk, rows: Rows, truth: Truth) -> None:
    """What we take for certain is what was done, attempt by attempt, operation by operation, refund by refund."""
    stripe = desk.stripe
    charged = {*stripe.charges, *truth.holds}
    for row in rows.attempts:
        if row.state == "SUCCEEDED":
            assert row.id in charged, "a charge that never was"
        if row.state in ("DECLINED", "NOT_SENT"):
            assert row.id not in charged, f"charged, and told as {row.state}"
    taken = dict(stripe.captures)
    for row in rows.operations:
        if row.kind == "CANCEL" and row.state == "SUCCEEDED":
            assert not truth.held
            assert all(intent.status == "canceled" for intent in truth.intents if intent.source)
        if row.kind == "CAPTURE" and row.amount_minor and not truth.holds:
            if row.state == "SUCCEEDED":
                assert taken.get(row.id) == row.amount_minor, "a capture that never was"
            if row.state in ("FAILED", "NOT_SENT"):
                assert row.id not in taken, f"captured, and told as {row.state}"
    ended = {made.refund_id: made.state for made in truth.refunds}
    for row in rows.refunds:
        if row.state == "SUCCEEDED":
            assert row.id in truth.given_back, "a refund that never was"
        if row.state == "FAILED":
            assert ended.get(row.id, RefundState.FAILED) is RefundState.FAILED, "refunded, and told as failed"
    if rows.payment.state in ENDED:
        assert (truth.held, truth.received) == (0, 0), f"money in a payment that is {rows.payment.state.name}"


def check_once(desk: Desk, rows: Rows, truth: Truth) -> None:
    """Nothing was done twice, nothing without somebody who asked for it, and nothing under a key that answers 500 for ever."""
    stripe = desk.stripe
    # One that was never confirmed charges nobody: where the answer to its creation was lost, there may be another after a day.
    assert sum(bool(intent.source) for intent in truth.intents) <= 1, "two PaymentIntents were confirmed"
    assert len([*stripe.charges, *truth.holds]) <= 1, "charged twice"
    assert {*stripe.charges, *truth.holds} <= {row.id for row in rows.attempts}, "a charge without an attempt"
    operations = [operation for operation, _ in stripe.captures]
    assert len(operations) == len(set(operations)), "captured twice"
    assert set(operations) <= {row.id for row in rows.operations}
    refunds = [made.refund_id for made in truth.refunds]
    assert len(refunds) == len(set(refunds)), "refunded twice"
    assert {*refunds, *desk.ledger.given_back} <= {row.id for row in rows.refunds}
    # A process that dies before it has written down what it was answered, leaves the next one to ask once more.
    assert max(Counter(stripe.useless).values(), default=0) <= desk.deaths, "sent again where a 500 was answered"
    if not truth.odd:
        p = rows.payment
        assert p.captured_minor <= truth.received, "more is told as captured than was taken"
        given = truth.refunded(RefundState.SUCCEEDED) + truth.refunded(RefundState.FAILED)
        assert p.wallet_id or p.refunded_minor <= given, "more is told as refunded than was given back"


async def check_invariants(desk: Desk) -> None:
    """What the audit would find."""
    for check in PAYMENTS:
        broken = await desk.rows(check.broken)
        assert not broken, f"{check.invariant} {check.title}: {broken}"


async def next_look(desk: Desk) -> timedelta | None:
    """Return how long it is until the janitor looks, at least a circuit breaker's pause; None where nothing is open."""
    due = await desk.rows("SELECT min(next_poll_time) AS time FROM outbound_calls WHERE next_poll_time IS NOT NULL")
    return None if due[0].time is None else max(due[0].time - desk.db.clock.now(), PAUSE)


async def let_the_janitor_end(desk: Desk) -> None:
    """Let the janitor look until nothing more is to be learnt soon."""
    janitor, until = Janitor(desk.db, resolvers(desk.deps)), desk.db.clock.now() + SOON
    for _ in range(30):
        wait = await next_look(desk)
        if wait is None or desk.db.clock.now() + wait > until:
            break
        desk.wait(wait)
        await janitor.round()
    await end_windows(desk.deps)


def check_equal(desk: Desk, rows: Rows, truth: Truth) -> None:
    """With no fault left our view is theirs, to the cent."""
    p = rows.payment
    for row in [*rows.attempts, *rows.operations]:
        if row.state in OPEN:
            done = row.id in {*desk.stripe.charges, *truth.holds, *dict(desk.stripe.captures)}
            assert (not done) or truth.odd, "done, and looked for in vain"
    for row in rows.refunds:
        assert not (row.uncertain and row.id in truth.given_back), "refunded, and looked for in vain"
    if truth.odd:
        assert p.state in (PaymentState.CONFLICTED, PaymentState.PROCESSING, PaymentState.REQUIRES_PAYMENT_METHOD) or (
            not truth.received and not truth.held
        )
        return
    assert p.state is not PaymentState.CONFLICTED
    assert p.captured_minor == truth.received
    assert p.capturable_minor + p.capture_pending_minor == truth.held
    pending = p.refund_pending_minor - sum(row.amount_minor for row in rows.refunds if row.uncertain)
    if p.wallet_id:
        assert p.refunded_minor == sum(money.amount_minor for money in desk.ledger.given_back.values())
        assert pending == 0
    else:
        assert p.refunded_minor == truth.refunded(RefundState.SUCCEEDED)
        assert pending == truth.refunded(RefundState.PENDING)
