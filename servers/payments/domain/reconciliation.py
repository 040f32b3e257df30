"""Reconciliation, pure: what our records expect of Stripe's balance, what arrived there, and how the two compare.

All amounts are signed as Stripe signs them: a capture is positive, a refund negative. A difference is a break: it is typed, it is
visible, its money waits in suspense, and only a person's decision with a reason ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import ClassVar, Final

from servers.kernel.money import Money, exponent
from servers.kernel.transitions import Arrow, IllegalTransition, Machine

PLATFORM: Final = "platform"
"""Owner of what belongs to nobody's payment."""


class ItemKind(Enum):
    """What a reconciliation item is about."""

    CAPTURE = "CAPTURE"
    REFUND = "REFUND"
    REFUND_FAILURE = "REFUND_FAILURE"
    DISPUTE = "DISPUTE"
    OTHER = "OTHER"


class ItemState(Enum):
    """The states of a reconciliation item; the names are those of the contract."""

    EXPECTED = "EXPECTED"
    PARTIAL = "PARTIAL"
    MATCHED = "MATCHED"
    MISMATCH = "MISMATCH"
    MISSING = "MISSING"
    UNEXPECTED = "UNEXPECTED"
    VOID = "VOID"


class Break(Enum):
    """How what arrived differs from what was expected."""

    NONE = ""
    AMOUNT_OVER = "AMOUNT_OVER"
    AMOUNT_UNDER = "AMOUNT_UNDER"
    CURRENCY = "CURRENCY"
    SPLIT = "SPLIT"
    DATA = "DATA"


class MatchMode(Enum):
    """Who matched it."""

    NONE = ""
    AUTO = "AUTO"
    MANUAL = "MANUAL"
    FORCED = "FORCED"


class ItemStateInvalid(IllegalTransition):
    """The item's state does not allow the verb."""

    reason: ClassVar[str] = "RECONCILIATION_ITEM_STATE_INVALID"


_I = ItemState

RECONCILIATION_ITEM: Final = Machine(
    name="reconciliation_item",
    states=ItemState,
    terminal=frozenset({_I.MATCHED, _I.VOID}),
    refusal=ItemStateInvalid,
    arrows=(
        Arrow(None, "expect", _I.EXPECTED, "reconciliation_item.expected"),
        Arrow(None, "find", _I.UNEXPECTED, "reconciliation_item.unexpected"),
        Arrow(_I.EXPECTED, "match", _I.MATCHED, "reconciliation_item.matched"),
        Arrow(_I.EXPECTED, "arrive_in_part", _I.PARTIAL, "reconciliation_item.partial"),
        Arrow(_I.EXPECTED, "differ", _I.MISMATCH, "reconciliation_item.mismatch"),
        Arrow(_I.EXPECTED, "miss", _I.MISSING, "reconciliation_item.missing"),
        Arrow(_I.PARTIAL, "arrive_in_part", _I.PARTIAL, "reconciliation_item.partial"),
        Arrow(_I.PARTIAL, "differ", _I.MISMATCH, "reconciliation_item.mismatch"),
        # Late is not never.
        Arrow(_I.MISSING, "match", _I.MATCHED, "reconciliation_item.matched"),
        Arrow(_I.MISSING, "arrive_in_part", _I.PARTIAL, "reconciliation_item.partial"),
        Arrow(_I.MISSING, "differ", _I.MISMATCH, "reconciliation_item.mismatch"),
        Arrow(_I.MISSING, "accept", _I.MATCHED, "reconciliation_item.matched", "resolve"),
        Arrow(_I.MISSING, "void", _I.VOID, "reconciliation_item.voided"),
        # Our own record of it came later: an answer was lost and read since.
        Arrow(_I.UNEXPECTED, "explain", _I.MATCHED, "reconciliation_item.matched"),
        Arrow(_I.UNEXPECTED, "accept", _I.MATCHED, "reconciliation_item.matched", "resolve"),
        Arrow(_I.UNEXPECTED, "void", _I.VOID, "reconciliation_item.voided"),
        Arrow(_I.MISMATCH, "accept", _I.MATCHED, "reconciliation_item.matched", "resolve"),
        Arrow(_I.MISMATCH, "void", _I.VOID, "reconciliation_item.voided"),
    ),
)

BREAKS: Final = frozenset({_I.MISMATCH, _I.MISSING, _I.UNEXPECTED})
"""States in which a person is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationItem:
    """One expectation of ours, or one find at Stripe that nothing of ours explains."""

    id: str
    owner_id: str
    kind: ItemKind
    state: ItemState
    break_type: Break
    match_mode: MatchMode
    payment_id: str
    source_id: str
    """The capture, suspense item or refund; empty where there is none of ours."""
    stripe_source_id: str
    """The charge or refund at Stripe."""
    expected: Money | None
    actual: Money | None
    """The sum of what arrived."""
    due_time: datetime
    """From when on it counts as missing."""
    reason: str
    resolved_by: str
    write_off: Money | None
    """What a person took out of suspense as a loss or gain; signed as what was in suspense."""
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceTransaction:
    """A line of Stripe's balance (https://docs.stripe.com/api/balance_transactions/object)."""

    id: str
    type: str
    source_id: str
    payment_intent_id: str
    """The intent of the charge or refund that it is about; empty for anything else."""
    amount: Money
    fee: Money
    exchange_rate: Decimal | None
    """Units of Stripe's currency for one unit of the payment's, where Stripe converted."""
    create_time: datetime
    pull_time: datetime | None = None
    """When it was seen first, by our clock, which is not Stripe's; None for one that is just being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one balance transaction means for one item."""

    item: ReconciliationItem
    trigger: str
    break_type: Break
    matched: Money
    """How much of what our records moved it stands for."""


def judge(items: Sequence[ReconciliationItem], arrived: BalanceTransaction) -> Judgement | None:
    """Return which of the items of one charge or refund a balance transaction belongs to, and how it compares; None where it
    belongs to none. An item that fits exactly goes first, then one of which a part is here, then the oldest that is still open."""
    waiting = sorted((i for i in items if i.state in (_I.EXPECTED, _I.MISSING)), key=lambda i: (i.create_time, i.id))
    for item in waiting:
        if item.expected is not None and _same(item.expected, arrived):
            return Judgement(item=item, trigger="match", break_type=Break.NONE, matched=item.expected)
    for item in items:
        if item.state is _I.PARTIAL:
            return _another_part(item, arrived)
    for item in waiting:
        if item.expected is not None:
            return _differing(item, item.expected, arrived)
    return None


def _same(expected: Money, arrived: BalanceTransaction) -> bool:
    if arrived.amount.currency == expected.currency:
        return arrived.amount == expected
    return arrived.exchange_rate is not None and abs(_converted(expected, arrived) - arrived.amount.amount_minor) <= 1


def _converted(expected: Money, arrived: BalanceTransaction) -> int:
    """Return an amount in Stripe's currency at the rate that Stripe tells."""
    assert arrived.exchange_rate is not None
    shift = Decimal(10) ** (exponent(arrived.amount.currency) - exponent(expected.currency))
    return round(expected.amount_minor * arrived.exchange_rate * shift)


def _differing(item: ReconciliationItem, expected: Money, arrived: BalanceTransaction) -> Judgement:
    if arrived.amount.currency != expected.currency:
        kind = Break.CURRENCY if arrived.exchange_rate is None else Break.DATA
        return Judgement(item=item, trigger="differ", break_type=kind, matched=expected)
    if _opposite(arrived.amount, expected):
        return Judgement(item=item, trigger="differ", break_type=Break.DATA, matched=expected)
    if abs(arrived.amount.amount_minor) < abs(expected.amount_minor):
        return Judgement(item=item, trigger="arrive_in_part", break_type=Break.AMOUNT_UNDER, matched=expected)
    return Judgement(item=item, trigger="differ", break_type=Break.AMOUNT_OVER, matched=expected)


def _another_part(item: ReconciliationItem, arrived: BalanceTransaction) -> Judgement:
    assert item.expected is not None
    assert item.actual is not None
    # The first part stood for all that was expected: what comes now meets the difference that waits in suspense.
    nothing = Money.zero(arrived.amount.currency)
    if arrived.amount.currency != item.expected.currency or _opposite(arrived.amount, item.expected):
        return Judgement(item=item, trigger="differ", break_type=Break.DATA, matched=nothing)
    left = abs((item.expected - item.actual).amount_minor) - abs(arrived.amount.amount_minor)
    if left > 0:
        return Judgement(item=item, trigger="arrive_in_part", break_type=Break.AMOUNT_UNDER, matched=nothing)
    kind = Break.SPLIT if left == 0 else Break.AMOUNT_OVER
    return Judgement(item=item, trigger="differ", break_type=kind, matched=nothing)


def _opposite(one: Money, other: Money) -> bool:
    return (one.amount_minor < 0) != (other.amount_minor < 0)
