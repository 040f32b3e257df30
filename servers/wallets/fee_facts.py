"""The part of the platform's fee that a refund returns, and what is taken back of it where the refund comes to nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, AccountKind, Lot, Sheet, Transfer, account_id
from servers.wallets.lines import line

if TYPE_CHECKING:
    from servers.wallets.facts import RefundCreatedFact, RefundFailedFact

FEE_RETURNED: Final = "refund.fee"
_FEES: Final = (PLATFORM, AccountKind.PLATFORM_FEES)
Share = tuple[Lot | None, int]
"""A part of a returned fee, and the lot of the capture that paid it; None for what no lot has room for."""


def shares_of(sheet: Sheet, fact: RefundCreatedFact) -> list[Share]:
    """Return how a returned fee is divided: to each capture's lot at most its fee. What no lot has room for, as a refund that
    failed is not undone here yet, comes last."""
    left = fact.fee_returned_minor
    shares: list[Share] = []
    for capture in sorted((c for c in fact.captures if c.fee_returnable), key=lambda c: c.capture_id):
        lot = sheet.lots[capture.capture_id]
        part = min(left, capture.fee.amount_minor - lot.returned_minor)
        if part > 0:
            shares.append((lot, part))
            left -= part
    return [*shares, (None, left)]


def covered(sheet: Sheet, fact: RefundCreatedFact, shares: list[Share]) -> bool:
    """Tell whether the payment's pending money and what is available suffice for a refund, with the fee that it returns first."""
    merchant = fact.captures[0].merchant_id
    to_pending = sum(part for lot, part in shares if lot is not None and not lot.settled)
    pending = sum(max(0, sheet.lots[capture.capture_id].left_minor) for capture in fact.captures) + to_pending
    account = sheet.accounts[account_id(merchant, AccountKind.MERCHANT_AVAILABLE, fact.amount.currency)]
    available = account.available + fact.fee_returned_minor - to_pending
    return fact.amount.amount_minor <= pending + max(0, available)


def returned(sheet: Sheet, fact: RefundCreatedFact, shares: list[Share]) -> list[Transfer]:
    """Return the lines that give the fee back: to a capture's pending money while its lot is open, else to what is available."""
    merchant = fact.captures[0].merchant_id
    lines = []
    for lot, part in shares:
        is_pending = lot is not None and not lot.settled
        kind = AccountKind.MERCHANT_PENDING if is_pending else AccountKind.MERCHANT_AVAILABLE
        of_what = lot.capture_id if lot is not None else "available"
        amount = Money(amount_minor=part, currency=fact.amount.currency)
        lines.append(
            line(fact.refund_id, f"{FEE_RETURNED}.{of_what}", _FEES, (merchant, kind), amount,
                 owner_id=merchant, time=fact.create_time)
        )  # fmt: skip
        if lot is not None:
            sheet.lots[lot.capture_id] = replace(lot, returned_minor=lot.returned_minor + part)
            sheet.touched_lots.add(lot.capture_id)
    return lines


def taken_back(sheet: Sheet, key: str, fact: RefundFailedFact, given: list[Transfer]) -> list[Transfer]:
    """Return the lines that take a returned fee back after the refund's money is there again: from its lot as far as that reaches
    while it is open, the rest from the available balance, forced."""
    merchant = fact.merchant_id
    pending, available = (merchant, AccountKind.MERCHANT_PENDING), (merchant, AccountKind.MERCHANT_AVAILABLE)
    lines, rest = [], 0
    for transfer in given:
        lot, part = sheet.lots.get(transfer.code.removeprefix(f"{FEE_RETURNED}.")), transfer.amount_minor
        if lot is not None:
            part = part if lot.settled else min(part, lot.left_minor)
            sheet.lots[lot.capture_id] = replace(lot, returned_minor=lot.returned_minor - part)
            sheet.touched_lots.add(lot.capture_id)
        if lot is None or lot.settled:
            part = 0
        else:
            lines.append(
                line(key, f"refund_failed.fee.{lot.capture_id}", pending, _FEES,
                     Money(amount_minor=part, currency=transfer.currency), owner_id=merchant, time=fact.fail_time)
            )  # fmt: skip
        rest += transfer.amount_minor - part
    left = Money(amount_minor=rest, currency=given[0].currency)
    return [
        *lines,
        line(key, "refund_failed.fee.available", available, _FEES, left, owner_id=merchant, time=fact.fail_time,
             forced=True),
    ]  # fmt: skip
