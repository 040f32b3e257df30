"""Facts of the payments domain and the lines that they write.

A transfer's id is the hash of the fact's own id and the line's code: the synchronous call, the event, the webhook and a
backfill all arrive at the same id, and the later ones find it there. The lines are planned after the locks, because only
the ledger knows the lots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.wallets.domain import DONE, PLATFORM, AccountKind, Lot, Sheet, Transfer, Verdict, account_id
from servers.wallets.lines import line, post_lines
from servers.wallets.wallet_facts import (
    FEE,
    FEE_RETURNED,
    REFUND,
    TopUpFact,
    WalletHoldFact,
    WalletVoidFact,
    hold_id,
    post_hold,
    post_top_up,
    post_void,
    post_wallet_capture,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureFact:
    """Money taken from a card, or from what a wallet holds for the payment."""

    capture_id: str
    payment_id: str
    merchant_id: str
    amount: Money
    fee: Money
    capture_time: datetime
    hold: WalletHoldFact | None = None
    settlement_delay: timedelta | None = None
    """How long the money is pending; None leaves it to the ledger's own delay."""
    fee_returnable: bool = False
    """Whether refunds return its fee."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundCreatedFact:
    """A refund that is about to be sent."""

    refund_id: str
    amount: Money
    captures: tuple[CaptureFact, ...]
    create_time: datetime
    wallet_customer_id: str = ""
    """Whose wallet paid and gets the money back at once; "" for a card."""
    fee_returned_minor: int = 0
    """What the platform returns of its fee, in the refund's currency."""


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


Fact = (
    CaptureFact | RefundCreatedFact | RefundFailedFact | SettlementFact | WalletHoldFact | WalletVoidFact | TopUpFact
)  # fmt: skip


def fact_key(fact: Fact) -> str:
    """Return the id under which a fact's transfers are found again."""
    match fact:
        case CaptureFact() | TopUpFact():
            return fact.capture_id
        case RefundCreatedFact():
            return fact.refund_id
        case RefundFailedFact():
            return f"{fact.refund_id}:failed"
        case SettlementFact():
            return f"{fact.capture_id}:settled"
        case WalletHoldFact():
            return fact.attempt_id
        case WalletVoidFact():
            return f"{fact.attempt_id}:void"


def related_keys(fact: Fact) -> tuple[str, ...]:
    """Return the fact keys whose transfers must be known before a fact can be planned; its own is the first."""
    match fact:
        case CaptureFact():
            return (fact.capture_id, fact.hold.attempt_id) if fact.hold is not None else (fact.capture_id,)
        case RefundCreatedFact():
            return (fact.refund_id, *(key for capture in fact.captures for key in related_keys(capture)))
        case RefundFailedFact():
            return (fact_key(fact), fact.refund_id)
        case SettlementFact():
            return (fact_key(fact), fact.capture_id)
        case WalletVoidFact():
            return (fact_key(fact), fact.attempt_id)
        case WalletHoldFact() | TopUpFact():
            return (fact_key(fact),)


def owner_of(fact: Fact) -> str:
    """Return in whose bucket a fact's transfers stand: the merchant's, or the customer's where there is none."""
    match fact:
        case RefundCreatedFact():
            return fact.captures[0].merchant_id
        case TopUpFact():
            return fact.customer_id
        case _:
            return fact.merchant_id


def currency_of(fact: Fact) -> str:
    """Return a fact's currency, or "" where only its stored transfers know it."""
    match fact:
        case CaptureFact() | RefundCreatedFact() | WalletHoldFact() | TopUpFact():
            return fact.amount.currency
        case SettlementFact():
            return fact.currency
        case RefundFailedFact() | WalletVoidFact():
            return ""


def holds_of(fact: Fact) -> set[str]:
    """Return the holds that a fact may write or end."""
    match fact:
        case WalletHoldFact():
            return {fact.id}
        case WalletVoidFact():
            return {hold_id(fact.attempt_id, fact.merchant_id)}
        case CaptureFact():
            return {fact.hold.id} if fact.hold is not None else set()
        case RefundCreatedFact():
            return {hold for capture in fact.captures for hold in holds_of(capture)}
        case _:
            return set()


def opened_by(fact: Fact, currency: str) -> list[tuple[str, AccountKind, str]]:
    """Return owner, kind and currency of every account that a fact may touch and that is opened where it is missing."""
    platform = (AccountKind.PROCESSOR_CLEARING, AccountKind.PLATFORM_FEES, AccountKind.REFUNDS_IN_TRANSIT)
    if isinstance(fact, TopUpFact):
        return [(PLATFORM, AccountKind.PROCESSOR_CLEARING, currency)]
    merchant = (AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE)
    return [(owner_of(fact), kind, currency) for kind in merchant] + [(PLATFORM, kind, currency) for kind in platform]


def wallet_accounts_of(fact: Fact) -> set[str]:
    """Return the accounts of the wallets that a fact takes from or gives to: locked with the others, and never opened for it."""
    match fact:
        case WalletHoldFact():
            return {fact.account_id}
        case CaptureFact():
            return wallet_accounts_of(fact.hold) if fact.hold is not None else set()
        case RefundCreatedFact():
            taken = {account for capture in fact.captures for account in wallet_accounts_of(capture)}
            return taken | ({_refunded_account(fact)} if fact.wallet_customer_id else set())
        case TopUpFact():
            return {account_id(fact.customer_id, AccountKind.CUSTOMER_WALLET, fact.amount.currency)}
        case _:
            return set()


def book(sheet: Sheet, fact: Fact, stored: Iterable[Transfer]) -> tuple[Verdict, list[Transfer]]:
    """Plan and post a fact's lines. `stored` are the transfers of `related_keys`. Returns CREATED and what it wrote, EXISTS where
    it was there before, or why what moves a wallet's money was refused."""
    match fact:
        case CaptureFact():
            return _capture(sheet, fact)
        case RefundCreatedFact():
            return _refund(sheet, fact)
        case RefundFailedFact():
            written = _refund_failed(sheet, fact, [t for t in stored if t.fact_id == fact.refund_id])
        case SettlementFact():
            written = _settle(sheet, fact)
        case WalletHoldFact():
            return post_hold(sheet, fact)
        case WalletVoidFact():
            return post_void(sheet, fact)
        case TopUpFact():
            return post_top_up(sheet, fact)
    return (Verdict.CREATED if written else Verdict.EXISTS), written


def _post(sheet: Sheet, lines: list[Transfer]) -> list[Transfer]:
    """Post the lines of a fact that has happened: what the ledger says cannot undo it."""
    verdict, written = post_lines(sheet, lines)
    invariant(verdict in DONE, "a fact was refused", verdict=verdict.value, fact_id=lines[0].fact_id)
    return written


def _capture(sheet: Sheet, fact: CaptureFact) -> tuple[Verdict, list[Transfer]]:
    if fact.capture_id in sheet.lots:
        return Verdict.EXISTS, []
    net = fact.amount - fact.fee
    invariant(net.amount_minor >= 0, "a fee above its capture", capture_id=fact.capture_id)
    if fact.hold is not None:
        verdict, written = post_wallet_capture(
            sheet, fact.hold, capture_id=fact.capture_id, amount=fact.amount, fee=fact.fee, time=fact.capture_time
        )
        if verdict not in DONE:
            return verdict, []
    else:
        written = _card_capture(sheet, fact, net)
    sheet.lots[fact.capture_id] = Lot(
        capture_id=fact.capture_id,
        payment_id=fact.payment_id,
        merchant_id=fact.merchant_id,
        currency=net.currency,
        net_minor=net.amount_minor,
        returned_minor=0,
        taken_minor=0,
        capture_time=fact.capture_time,
        due_time=fact.capture_time
        + (fact.settlement_delay if fact.settlement_delay is not None else sheet.settlement_delay),
    )
    sheet.touched_lots.add(fact.capture_id)
    return Verdict.CREATED, written


def _card_capture(sheet: Sheet, fact: CaptureFact, net: Money) -> list[Transfer]:
    merchant, clearing = fact.merchant_id, (PLATFORM, AccountKind.PROCESSOR_CLEARING)
    return _post(
        sheet,
        [
            line(fact.capture_id, "capture.net", clearing, (merchant, AccountKind.MERCHANT_PENDING), net,
                 owner_id=merchant, time=fact.capture_time),
            line(fact.capture_id, FEE, clearing, (PLATFORM, AccountKind.PLATFORM_FEES), fact.fee,
                 owner_id=merchant, time=fact.capture_time),
        ],
    )  # fmt: skip


def _refund(sheet: Sheet, fact: RefundCreatedFact) -> tuple[Verdict, list[Transfer]]:
    """From the payment's pending money first, the rest from available, forced: a refund is never refused for want of money. What a
    wallet paid goes on to the wallet in the same chain."""
    if fact.wallet_customer_id and _refunded_account(fact) not in sheet.accounts:
        return Verdict.ACCOUNT_NOT_FOUND, []
    for capture in fact.captures:
        from_card = capture.hold is None and capture.capture_id not in sheet.lots
        invariant(
            not (fact.wallet_customer_id and from_card), "a wallet's capture without its hold", refund_id=fact.refund_id
        )
        verdict, _ = _capture(sheet, capture)
        if verdict not in DONE:
            return verdict, []
    if any(t.fact_id == fact.refund_id for t in sheet.known.values()):
        return Verdict.EXISTS, []
    merchant, transit = owner_of(fact), (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    lines = _fee_returned(sheet, fact)
    left = fact.amount.amount_minor
    for capture in sorted(fact.captures, key=lambda c: c.capture_id):
        lot = sheet.lots[capture.capture_id]
        take = min(left, lot.left_minor)
        if take > 0:
            lines.append(
                line(fact.refund_id, f"refund.pending.{lot.capture_id}", (merchant, AccountKind.MERCHANT_PENDING), transit,
                     Money(amount_minor=take, currency=fact.amount.currency), owner_id=merchant, time=fact.create_time)
            )  # fmt: skip
            sheet.lots[lot.capture_id] = replace(lot, taken_minor=lot.taken_minor + take)
            sheet.touched_lots.add(lot.capture_id)
            left -= take
    rest = Money(amount_minor=left, currency=fact.amount.currency)
    lines.append(
        line(fact.refund_id, "refund.available", (merchant, AccountKind.MERCHANT_AVAILABLE), transit, rest,
             owner_id=merchant, time=fact.create_time, forced=True)
    )  # fmt: skip
    if fact.wallet_customer_id:
        wallet = (fact.wallet_customer_id, AccountKind.CUSTOMER_WALLET)
        lines.append(
            line(fact.refund_id, REFUND, transit, wallet, fact.amount, owner_id=merchant, time=fact.create_time)
        )
    return Verdict.CREATED, _post(sheet, lines)


def _fee_returned(sheet: Sheet, fact: RefundCreatedFact) -> list[Transfer]:
    """Return the platform's fee before the refund takes money: to each capture's lot, at most its fee, while the lot is open. What
    no lot has room for, as a refund that failed is not undone here yet, goes to the available balance."""
    merchant, fees = owner_of(fact), (PLATFORM, AccountKind.PLATFORM_FEES)
    pending, available = (merchant, AccountKind.MERCHANT_PENDING), (merchant, AccountKind.MERCHANT_AVAILABLE)
    left = fact.fee_returned_minor
    lines = []
    for capture in sorted((c for c in fact.captures if c.fee_returnable), key=lambda c: c.capture_id):
        lot = sheet.lots[capture.capture_id]
        part = min(left, capture.fee.amount_minor - lot.returned_minor)
        if part > 0:
            lines.append(
                line(fact.refund_id, f"{FEE_RETURNED}.{lot.capture_id}", fees, available if lot.settled else pending,
                     Money(amount_minor=part, currency=fact.amount.currency), owner_id=merchant, time=fact.create_time)
            )  # fmt: skip
            sheet.lots[lot.capture_id] = replace(lot, returned_minor=lot.returned_minor + part)
            sheet.touched_lots.add(lot.capture_id)
            left -= part
    rest = Money(amount_minor=left, currency=fact.amount.currency)
    return [
        *lines,
        line(
            fact.refund_id, f"{FEE_RETURNED}.available", fees, available, rest, owner_id=merchant, time=fact.create_time
        ),
    ]


def _fee_taken_back(sheet: Sheet, fact: RefundFailedFact, returned: list[Transfer]) -> list[Transfer]:
    """Take a returned fee back after the refund's money is there again: from its lot as far as that reaches while it is open, the
    rest from the available balance, forced."""
    merchant, fees = fact.merchant_id, (PLATFORM, AccountKind.PLATFORM_FEES)
    pending, available = (merchant, AccountKind.MERCHANT_PENDING), (merchant, AccountKind.MERCHANT_AVAILABLE)
    key, lines, rest = fact_key(fact), [], 0
    for transfer in returned:
        lot, part = sheet.lots.get(transfer.code.removeprefix(f"{FEE_RETURNED}.")), transfer.amount_minor
        if lot is not None:
            part = part if lot.settled else min(part, lot.left_minor)
            sheet.lots[lot.capture_id] = replace(lot, returned_minor=lot.returned_minor - part)
            sheet.touched_lots.add(lot.capture_id)
        if lot is None or lot.settled:
            part = 0
        else:
            lines.append(
                line(key, f"refund_failed.fee.{lot.capture_id}", pending, fees,
                     Money(amount_minor=part, currency=transfer.currency), owner_id=merchant, time=fact.fail_time)
            )  # fmt: skip
        rest += transfer.amount_minor - part
    left = Money(amount_minor=rest, currency=returned[0].currency)
    return [
        *lines,
        line(key, "refund_failed.fee.available", available, fees, left, owner_id=merchant, time=fact.fail_time,
             forced=True),
    ]  # fmt: skip


def _refunded_account(fact: RefundCreatedFact) -> str:
    return account_id(fact.wallet_customer_id, AccountKind.CUSTOMER_WALLET, fact.amount.currency)


def _refund_failed(sheet: Sheet, fact: RefundFailedFact, taken: list[Transfer]) -> list[Transfer]:
    """Give back what the refund took, each part to where it came from."""
    invariant(bool(taken), "a refund failed that was never booked", refund_id=fact.refund_id)
    invariant(all(t.code != REFUND for t in taken), "a refund to a wallet failed", refund_id=fact.refund_id)
    transit = (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    key = fact_key(fact)
    if any(t.fact_id == key for t in sheet.known.values()):
        return []
    returned = [t for t in taken if t.code.startswith(f"{FEE_RETURNED}.")]
    lines = []
    for transfer in (t for t in taken if t not in returned):
        amount = Money(amount_minor=transfer.amount_minor, currency=transfer.currency)
        capture_id = transfer.code.removeprefix("refund.pending.")
        # What came from a lot that was settled meanwhile goes to the available balance: the lot takes nothing back.
        from_pending = capture_id != transfer.code and not sheet.lots[capture_id].settled
        target = AccountKind.MERCHANT_PENDING if from_pending else AccountKind.MERCHANT_AVAILABLE
        lines.append(
            line(key, transfer.code.replace("refund.", "refund_failed.", 1), transit, (fact.merchant_id, target), amount,
                 owner_id=fact.merchant_id, time=fact.fail_time)
        )  # fmt: skip
        if from_pending:
            lot = sheet.lots[capture_id]
            sheet.lots[capture_id] = replace(lot, taken_minor=lot.taken_minor - transfer.amount_minor)
            sheet.touched_lots.add(capture_id)
    if returned:
        lines += _fee_taken_back(sheet, fact, returned)
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
            line(fact_key(fact), "settle", (lot.merchant_id, pending), (lot.merchant_id, available), left,
                 owner_id=lot.merchant_id, time=fact.settle_time)
        ],
    )  # fmt: skip
    sheet.lots[lot.capture_id] = replace(lot, settled=True)
    sheet.touched_lots.add(lot.capture_id)
    return lines
