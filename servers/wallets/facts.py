"""Facts of the payments domain and the lines that they write.

A transfer's id is the hash of the fact's own id and the line's code: the synchronous call, the event, the webhook and a
backfill all arrive at the same id, and the later ones find it there. The lines are planned after the locks, because only
the ledger knows the lots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from servers.kernel.ids import bucket_of, derive_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, AccountKind, Lot, Sheet, Transfer, TransferKind, account_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureFact:
    """Money taken from a card."""

    capture_id: str
    payment_id: str
    merchant_id: str
    amount: Money
    fee: Money
    capture_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundCreatedFact:
    """A refund that is about to be sent."""

    refund_id: str
    amount: Money
    captures: tuple[CaptureFact, ...]
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailedFact:
    """A refund that failed or was canceled."""

    refund_id: str
    merchant_id: str
    fail_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFact:
    """The settlement delay of a capture is over."""

    capture_id: str
    merchant_id: str
    currency: str
    settle_time: datetime


Fact = CaptureFact | RefundCreatedFact | RefundFailedFact | SettlementFact


def fact_key(fact: Fact) -> str:
    """Return the id under which a fact's transfers are found again."""
    match fact:
        case CaptureFact():
            return fact.capture_id
        case RefundCreatedFact():
            return fact.refund_id
        case RefundFailedFact():
            return f"{fact.refund_id}:failed"
        case SettlementFact():
            return f"{fact.capture_id}:settled"


def related_keys(fact: Fact) -> tuple[str, ...]:
    """Return the fact keys whose transfers must be known before a fact can be planned."""
    match fact:
        case CaptureFact():
            return (fact.capture_id,)
        case RefundCreatedFact():
            return (fact.refund_id, *(capture.capture_id for capture in fact.captures))
        case RefundFailedFact():
            return (fact_key(fact), fact.refund_id)
        case SettlementFact():
            return (fact_key(fact), fact.capture_id)


def merchant_of(fact: Fact) -> str:
    """Return the merchant whose money a fact moves."""
    return fact.captures[0].merchant_id if isinstance(fact, RefundCreatedFact) else fact.merchant_id


def accounts_of(owner_id: str, currency: str) -> list[tuple[str, AccountKind, str]]:
    """Return owner, kind and currency of every account that a merchant's facts in a currency may touch."""
    merchant = (AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE)
    platform = (AccountKind.PROCESSOR_CLEARING, AccountKind.PLATFORM_FEES, AccountKind.REFUNDS_IN_TRANSIT)
    return [(owner_id, kind, currency) for kind in merchant] + [(PLATFORM, kind, currency) for kind in platform]


def book(sheet: Sheet, fact: Fact, stored: Iterable[Transfer]) -> list[Transfer]:
    """Plan and post a fact's lines. `stored` are the transfers of `related_keys`. Returns what it wrote, [] where it existed."""
    match fact:
        case CaptureFact():
            return _capture(sheet, fact)
        case RefundCreatedFact():
            for capture in fact.captures:
                _capture(sheet, capture)
            return _refund(sheet, fact)
        case RefundFailedFact():
            return _refund_failed(sheet, fact, [t for t in stored if t.fact_id == fact.refund_id])
        case SettlementFact():
            return _settle(sheet, fact)


def _line(
    fact_id: str, code: str, debit: tuple[str, AccountKind], credit: tuple[str, AccountKind], amount: Money,
    *, merchant_id: str, time: datetime, forced: bool = False,
) -> Transfer:  # fmt: skip
    return Transfer(
        id=derive_id("trf", fact_id, code, bucket=bucket_of(merchant_id)),
        debit_account_id=account_id(*debit, amount.currency),
        credit_account_id=account_id(*credit, amount.currency),
        amount_minor=amount.amount_minor,
        currency=amount.currency,
        code=code,
        kind=TransferKind.POSTED,
        fact_id=fact_id,
        effective_time=time,
        forced=forced,
    )


def _post(sheet: Sheet, lines: list[Transfer]) -> list[Transfer]:
    """Post a fact's lines as one chain; a line of nothing is not written."""
    lines = [line for line in lines if line.amount_minor > 0]
    chain = [replace(line, linked=index + 1 < len(lines)) for index, line in enumerate(lines)]
    verdicts = sheet.post(chain)
    invariant(all(v.value in ("CREATED", "EXISTS") for v, _ in verdicts), "a fact was refused", verdicts=verdicts)
    return chain


def _capture(sheet: Sheet, fact: CaptureFact) -> list[Transfer]:
    if fact.capture_id in sheet.lots:
        return []
    net = fact.amount - fact.fee
    invariant(net.amount_minor >= 0, "a fee above its capture", capture_id=fact.capture_id)
    clearing = (PLATFORM, AccountKind.PROCESSOR_CLEARING)
    merchant = fact.merchant_id
    lines = _post(
        sheet,
        [
            _line(fact.capture_id, "capture.net", clearing, (merchant, AccountKind.MERCHANT_PENDING), net,
                  merchant_id=merchant, time=fact.capture_time),
            _line(fact.capture_id, "capture.fee", clearing, (PLATFORM, AccountKind.PLATFORM_FEES), fact.fee,
                  merchant_id=merchant, time=fact.capture_time),
        ],
    )  # fmt: skip
    sheet.lots[fact.capture_id] = Lot(
        capture_id=fact.capture_id,
        payment_id=fact.payment_id,
        merchant_id=merchant,
        currency=net.currency,
        net_minor=net.amount_minor,
        taken_minor=0,
        capture_time=fact.capture_time,
        due_time=fact.capture_time + sheet.settlement_delay,
    )
    sheet.touched_lots.add(fact.capture_id)
    return lines


def _refund(sheet: Sheet, fact: RefundCreatedFact) -> list[Transfer]:
    """From the payment's pending money first, the rest from available, forced: a refund is never refused for want of money."""
    merchant = merchant_of(fact)
    transit = (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    rest_code = "refund.available"
    known = {t.fact_id for t in sheet.known.values()}
    if fact.refund_id in known:
        return []
    left = fact.amount.amount_minor
    lines = []
    for capture in sorted(fact.captures, key=lambda c: c.capture_id):
        lot = sheet.lots[capture.capture_id]
        take = min(left, lot.left_minor)
        if take > 0:
            lines.append(
                _line(fact.refund_id, f"refund.pending.{lot.capture_id}", (merchant, AccountKind.MERCHANT_PENDING), transit,
                      Money(amount_minor=take, currency=fact.amount.currency), merchant_id=merchant, time=fact.create_time)
            )  # fmt: skip
            sheet.lots[lot.capture_id] = replace(lot, taken_minor=lot.taken_minor + take)
            sheet.touched_lots.add(lot.capture_id)
            left -= take
    rest = Money(amount_minor=left, currency=fact.amount.currency)
    lines.append(
        _line(fact.refund_id, rest_code, (merchant, AccountKind.MERCHANT_AVAILABLE), transit, rest,
              merchant_id=merchant, time=fact.create_time, forced=True)
    )  # fmt: skip
    return _post(sheet, lines)


def _refund_failed(sheet: Sheet, fact: RefundFailedFact, taken: list[Transfer]) -> list[Transfer]:
    """Give back what the refund took, each part to where it came from."""
    invariant(bool(taken), "a refund failed that was never booked", refund_id=fact.refund_id)
    transit = (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    key = fact_key(fact)
    if any(t.fact_id == key for t in sheet.known.values()):
        return []
    lines = []
    for transfer in taken:
        amount = Money(amount_minor=transfer.amount_minor, currency=transfer.currency)
        capture_id = transfer.code.removeprefix("refund.pending.")
        # What came from a lot that was settled meanwhile goes to the available balance: the lot takes nothing back.
        from_pending = capture_id != transfer.code and not sheet.lots[capture_id].settled
        target = AccountKind.MERCHANT_PENDING if from_pending else AccountKind.MERCHANT_AVAILABLE
        lines.append(
            _line(key, transfer.code.replace("refund.", "refund_failed.", 1), transit, (fact.merchant_id, target), amount,
                  merchant_id=fact.merchant_id, time=fact.fail_time)
        )  # fmt: skip
        if from_pending:
            lot = sheet.lots[capture_id]
            sheet.lots[capture_id] = replace(lot, taken_minor=lot.taken_minor - transfer.amount_minor)
            sheet.touched_lots.add(capture_id)
    return _post(sheet, lines)


def _settle(sheet: Sheet, fact: SettlementFact) -> list[Transfer]:
    """Move what is left of a lot from pending to available, once."""
    lot = sheet.lots.get(fact.capture_id)
    invariant(lot is not None, "a settlement without its capture", capture_id=fact.capture_id)
    assert lot is not None
    if lot.settled:
        return []
    pending, available = AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE
    left = Money(amount_minor=lot.left_minor, currency=lot.currency)
    lines = _post(
        sheet,
        [
            _line(fact_key(fact), "settle", (lot.merchant_id, pending), (lot.merchant_id, available), left,
                  merchant_id=lot.merchant_id, time=fact.settle_time)
        ],
    )  # fmt: skip
    sheet.lots[lot.capture_id] = replace(lot, settled=True)
    sheet.touched_lots.add(lot.capture_id)
    return lines
