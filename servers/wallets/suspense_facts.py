"""Money that Stripe took without being asked for it: in suspense until it goes back, or a person accepts it (then a capture takes
it from there)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, AccountKind, Sheet, Transfer, Verdict
from servers.wallets.lines import line, line_id, post_lines

SUSPENSE = "suspense"
REFUND = "refund.suspense"
CLEARING = (PLATFORM, AccountKind.PROCESSOR_CLEARING)
HELD = (PLATFORM, AccountKind.SUSPENSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseFact:
    """Money that is nobody's yet."""

    suspense_item_id: str
    owner_id: str
    amount: Money
    find_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseRefundFact:
    """Its refund, about to be sent."""

    refund_id: str
    suspense: SuspenseFact
    create_time: datetime


def suspense_lines(sheet: Sheet, fact: SuspenseFact) -> list[Transfer]:
    """Return the line of a suspense item, unless it is written: whoever tells what became of it may be the first to tell of it."""
    if line_id(fact.suspense_item_id, SUSPENSE, fact.owner_id) in sheet.known:
        return []
    return [
        line(fact.suspense_item_id, SUSPENSE, CLEARING, HELD, fact.amount, owner_id=fact.owner_id, time=fact.find_time)
    ]


def post_suspense(sheet: Sheet, fact: SuspenseFact) -> tuple[Verdict, list[Transfer]]:
    """Put the money into suspense, once."""
    lines = suspense_lines(sheet, fact)
    return post_lines(sheet, lines) if lines else (Verdict.EXISTS, [])


def post_suspense_refund(sheet: Sheet, fact: SuspenseRefundFact) -> tuple[Verdict, list[Transfer]]:
    """Send the money on its way back, all of it."""
    transit = (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    if line_id(fact.refund_id, REFUND, fact.suspense.owner_id) in sheet.known:
        return Verdict.EXISTS, []
    back = line(
        fact.refund_id,
        REFUND,
        HELD,
        transit,
        fact.suspense.amount,
        owner_id=fact.suspense.owner_id,
        time=fact.create_time,
    )
    return post_lines(sheet, [*suspense_lines(sheet, fact.suspense), back])
