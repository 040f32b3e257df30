"""What the platform keeps of payments, and what it returns of that with refunds: plans and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

from servers.kernel.invariant import invariant
from servers.kernel.money import BPS, Money, Rounding, apply_bps, share

if TYPE_CHECKING:
    from servers.payments.domain.records import Capture

PLAN_LEAD: Final = timedelta(seconds=5)
"""How long after it was set a plan is in force. Whoever asks which plan is in force asks of an instant that has been, so the answer
to that never changes: not while a plan is just being written, nor when a call whose answer was lost asks again."""
DELAY_SECONDS_MAX: Final = 90 * 86_400


class FeeRefund(Enum):
    """What becomes of the fee of a payment that is refunded; the names are those of the contract."""

    RETURNED = "RETURNED"
    KEPT = "KEPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePlan:
    """What the platform keeps of what is captured: basis points of it, and a fixed part per currency, once for each payment."""

    version: str
    basis_points: int
    fixed_minor: Mapping[str, int] = field(default_factory=dict)
    fee_refund: FeeRefund = FeeRefund.KEPT
    settlement_delay_seconds: int | None = None
    """How long what is captured is pending; None leaves it to the ledger's own delay."""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        invariant(0 <= self.basis_points <= BPS, "basis points are 0 to 10000", basis_points=self.basis_points)
        invariant(all(part >= 0 for part in self.fixed_minor.values()), "a fixed part below zero", plan=self.version)
        delay = self.settlement_delay_seconds or 0
        invariant(0 <= delay <= DELAY_SECONDS_MAX, "a settlement delay is 0 to 90 days", seconds=delay)

    def fee_of_next(self, before: Sequence[Capture], amount: Money) -> Fee:
        """Return the fee of one more capture: what the share of all rises by, HALF_EVEN, so that parts cost together what the whole
        costs; with the first the fixed part, and with any what earlier ones were too small to pay. Never more than the capture."""
        captured = sum(capture.amount.amount_minor for capture in before)
        due = self._share(captured + amount.amount_minor) - self._share(captured)
        if not before:
            due += self.fixed_minor.get(amount.currency, 0)
        owed = sum(capture.fee_due_minor - capture.fee.amount_minor for capture in before)
        taken = min(max(0, owed + due), amount.amount_minor)
        return Fee(amount=Money(amount_minor=taken, currency=amount.currency), due_minor=due)

    def _share(self, captured_minor: int) -> int:
        return apply_bps(captured_minor, self.basis_points, rounding=Rounding.HALF_EVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """What one capture pays, and what the plan asks of it: a small capture pays less, and the next ones the rest."""

    amount: Money
    due_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantFeePlan:
    """A version of a merchant's fee plan; the platform's where the merchant has none of its own."""

    merchant_id: str
    number: int
    """1, 2, 3…; 0 for the platform's plan."""
    plan: FeePlan
    reason: str = ""
    set_by: str = ""
    effective_time: datetime | None = None
    create_time: datetime | None = None

    def followed_by(
        self, terms: FeePlan, *, reason: str, set_by: str, now: datetime, lead: timedelta
    ) -> MerchantFeePlan:
        """Return the next version: in force after the lead, and never before this one is."""
        number, earliest = self.number + 1, now + lead
        return MerchantFeePlan(
            merchant_id=self.merchant_id,
            number=number,
            plan=replace(terms, version=version_name(number)),
            reason=reason,
            set_by=set_by,
            effective_time=max(earliest, self.effective_time) if self.effective_time is not None else earliest,
            create_time=now,
        )


def version_name(number: int) -> str:
    """Return the name by which captures know a version of a merchant's own plan."""
    return f"v{number}"


def is_version_of_merchant(name: str) -> bool:
    """Tell whether a name has the form of a merchant's own version."""
    return name[:1] == "v" and name[1:].isdigit()


def fee_to_return(captures: Sequence[Capture], *, refunded_minor: int, returned_minor: int, amount: Money) -> Money:
    """Return what one more refund returns of the fees that are returnable: what the share of all refunds is, HALF_EVEN, less what
    the ones before return. A full refund returns all, whatever the parts."""
    captured = sum(capture.amount.amount_minor for capture in captures)
    returnable = sum(capture.fee.amount_minor for capture in captures if capture.fee_refund is FeeRefund.RETURNED)
    due = share(returnable, refunded_minor + amount.amount_minor, captured, rounding=Rounding.HALF_EVEN)
    return Money(amount_minor=max(0, due - returned_minor), currency=amount.currency)
