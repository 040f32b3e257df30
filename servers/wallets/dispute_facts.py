"""Facts of disputes: what is held for one, what Stripe withdraws and gives back, and how it ends.

They have happened outside, so none is refused: what is held is taken below zero where it must be. A stage holds its money from its
opening to its end; what Stripe does meanwhile is between it and the platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from servers.kernel.ids import is_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, AccountKind, Sheet, Transfer
from servers.wallets.lines import line

OPENED: Final = "dispute.opened"
WON: Final = "dispute.won"
LOST: Final = "dispute.lost"
WITHDRAWAL: Final = "dispute.withdrawal"
REINSTATEMENT: Final = "dispute.reinstatement"
FEE: Final = "dispute.fee"
FEE_RETURNED: Final = "dispute.fee_returned"
_WITHDRAWN: Final = (PLATFORM, AccountKind.DISPUTES_WITHDRAWN)
_CLEARING: Final = (PLATFORM, AccountKind.PROCESSOR_CLEARING)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeOpenedFact:
    """A stage of a dispute that takes money back."""

    dispute_id: str
    stage: str
    owner_id: str
    """The merchant, or of a top-up the user."""
    amount: Money
    open_time: datetime

    @property
    def key(self) -> str:
        """The fact's own id: each stage holds once."""
        return f"{self.dispute_id}:{self.stage}"

    @property
    def of_top_up(self) -> bool:
        """Whether the money is a user's."""
        return is_id("usr", self.owner_id)

    @property
    def held_from(self) -> tuple[str, AccountKind]:
        """Where the money is taken from."""
        return self.owner_id, AccountKind.CUSTOMER_WALLET if self.of_top_up else AccountKind.MERCHANT_AVAILABLE

    @property
    def held_in(self) -> tuple[str, AccountKind]:
        """Where it is until the stage ends."""
        return self.owner_id, AccountKind.CUSTOMER_DISPUTED if self.of_top_up else AccountKind.MERCHANT_DISPUTED


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeEndedFact:
    """The end of a stage."""

    opened: DisputeOpenedFact
    won: bool
    end_time: datetime

    @property
    def key(self) -> str:
        """The fact's own id: a stage ends once."""
        return f"{self.opened.key}:ended"

    @property
    def owner_id(self) -> str:
        """Whose money it is."""
        return self.opened.owner_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFundsFact:
    """One of Stripe's balance transactions for a dispute; `amount` is negative where it took the money, `fee` where it gave one
    back."""

    balance_transaction_id: str
    owner_id: str
    amount: Money
    fee: Money
    fee_from_owner: bool
    create_time: datetime

    @property
    def key(self) -> str:
        """The fact's own id."""
        return self.balance_transaction_id

    @property
    def fee_from(self) -> tuple[str, AccountKind]:
        """Who bears the fee."""
        if self.fee_from_owner:
            return self.owner_id, AccountKind.MERCHANT_AVAILABLE
        return PLATFORM, AccountKind.PROCESSOR_FEES


def opened_by(fact: DisputeOpenedFact | DisputeEndedFact | DisputeFundsFact) -> list[tuple[str, AccountKind]]:
    """Return owner and kind of every account that a fact may touch and that is opened where it is missing; a wallet's is not."""
    match fact:
        case DisputeFundsFact():
            return [_WITHDRAWN, _CLEARING, fact.fee_from]
        case DisputeEndedFact():
            return [*opened_by(fact.opened), _WITHDRAWN]
        case DisputeOpenedFact():
            return [fact.held_in] if fact.of_top_up else [fact.held_in, fact.held_from]


def opening(sheet: Sheet, fact: DisputeOpenedFact) -> list[Transfer]:
    """Return the line that holds a stage's money, none where it is held already."""
    if _booked(sheet, fact.key):
        return []
    return [
        line(fact.key, OPENED, fact.held_from, fact.held_in, fact.amount,
             owner_id=fact.owner_id, time=fact.open_time, forced=True)
    ]  # fmt: skip


def ending(sheet: Sheet, fact: DisputeEndedFact) -> list[Transfer]:
    """Return the line that ends a stage, with what it holds: none where it has ended. Raises InvariantBroken where it has ended in
    the other way."""
    code = WON if fact.won else LOST
    if ended := _booked(sheet, fact.key):
        same = ended[0].code == code
        invariant(same, "a dispute ended in two ways", dispute_id=fact.opened.dispute_id, booked=ended[0].code)
        return []
    (held,) = _booked(sheet, fact.opened.key)
    amount = Money(amount_minor=held.amount_minor, currency=held.currency)
    target = fact.opened.held_from if fact.won else _WITHDRAWN
    return [line(fact.key, code, fact.opened.held_in, target, amount, owner_id=fact.owner_id, time=fact.end_time)]


def funds(sheet: Sheet, fact: DisputeFundsFact) -> list[Transfer]:
    """Return the lines of a balance transaction, none where it is booked already."""
    if _booked(sheet, fact.key):
        return []
    moved, fee = fact.amount.amount_minor, fact.fee.amount_minor
    lines = []
    if moved:
        code, debit, credit = (
            (WITHDRAWAL, _WITHDRAWN, _CLEARING) if moved < 0 else (REINSTATEMENT, _CLEARING, _WITHDRAWN)
        )
        lines.append(_funds_line(fact, code, debit, credit, abs(moved)))
    if fee:
        code, debit, credit = (FEE, fact.fee_from, _CLEARING) if fee > 0 else (FEE_RETURNED, _CLEARING, fact.fee_from)
        lines.append(_funds_line(fact, code, debit, credit, abs(fee)))
    return lines


def _funds_line(
    fact: DisputeFundsFact, code: str, debit: tuple[str, AccountKind], credit: tuple[str, AccountKind], amount: int
) -> Transfer:
    money = Money(amount_minor=amount, currency=fact.amount.currency)
    return line(fact.key, code, debit, credit, money, owner_id=fact.owner_id, time=fact.create_time, forced=True)


def _booked(sheet: Sheet, key: str) -> list[Transfer]:
    return [transfer for transfer in sheet.known.values() if transfer.fact_id == key]
